//! What a query gave that was run at event time.

use std::collections::BTreeMap;

use crate::{
    record::Record,
    redact::Redaction,
    sink::{Pushed, hash},
    time::Nanos,
};

/// Why a query was run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// An event met the condition of a `[[trigger]]`.
    Trigger,
    /// The host is a new incarnation: an `[[enrolment]]`.
    Enrolment,
    /// The host is about to end: a `[[farewell]]`.
    Farewell,
}

impl Occasion {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trigger => "trigger",
            Self::Enrolment => "enrolment",
            Self::Farewell => "farewell",
        }
    }
}

/// One row that a query gave, or why it gave none: a row of `triggered_results`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TriggeredResult {
    /// When the answer came.
    pub time_ns: Nanos,
    pub occasion: Occasion,
    /// The trigger's, enrolment's or farewell's name in the configuration.
    pub name: String,
    /// The SQL that osquery ran, its parameters filled in.
    pub query: String,
    /// The table and the id of the event that was met; empty where there was none.
    pub event_table: &'static str,
    pub event_eid: String,
    /// How many events it answers for: equal queries that wait are run once, for the newest of their events.
    pub events: Option<i64>,
    /// Milliseconds from the event's own time until the query began.
    pub delay_ms: Option<i64>,
    /// Milliseconds that osquery took.
    pub duration_ms: Option<i64>,
    /// The row; empty where the query gave none.
    pub row: BTreeMap<String, String>,
    /// Why there is no row; empty where there is one.
    pub error: String,
}

impl Pushed for TriggeredResult {
    fn share(&self) -> u64 {
        hash(&self.name)
    }
}

impl Record for TriggeredResult {
    fn time_ns(&self) -> Nanos {
        self.time_ns
    }

    fn clean(&mut self, redaction: &Redaction, _now_ns: Nanos) {
        for text in [&mut self.query, &mut self.error] {
            let clean = redaction.text(text).into_owned();
            *text = clean;
        }
        for (column, value) in &mut self.row {
            let clean = redaction.value(column, value).into_owned();
            *value = clean;
        }
    }
}
