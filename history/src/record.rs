//! What becomes a row of an event table as it comes.

use std::fmt;

use crate::{redact::Redaction, sink::Pushed, time::Nanos};

/// A record of an event table that needs no reducer: one pushed item is one row.
pub trait Record: Pushed + fmt::Debug + Sized {
    /// When it happened.
    fn time_ns(&self) -> Nanos;

    /// Drops secrets and bounds what is too long, before anything of it is kept. `now_ns`: when it was taken.
    fn clean(&mut self, _redaction: &Redaction, _now_ns: Nanos) {}

    /// What tells it from all others, where a source may tell one event twice (a replay); `None`: each is new.
    fn identity(&self) -> Option<u64> {
        None
    }

    /// Ids of the host's users that it names, whose names somebody may want to find out.
    fn users(&self) -> [Option<i64>; 3] {
        [None; 3]
    }

    /// Id of a group of the host that it names, likewise.
    fn group(&self) -> Option<i64> {
        None
    }

    /// A row that says that `events` like this one were left out, because their key filled its share of the ring.
    fn throttled(self, _events: u64, _now_ns: Nanos) -> Option<Self> {
        None
    }
}
