//! What a caller asks of a table, and how it answers: constraints in, rows out, no map in between.

use std::{ops::ControlFlow, path::Path};

use mayfly_history::{
    Cell, Eid, TableSchema, captures,
    recorder::Declarations,
    store::{Limit, Reader, StoreError},
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

impl Query {
    /// Whether the cells of a column are read.
    pub fn wants(&self, column: usize) -> bool {
        self.wanted.get(column).copied().unwrap_or(true)
    }

    /// The constraints on a column.
    pub(crate) fn on(&self, column: usize) -> impl Iterator<Item = &Constraint> {
        self.constraints.iter().filter(move |c| c.column == column)
    }

    /// The values of `=` on a column, each once.
    pub(crate) fn equals(&self, column: usize) -> Vec<&str> {
        let mut values: Vec<&str> = Vec::new();
        for constraint in self.on(column).filter(|c| c.op == Op::Equals) {
            if !values.contains(&constraint.value.as_str()) {
                values.push(&constraint.value);
            }
        }
        values
    }

    /// Of the wanted columns, those that are stored; empty means all.
    pub(crate) fn wanted_stored(&self, schema: &TableSchema) -> Vec<bool> {
        if self.wanted.is_empty() {
            return Vec::new();
        }
        schema.columns.iter().enumerate().filter(|(_, c)| c.stored).map(|(i, _)| self.wants(i)).collect()
    }

    pub(crate) fn limit(&self) -> Limit {
        self.max_rows.map_or(Limit::All, Limit::Newest)
    }
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

/// The store that a table is read from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Home {
    /// The recorder's, in the state directory itself.
    #[default]
    Recorder,
    /// What osquery told the extension, see [`captures`].
    Captures,
}

impl Home {
    /// Opens the store to read. The recorder's shows gaps and sources of both.
    ///
    /// # Errors
    /// When the store is there but cannot be read.
    pub fn open(self, state_dir: &Path) -> Result<Reader, StoreError> {
        let captures = captures::folder(state_dir);
        match self {
            Self::Recorder => Ok(Reader::open(state_dir)?.beside(captures)),
            Self::Captures => Reader::open(&captures),
        }
    }
}

/// A table that can be asked.
pub trait Table: Sync {
    fn schema(&self) -> &TableSchema;

    /// Where its rows are.
    fn home(&self) -> Home {
        Home::Recorder
    }

    /// Tells the recorder what it has to write for this table, where that is not a reducer's.
    fn declare(&self, _declarations: &mut Declarations) {}

    /// Answers `query` from the store. Rows may be a superset of what the constraints say.
    fn generate(&self, store: &Reader, query: &Query, rows: &mut dyn Rows) -> Result<Answered, TableError>;
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_store_of_captures_that_is_damaged_takes_nothing_from_the_recorders() {
        let dir = tempfile::TempDir::new().unwrap();
        let captures = captures::folder(dir.path());
        fs::create_dir(&captures).unwrap();
        fs::write(captures.join("history.db"), "no database at all, but long enough to be read as the head of one".repeat(100)).unwrap();
        assert!(Home::Captures.open(dir.path()).is_err());
        let recorder = Home::Recorder.open(dir.path()).unwrap();
        assert!(recorder.gaps().unwrap().is_empty());
        let sources = recorder.sources().unwrap();
        assert_eq!((sources[0].source.as_str(), sources[0].state.as_str()), ("tables", "failed"));
        assert!(sources[0].last_error.contains("cannot open"), "{:?}", sources[0]);
    }
}
