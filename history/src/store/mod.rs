//! The durable store. (Contract; the implementation's invariants go here.)

mod error;
mod options;
mod row;
mod writer;

pub use error::StoreError;
pub use options::{StoreOptions, TableOptions};
pub use row::RowBuf;
pub use writer::{EventLog, Interval, IntervalLog, Opened, Transaction, Writer};

use std::{ops::ControlFlow, path::Path};

use crate::{
    cell::Cell,
    eid::Eid,
    feed::{FeedStatus, Gap},
    table::TableSchema,
    time::Nanos,
};

/// Which events to read.
#[derive(Clone, Debug, Default)]
pub struct EventScan {
    /// Exclusive lower bound.
    pub after: Option<Eid>,
    /// Inclusive upper bound.
    pub upto: Option<Eid>,
    /// Inclusive bounds of the event's time.
    pub from_ns: Option<Nanos>,
    pub to_ns: Option<Nanos>,
    /// Allowed values of stored columns (position among the stored ones) with `Role::Index`: a row must match each.
    pub keys: Vec<(usize, Vec<String>)>,
    /// Which stored columns the caller wants; the others come as `Null`. Empty: all.
    pub wanted: Vec<bool>,
    pub limit: Limit,
}

/// How many rows, and which, when there are more.
#[derive(Clone, Copy, Debug, Default)]
pub enum Limit {
    #[default]
    All,
    Oldest(usize),
    Newest(usize),
}

/// An event as it lies in the store.
#[derive(Debug)]
pub struct EventRow<'a> {
    pub eid: Eid,
    pub time_ns: Nanos,
    /// The stored columns, in the order of the declaration.
    pub cells: &'a [Cell<'a>],
}

/// How a scan ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    pub rows: usize,
    /// Rows that matched were left out because of the limit.
    pub cut: bool,
}

/// Which intervals to read.
#[derive(Clone, Debug, Default)]
pub struct IntervalScan {
    /// Values of the table's key (its first declared column). Empty: all.
    pub keys: Vec<String>,
    /// Only what held at this instant.
    pub as_of: Option<Nanos>,
    /// Bounds on `valid_from_ns`, inclusive.
    pub from_min: Option<Nanos>,
    pub from_max: Option<Nanos>,
    /// Only intervals that are open or end after this (exclusive).
    pub to_after: Option<Nanos>,
    pub wanted: Vec<bool>,
    pub limit: Limit,
}

/// An interval as it lies in the store.
#[derive(Debug)]
pub struct IntervalRow<'a> {
    pub valid_from_ns: Nanos,
    pub valid_to_ns: Option<Nanos>,
    pub ended_reason: &'a str,
    pub evidence: &'a str,
    pub cells: &'a [Cell<'a>],
}

/// A row of `recorder_info`.
#[derive(Clone, Debug, Default)]
pub struct Info {
    pub store_uuid: String,
    pub generation: u32,
    pub db_size: i64,
    /// Time of the oldest event or interval kept.
    pub oldest_ns: Option<Nanos>,
    /// What the recorder wrote about itself: `version`, `pid`, `started_ns`, `config_path`, ….
    pub notes: Vec<(String, String)>,
}

/// Reads the store; several may do so while one recorder writes. Not `Sync`: one for each thread.
#[derive(Debug)]
pub struct Reader {}

impl Reader {
    /// Opens `dir/history.db` to read. A directory without one is an empty store, not an error.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let _ = dir;
        Ok(Self {})
    }

    /// Visits the events of a table in the order of their eids, in one short transaction.
    pub fn events(
        &self,
        table: &TableSchema,
        scan: &EventScan,
        visit: &mut dyn FnMut(&EventRow<'_>) -> ControlFlow<()>,
    ) -> Result<Scanned, StoreError> {
        let _ = (table, scan, visit);
        Ok(Scanned::default())
    }

    /// The eid of the `count`th event of a table after `after` (of the last one, if there are fewer); `None`: there is none.
    pub fn nth_after(&self, table: &TableSchema, after: Option<Eid>, count: usize) -> Result<Option<Eid>, StoreError> {
        let _ = (table, after, count);
        Ok(None)
    }

    /// The newest and the oldest eid of a table.
    pub fn bounds(&self, table: &TableSchema) -> Result<Option<(Eid, Eid)>, StoreError> {
        let _ = table;
        Ok(None)
    }

    /// Visits the intervals of a history, ordered by key and start.
    pub fn intervals(
        &self,
        table: &TableSchema,
        scan: &IntervalScan,
        visit: &mut dyn FnMut(&IntervalRow<'_>) -> ControlFlow<()>,
    ) -> Result<Scanned, StoreError> {
        let _ = (table, scan, visit);
        Ok(Scanned::default())
    }

    /// Gaps, the oldest first; with the one before the oldest record.
    pub fn gaps(&self) -> Result<Vec<Gap>, StoreError> {
        Ok(Vec::new())
    }

    /// The sources as the recorder last wrote them.
    pub fn sources(&self) -> Result<Vec<FeedStatus>, StoreError> {
        Ok(Vec::new())
    }

    pub fn info(&self) -> Result<Info, StoreError> {
        Ok(Info::default())
    }

    /// Where a stream resumes ([`crate::Feed::stream`]).
    pub fn cursor(&self, stream: &str) -> Result<Option<String>, StoreError> {
        let _ = stream;
        Ok(None)
    }
}
