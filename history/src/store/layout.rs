//! Which columns a stored row has: kept beside the rows, so that they stay readable when a table gains a column.

use std::{cell::RefCell, collections::HashMap, sync::Arc};

use rusqlite::{Connection, OptionalExtension};

use super::error::StoreError;
use crate::{cell::ColumnType, table::TableSchema};

/// Names and types of a row's cells, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout(Vec<(String, String)>);

impl Layout {
    pub(super) fn of(table: &TableSchema) -> Self {
        Self(table.stored().map(|c| (c.name.to_owned(), c.kind.as_str().to_owned())).collect())
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// For each stored column of `table` the position in a row of this layout; `None` where the row is older than the
    /// column, or the column had another type.
    pub(super) fn project(&self, table: &TableSchema) -> Vec<Option<usize>> {
        let find = |name: &str, kind: &str| self.0.iter().position(|(n, k)| n == name && k == kind);
        table.stored().map(|c| find(c.name, c.kind.as_str())).collect()
    }

    /// The id of this layout, which is stored first if it is new.
    pub(super) fn register(&self, conn: &Connection) -> Result<i64, rusqlite::Error> {
        let text = serde_json::to_string(&self.0).map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))?;
        if let Some(id) = conn.query_row("SELECT id FROM layouts WHERE columns = ?", [&text], |r| r.get(0)).optional()? {
            return Ok(id);
        }
        conn.query_row("INSERT INTO layouts (columns) VALUES (?) RETURNING id", [&text], |r| r.get(0))
    }

    fn load(conn: &Connection, id: i64) -> Result<Self, StoreError> {
        let text: String = conn
            .query_row("SELECT columns FROM layouts WHERE id = ?", [id], |r| r.get(0))
            .map_err(StoreError::database("read a layout"))?;
        let columns = serde_json::from_str(&text)
            .map_err(|_| StoreError::Decode { what: format!("layout {id}"), why: "it is not a list of names and types" })?;
        Ok(Self(columns))
    }
}

/// The layouts of a file, each read once.
#[derive(Debug, Default)]
pub(super) struct Layouts(RefCell<HashMap<i64, Arc<Layout>>>);

impl Layouts {
    pub(super) fn get(&self, conn: &Connection, id: i64) -> Result<Arc<Layout>, StoreError> {
        if let Some(known) = self.0.borrow().get(&id) {
            return Ok(Arc::clone(known));
        }
        let layout = Arc::new(Layout::load(conn, id)?);
        self.0.borrow_mut().insert(id, Arc::clone(&layout));
        Ok(layout)
    }
}

/// Whether the column's values are numbers.
pub(super) const fn is_number(kind: ColumnType) -> bool {
    !matches!(kind, ColumnType::Text)
}
