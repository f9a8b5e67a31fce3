//! Answers for the tables about the recorder itself: few rows, made when asked.

use std::{borrow::Cow, ops::ControlFlow, sync::OnceLock};

use mayfly_history::{
    Cell, Column, ColumnSpec, ColumnType, Get, Nanos, Role, TableKind, TableSchema,
    store::{Reader, StoreError},
};

use crate::{
    as_of, parameter,
    query::{Answered, Query, Rows, Table, TableError},
};

/// A table of the recorder's present state over records `R`.
#[expect(missing_debug_implementations, reason = "a declaration is made of functions")]
pub struct Live<R: 'static> {
    pub name: &'static str,
    pub doc: &'static str,
    pub columns: &'static [Column<R>],
    /// All rows there are.
    pub rows: fn(&Reader) -> Result<Vec<R>, StoreError>,
    /// Where the table has an `as_of`: whether a record belongs to that instant.
    pub as_of: Option<fn(&R, Nanos) -> bool>,
    pub examples: &'static [(&'static str, &'static str)],
    pub schema: OnceLock<TableSchema>,
}

impl<R> Live<R> {
    fn describe(&self) -> TableSchema {
        let mut columns: Vec<_> = self.columns.iter().map(|column| ColumnSpec { stored: false, ..column.spec() }).collect();
        if self.as_of.is_some() {
            columns.push(ColumnSpec {
                name: "as_of",
                doc: "`= T`: only what held at T (seconds with or without a fraction, 19 digits of nanoseconds, or RFC 3339).",
                kind: ColumnType::Text,
                role: Role::Parameter,
                hidden: true,
                stored: false,
                joined: None,
            });
        }
        TableSchema { name: self.name, doc: self.doc, kind: TableKind::Live, columns, examples: self.examples }
    }
}

impl<R> Table for Live<R> {
    fn schema(&self) -> &TableSchema {
        self.schema.get_or_init(|| self.describe())
    }

    fn generate(&self, store: &Reader, query: &Query, rows: &mut dyn Rows) -> Result<Answered, TableError> {
        let asked = parameter::values(self.schema(), "as_of", query)?;
        let records = (self.rows)(store)?;
        let mut answer = Answer { columns: self.columns, most: query.max_rows.unwrap_or(usize::MAX), answered: Answered::default(), rows };
        let Some(belongs) = self.as_of else {
            let _ = answer.give(records.iter(), None);
            return Ok(answer.answered);
        };
        if asked.is_empty() {
            let _ = answer.give(records.iter(), Some(Cell::Null));
        }
        for text in asked {
            let instant = as_of::parse(text).map_err(|error| TableError::Parameter(error.to_string()))?;
            if answer.give(records.iter().filter(|record| belongs(record, instant)), Some(Cell::Text(text))).is_break() {
                break;
            }
        }
        Ok(answer.answered)
    }
}

struct Answer<'t, R: 'static> {
    columns: &'static [Column<R>],
    most: usize,
    answered: Answered,
    rows: &'t mut dyn Rows,
}

impl<R> Answer<'_, R> {
    /// Hands out a row for each record, with what is asked for as_of behind it where the table has that column.
    fn give<'r>(&mut self, records: impl Iterator<Item = &'r R>, echo: Option<Cell<'_>>) -> ControlFlow<()> {
        for record in records {
            if self.answered.rows == self.most {
                self.answered.cut = true;
                return ControlFlow::Break(());
            }
            let values: Vec<_> = self.columns.iter().map(|column| Value::of(column, record)).collect();
            let cells: Vec<_> = values.iter().map(Value::cell).chain(echo).collect();
            self.answered.rows += 1;
            self.rows.row(&cells)?;
        }
        ControlFlow::Continue(())
    }
}

/// Holds a cell's text while the row is handed out.
enum Value<'r> {
    Text(Option<Cow<'r, str>>),
    Int(Option<i64>),
}

impl<'r> Value<'r> {
    fn of<R>(column: &Column<R>, record: &'r R) -> Self {
        match column.get {
            Get::Text(get) => Self::Text(get(record)),
            Get::Integer(get) | Get::BigInt(get) => Self::Int(get(record)),
        }
    }

    fn cell(&self) -> Cell<'_> {
        match self {
            Self::Text(Some(text)) => Cell::Text(text),
            Self::Int(Some(int)) => Cell::Int(*int),
            Self::Text(None) | Self::Int(None) => Cell::Null,
        }
    }
}
