//! What a caller asks of a table, and how it answers: constraints in, rows out, no map in between.

use std::ops::ControlFlow;

use mayfly_history::{
    Cell, Eid, TableSchema,
    store::{Reader, StoreError},
};

/// An operator of a constraint, with osquery's (and SQLite's) number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Op {
    Equals = 2,
    GreaterThan = 4,
    LessThanOrEquals = 8,
    LessThan = 16,
    GreaterThanOrEquals = 32,
}

/// One constraint that the planner passed. Only a hint: SQLite checks every row again, except for parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constraint {
    /// Position in the schema's columns.
    pub column: usize,
    pub op: Op,
    /// As text, as osquery hands it over.
    pub value: String,
}

/// A question to one table.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// `=` several times on one column means IN.
    pub constraints: Vec<Constraint>,
    /// Which columns are read, by position; empty where the caller does not say: all.
    pub wanted: Vec<bool>,
    /// Event tables: only `(after, upto]`, the batch that delivery decided on.
    pub after: Option<Eid>,
    pub upto: Option<Eid>,
    /// Most rows of the answer; `None`: no cap. Of more, the newest are given, and [`Table::generate`] says so.
    pub max_rows: Option<usize>,
}

/// Takes the rows of an answer.
pub trait Rows {
    /// One row: a cell for each column of the schema, in order; columns that were not wanted may be `Null`.
    fn row(&mut self, cells: &[Cell<'_>]) -> ControlFlow<()>;
}

/// Why a table has no answer; the text is shown to who asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    #[error("cannot read the store")]
    Store(#[from] StoreError),
    /// `as_of` or `consumer` is used but no value arrived: says which form works.
    #[error("{0}")]
    Parameter(String),
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answered {
    pub rows: usize,
    /// There was more than `max_rows`.
    pub cut: bool,
}

/// A table that can be asked.
pub trait Table: Sync {
    fn schema(&self) -> &'static TableSchema;

    /// Answers `query` from the store. Rows may be a superset of what the constraints say.
    fn generate(&self, store: &Reader, query: &Query, rows: &mut dyn Rows) -> Result<Answered, TableError>;
}
