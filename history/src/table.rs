//! Declarations of tables: a column is a name, a typed accessor and a sentence, so that they cannot drift apart.

use std::{borrow::Cow, fmt};

use crate::cell::{Cell, ColumnType, MAX_CELL};

/// How a column gets its value from a record. The variant is the SQL type.
#[expect(missing_debug_implementations, reason = "made of functions")]
pub enum Get<R: 'static> {
    Text(for<'r> fn(&'r R) -> Option<Cow<'r, str>>),
    Integer(fn(&R) -> Option<i64>),
    BigInt(fn(&R) -> Option<i64>),
}

/// What a column is to osquery's planner (OSQUERY's `op` bits; see [`ColumnSpec::op`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A plain value: SQLite filters it.
    Plain,
    /// A join key: constraints on it reach the store, which finds its rows without a scan.
    Index,
    /// A time: constraints narrow the scan.
    Time,
    /// The event id: carried, never a constraint that the planner weighs.
    Eid,
    /// Not stored: the caller sets it with `=`, and every row echoes it.
    Parameter,
}

/// One declared column of a record `R`.
#[expect(missing_debug_implementations, reason = "made of functions")]
pub struct Column<R: 'static> {
    pub name: &'static str,
    pub doc: &'static str,
    pub get: Get<R>,
    pub role: Role,
    pub hidden: bool,
    /// The column of `container_history` that it is filled from when it is read; such a column is not stored.
    pub joined: Option<&'static str>,
}

/// Declares a TEXT column.
pub const fn text<R>(name: &'static str, get: for<'r> fn(&'r R) -> Option<Cow<'r, str>>, doc: &'static str) -> Column<R> {
    Column { name, doc, get: Get::Text(get), role: Role::Plain, hidden: false, joined: None }
}

/// Declares an INTEGER column (32 bits in osquery).
pub const fn integer<R>(name: &'static str, get: fn(&R) -> Option<i64>, doc: &'static str) -> Column<R> {
    Column { name, doc, get: Get::Integer(get), role: Role::Plain, hidden: false, joined: None }
}

/// Declares a BIGINT column.
pub const fn bigint<R>(name: &'static str, get: fn(&R) -> Option<i64>, doc: &'static str) -> Column<R> {
    Column { name, doc, get: Get::BigInt(get), role: Role::Plain, hidden: false, joined: None }
}

impl<R> Column<R> {
    /// Makes the column a join key.
    pub const fn index(mut self) -> Self {
        self.role = Role::Index;
        self
    }

    /// Takes that back: a history is found by its first column alone.
    pub const fn plain(mut self) -> Self {
        self.role = Role::Plain;
        self
    }

    /// Fills the column, when it is read, from that column of `container_history`, as the record's container was at the record's time:
    /// so that what became known of it later shows too. The table has the columns `container_id`, `runtime_namespace` and `endpoint`.
    pub const fn joined(mut self, column: &'static str) -> Self {
        self.joined = Some(column);
        self
    }

    /// Leaves the column out of `SELECT *`.
    pub const fn hidden(mut self) -> Self {
        self.hidden = true;
        self
    }

    /// The column without its accessor.
    pub fn spec(&self) -> ColumnSpec {
        let kind = match self.get {
            Get::Text(_) => ColumnType::Text,
            Get::Integer(_) => ColumnType::Integer,
            Get::BigInt(_) => ColumnType::BigInt,
        };
        ColumnSpec {
            name: self.name,
            doc: self.doc,
            kind,
            role: self.role,
            hidden: self.hidden,
            stored: self.joined.is_none(),
            joined: self.joined,
        }
    }

    /// Hands the column's value of `record` to `take`.
    pub fn visit(&self, record: &R, take: &mut dyn FnMut(Cell<'_>)) {
        match self.get {
            Get::Text(get) => match get(record) {
                Some(value) => take(Cell::Text(&cut(&value))),
                None => take(Cell::Null),
            },
            Get::Integer(get) | Get::BigInt(get) => take(get(record).map_or(Cell::Null, Cell::Int)),
        }
    }
}

/// Cuts a text to [`MAX_CELL`] at a character, and says so with `…`.
pub(crate) fn cut(text: &str) -> Cow<'_, str> {
    if text.len() <= MAX_CELL {
        return Cow::Borrowed(text);
    }
    let mut end = MAX_CELL - '…'.len_utf8();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Cow::Owned(format!("{}…", &text[..end]))
}

/// A column as everything but the recorder sees it: without its record.
#[derive(Clone, Debug)]
pub struct ColumnSpec {
    pub name: &'static str,
    pub doc: &'static str,
    pub kind: ColumnType,
    pub role: Role,
    pub hidden: bool,
    /// Declared by the table and kept in the row's bytes; the others (`time`, `eid`, `as_of`, …) come with the kind, or are joined.
    pub stored: bool,
    /// The column of `container_history` that it is filled from when it is read.
    pub joined: Option<&'static str>,
}

impl ColumnSpec {
    pub(crate) const fn own(name: &'static str, kind: ColumnType, role: Role, hidden: bool, doc: &'static str) -> Self {
        Self { name, doc, kind, role, hidden, stored: false, joined: None }
    }

    /// The columns H, which end every history table.
    pub fn of_history() -> [Self; 8] {
        use ColumnType::{BigInt, Integer, Text};
        [
            Self::own("valid_from", BigInt, Role::Time, false, "Start of the interval, UNIX seconds."),
            Self::own("valid_to", BigInt, Role::Time, false, "End of the interval (exclusive), UNIX seconds; NULL while it holds."),
            Self::own("valid_from_ns", BigInt, Role::Time, false, "Start in nanoseconds."),
            Self::own("valid_to_ns", BigInt, Role::Time, false, "End (exclusive) in nanoseconds; NULL while it holds."),
            Self::own(
                "ended_reason",
                Text,
                Role::Plain,
                false,
                "Why the interval ended; empty while it holds. `unknown`: nobody saw it end, and `valid_to` is when that was noticed.",
            ),
            Self::own(
                "evidence",
                Text,
                Role::Plain,
                false,
                "Who saw it: sources, comma-separated, sorted. `startup`: it was there when recording began; when it came is not known.",
            ),
            Self::own(
                "complete",
                Integer,
                Role::Plain,
                false,
                "0 where the sources were blind at `as_of`, or at an end of the interval; else 1.",
            ),
            Self::own(
                "as_of",
                Text,
                Role::Parameter,
                true,
                "`= T`: only what held at T (seconds with or without a fraction, 19 digits of nanoseconds, or RFC 3339).",
            ),
        ]
    }

    /// osquery's column options: INDEX 1, ADDITIONAL 4, OPTIMIZED 8, HIDDEN 16. Never 0, which core turns into INDEX.
    pub const fn op(&self) -> u32 {
        let role = match self.role {
            Role::Plain => 8,
            Role::Index => 1 | 8,
            Role::Time => 4,
            Role::Eid => 16,
            Role::Parameter => 4 | 16,
        };
        if self.hidden { role | 16 } else { role }
    }
}

/// What a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableKind {
    /// Append-only, `time`, `time_ns`, `eid` and `consumer` in front. EVENT_BASED to osquery.
    Events,
    /// Closed-open intervals, the H columns behind.
    History,
    /// The recorder's own present state.
    Live,
}

