//! Tables of what a history says of the present.

use std::sync::OnceLock;

use mayfly_history::{
    Column, ColumnSpec, HistoryTable, Nanos, Role, TableKind, TableSchema,
    store::{IntervalScan, Reader},
};

use crate::query::{Answered, Query, Rows, Table, TableError};

/// The facts of a history that hold now, without the columns of time.
pub(crate) struct Current<S: 'static> {
    pub(crate) name: &'static str,
    pub(crate) doc: &'static str,
    pub(crate) history: &'static HistoryTable<S>,
    pub(crate) examples: &'static [(&'static str, &'static str)],
    pub(crate) schema: OnceLock<TableSchema>,
}

impl<S> Table for Current<S> {
    fn schema(&self) -> &TableSchema {
        self.schema.get_or_init(|| {
            let columns =
                self.history.columns.iter().map(Column::spec).map(|column| ColumnSpec { stored: false, role: Role::Plain, ..column });
            TableSchema { name: self.name, doc: self.doc, kind: TableKind::Live, columns: columns.collect(), examples: self.examples }
        })
    }

    fn generate(&self, store: &Reader, query: &Query, rows: &mut dyn Rows) -> Result<Answered, TableError> {
        let scan = IntervalScan { to_after: Some(Nanos::MAX - 1), limit: query.limit(), ..IntervalScan::default() };
        let scanned = store.intervals(&self.history.schema(), &scan, &mut |interval| match interval.valid_to_ns {
            None => rows.row(interval.cells),
            Some(_) => std::ops::ControlFlow::Continue(()),
        })?;
        Ok(Answered { rows: scanned.rows, cut: scanned.cut })
    }
}
