//! The bounded ring between sources, which never wait, and the recorder.
//!
//! Three bounds, so that nobody's flood costs others their events: one key (a container) holds at most an eighth of the ring; the ring as
//! a whole holds so many items and so many bytes; and past these it is the feed that holds the most which gives its oldest.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use crate::{feed::Feed, time::now};

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
const MOST_BYTES: usize = 12 << 20;

/// Most keys whose rejected events are remembered between two drains; of more, only their feeds count them. A key must fill its
/// share to be rejected, so that it takes an absent recorder to get there.
const MOST_EXCESSES: usize = 64;

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
    /// One for each feed that ever pushed.
    lines: Vec<Line<T>>,
    items: usize,
    bytes: usize,
    /// Of the next item.
    number: u64,
    shares: HashMap<u64, Share>,
    excesses: HashMap<u64, Excess<T>>,
}

/// What waits of one feed, the oldest first.
#[derive(Debug)]
struct Line<T> {
    feed: Feed,
    waiting: VecDeque<Waiting<T>>,
    bytes: usize,
}

#[derive(Debug)]
struct Waiting<T> {
    /// Place in the order of all lines.
    number: u64,
    share: u64,
    weight: usize,
    received: Received<T>,
}

/// What a key has in the queue.
#[derive(Debug, Default)]
struct Share {
    items: usize,
    trifles: usize,
}

impl<T: Pushed> Sink<T> {
    /// A ring of `capacity` items, of which one key may hold an eighth (at least one).
    pub fn new(capacity: usize, bell: Bell) -> Self {
        let capacity = capacity.max(1);
        let queue = Queue { lines: Vec::new(), items: 0, bytes: 0, number: 0, shares: HashMap::new(), excesses: HashMap::new() };
        Self(Arc::new(Ring { queue: Mutex::new(queue), capacity, share: (capacity / 8).max(1), bell }))
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
        let waiting = Waiting { number: 0, share: received.item.share(), weight: received.item.weight(), received };
        {
            let mut queue = self.lock();
            let mut rejected = None;
            if let Some(share) = queue.shares.get(&waiting.share)
                && share.items >= self.0.share
            {
                if waiting.received.item.is_trifle() || share.trifles == 0 {
                    queue.reject(waiting);
                    return;
                }
                rejected = queue.take_oldest_trifle(waiting.share);
            }
            while queue.items >= self.0.capacity || (queue.items > 0 && queue.bytes + waiting.weight > MOST_BYTES) {
                queue.evict(self.0.capacity);
            }
            queue.hold(waiting);
            if let Some(trifle) = rejected {
                queue.reject(trifle);
            }
        }
        self.0.bell.ring();
    }

    /// Takes up to `most` items, the oldest first.
    pub fn drain(&self, most: usize) -> Vec<Received<T>> {
        let mut queue = self.lock();
        let mut taken = Vec::with_capacity(most.min(queue.items));
        while taken.len() < most
            && let Some(oldest) = queue.take_oldest()
        {
            taken.push(oldest.received);
        }
        taken
    }

