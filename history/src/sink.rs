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

    /// Waits until the bell rings or the deadline passes; `None` waits for ever.
    pub fn wait(&self, deadline: Option<Instant>) {
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
        *rung = false;
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
        received.feed.count_received();
        let key = received.item.share();
        {
            let mut queue = self.lock();
            let held = queue.shares.entry(key).or_insert(0);
            if *held >= self.0.share {
                drop(queue);
                received.feed.count_rejected();
                return;
            }
            *held += 1;
            if queue.items.len() == self.0.capacity
                && let Some(oldest) = queue.items.pop_front()
            {
                queue.release(oldest.item.share());
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
}

impl Pushed for crate::image::ImageEvent {
    fn share(&self) -> u64 {
        hash(&self.image)
    }
}

fn hash(value: &impl std::hash::Hash) -> u64 {
    use std::hash::Hasher;
    let mut hasher = std::hash::DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
