//! One row's cells as bytes: as they lie in the tail of an event table, and in an interval.

use super::wire::put_cell;
use crate::{cell::Cell, table::Column};

/// One row's stored cells in the store's own bytes. Made to be used again: its memory stays.
#[derive(Clone, Debug, Default)]
pub struct RowBuf {
    bytes: Vec<u8>,
    /// Where the second cell begins: an interval keeps its first one, the key, only in the index.
    second: usize,
}

impl RowBuf {
    /// Replaces the content by the stored columns of `record`, in the order of the declaration.
    pub fn encode<R>(&mut self, columns: &[Column<R>], record: &R) {
        self.clear();
        for column in columns.iter().filter(|c| c.joined.is_none()) {
            column.visit(record, &mut |cell| self.push(cell));
        }
    }

    /// Empties the row, to [`RowBuf::push`] cells into it.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.second = 0;
    }

    /// Adds the next stored column's value, for tables that are not declared over a record.
    pub fn push(&mut self, cell: Cell<'_>) {
        put_cell(&mut self.bytes, cell);
        if self.second == 0 {
            self.second = self.bytes.len();
        }
    }

    /// Bytes that it has.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether no cell was pushed.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn after_key(&self) -> &[u8] {
        &self.bytes[self.second..]
    }
}
