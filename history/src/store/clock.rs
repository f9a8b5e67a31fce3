//! The clocks of a store: the wall clock may step or may not be set yet; the boot clock does neither.
//!
//! - **Age** is the store's own clock for retention: it advances with the boot clock, and across a boot by what the wall
//!   clock says, at most by a day. A wall clock that jumps years ahead expires nothing.
//! - Each **step** of the wall clock is kept with the first sequence number after it: `wall = boot + offset`. So boot time is
//!   known for every event, and what was recorded before the clock was first set is mapped when it is read.

use rusqlite::Connection;

use super::intervals::OPEN;
use crate::time::{Nanos, boot_id, boot_nanos, now};

const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 24 * 60 * 60 * SECOND;
/// A clock before 2020-01-01 was never set.
const UNSET: Nanos = 1_577_836_800 * SECOND;
/// Smaller differences are the clock being slewed.
const STEP: i64 = SECOND;

/// Both clocks at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) boot_id: String,
    pub(super) boot_ns: i64,
    pub(super) wall_ns: Nanos,
}

impl Reading {
    pub(super) fn take() -> Self {
        Self { boot_id: boot_id(), boot_ns: boot_nanos(), wall_ns: now() }
    }
}

/// The writer's clock.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    pub(super) boot_id: String,
    /// `age = boot + age_offset`.
    age_offset: i64,
    /// `wall = boot + offset`, as it was last kept.
    offset: i64,
    /// What to add to a time that was read before the clock was set in this boot.
    mend: i64,
}

impl Clock {
    /// Continues the age that the store had at an earlier reading.
    pub(super) fn resume(age_ns: i64, then: &Reading, now: &Reading) -> Self {
        let passed = if then.boot_id == now.boot_id && !now.boot_id.is_empty() {
            now.boot_ns.saturating_sub(then.boot_ns).max(0)
        } else {
            now.wall_ns.saturating_sub(then.wall_ns).clamp(0, DAY)
        };
        let age = age_ns.saturating_add(passed);
        Self { boot_id: now.boot_id.clone(), age_offset: age - now.boot_ns, offset: now.wall_ns - now.boot_ns, mend: 0 }
    }

    /// Age at a reading of the boot clock; 0 gives the age at which this boot began.
    pub(super) const fn age(&self, boot_ns: i64) -> i64 {
        boot_ns.saturating_add(self.age_offset)
    }

    /// Notices a step of the wall clock. After one, [`Clock::keep`] has to follow.
    pub(super) fn stepped(&mut self, boot_ns: i64, wall_ns: Nanos) -> bool {
        let offset = wall_ns - boot_ns;
        if (offset - self.offset).abs() < STEP {
            return false;
        }
        self.set_since(boot_ns, self.offset, offset);
        self.offset = offset;
        true
    }

    /// If the clock was not set at an earlier offset and is now: remembers what to add to earlier times.
    fn set_since(&mut self, boot_ns: i64, earlier: i64, offset: i64) {
        if self.mend == 0 && boot_ns.saturating_add(earlier) < UNSET && boot_ns.saturating_add(offset) >= UNSET {
            self.mend = offset - earlier;
        }
    }

    /// Keeps how the wall clock stands to the boot clock from the event `first_sequence` on, unless that is known.
    pub(super) fn keep(&mut self, conn: &Connection, first_sequence: i64, boot_ns: i64) -> Result<(), rusqlite::Error> {
        let mut known = conn.prepare_cached("SELECT offset_ns FROM clocks WHERE boot_id = ? ORDER BY id DESC")?;
        let known: Vec<i64> = known.query_map([&self.boot_id], |r| r.get(0))?.collect::<Result<_, _>>()?;
        if let Some(first) = known.last() {
            self.set_since(boot_ns, *first, self.offset);
        }
        if known.first().is_none_or(|last| (self.offset - last).abs() >= STEP) {
            let mut insert = conn.prepare_cached("INSERT INTO clocks VALUES (NULL, ?, ?, ?, ?)")?;
            insert.execute((first_sequence, &self.boot_id, boot_ns, self.offset))?;
        }
        Ok(())
    }

    /// Maps a time that was read before the clock was set in this boot.
    pub(super) const fn mend(&self, time_ns: Nanos) -> Nanos {
        if time_ns < UNSET { time_ns.saturating_add(self.mend) } else { time_ns }
    }