/// A table without its record: what the store, osquery, the shell and the documentation need.
#[derive(Clone, Debug)]
pub struct TableSchema {
    pub name: &'static str,
    pub doc: &'static str,
    pub kind: TableKind,
    /// All columns, in the order of `SELECT *`.
    pub columns: Vec<ColumnSpec>,
    /// Queries that show the table at work: a sentence and the SQL.
    pub examples: &'static [(&'static str, &'static str)],
}

impl TableSchema {
    /// The columns that are kept in a row's bytes, in order.
    pub fn stored(&self) -> impl Iterator<Item = &ColumnSpec> {
        self.columns.iter().filter(|c| c.stored)
    }

    /// Position of a column in `SELECT *` order.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name == name)
    }
}

/// A declared event table over records `E`.
pub struct EventTable<E: 'static> {
    pub name: &'static str,
    pub doc: &'static str,
    pub columns: &'static [Column<E>],
    pub examples: &'static [(&'static str, &'static str)],
}

impl<E> fmt::Debug for EventTable<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EventTable").field(&self.name).finish()
    }
}

impl<E> EventTable<E> {
    /// The columns E of every event table, then the declared ones.
    pub fn schema(&self) -> TableSchema {
        use ColumnType::{BigInt, Text};
        let mut columns = vec![
            ColumnSpec::own("time", BigInt, Role::Time, false, "When it happened, UNIX seconds (UTC)."),
            ColumnSpec::own("time_ns", BigInt, Role::Time, false, "The same in nanoseconds."),
            ColumnSpec::own("eid", Text, Role::Eid, true, "Event id: 20 digits whose order is that of recording."),
            ColumnSpec::own(
                "consumer",
                Text,
                Role::Parameter,
                true,
                "`= '*'`: all events, no cursor. `= 'NAME'`: what NAME has not acknowledged. `= 'NAME@EID'`: acknowledge EID, then read on.",
            ),
        ];
        columns.extend(self.columns.iter().map(Column::spec));
        TableSchema { name: self.name, doc: self.doc, kind: TableKind::Events, columns, examples: self.examples }
    }
}

/// A declared history table over states `S`. Its first declared column is the key that intervals are found by.
pub struct HistoryTable<S: 'static> {
    pub name: &'static str,
    pub doc: &'static str,
    pub columns: &'static [Column<S>],
    /// The sources (as in `recorder_gaps.source`) whose blindness makes an interval incomplete.
    pub witnesses: &'static [&'static str],
    pub examples: &'static [(&'static str, &'static str)],
}

impl<S> fmt::Debug for HistoryTable<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HistoryTable").field(&self.name).finish()
    }
}

impl<S> HistoryTable<S> {
    /// The declared columns, then the columns H of every history table.
    pub fn schema(&self) -> TableSchema {
        let columns = self.columns.iter().map(Column::spec).chain(ColumnSpec::of_history()).collect();
        TableSchema { name: self.name, doc: self.doc, kind: TableKind::History, columns, examples: self.examples }
    }
}
