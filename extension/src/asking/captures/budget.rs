//! What captures may cost: a part of one core, on average over a window.

use std::time::{Duration, Instant};

/// What is not spent within this time is lost.
const WINDOW: f64 = 600.0;
/// The part of a window that a capture which an event asks for may take in advance: events come together.
const ADVANCE: f64 = 0.5;

/// Time that osquery may spend for us. Measured by how long it took to answer, which is at least what it cost.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    /// Seconds earned in a second.
    share: f64,
    /// Seconds that may be spent, as of `at`; below zero after more was.
    balance: f64,
    at: Instant,
}

impl Budget {
    /// A whole window may be spent at once: the first captures of all tables are the most useful ones.
    pub(super) fn new(share: f64, now: Instant) -> Self {
        Self { share, balance: share * WINDOW, at: now }
    }

    fn earn(&mut self, now: Instant) {
        let earned = now.saturating_duration_since(self.at).as_secs_f64() * self.share;
        self.balance = (self.balance + earned).min(self.share * WINDOW);
        self.at = self.at.max(now);
    }

    /// When the next capture may begin: now or later. `urgent`: an event asks for it.
    pub(super) fn ready(&mut self, urgent: bool, now: Instant) -> Instant {
        self.earn(now);
        let least = if urgent { -self.share * WINDOW * ADVANCE } else { 0.0 };
        now + Duration::from_secs_f64((least - self.balance).max(0.0) / self.share)
    }

    /// A capture took so long.
    pub(super) fn spend(&mut self, cost: Duration, now: Instant) {
        self.earn(now);
        self.balance -= cost.as_secs_f64();
    }

    /// How long it takes to earn so much.
    pub(super) fn rest(&self, cost: Duration) -> Duration {
        cost.mul_f64(1.0 / self.share)
    }

    /// How long to leave a table alone that costs so much at each capture, for all that nothing tells of it: none takes more than a tenth.
    pub(super) fn pause(&self, cost: Duration) -> Duration {
        cost.mul_f64(10.0 / self.share)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn events_may_take_in_advance_and_the_rest_waits() {
        let now = Instant::now();
        let mut budget = Budget::new(0.01, now);
        budget.spend(7 * SECOND, now);
        assert_eq!(budget.ready(true, now), now);
        let later = budget.ready(false, now) - now;
        assert!((99..=101).contains(&later.as_secs()), "one second too much is earned in a hundred: {later:?}");
        budget.spend(3 * SECOND, now);
        let later = budget.ready(true, now) - now;
        assert!((99..=101).contains(&later.as_secs()), "{later:?}");
        assert_eq!(budget.ready(true, now + 101 * SECOND), now + 101 * SECOND);
    }

    proptest! {
        /// The law: whatever is asked for and whatever it costs, a capture begins only where the average over the past is kept, but for one window and
        /// what events take in advance, and one capture.
        #[test]
        fn the_average_is_kept(asks in prop::collection::vec((0u64..5_000, any::<bool>(), 0u64..2_000), 1..200)) {
            let began = Instant::now();
            let share = 0.01;
            let mut budget = Budget::new(share, began);
            let mut now = began;
            let mut spent = 0.0;
            for (wait, urgent, cost) in asks {
                now += Duration::from_millis(wait);
                if budget.ready(urgent, now) <= now {
                    let earned = share * (now - began).as_secs_f64();
                    prop_assert!(spent <= earned + share * WINDOW * (1.0 + ADVANCE) + 0.001);
                    let cost = Duration::from_millis(cost);
                    now += cost;
                    budget.spend(cost, now);
                    spent += cost.as_secs_f64();
                }
            }
        }
    }
}
