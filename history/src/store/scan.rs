//! What readers ask for and what they get.

use crate::{cell::Cell, eid::Eid, time::Nanos};

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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
    /// Blocks and chunks that are damaged and were stepped over.
    pub damaged: usize,
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
    /// Which stored columns the caller wants; the others come as `Null`. Empty: all.
    pub wanted: Vec<bool>,
    /// The newest are those that began last.
    pub limit: Limit,
}

/// An interval as it lies in the store.
#[derive(Debug)]
pub struct IntervalRow<'a> {
    /// What it is found by, as it is stored: the first column that the table had when the row was written.
    pub key: &'a str,
    /// What tells it from others of the same key.
    pub scope: &'a str,
    pub valid_from_ns: Nanos,
    pub valid_to_ns: Option<Nanos>,
    pub ended_reason: &'a str,
    pub evidence: &'a str,
    /// The stored columns, in the order of the declaration.
    pub cells: &'a [Cell<'a>],
}

/// A row of `recorder_info`.
#[derive(Clone, Debug, Default)]
pub struct Info {
    pub store_uuid: String,
    pub generation: u32,
    /// Bytes on disk, the write-ahead log included.
    pub db_size: i64,
    /// Time of the oldest event or interval kept.
    pub oldest_ns: Option<Nanos>,
    /// When a recorder was last alive.
    pub alive_ns: Option<Nanos>,
    /// What the recorder wrote about itself: `version`, `pid`, `started_ns`, `config_path`, …; the store adds `integrity`.
    pub notes: Vec<(String, String)>,
}
