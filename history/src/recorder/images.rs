//! Image events: no state follows from them, only repetition is recognised.

use std::{
    collections::{HashSet, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
};

use crate::image::ImageEvent;

/// More than any runtime replays.
const MOST: usize = 1024;

/// Digests of the events told last.
#[derive(Debug, Default)]
pub(super) struct ImagesTold {
    order: VecDeque<u64>,
    told: HashSet<u64>,
}

impl ImagesTold {
    /// Whether the event was not told before; it is from now on.
    pub(super) fn is_new(&mut self, event: &ImageEvent) -> bool {
        let mut hasher = DefaultHasher::new();
        (event.time_ns, event.action, &event.image, &event.image_id, &event.runtime_namespace, &event.endpoint).hash(&mut hasher);
        self.add(hasher.finish())
    }

    fn add(&mut self, digest: u64) -> bool {
        let is_new = self.told.insert(digest);
        if is_new {
            self.order.push_back(digest);
            if self.order.len() > MOST
                && let Some(oldest) = self.order.pop_front()
            {
                self.told.remove(&oldest);
            }
        }
        is_new
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        self.order.iter().flat_map(|digest| digest.to_le_bytes()).collect()
    }

    pub(super) fn restore(&mut self, bytes: &[u8]) {
        for digest in bytes.as_chunks().0 {
            self.add(u64::from_le_bytes(*digest));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_is_recognised_also_after_a_restart() {
        let mut told = ImagesTold::default();
        let event = |time_ns| ImageEvent { time_ns, action: "pull", ..ImageEvent::default() };
        assert!((0..3000).all(|n| told.is_new(&event(n))));
        let mut again = ImagesTold::default();
        again.restore(&told.to_bytes());
        assert!((2000..3000).all(|n| !again.is_new(&event(n))));
        assert_eq!(again.order.len(), MOST);
    }
}
