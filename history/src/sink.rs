//! The bounded ring between a source, which never waits, and the recorder.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use crate::feed::Feed;

/// Something that can wait in a ring.
pub trait Pushed: Send + 'static {
    /// Whose share of the ring it takes, e.g. a hash of the container id: no key may fill the ring alone.
    fn share(&self) -> u64;

    /// Whether it is an event, and so part of `received`. The rest supports events, and is counted only when it is lost.
    fn is_event(&self) -> bool {
        true
    }
}

/// Where a stream can be resumed, once the item that carries it is stored.
pub type Cursor = String;

/// One item on its way, with where it came from.
#[derive(Debug)]
pub struct Received<T> {
    pub item: T,
    pub feed: Feed,
    pub cursor: Option<Cursor>,
}

/// The sources' end of a lane; cheap to clone. `received = stored + evicted + rejected` holds for each feed.
#[derive(Debug)]
pub struct Sink<T>(Arc<Ring<T>>);

impl<T> Clone for Sink<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// Wakes the recorder; one for all rings of a recorder.
#[derive(Clone, Debug, Default)]
pub struct Bell(Arc<(Mutex<bool>, Condvar)>);

impl Bell {
    /// Wakes whoever waits, now or next.
    pub fn ring(&self) {
        let mut rung = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !*rung {
            *rung = true;
            self.0.1.notify_one();
        }
    }

    /// Waits until the bell rings (true) or the deadline passes; `None` waits for ever.
    pub fn wait(&self, deadline: Option<Instant>) -> bool {
        let mut rung = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        while !*rung {
            rung = match deadline {
                None => self.0.1.wait(rung).unwrap_or_else(PoisonError::into_inner),
                Some(at) => {
                    let left = at.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        break;
                    }
                    self.0.1.wait_timeout(rung, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        std::mem::take(&mut *rung)
    }
}

#[derive(Debug)]
struct Ring<T> {
    queue: Mutex<Queue<T>>,
    capacity: usize,
    share: usize,
    bell: Bell,
}

#[derive(Debug)]
struct Queue<T> {
    items: VecDeque<Received<T>>,
    shares: HashMap<u64, usize>,
}

impl<T: Pushed> Sink<T> {
    /// A ring of `capacity` items, of which one key may hold an eighth (at least one).
    pub fn new(capacity: usize, bell: Bell) -> Self {
        let capacity = capacity.max(1);
        let queue = Mutex::new(Queue { items: VecDeque::new(), shares: HashMap::new() });
        Self(Arc::new(Ring { queue, capacity, share: (capacity / 8).max(1), bell }))
    }

    /// Hands over an item. Never waits: past its key's share the newcomer is rejected, past the capacity the oldest is
    /// evicted; both are counted with their feed.
    pub fn push(&self, feed: &Feed, item: T) {
        self.push_received(Received { item, feed: feed.clone(), cursor: None });
    }

    /// The same, with the place from which the stream resumes once this item is stored.
    pub fn push_at(&self, feed: &Feed, item: T, cursor: Cursor) {
        self.push_received(Received { item, feed: feed.clone(), cursor: Some(cursor) });
    }

    fn push_received(&self, received: Received<T>) {
        let is_event = received.item.is_event();
        if is_event {
            received.feed.count_received();
        }
        let key = received.item.share();
        {
            let mut queue = self.lock();
            let held = queue.shares.entry(key).or_insert(0);
            if *held >= self.0.share {
                drop(queue);
                if !is_event {
                    received.feed.count_received();
                }
                received.feed.count_rejected();
                return;
            }
            *held += 1;
            if queue.items.len() == self.0.capacity
                && let Some(oldest) = queue.items.pop_front()
            {
                queue.release(oldest.item.share());
                if !oldest.item.is_event() {
                    oldest.feed.count_received();
                }
                oldest.feed.count_evicted();
            }
            queue.items.push_back(received);
        }
        self.0.bell.ring();
    }

    /// Takes up to `most` items, the oldest first.
    pub fn drain(&self, most: usize) -> Vec<Received<T>> {
        let mut queue = self.lock();
        let n = most.min(queue.items.len());
        let taken: Vec<_> = queue.items.drain(..n).collect();
        for received in &taken {
            queue.release(received.item.share());
        }
        taken
    }

    fn lock(&self) -> MutexGuard<'_, Queue<T>> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Queue<T> {
    fn release(&mut self, key: u64) {
        if let Some(held) = self.shares.get_mut(&key) {
            *held -= 1;
            if *held == 0 {
                self.shares.remove(&key);
            }
        }
    }
}

impl Pushed for crate::container::Report {
    fn share(&self) -> u64 {
        use crate::container::Report;
        match self {
            Report::Event(event) => hash(&event.key),
            Report::Details { key, .. } => hash(key),
            Report::Snapshot(snapshot) => hash(&(&snapshot.endpoint, &snapshot.runtime_namespace)),
        }
    }

    fn is_event(&self) -> bool {
        matches!(self, Self::Event(_))
    }
}

impl Pushed for crate::image::ImageEvent {
    fn share(&self) -> u64 {
        hash(&self.image)
    }
}

pub(crate) fn hash(value: &impl std::hash::Hash) -> u64 {
    use std::hash::Hasher;
    let mut hasher = std::hash::DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug)]
    struct Item {
        key: u64,
        number: u64,
    }

    impl Pushed for Item {
        fn share(&self) -> u64 {
            self.key
        }
    }

    proptest! {
        #[test]
        fn keeps_the_newest_and_counts_the_rest(capacity in 1usize..64, keys in prop::collection::vec(0u64..200, 0..512)) {
            let (sink, feed) = (Sink::new(capacity, Bell::default()), Feed::new("docker", ""));
            for (number, key) in (0..).zip(&keys) {
                sink.push(&feed, Item { key: *key, number });
            }
            let kept = sink.drain(usize::MAX);
            let status = feed.status();
            prop_assert_eq!(status.received, keys.len() as u64);
            prop_assert_eq!(status.received, kept.len() as u64 + status.evicted + status.rejected);
            prop_assert!(kept.len() <= capacity);
            prop_assert!(kept.windows(2).all(|pair| pair[0].item.number < pair[1].item.number), "in order");
            let share = (capacity / 8).max(1);
            for key in &keys {
                prop_assert!(kept.iter().filter(|r| r.item.key == *key).count() <= share);
            }
            prop_assert!(sink.lock().shares.is_empty(), "what was drained gave its share back");
        }
    }

    #[test]
    fn a_storm_of_one_key_evicts_nobody_else() {
        let (sink, quiet, noisy) = (Sink::new(64, Bell::default()), Feed::new("docker", "quiet"), Feed::new("docker", "noisy"));
        sink.push(&quiet, Item { key: 1, number: 0 });
        for number in 0..10_000 {
            sink.push(&noisy, Item { key: 2, number });
        }
        assert_eq!((quiet.status().evicted, noisy.status().rejected), (0, 10_000 - 8));
        assert_eq!(sink.drain(1)[0].item.key, 1);
    }

    #[test]
    fn the_bell_wakes_who_waits_and_who_comes_later() {
        let bell = Bell::default();
        bell.ring();
        assert!(bell.wait(None));
        let begun = Instant::now();
        assert!(!bell.wait(Some(begun + std::time::Duration::from_millis(1))));
        assert!(begun.elapsed() >= std::time::Duration::from_millis(1));
        let (waiter, ringer) = (bell.clone(), bell);
        let thread = std::thread::spawn(move || waiter.wait(None));
        ringer.ring();
        assert!(thread.join().unwrap());
    }
}