    /// What shares did not take since the last call: one entry for each key.
    pub fn take_excesses(&self) -> Vec<Excess<T>> {
        std::mem::take(&mut self.lock().excesses).into_values().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Queue<T>> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Line<T> {
    /// How much of the ring it takes, in bytes of either bound.
    fn load(&self, capacity: usize) -> usize {
        (self.waiting.len() * MOST_BYTES / capacity).max(self.bytes)
    }
}

impl<T: Pushed> Queue<T> {
    fn hold(&mut self, mut waiting: Waiting<T>) {
        self.number += 1;
        waiting.number = self.number;
        let share = self.shares.entry(waiting.share).or_default();
        share.items += 1;
        share.trifles += usize::from(waiting.received.item.is_trifle());
        self.items += 1;
        self.bytes += waiting.weight;
        let feed = &waiting.received.feed;
        let line = match self.lines.iter().position(|line| line.feed.is(feed)) {
            Some(at) => &mut self.lines[at],
            None => self.lines.push_mut(Line { feed: feed.clone(), waiting: VecDeque::new(), bytes: 0 }),
        };
        line.bytes += waiting.weight;
        line.waiting.push_back(waiting);
    }

    /// Takes the item at that place of a line, and gives back its share.
    fn take(&mut self, line: usize, at: usize) -> Option<Waiting<T>> {
        let line = &mut self.lines[line];
        let taken = line.waiting.remove(at)?;
        line.bytes -= taken.weight;
        self.items -= 1;
        self.bytes -= taken.weight;
        if let Some(share) = self.shares.get_mut(&taken.share) {
            share.items -= 1;
            share.trifles -= usize::from(taken.received.item.is_trifle());
            if share.items == 0 {
                self.shares.remove(&taken.share);
            }
        }
        Some(taken)
    }

    fn take_oldest(&mut self) -> Option<Waiting<T>> {
        let first = |line: &Line<T>| line.waiting.front().map(|waiting| waiting.number);
        let (_, line) = self.lines.iter().enumerate().filter_map(|(i, line)| Some((first(line)?, i))).min()?;
        self.take(line, 0)
    }

    /// Searches the lines, at most once for each trifle in them.
    fn take_oldest_trifle(&mut self, share: u64) -> Option<Waiting<T>> {
        let is_one = |waiting: &Waiting<T>| waiting.share == share && waiting.received.item.is_trifle();
        let oldest = |line: &Line<T>| line.waiting.iter().position(is_one).map(|at| (line.waiting[at].number, at));
        let ((_, at), line) = self.lines.iter().enumerate().filter_map(|(i, line)| Some((oldest(line)?, i))).min()?;
        self.take(line, at)
    }

    /// Drops the oldest of the feed that has the most: whoever has less loses nothing to it.
    fn evict(&mut self, capacity: usize) {
        let Some((line, most)) = self.lines.iter().enumerate().max_by_key(|(_, line)| line.load(capacity)) else { return };
        let at = most.waiting.iter().position(|waiting| !waiting.received.item.mends()).unwrap_or(0);
        if let Some(Waiting { received, .. }) = self.take(line, at) {
            count_lost(&received);
            received.feed.count_evicted();
            received.feed.miss(now());
        }
    }

    fn reject(&mut self, waiting: Waiting<T>) {
        let Waiting { share, received, .. } = waiting;
        count_lost(&received);
        received.feed.count_rejected();
        if !received.item.is_trifle() {
            received.feed.miss(now());
        }
        if !received.item.is_event() {
            return;
        }
        if let Some(excess) = self.excesses.get_mut(&share) {
            excess.events += 1;
        } else if self.excesses.len() < MOST_EXCESSES {
            self.excesses.insert(share, Excess { first: received.item, events: 1 });
        }
    }
}

/// What is no event counts as received only now that it is lost.
fn count_lost<T: Pushed>(lost: &Received<T>) {
    if !lost.item.is_event() {
        lost.feed.count_received();
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

    fn is_trifle(&self) -> bool {
        matches!(self, Self::Event(event) if event.action.is_trifle())
    }

    fn mends(&self) -> bool {
        matches!(self, Self::Snapshot(_))
    }

    fn weight(&self) -> usize {
        use crate::container::Report;
        match self {
            Report::Event(event) => event.weight(),
            Report::Details { details, .. } => details.weight(),
            Report::Snapshot(snapshot) => snapshot.containers.iter().map(|(.., details)| details.weight()).sum(),
        }
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

    #[derive(Debug, Default)]
    struct Item {
        key: u64,
        number: u64,
        is_trifle: bool,
        mends: bool,
        weight: usize,
    }

    impl Pushed for Item {
        fn share(&self) -> u64 {
            self.key
        }

        fn is_trifle(&self) -> bool {
            self.is_trifle
        }

        fn mends(&self) -> bool {
            self.mends
        }

        fn weight(&self) -> usize {
            self.weight
        }
    }

    proptest! {
        #[test]
        fn keeps_the_newest_and_counts_the_rest(capacity in 1usize..64, keys in prop::collection::vec((0u64..50, any::<bool>()), 0..512)) {
            let (sink, feed) = (Sink::new(capacity, Bell::default()), Feed::new("docker", ""));
            for (number, &(key, is_trifle)) in (0..).zip(&keys) {
                sink.push(&feed, Item { key, number, is_trifle, ..Item::default() });
            }
            let kept = sink.drain(usize::MAX);
            let status = feed.status();
            prop_assert_eq!(status.received, keys.len() as u64);
            prop_assert_eq!(status.received, kept.len() as u64 + status.evicted + status.rejected);
            prop_assert!(kept.len() <= capacity);
            prop_assert!(kept.windows(2).all(|pair| pair[0].item.number < pair[1].item.number), "in order");
            let share = (capacity / 8).max(1);
            for (key, _) in &keys {
                prop_assert!(kept.iter().filter(|r| r.item.key == *key).count() <= share);
            }
            let excesses = sink.take_excesses();
            prop_assert_eq!(excesses.iter().map(|e| e.events).sum::<u64>(), status.rejected, "each key is told what it lost");
            prop_assert!(sink.take_excesses().is_empty());
            let queue = sink.lock();
            prop_assert!(queue.shares.is_empty(), "what was drained gave its share back");
            prop_assert_eq!((queue.items, queue.bytes), (0, 0));
        }
    }

    #[test]
    fn a_storm_of_one_key_evicts_nobody_else() {
        let (sink, quiet, noisy) = (Sink::new(64, Bell::default()), Feed::new("docker", "quiet"), Feed::new("docker", "noisy"));
        sink.push(&quiet, Item { key: 1, number: 0, is_trifle: true, ..Item::default() });
        for number in 0..10_000 {
            sink.push(&noisy, Item { key: 2, number, is_trifle: true, ..Item::default() });
        }
        assert_eq!((quiet.status().evicted, noisy.status().rejected), (0, 10_000 - 8));
        assert_eq!(sink.take_excesses().iter().map(|e| (e.first.key, e.events)).collect::<Vec<_>>(), [(2, 10_000 - 8)]);
        assert_eq!(sink.drain(1)[0].item.key, 1);
    }

    #[test]
    fn what_is_no_trifle_takes_the_place_of_its_own_keys_oldest_trifle() {
        let (sink, feed) = (Sink::new(64, Bell::default()), Feed::new("docker", ""));
        sink.push(&feed, Item { key: 1, number: 0, is_trifle: true, ..Item::default() });
        for number in 1..100 {
            sink.push(&feed, Item { key: 2, number, is_trifle: true, ..Item::default() });
        }
        for number in 100..110 {
            sink.push(&feed, Item { key: 2, number, is_trifle: false, ..Item::default() });
        }
        let kept: Vec<_> = sink.drain(usize::MAX).iter().map(|r| r.item.number).collect();
        assert_eq!(kept, [0, 100, 101, 102, 103, 104, 105, 106, 107], "past its share it has nothing to displace");
        let status = feed.status();
        assert_eq!((status.received, status.evicted, status.rejected), (110, 0, 101));
        assert_eq!(sink.take_excesses().iter().map(|e| e.events).sum::<u64>(), 101);
    }

    #[test]
    fn what_shares_reject_is_remembered_of_a_bounded_number_of_keys() {
        let (sink, feed) = (Sink::new(8, Bell::default()), Feed::new("docker", ""));
        for number in 0..1000 {
            sink.push(&feed, Item { key: number / 2, number, is_trifle: true, ..Item::default() });
        }
        assert_eq!((sink.take_excesses().len(), feed.status().rejected), (MOST_EXCESSES, 500));
    }

    #[test]
    fn a_flood_of_one_feed_evicts_its_own_and_nobody_elses() {
        let (sink, quiet, loud) = (Sink::new(64, Bell::default()), Feed::new("podman", "root's"), Feed::new("podman", "a user's"));
        for number in 0..20 {
            sink.push(&quiet, Item { key: number, number, ..Item::default() });
        }
        for number in 20..10_000 {
            sink.push(&loud, Item { key: number, number, ..Item::default() });
        }
        assert_eq!((quiet.status().evicted, loud.status().evicted), (0, 10_000 - 64));
        let kept: Vec<_> = sink.drain(usize::MAX).iter().map(|r| r.item.number).collect();
        assert_eq!(kept, (0..20).chain(10_000 - 44..10_000).collect::<Vec<_>>(), "in the order of arrival");
    }

    #[test]
    fn what_is_heavy_is_bounded_by_its_bytes() {
        let (sink, feed) = (Sink::new(4096, Bell::default()), Feed::new("docker", ""));
        for number in 0..1000 {
            sink.push(&feed, Item { key: number, number, weight: MOST_BYTES / 100, ..Item::default() });
        }
        assert_eq!(feed.status().evicted, 900);
        sink.push(&feed, Item { key: 1000, weight: 2 * MOST_BYTES, ..Item::default() });
        assert_eq!((sink.drain(usize::MAX).len(), feed.status().evicted), (1, 1000), "what is too heavy for any ring is there alone");
    }

    #[test]
    fn what_mends_a_loss_is_not_lost_itself() {
        let (sink, feed) = (Sink::new(8, Bell::default()), Feed::new("docker", ""));
        sink.push(&feed, Item { key: 0, mends: true, ..Item::default() });
        for number in 1..100 {
            sink.push(&feed, Item { key: number, number, ..Item::default() });
        }
        assert!(sink.drain(1)[0].item.mends);
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
