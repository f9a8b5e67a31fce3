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
    /// First event of the batch, and the first one behind it, as they were: who finds them gone knows that retention took them.
    pub(super) first: Option<Waiting>,
    pub(super) behind: Option<Waiting>,
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

/// Decides what `run` gets, given the cursor that the run before it left, if any. A batch covers at most `max_rows` events.
pub(super) fn decide<L: Log>(last: Option<&Cursor>, run: Run, start: Start, max_rows: u32, log: &L) -> Result<Decision, L::Error> {
    let Some(last) = last else {
        let after = match start {
            Start::Oldest => None,
            Start::Now => log.newest()?,
        };
        let fresh = Cursor { run, after, offers: 1, cap: max_rows, ..Cursor::default() };
        return Ok(Decision { cursor: fill(fresh, log)?, verdict: Verdict::New, expired: None });
    };
    if last.run == run {
        return Ok(Decision { cursor: last.clone(), verdict: Verdict::Same, expired: None });
    }
    let verdict = judge(last, &run);
    let mut next = Cursor { run, cap: last.cap.min(max_rows).max(1), offers: 1, given_up: last.given_up, ..Cursor::default() };
    let expected = match verdict {
        Verdict::Again => {
            next.after = last.after;
            if last.run.registration == next.run.registration {
                next.offers = last.offers + 1;
                next.first_upto = last.first_upto;
            }
            last.first
        }
        Verdict::GivenUp => {
            next.after = last.first_upto;
            next.given_up = next.given_up.saturating_add(1);
            // Of events that joined the batch later, the first are still there.
            if last.first_upto == last.upto { last.behind } else { None }
        }
        Verdict::New | Verdict::Same | Verdict::Taken => {
            next.after = last.upto;
            next.cap = next.cap.saturating_mul(2).min(max_rows).max(1);
            last.behind
        }
    };
    let expired = expired(expected, log)?;
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
    cursor.first = log.first_after(cursor.after)?;
    cursor.behind = log.first_after(cursor.upto)?;
    Ok(cursor)
}

/// What retention took, if `expected` is no longer there.
pub(super) fn expired<L: Log>(expected: Option<Waiting>, log: &L) -> Result<Option<Expired>, L::Error> {
    let Some(expected) = expected else { return Ok(None) };
    Ok(match log.first_after(None)? {
        None => Some(Expired { from_ns: expected.time_ns, to_ns: None }),
        Some(oldest) if oldest.eid > expected.eid => {
            Some(Expired { from_ns: expected.time_ns, to_ns: Some(oldest.time_ns.max(expected.time_ns)) })
        }
        Some(_) => None,
    })
}

#[cfg(test)]
mod tests;
