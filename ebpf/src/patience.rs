//! How long whoever reads the ring may wait for something else: meanwhile the ring fills.

use std::time::{Duration, Instant};

/// How long is waited within a second, all together: on a busy machine a process may be interrupted before its end is told elsewhere.
const PATIENCE: Duration = Duration::from_millis(100);
const SECOND: Duration = Duration::from_secs(1);

/// What is left of the time to wait in this second.
#[derive(Debug)]
pub(crate) struct Patience {
    since: Instant,
    left: Duration,
}

impl Patience {
    pub(crate) const fn new(now: Instant) -> Self {
        Self { since: now, left: PATIENCE }
    }

    /// How long may be waited.
    pub(crate) fn left(&mut self, now: Instant) -> Duration {
        if now.duration_since(self.since) >= SECOND {
            *self = Self::new(now);
        }
        self.left
    }

    pub(crate) fn spend(&mut self, waited: Duration) {
        self.left = self.left.saturating_sub(waited);
    }

    /// Nothing is waited for in the next second.
    pub(crate) const fn lose(&mut self, now: Instant) {
        *self = Self { since: now, left: Duration::ZERO };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_comes_is_waited_for_a_tenth_of_each_second_in_all() {
        let begun = Instant::now();
        let mut patience = Patience::new(begun);
        patience.spend(PATIENCE / 4);
        assert_eq!(patience.left(begun + PATIENCE), PATIENCE / 4 * 3);
        patience.spend(PATIENCE);
        assert_eq!(patience.left(begun + SECOND / 2), Duration::ZERO);
        assert_eq!(patience.left(begun + SECOND), PATIENCE);
    }

    #[test]
    fn nothing_is_waited_for_in_the_second_after_something_was_lost() {
        let begun = Instant::now();
        let mut patience = Patience::new(begun);
        patience.lose(begun + SECOND / 2);
        assert_eq!(patience.left(begun + SECOND), Duration::ZERO);
        assert_eq!(patience.left(begun + SECOND / 2 * 3), PATIENCE);
    }
}
