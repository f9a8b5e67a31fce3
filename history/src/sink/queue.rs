//! What waits in a ring: a line for each feed, and whose share of it is how large.

use std::collections::{HashMap, VecDeque};

use super::{Excess, MOST_BYTES, Pushed, Received};
use crate::{feed::Feed, time::now};

/// Most keys whose rejected events are remembered between two drains; of more, only their feeds count them. A key must fill its
/// share to be rejected, so that it takes an absent recorder to get there.
pub(super) const MOST_EXCESSES: usize = 64;

#[derive(Debug)]
pub(super) struct Queue<T> {
    capacity: usize,
    /// Items that one key may have.
    most_of_one: usize,
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
pub(super) struct Waiting<T> {
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

impl<T: Pushed> Waiting<T> {
    pub(super) fn new(received: Received<T>) -> Self {
        Self { number: 0, share: received.item.share(), weight: received.item.weight(), received }
    }
}

impl<T> Line<T> {
    /// How much of the ring it takes, in bytes of either bound.
    fn load(&self, capacity: usize) -> usize {
        (self.waiting.len() * MOST_BYTES / capacity).max(self.bytes)
    }
}

impl<T: Pushed> Queue<T> {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            most_of_one: (capacity / 8).max(1),
            lines: Vec::new(),
            items: 0,
            bytes: 0,
            number: 0,
            shares: HashMap::new(),
            excesses: HashMap::new(),
        }
    }

    /// Takes an item in, and what gives way to it out. False: it is the one that is rejected.
    pub(super) fn admit(&mut self, waiting: Waiting<T>) -> bool {
        let mut rejected = None;
        if let Some(share) = self.shares.get(&waiting.share)
            && share.items >= self.most_of_one
        {
            if waiting.received.item.is_trifle() || share.trifles == 0 {
                self.reject(waiting);
                return false;
            }
            rejected = self.take_oldest_trifle(waiting.share);
        }
        while self.items >= self.capacity || (self.items > 0 && self.bytes + waiting.weight > MOST_BYTES) {
            self.evict();
        }
        self.hold(waiting);
        if let Some(trifle) = rejected {
            self.reject(trifle);
        }
        true
    }

    pub(super) fn drain(&mut self, most: usize) -> Vec<Received<T>> {
        let mut taken = Vec::with_capacity(most.min(self.items));
        while taken.len() < most
            && let Some(oldest) = self.take_oldest()
        {
            taken.push(oldest.received);
        }
        taken
    }

    pub(super) fn take_excesses(&mut self) -> Vec<Excess<T>> {
        std::mem::take(&mut self.excesses).into_values().collect()
    }

    pub(super) fn shrink(&mut self) {
        self.shares.shrink_to_fit();
        self.lines.iter_mut().for_each(|line| line.waiting.shrink_to_fit());
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.shares.is_empty() && (self.items, self.bytes) == (0, 0)
    }

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
    fn evict(&mut self) {
        let Some((line, most)) = self.lines.iter().enumerate().max_by_key(|(_, line)| line.load(self.capacity)) else { return };
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
