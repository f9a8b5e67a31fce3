//! Storm protection: what one container may say beside its life, so that a health check gone wild fills neither the
//! store nor the disk. Creation, starts, deaths and OOM kills are never shed.

use std::time::{Duration, Instant};

use crate::container::Action;

/// Events that may come at once.
const BURST: u32 = 120;
/// Events a second that may come for ever.
const RATE: u32 = 10;
/// How often a container that is shed is told of.
const WINDOW: Duration = Duration::from_secs(10);

/// A token bucket, with what it shed in the present window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    tokens: u32,
    filled: Instant,
    shed: u64,
    window_ends: Option<Instant>,
}

impl Bucket {
    pub(super) const fn new(now: Instant) -> Self {
        Self { tokens: BURST, filled: now, shed: 0, window_ends: None }
    }

    /// Whether one more event may pass; else it is counted.
    pub(super) fn admit(&mut self, now: Instant) -> bool {
        let earned = now.saturating_duration_since(self.filled).as_millis() * u128::from(RATE) / 1000;
        if let Ok(earned @ 1..) = u32::try_from(earned.min(u128::from(BURST))) {
            self.tokens = (self.tokens + earned).min(BURST);
            self.filled = now;
        }
        if self.tokens > 0 {
            self.tokens -= 1;
            return true;
        }
        self.shed += 1;
        self.window_ends.get_or_insert(now + WINDOW);
        false
    }

    /// Whether it has nothing to remember any more.
    pub(super) fn is_full(&self, now: Instant) -> bool {
        let missing = u128::from(BURST - self.tokens);
        now.saturating_duration_since(self.filled).as_millis() * u128::from(RATE) / 1000 >= missing
    }

    /// When [`Bucket::close`] has something to tell.
    pub(super) const fn window_ends(&self) -> Option<Instant> {
        self.window_ends
    }

    /// How many were shed in the window that ended, if any.
    pub(super) fn close(&mut self) -> Option<u64> {
        self.window_ends = None;
        let shed = std::mem::take(&mut self.shed);
        (shed > 0).then_some(shed)
    }
}

/// Whether an action is shed in a storm.
pub(super) const fn is_sheddable(action: Action) -> bool {
    !matches!(action, Action::Existing | Action::Create | Action::Start | Action::Oom | Action::Die | Action::Destroy | Action::Throttled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_the_rate_holds_and_the_rest_is_counted() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start);
        let passed = (0..1000).filter(|_| bucket.admit(start)).count();
        assert_eq!((passed, bucket.close()), (120, Some(880)));
        let passed = (0..100).filter(|_| bucket.admit(start + Duration::from_secs(3))).count();
        assert_eq!((passed, bucket.close(), bucket.close()), (30, Some(70), None));
    }
}
