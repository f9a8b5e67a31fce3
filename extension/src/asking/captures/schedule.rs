//! When which table is captured: pure decisions, with the clock handed in.
//!
//! A table is captured when something told that it may have changed, once that has been quiet for a moment and after half a second at the
//! latest; and at an interval of its own, as a safety net. Both wait for the budget, events less than the rest. A table that is slow is left
//! alone for longer, one that fails for longer each time.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::budget::Budget;

/// What is told is waited for to end for this long…
const QUIET: Duration = Duration::from_millis(100);
/// …and at most for this long.
pub(super) const LATEST: Duration = Duration::from_millis(500);
/// After a capture a table is left alone for this many times what one usually takes, though it is told of.
const REST: u32 = 4;
/// A table that fails is left alone for this long at first, …
pub(super) const PATIENCE: Duration = Duration::from_secs(15);
/// …and at most for this long.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// The most that a capture which failed takes of what all share: what it took beyond that, its own table rests for.
const MOST_CHARGED: Duration = Duration::from_secs(3);
/// Captures of the safety net are spread by so much of the interval around it.
const JITTER: f64 = 0.1;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Capture this table.
    Capture(Due),
    /// Nothing before this time; `None`: not until something is told.
    Wait(Option<Instant>),
}

/// A capture that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) table: &'static str,
    /// What told, sorted; empty: nothing did.
    pub(super) told_by: BTreeSet<&'static str>,
    /// When it was first told.
    pub(super) since: Option<Instant>,
}

/// What was told of a table since its last capture.
#[derive(Clone, Debug)]
struct Told {
    by: BTreeSet<&'static str>,
    first: Instant,
    last: Instant,
}

#[derive(Clone, Debug)]
struct Entry {
    /// When the safety net has it captured.
    due: Instant,
    told: Option<Told>,
    /// Not captured before this, whoever asks.
    not_before: Instant,
    failures: u32,
    /// osquery broke the last capture off: the table may have brought it down.
    is_suspect: bool,
    /// What its last capture took.
    cost: Duration,
}

/// Why a table could not be captured.
#[derive(Clone, Copy, Debug)]
pub(super) enum Failure {
    /// osquery was not there.
    Innocent,
    /// osquery broke off in the middle of it.
    Broken,
    /// It will fail again soon; the pause after the first time.
    Lasting { patience: Duration },
}

/// The tables that are followed, and when each is captured.
#[derive(Debug)]
pub(super) struct Schedule {
    interval: Duration,
    budget: Budget,
    /// Gives numbers in [0, 1).
    random: fn() -> f64,
    entries: BTreeMap<&'static str, Entry>,
}

impl Schedule {
    pub(super) fn new(interval: Duration, budget: Budget, random: fn() -> f64) -> Self {
        Self { interval, budget, random, entries: BTreeMap::new() }
    }

    /// Follows these tables and no others; each is captured at once, but for those that may have brought osquery down: they would again.
    pub(super) fn follow(&mut self, tables: impl Iterator<Item = &'static str>, now: Instant) {
        let fresh = || Entry { due: now, told: None, not_before: now, failures: 0, is_suspect: false, cost: Duration::ZERO };
        let mut before = std::mem::take(&mut self.entries);
        let mut entry = |table| before.remove(table).filter(|entry| entry.is_suspect).unwrap_or_else(fresh);
        self.entries = tables.map(|table| (table, entry(table))).collect();
    }

    /// Whether a table is left alone for now, since it may have brought osquery down.
    pub(super) fn is_suspect(&self, table: &str) -> bool {
        self.entries.get(table).is_some_and(|entry| entry.is_suspect)
    }

