//! Queries that wait for osquery: bounded, each once.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use mayfly_history::{Eid, Nanos};

/// Most queries that wait.
pub(super) const MOST_WAITING: usize = 1024;

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
    /// In place of the one that waited longest, which is dropped.
    Evicted(Order),
}

/// Orders from the thread that reads events to those that ask. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Order>,
    /// Taken, not yet answered.
    asked: Vec<Order>,
    is_closed: bool,
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
        let evicted = if state.waiting.len() >= MOST_WAITING { state.waiting.pop_front() } else { None };
        state.waiting.push_back(order);
        self.0.filled.notify_one();
        evicted.map_or(Pushed::Waits, Pushed::Evicted)
    }

    /// The next order; `None`: the queue is closed, and what waits is left for the next time.
    pub(super) fn take(&self) -> Option<Order> {
        let state = self.lock();
        let mut state =
            self.0.filled.wait_while(state, |state| state.waiting.is_empty() && !state.is_closed).unwrap_or_else(PoisonError::into_inner);
        if state.is_closed {
            return None;
        }
        let order = state.waiting.pop_front()?;
        state.asked.push(order.clone());
        Some(order)
    }

    /// An order that was taken is answered.
    pub(super) fn answered(&self, order: &Order) {
        let mut state = self.lock();
        if let Some(at) = state.asked.iter().position(|asked| asked == order) {
            state.asked.swap_remove(at);
        }
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
        assert_eq!(queue.push(order("x", 5000)), Pushed::Evicted(waiting[0].clone()));
    }
}
