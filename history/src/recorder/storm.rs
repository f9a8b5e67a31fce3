//! Storm protection: what one container may say beside its life, so that a health check gone wild fills neither the
//! store nor the disk. What the ring rejected before is counted with it.

use std::time::{Duration, Instant};

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

    /// Whether one more event may pass.
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
        false
    }

    /// Counts events that did not pass; returns when to tell of them, if that is news.
    pub(super) fn shed(&mut self, events: u64, now: Instant) -> Option<Instant> {
        self.shed += events;
        if self.window_ends.is_some() {
            return None;
        }
        self.window_ends = Some(now + WINDOW);
        self.window_ends
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_the_rate_holds() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start);
        assert_eq!((0..1000).filter(|_| bucket.admit(start)).count(), 120);
        assert_eq!((0..100).filter(|_| bucket.admit(start + Duration::from_secs(3))).count(), 30);
    }

    #[test]
    fn a_window_begins_with_the_first_that_is_shed_and_is_told_once() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start);
        assert_eq!(bucket.shed(2, start), Some(start + WINDOW));
        assert_eq!(bucket.shed(3, start + WINDOW / 2), None);
        assert_eq!((bucket.close(), bucket.close(), bucket.window_ends()), (Some(5), None, None));
    }
}