    /// Maps what is kept by time and was written in this boot before the clock was set. Events are mapped when they are read.
    pub(super) fn mend_kept(&self, conn: &Connection, histories: impl Iterator<Item = String>) -> Result<(), rusqlite::Error> {
        if self.mend == 0 {
            return Ok(());
        }
        let since = self.age(0);
        for name in histories {
            let sql = format!(
                r#"UPDATE OR REPLACE "{name}_intervals" SET valid_from_ns = valid_from_ns + ?1,
                valid_to_ns = iif(valid_to_ns < ?2, valid_to_ns + ?1, valid_to_ns) WHERE class = ?4 AND valid_from_ns < ?2 AND age_ns >= ?3"#
            );
            let mut update = conn.prepare(&sql)?;
            for class in 0..=OPEN {
                update.execute((self.mend, UNSET, since, class))?;
            }
        }
        conn.execute(
            "UPDATE OR REPLACE gaps SET from_ns = from_ns + ?1, to_ns = iif(to_ns < ?2, to_ns + ?1, to_ns) WHERE from_ns < ?2 AND age_ns >= ?3",
            (self.mend, UNSET, since),
        )?;
        conn.execute("UPDATE meta SET value = value + ? WHERE name = 'kept_since_ns' AND value < ?", (self.mend, UNSET)).map(drop)
    }
}

/// How to read times that were recorded before the clock was first set.
#[derive(Debug, Default)]
pub(super) struct Mending {
    /// `[first, last]` sequence and what to add.
    unset: Vec<(i64, i64, i64)>,
}

impl Mending {
    pub(super) fn load(conn: &Connection) -> Result<Self, rusqlite::Error> {
        let mut statement = conn.prepare_cached("SELECT first_sequence, boot_id, boot_ns, offset_ns FROM clocks ORDER BY id")?;
        let steps: Vec<(i64, String, i64, i64)> =
            statement.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?)))?.collect::<Result<_, _>>()?;
        let was_set = |boot_ns: i64, offset: i64| boot_ns.saturating_add(offset) >= UNSET;
        let mut unset = Vec::new();
        for (i, (first, boot, boot_ns, offset)) in steps.iter().enumerate() {
            let later = steps[i + 1..].iter().take_while(|s| s.1 == *boot).find(|s| was_set(s.2, s.3));
            if let Some(set) = later
                && !was_set(*boot_ns, *offset)
            {
                let end = steps.get(i + 1).map_or(i64::MAX, |next| next.0);
                unset.push((*first, end - 1, set.3 - offset));
            }
        }
        Ok(Self { unset })
    }

    /// The time of an event, on a clock that was set if it ever was in that boot.
    pub(super) fn mend(&self, sequence: i64, time_ns: Nanos) -> Nanos {
        if time_ns >= UNSET || self.unset.is_empty() {
            return time_ns;
        }
        let epoch = self.unset.iter().find(|(first, last, _)| (*first..=*last).contains(&sequence));
        epoch.map_or(time_ns, |(_, _, shift)| time_ns.saturating_add(*shift))
    }

    /// The latest time that an event of a block could have once mended.
    pub(super) fn widen(&self, min_ns: Nanos, max_ns: Nanos) -> Nanos {
        if min_ns >= UNSET || self.unset.is_empty() { max_ns } else { Nanos::MAX }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(boot: &str, boot_ns: i64, wall_ns: i64) -> Reading {
        Reading { boot_id: boot.into(), boot_ns, wall_ns }
    }

    #[test]
    fn age_follows_the_boot_clock_whatever_the_wall_clock_does() {
        let mut clock = Clock::resume(0, &reading("a", 0, UNSET), &reading("a", 5, UNSET + 5));
        assert_eq!(clock.age(5), 5);
        assert!(clock.stepped(10, UNSET + 400 * DAY));
        assert_eq!(clock.age(10), 10);
        assert!(!clock.stepped(11, UNSET + 400 * DAY + 1));
    }

    #[test]
    fn age_grows_by_at_most_a_day_across_a_boot_and_never_shrinks() {
        let then = reading("a", 100, UNSET);
        assert_eq!(Clock::resume(7, &then, &reading("b", 3, UNSET + 60)).age(3), 67);
        assert_eq!(Clock::resume(7, &then, &reading("b", 3, UNSET + 4000 * DAY)).age(3), 7 + DAY);
        assert_eq!(Clock::resume(7, &then, &reading("b", 3, 0)).age(3), 7);
    }

    #[test]
    fn a_time_read_before_the_clock_was_set_is_mapped_once_it_is() {
        let start = reading("a", SECOND, SECOND);
        let mut clock = Clock::resume(0, &start, &start);
        assert_eq!(clock.mend(SECOND), SECOND);
        clock.stepped(2 * SECOND, UNSET + 2 * SECOND);
        assert_eq!(clock.mend(SECOND), UNSET + SECOND);
        assert_eq!(clock.mend(UNSET + 3 * SECOND), UNSET + 3 * SECOND);
    }
}
