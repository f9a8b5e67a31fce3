//! The bounded ring between sources, which never wait, and the recorder.
//!
//! Three bounds, so that nobody's flood costs others their events: one key (a container) holds at most an eighth of the ring; the ring as
//! a whole holds so many items and so many bytes; and past these it is the feed that holds the most which gives its oldest.

mod bell;
mod queue;
mod report;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use self::bell::Bell;
use self::queue::{Queue, Waiting};
use crate::feed::Feed;

/// Something that can wait in a ring.
pub trait Pushed: Send + 'static {
    /// Items that a ring of them holds.
    const RING: usize = 8192;

    /// Whose share of the ring it takes, e.g. a hash of the container id: no key may fill the ring alone.
    fn share(&self) -> u64;

    /// Whether it is an event, and so part of `received`. The rest supports events, and is counted only when it is lost.
    fn is_event(&self) -> bool {
        true
    }

    /// Whether it gives way within its key's share to an item that does not: a flood of trifles must not hide a death.
    fn is_trifle(&self) -> bool {
        false
    }

    /// Whether it mends what was lost, e.g. a list of all that exists: it stays where events are evicted.
    fn mends(&self) -> bool {
        false
    }

    /// Bytes that it holds beside its own size, roughly.
    fn weight(&self) -> usize {
        0
    }
}

/// Bytes that a ring holds at most, beside the size of its items.
const MOST_BYTES: usize = 8 << 20;

/// What one key's share did not take.
#[derive(Debug)]
pub struct Excess<T> {
    /// The first of the events, to tell whose they are.
    pub first: T,
    pub events: u64,
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

#[derive(Debug)]
struct Ring<T> {
    queue: Mutex<Queue<T>>,
    bell: Bell,
}

impl<T: Pushed> Sink<T> {
    /// A ring of `capacity` items, of which one key may hold an eighth (at least one).
    pub fn new(capacity: usize, bell: Bell) -> Self {
        Self(Arc::new(Ring { queue: Mutex::new(Queue::new(capacity.max(1))), bell }))
    }

    /// Hands over an item. Never waits: past its key's share the newcomer is rejected, or the key's oldest trifle for one that is
    /// none; past the capacity the oldest of the feed that has the most is evicted. Each is counted with its feed.
    pub fn push(&self, feed: &Feed, item: T) {
        self.push_received(Received { item, feed: feed.clone(), cursor: None });
    }

    /// The same, with the place from which the stream resumes once this item is stored.
    pub fn push_at(&self, feed: &Feed, item: T, cursor: Cursor) {
        self.push_received(Received { item, feed: feed.clone(), cursor: Some(cursor) });
    }

    fn push_received(&self, received: Received<T>) {
        if received.item.is_event() {
            received.feed.count_received();
        }
        let waiting = Waiting::new(received);
        if self.lock().admit(waiting) {
            self.0.bell.ring();
        }
    }

    /// Takes up to `most` items, the oldest first.
    pub fn drain(&self, most: usize) -> Vec<Received<T>> {
        self.lock().drain(most)
    }

    /// What shares did not take since the last call: one entry for each key.
    pub fn take_excesses(&self) -> Vec<Excess<T>> {
        self.lock().take_excesses()
    }

    /// Keeps no room for what a flood brought.
    pub(crate) fn shrink(&self) {
        self.lock().shrink();
    }

    fn lock(&self) -> MutexGuard<'_, Queue<T>> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn hash(value: &impl std::hash::Hash) -> u64 {
    use std::hash::Hasher;
    let mut hasher = std::hash::DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
