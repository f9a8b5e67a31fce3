//! Which events a run gets: pure decisions, without SQL, Thrift or a clock.
//!
//! A *run* of a scheduled query gets one *batch*, the events in `(after, upto]`. The run after it learns from osquery's
//! counter whether that batch was taken. The laws, tested below over random histories: every event is offered at least
//! once, and again only while its batch is in flight: offered, and not known to be taken.

use mayfly_history::{Eid, Nanos};

/// The events of a table, in the order of their ids.
pub(super) trait Log {
    type Error;

    /// The id of the `count`th event after `after` (of the last one, if there are fewer); `None`: there is none.
    fn nth_after(&self, after: Option<Eid>, count: u32) -> Result<Option<Eid>, Self::Error>;

    /// The first event after `after`, and when it happened.
    fn first_after(&self, after: Option<Eid>) -> Result<Option<Waiting>, Self::Error>;

    /// The newest event.
    fn newest(&self) -> Result<Option<Eid>, Self::Error>;

    /// The newest event that retention has dropped.
    fn dropped(&self) -> Result<Option<Eid>, Self::Error>;
}

/// An event that a cursor has yet to deliver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) eid: Eid,
    pub(super) time_ns: Nanos,
}

/// One execution of a scheduled query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Run {
    /// Our registration with osquery: another one means that osqueryd or we began anew.
    pub(super) registration: String,
    /// The second at which the execution began, as osquery keeps it.
    pub(super) timestamp: String,
    /// osquery's count of this query's accepted results; empty before the first.
    pub(super) counter: String,
}

/// How far a query has got with a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) run: Run,
    /// The batch of that run, `(after, upto]`; `None`: from the very beginning.
    pub(super) after: Option<Eid>,
    pub(super) upto: Option<Eid>,
    /// Where the batch ended when its first event was first offered: newer events joined it later.
    pub(super) first_upto: Option<Eid>,
    /// Runs that were offered this batch without taking it, this one included.
    pub(super) offers: u32,
    /// Batches that were given up, since the query never took them.
    pub(super) given_up: u32,
    /// Most events of a batch; smaller than what is configured where answers grew too long.
    pub(super) cap: u32,
    /// The first event behind the batch as it was, and when that was looked at.
    pub(super) behind: Option<Waiting>,
    pub(super) looked_ns: Nanos,
}

/// What became of the last run's batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// There was none.
    New,
    /// This is the same run: it gets the same batch.
    Same,
    /// The batch was taken.
    Taken,
    /// The batch is offered again, with newer events.
    Again,
    /// The batch was offered often enough.
    GivenUp,
}

/// Where a new cursor begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// At the oldest event that is kept.
    #[default]
    Oldest,
    /// Behind the newest event.
    Now,
}

/// A period whose events retention dropped before they were delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Expired {
    pub(super) from_ns: Nanos,
    /// `None`: nothing is left, so that its end is not known.
    pub(super) to_ns: Option<Nanos>,
}

/// What a run gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) cursor: Cursor,
    pub(super) verdict: Verdict,
    pub(super) expired: Option<Expired>,
}

/// How often a batch is offered to runs that do not take it.
pub(super) const OFFERS: u32 = 3;

/// What the operator set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) start: Start,
    /// Most events of a batch.
    pub(super) max_rows: u32,
}

/// Decides what `run` gets at `now`, given the cursor that the run before it left, if any.
pub(super) fn decide<L: Log>(last: Option<&Cursor>, run: Run, rules: Rules, now: Nanos, log: &L) -> Result<Decision, L::Error> {
    let max_rows = rules.max_rows.max(1);
    let Some(last) = last else {
        let after = match rules.start {
            Start::Oldest => None,
            Start::Now => log.newest()?,
        };
        let fresh = Cursor { run, after, offers: 1, cap: max_rows, looked_ns: now, ..Cursor::default() };
        return Ok(Decision { cursor: fill(fresh, log)?, verdict: Verdict::New, expired: None });
    };
    if last.run == run {
        return Ok(Decision { cursor: last.clone(), verdict: Verdict::Same, expired: None });
    }
    let verdict = judge(last, &run);
    let cap = last.cap.clamp(1, max_rows);
    let mut next = Cursor { run, cap, offers: 1, given_up: last.given_up, looked_ns: now, ..Cursor::default() };
    match verdict {
        Verdict::Again => {
            next.after = last.after;
            if last.run.registration == next.run.registration {
                next.offers = last.offers + 1;
                next.first_upto = last.first_upto;
            }
        }
        Verdict::GivenUp => {
            next.after = last.first_upto;
            next.given_up = next.given_up.saturating_add(1);
        }
        Verdict::New | Verdict::Same | Verdict::Taken => {
            next.after = last.upto;
            next.cap = next.cap.saturating_mul(2).min(max_rows);
        }
    }
    let expired = expired(last.upto, last.behind, last.looked_ns, log)?;
    if next.after > log.newest()?.or(next.after) {
        // The store's events are older than what was delivered: another store was put there. Its events are news.
        next.after = None;
        next.first_upto = None;
    }
    Ok(Decision { cursor: fill(next, log)?, verdict, expired })
}

fn judge(last: &Cursor, run: &Run) -> Verdict {
    if last.after == last.upto {
        Verdict::Taken
    } else if last.run.registration != run.registration {
        Verdict::Again
    } else if last.run.counter != run.counter {
        Verdict::Taken
    } else if last.offers >= OFFERS {
        Verdict::GivenUp
    } else {
        Verdict::Again
    }
}

/// Fixes the end of a batch.
fn fill<L: Log>(mut cursor: Cursor, log: &L) -> Result<Cursor, L::Error> {
    cursor.upto = log.nth_after(cursor.after, cursor.cap)?.or(cursor.after);
    cursor.first_upto = if cursor.offers == 1 { cursor.upto } else { cursor.first_upto.min(cursor.upto) };
    cursor.behind = log.first_after(cursor.upto)?;
    Ok(cursor)
}

/// What retention took of the events after `seen`, of which `behind` was the first when it was looked at `looked_ns`.
pub(super) fn expired<L: Log>(seen: Option<Eid>, behind: Option<Waiting>, looked_ns: Nanos, log: &L) -> Result<Option<Expired>, L::Error> {
    let oldest = log.first_after(None)?;
    // Of a store that was set aside, only the event that is gone tells.
    let gone = behind.is_some_and(|behind| oldest.is_none_or(|oldest| oldest.eid > behind.eid));
    if !gone && log.dropped()? <= seen {
        return Ok(None);
    }
    let from_ns = behind.map_or(looked_ns, |behind| behind.time_ns);
    Ok(Some(Expired { from_ns, to_ns: oldest.map(|oldest| oldest.time_ns.max(from_ns)) }))
}

#[cfg(test)]
mod tests;
