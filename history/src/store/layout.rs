//! Which columns a stored row has: kept beside the rows, so that they stay readable when a table gains a column.

use std::{
    cell::RefCell,
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use rusqlite::{Connection, OptionalExtension};
use zstd::bulk::Decompressor;

use super::{error::StoreError, frame::inflate, open::FILE, wire::Malformed};
use crate::{cell::ColumnType, table::TableSchema};

/// Names and types of a row's cells, in order, and the dictionary that rows are compressed by, if there is one.
pub(super) struct Layout {
    columns: Vec<(String, String)>,
    decompressor: Mutex<Decompressor<'static>>,
}

impl std::fmt::Debug for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Layout").field("columns", &self.columns).finish_non_exhaustive()
    }
}

/// A layout as the writer uses it.
#[derive(Debug)]
pub(super) struct Registered {
    pub(super) id: i64,
    /// Number of columns.
    pub(super) width: usize,
    pub(super) dictionary: Option<Vec<u8>>,
}

/// The stored columns of a table as they are kept.
fn spell(table: &TableSchema) -> String {
    let columns: Vec<_> = table.stored().map(|c| (c.name, c.kind.as_str())).collect();
    serde_json::json!(columns).to_string()
}

/// The newest layout of `table` with the columns that it has now; stored first if there is none.
pub(super) fn register(conn: &Connection, table: &TableSchema) -> Result<Registered, rusqlite::Error> {
    let (columns, width) = (spell(table), table.stored().count());
    let find = "SELECT id, dictionary FROM layouts WHERE name = ? AND columns = ? ORDER BY id DESC LIMIT 1";
    let found =
        conn.query_row(find, [table.name, &columns], |r| Ok(Registered { id: r.get(0)?, width, dictionary: r.get(1)? })).optional()?;
    if let Some(found) = found {
        return Ok(found);
    }
    let insert = "INSERT INTO layouts (name, columns) VALUES (?, ?) RETURNING id";
    conn.query_row(insert, [table.name, &columns], |r| Ok(Registered { id: r.get(0)?, width, dictionary: None }))
}

/// Stores a layout like `id` but with a dictionary; returns its id.
pub(super) fn register_dictionary(conn: &Connection, id: i64, dictionary: &[u8]) -> Result<i64, rusqlite::Error> {
    let sql = "INSERT INTO layouts (name, columns, dictionary) SELECT name, columns, ? FROM layouts WHERE id = ? RETURNING id";
    conn.query_row(sql, (dictionary, id), |r| r.get(0))
}

impl Layout {
    pub(super) fn len(&self) -> usize {
        self.columns.len()
    }

    /// Whether the first cell, which an interval has as its key, is a number.
    pub(super) fn key_is_number(&self) -> bool {
        self.columns.first().and_then(|(_, kind)| ColumnType::parse(kind)).is_some_and(ColumnType::is_int)
    }

    /// For each stored column of `table` the position in a row of this layout; `None` where the row is older than the
    /// column, or the column had another type.
    pub(super) fn project(&self, table: &TableSchema) -> Vec<Option<usize>> {
        let find = |name: &str, kind: &str| self.columns.iter().position(|(n, k)| n == name && k == kind);
        table.stored().map(|c| find(c.name, c.kind.as_str())).collect()
    }

    /// Puts the plain bytes of a row that was compressed by this layout's dictionary into `plain`.
    pub(super) fn inflate(&self, row: &[u8], plain: &mut Vec<u8>) -> Result<(), Malformed> {
        inflate(row, &mut self.decompressor.lock().unwrap_or_else(PoisonError::into_inner), plain)
    }

    fn load(conn: &Connection, id: i64) -> Result<Self, StoreError> {
        let (text, dictionary): (String, Option<Vec<u8>>) = conn
            .query_row("SELECT columns, dictionary FROM layouts WHERE id = ?", [id], |r| Ok((r.get(0)?, r.get(1)?)))
            .map_err(StoreError::database("read a layout"))?;
        let columns = serde_json::from_str(&text)
            .map_err(|_| StoreError::Decode { what: format!("layout {id}"), why: "it is not a list of names and types" })?;
        let decompressor = dictionary.map_or_else(Decompressor::new, |bytes| Decompressor::with_dictionary(&bytes));
        let decompressor = decompressor.map_err(StoreError::file("prepare to read rows of", FILE))?;
        Ok(Self { columns, decompressor: Mutex::new(decompressor) })
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
