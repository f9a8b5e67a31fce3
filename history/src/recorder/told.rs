//! Repetition is recognised where no state follows from events that a source may tell twice.

use std::collections::{HashSet, VecDeque};

/// More than any runtime replays.
const MOST: usize = 1024;

/// Identities of the events told last.
#[derive(Debug, Default)]
pub(super) struct Told {
    order: VecDeque<u64>,
    told: HashSet<u64>,
}

impl Told {
    /// Whether the event was not told before; it is from now on.
    pub(super) fn is_new(&mut self, identity: u64) -> bool {
        let is_new = self.told.insert(identity);
        if is_new {
            self.order.push_back(identity);
            if self.order.len() > MOST
                && let Some(oldest) = self.order.pop_front()
            {
                self.told.remove(&oldest);
            }
        }
        is_new
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        self.order.iter().flat_map(|identity| identity.to_le_bytes()).collect()
    }

    pub(super) fn restore(&mut self, bytes: &[u8]) {
        for identity in bytes.as_chunks().0 {
            self.is_new(u64::from_le_bytes(*identity));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_is_recognised_also_after_a_restart() {
        let mut told = Told::default();
        assert!((0..3000).all(|n| told.is_new(n)));
        let mut again = Told::default();
        again.restore(&told.to_bytes());
        assert!((2000..3000).all(|n| !again.is_new(n)));
        assert_eq!(again.order.len(), MOST);
    }
}