    /// Something told that these tables may have changed.
    pub(super) fn tell(&mut self, by: &'static str, tables: &[&'static str], now: Instant) {
        for table in tables {
            let Some(entry) = self.entries.get_mut(table) else { continue };
            let told = entry.told.get_or_insert_with(|| Told { by: BTreeSet::new(), first: now, last: now });
            told.by.insert(by);
            told.last = now;
        }
    }

    /// What is to be done now.
    pub(super) fn next(&mut self, now: Instant) -> Turn {
        let urgent = self.budget.ready(true, now);
        let calm = self.budget.ready(false, now);
        let at = |entry: &Entry| {
            let told = entry.told.as_ref().map(|told| (told.last + QUIET).min(told.first + LATEST).max(urgent));
            let due = entry.due.max(calm);
            (told.map_or(due, |told| told.min(due)).max(entry.not_before), told.is_none())
        };
        // Of those that may begin, what was told comes first, and then who has waited longest.
        let ready = self.entries.iter().filter(|(_, entry)| at(entry).0 <= now);
        let first = ready.min_by_key(|(_, entry)| (entry.told.is_none(), entry.told.as_ref().map_or(entry.due, |told| told.first)));
        match first.map(|(table, _)| *table) {
            Some(table) => {
                let told = self.entries.get_mut(table).and_then(|entry| entry.told.take());
                let since = told.as_ref().map(|told| told.first);
                Turn::Capture(Due { table, told_by: told.map(|told| told.by).unwrap_or_default(), since })
            }
            None => Turn::Wait(self.entries.values().map(|entry| at(entry).0).min()),
        }
    }

    /// A table was captured, which took so long.
    pub(super) fn done(&mut self, table: &str, cost: Duration, now: Instant) {
        self.budget.spend(cost, now);
        let spread = 1.0 + JITTER * (2.0 * (self.random)() - 1.0);
        let pause = self.pause(cost).mul_f64(spread);
        if let Some(entry) = self.entries.get_mut(table) {
            // What was slow once, as all is on a host that is busy for a moment, does not keep the next change waiting.
            let usual = if entry.cost.is_zero() { cost } else { entry.cost.min(cost) };
            let not_before = now + usual * REST;
            *entry = Entry { due: now + pause, told: entry.told.take(), not_before, failures: 0, is_suspect: false, cost };
        }
    }

    /// A table could not be captured, which took so long; gives when it is tried again.
    pub(super) fn failed(&mut self, table: &str, cost: Duration, failure: Failure, now: Instant) -> Duration {
        self.budget.spend(cost.min(MOST_CHARGED), now);
        let rest = self.budget.rest(cost).max(cost * REST);
        let Some(entry) = self.entries.get_mut(table) else { return PATIENCE };
        let patience = match failure {
            Failure::Innocent => PATIENCE,
            Failure::Broken => PATIENCE * 2u32.saturating_pow(entry.failures.min(16)),
            Failure::Lasting { patience } => patience * 2u32.saturating_pow(entry.failures.min(16)),
        };
        let pause = patience.min(LONGEST).max(rest);
        if !matches!(failure, Failure::Innocent) {
            entry.failures += 1;
            entry.is_suspect = matches!(failure, Failure::Broken);
        }
        entry.due = now + pause;
        entry.not_before = entry.due;
        pause
    }

    /// The safety net of a table that costs so much.
    fn pause(&self, cost: Duration) -> Duration {
        self.interval.max(self.budget.pause(cost))
    }

    /// By how much a change may be seen late of which nothing tells.
    pub(super) fn resolution(&self, table: &str) -> Duration {
        let cost = self.entries.get(table).map_or(Duration::ZERO, |entry| entry.cost);
        self.pause(cost).mul_f64(1.0 + JITTER) + cost
    }

    /// By how much a change may be seen late that is told of, where the budget does not run out.
    pub(super) fn told_resolution(&self, table: &str) -> Duration {
        let cost = self.entries.get(table).map_or(Duration::ZERO, |entry| entry.cost);
        LATEST.max(cost * REST) + cost
    }

    /// Whether a table is captured more rarely than was asked for, since it is slow.
    pub(super) fn is_slow(&self, table: &str) -> bool {
        self.entries.get(table).is_some_and(|entry| self.pause(entry.cost) > self.interval)
    }

    /// How long a capture that was asked for now would wait for the budget.
    pub(super) fn overdrawn(&mut self, now: Instant) -> Duration {
        self.budget.ready(true, now).saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);
    const INTERVAL: Duration = Duration::from_secs(900);

    /// A schedule of tables that were all captured at `now`.
    fn captured(tables: &[&'static str], cost: Duration, now: Instant) -> Schedule {
        let mut schedule = Schedule::new(INTERVAL, Budget::new(0.01, now), || 0.5);
        schedule.follow(tables.iter().copied(), now);
        for _ in tables {
            let Turn::Capture(due) = schedule.next(now) else { panic!("all are due at first") };
            assert!(due.told_by.is_empty());
            schedule.done(due.table, cost, now);
        }
        schedule
    }

    fn capture(turn: Turn) -> Option<(&'static str, Vec<&'static str>)> {
        match turn {
            Turn::Capture(due) => Some((due.table, due.told_by.into_iter().collect())),
            Turn::Wait(_) => None,
        }
    }

    #[test]
    fn what_is_told_is_captured_once_it_is_quiet() {
        let now = Instant::now();
        let mut schedule = captured(&["a", "b"], MILLI, now);
        let at = |ms| now + 60_000 * MILLI + ms * MILLI;
        schedule.tell("x_events", &["a", "unknown"], at(0));
        schedule.tell("/etc/x", &["a"], at(50));
        assert_eq!(schedule.next(at(149)), Turn::Wait(Some(at(150))));
        assert_eq!(capture(schedule.next(at(150))), Some(("a", vec!["/etc/x", "x_events"])));
    }

    #[test]
    fn what_never_is_quiet_is_captured_after_half_a_second() {
        let now = Instant::now();
        let mut schedule = captured(&["a"], MILLI, now);
        let at = |ms| now + 60_000 * MILLI + ms * MILLI;
        let mut first = None;
        for ms in (0..1000).step_by(20) {
            schedule.tell("x_events", &["a"], at(ms));
            if first.is_none() && capture(schedule.next(at(ms))).is_some() {
                first = Some(ms);
            }
        }
        assert_eq!(first, Some(500));
    }

    #[test]
    fn the_safety_net_captures_all_and_what_was_told_comes_first() {
        let now = Instant::now();
        let mut schedule = captured(&["a", "b"], MILLI, now);
        assert_eq!(schedule.next(now + MILLI), Turn::Wait(Some(now + INTERVAL)));
        let late = now + INTERVAL + MILLI;
        schedule.tell("x_events", &["b"], now + INTERVAL - 200 * MILLI);
        assert_eq!(capture(schedule.next(late)), Some(("b", vec!["x_events"])));
        schedule.done("b", MILLI, late);
        assert_eq!(capture(schedule.next(late)), Some(("a", vec![])));
    }

    #[test]
    fn what_is_told_while_a_table_is_captured_is_not_lost() {
        let now = Instant::now();
        let mut schedule = captured(&["a"], MILLI, now);
        let at = now + INTERVAL;
        schedule.tell("first", &["a"], at - 200 * MILLI);
        assert!(capture(schedule.next(at)).is_some());
        schedule.tell("second", &["a"], at);
        schedule.done("a", MILLI, at + MILLI);
        assert_eq!(capture(schedule.next(at + 100 * MILLI)), Some(("a", vec!["second"])));
    }

    #[test]
    fn a_slow_table_is_captured_more_rarely() {
        let now = Instant::now();
        let cost = 2000 * MILLI;
        let mut schedule = captured(&["slow"], cost, now);
        assert!(schedule.is_slow("slow"));
        assert!(schedule.resolution("slow") > Duration::from_secs(2000));
        schedule.tell("x_events", &["slow"], now + MILLI);
        assert_eq!(schedule.next(now + MILLI), Turn::Wait(Some(now + REST * cost)), "a fifth of the time at most");
    }

    #[test]
    fn a_capture_that_is_slow_for_once_does_not_keep_the_next_change_waiting() {
        let now = Instant::now();
        let mut schedule = captured(&["a"], MILLI, now);
        let mut told_and_captured = |at: Instant, cost: Duration| {
            schedule.tell("x_events", &["a"], at);
            let Turn::Wait(Some(next)) = schedule.next(at) else { panic!("it has to be quiet first") };
            assert!(capture(schedule.next(next)).is_some());
            schedule.done("a", cost, next + cost);
            (next - at, next + cost)
        };
        let (waited, at) = told_and_captured(now + 60_000 * MILLI, 900 * MILLI);
        assert_eq!(waited, QUIET);
        let (waited, at) = told_and_captured(at, 900 * MILLI);
        assert_eq!(waited, QUIET, "once is no habit");
        let (waited, _) = told_and_captured(at, 900 * MILLI);
        assert_eq!(waited, REST * 900 * MILLI, "twice is");
    }

    #[test]
    fn who_fails_is_tried_again_ever_later() {
        let now = Instant::now();
        let mut schedule = captured(&["a"], MILLI, now);
        let pauses: Vec<_> = (0..4).map(|_| schedule.failed("a", MILLI, Failure::Broken, now).as_secs()).collect();
        assert_eq!(pauses, [15, 30, 60, 120]);
        schedule.tell("x_events", &["a"], now);
        assert_eq!(schedule.next(now + MILLI), Turn::Wait(Some(now + 120_000 * MILLI)), "also where it is told of");
        for _ in 0..40 {
            schedule.failed("a", MILLI, Failure::Broken, now);
        }
        assert_eq!(schedule.failed("a", MILLI, Failure::Broken, now), LONGEST);
    }

    #[test]
    fn who_may_have_brought_osquery_down_waits_also_after_the_next_registration() {
        let now = Instant::now();
        let mut schedule = captured(&["bad", "good"], MILLI, now);
        schedule.failed("bad", MILLI, Failure::Broken, now);
        schedule.failed("good", MILLI, Failure::Innocent, now);
        schedule.follow(["bad", "good"].into_iter(), now + MILLI);
        assert!(schedule.is_suspect("bad") && !schedule.is_suspect("good"));
        assert_eq!(capture(schedule.next(now + MILLI)), Some(("good", vec![])));
        schedule.done("good", MILLI, now + MILLI);
        assert_eq!(schedule.next(now + MILLI), Turn::Wait(Some(now + PATIENCE)));
        assert_eq!(schedule.failed("bad", MILLI, Failure::Broken, now + PATIENCE), 2 * PATIENCE, "later each time");
    }

    #[test]
    fn a_capture_that_times_out_costs_its_own_table_and_not_the_others() {
        let now = Instant::now();
        let mut schedule = captured(&["slow", "other"], MILLI, now);
        let pause = schedule.failed("slow", Duration::from_secs(30), Failure::Broken, now);
        assert!(pause >= Duration::from_secs(2999), "{pause:?}");
        schedule.tell("x_events", &["other"], now + MILLI);
        assert_eq!(capture(schedule.next(now + 150 * MILLI)), Some(("other", vec!["x_events"])));
    }

    #[test]
    fn without_budget_the_safety_net_waits_before_events_do() {
        let now = Instant::now();
        let mut schedule = Schedule::new(INTERVAL, Budget::new(0.01, now), || 0.5);
        schedule.follow(["a", "b"].into_iter(), now);
        assert!(capture(schedule.next(now)).is_some());
        schedule.done("a", 7000 * MILLI, now);
        assert_eq!(capture(schedule.next(now)), None, "b has to wait");
        schedule.tell("x_events", &["b"], now);
        assert!(capture(schedule.next(now + 100 * MILLI)).is_some(), "unless it is told of");
    }
}
