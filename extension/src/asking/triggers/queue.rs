//! Queries that wait for osquery: bounded, each once.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use mayfly_history::{Eid, Nanos};

/// Most queries that wait.
pub(super) const MOST_WAITING: usize = 1024;
/// Most bytes of their SQL, which holds values of events.
const MOST_BYTES: usize = 16 << 20;

/// A query that an event asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Order {
    /// Which trigger's, by its place.
    pub(super) trigger: usize,
    pub(super) table: &'static str,
    pub(super) sql: String,
    /// The newest of the events that it answers for.
    pub(super) event: Eid,
    pub(super) time_ns: Nanos,
    /// The oldest of them.
    pub(super) oldest: Eid,
    pub(super) events: u32,
}

/// What became of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    Waits,
    /// The same query waits already, and will answer for this event too.
    Joined,
    /// In place of those that waited longest, which are dropped.
    Evicted(Vec<Order>),
}

/// Orders from the thread that reads events to those that ask. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    filled: Condvar,
    answered: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Order>,
    /// Of the SQL of those.
    bytes: usize,
    /// Taken, not yet answered.
    asked: Vec<Order>,
    is_closed: bool,
}

impl State {
    /// Takes out what waited longest.
    fn next(&mut self) -> Option<Order> {
        let order = self.waiting.pop_front()?;
        self.bytes -= order.sql.len();
        Some(order)
    }

    /// Takes an order out of those that are asked.
    fn forget(&mut self, order: &Order) {
        if let Some(at) = self.asked.iter().position(|asked| asked == order) {
            self.asked.swap_remove(at);
        }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, order: Order) -> Pushed {
        let mut state = self.lock();
        // The newest wait at the end, and are the likeliest to be the same.
        let same = state.waiting.iter_mut().rev().find(|waiting| waiting.trigger == order.trigger && waiting.sql == order.sql);
        if let Some(same) = same {
            (same.event, same.time_ns) = (order.event, order.time_ns);
            same.events = same.events.saturating_add(order.events);
            return Pushed::Joined;
        }
        let mut evicted = Vec::new();
        while (state.waiting.len() >= MOST_WAITING || state.bytes + order.sql.len() > MOST_BYTES)
            && let Some(oldest) = state.next()
        {
            evicted.push(oldest);
        }
        state.bytes += order.sql.len();
        state.waiting.push_back(order);
        self.0.filled.notify_one();
        if evicted.is_empty() { Pushed::Waits } else { Pushed::Evicted(evicted) }
    }

    /// The next order; `None`: the queue is closed, and what waits is left for the next time.
    pub(super) fn take(&self) -> Option<Order> {
        let state = self.lock();
        let mut state =
            self.0.filled.wait_while(state, |state| state.waiting.is_empty() && !state.is_closed).unwrap_or_else(PoisonError::into_inner);
        if state.is_closed {
            return None;
        }
        let order = state.next()?;
        state.asked.push(order.clone());
        Some(order)
    }

    /// An order that was taken is answered.
    pub(super) fn answered(&self, order: &Order) {
        self.lock().forget(order);
        self.0.answered.notify_all();
    }

    /// An order that was taken is left for the next time.
    pub(super) fn give_back(&self, order: Order) {
        let mut state = self.lock();
        state.forget(&order);
        state.bytes += order.sql.len();
        state.waiting.push_front(order);
        self.0.answered.notify_all();
    }

    /// Waits until one of those that were taken is answered or given back; false: there is none, or not before `deadline`.
    pub(super) fn wait_for_answer(&self, deadline: Instant) -> bool {
        let state = self.lock();
        let asked = state.asked.len();
        let left = deadline.saturating_duration_since(Instant::now());
        let waited = self.0.answered.wait_timeout_while(state, left, |state| asked > 0 && state.asked.len() == asked);
        asked > 0 && !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// The oldest event of a table whose queries are not all answered.
    pub(super) fn oldest(&self, table: &str) -> Option<Eid> {
        let state = self.lock();
        state.waiting.iter().chain(&state.asked).filter(|order| order.table == table).map(|order| order.oldest).min()
    }

    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.0.filled.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use super::*;

    fn order(sql: &str, sequence: u64) -> Order {
        let event = Eid { generation: 1, sequence };
        Order { trigger: 0, table: "t", sql: sql.into(), event, time_ns: 0, oldest: event, events: 1 }
    }

    #[test]
    fn equal_queries_that_wait_are_one_for_the_newest_event() {
        let queue = Queue::default();
        assert_eq!(queue.push(order("a", 1)), Pushed::Waits);
        assert_eq!(queue.push(order("b", 2)), Pushed::Waits);
        assert_eq!(queue.push(order("a", 3)), Pushed::Joined);
        let taken = queue.take().unwrap();
        assert_eq!((taken.event.sequence, taken.oldest.sequence, taken.events), (3, 1, 2));
        assert_eq!(queue.push(order("a", 4)), Pushed::Waits, "one that is asked already knows nothing of what comes later");
        assert_eq!(queue.oldest("t").unwrap().sequence, 1);
        queue.answered(&taken);
        assert_eq!(queue.oldest("t").unwrap().sequence, 2);
        assert_eq!(queue.oldest("u"), None);
        queue.close();
        assert_eq!(queue.take(), None);
    }

    #[test]
    fn of_too_many_the_oldest_goes_and_is_handed_back() {
        let queue = Queue::default();
        let waiting: Vec<_> = (0..MOST_WAITING as u64).map(|at| order(&at.to_string(), at)).collect();
        assert!(waiting.iter().all(|order| queue.push(order.clone()) == Pushed::Waits));
        assert_eq!(queue.push(order("x", 5000)), Pushed::Evicted(vec![waiting[0].clone()]));
    }

    #[test]
    fn what_waits_is_bounded_in_bytes_too() {
        let queue = Queue::default();
        let long = |at: u64| order(&at.to_string().repeat(MOST_BYTES / 4), at);
        for at in 0..4 {
            assert_eq!(queue.push(long(at)), Pushed::Waits);
        }
        assert_eq!(queue.push(order("xx", 5)), Pushed::Evicted(vec![long(0)]));
        queue.take().unwrap();
        assert_eq!(queue.push(long(6)), Pushed::Waits, "what is taken waits no longer");
    }

    #[test]
    fn who_ends_waits_for_what_is_asked_but_not_for_what_is_given_back() {
        let queue = Queue::default();
        let soon = || Instant::now() + Duration::from_secs(60);
        assert!(!queue.wait_for_answer(soon()), "nothing is asked");
        for order in [order("a", 1), order("b", 2)] {
            queue.push(order);
        }
        let (first, second) = (queue.take().unwrap(), queue.take().unwrap());
        queue.close();
        assert!(!queue.wait_for_answer(Instant::now()));
        let other = queue.clone();
        let waits = thread::spawn(move || other.wait_for_answer(Instant::now() + Duration::from_secs(60)));
        queue.answered(&first);
        assert_eq!(queue.oldest("t").unwrap().sequence, 2);
        queue.give_back(second);
        // Whichever of the two it saw.
        let _ = waits.join().unwrap();
        assert!(!queue.wait_for_answer(soon()));
        assert_eq!(queue.oldest("t").unwrap().sequence, 2, "it fires after the restart");
    }
}
