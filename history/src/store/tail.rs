//! Reading the tail of an event table: the chunks that are not yet sealed.

use std::{ops::ControlFlow, rc::Rc};

use rusqlite::Row;

use super::{
    chunk::{self, ChunkRow},
    error::StoreError,
    events::Search,
    projection::{Key, Projection},
};
use crate::{cell::Cell, time::Nanos};

/// An event of the tail that is searched for.
pub(super) struct TailRow<'a> {
    pub(super) sequence: i64,
    pub(super) time_ns: Nanos,
    cells: Vec<Cell<'a>>,
    projection: &'a Projection,
}

impl<'a> TailRow<'a> {
    /// The columns that are wanted.
    pub(super) fn cells(&self) -> Vec<Cell<'a>> {
        self.projection.pick(&self.cells)
    }
}

type Visit<'v> = dyn FnMut(&TailRow<'_>) -> ControlFlow<()> + 'v;

impl Search<'_> {
    /// Visits the rows of the tail that are searched for. Returns how many chunks are damaged, and whether the visitor broke off.
    pub(super) fn each_tail_row(&self, newest_first: bool, visit: &mut Visit<'_>) -> Result<(usize, ControlFlow<()>), StoreError> {
        let order = if newest_first { "DESC" } else { "ASC" };
        let sql = format!(
            r#"SELECT layout, data, last_sequence FROM "{}_tail" WHERE last_sequence >= ? AND first_sequence <= ? ORDER BY last_sequence {order}"#,
            self.table.name
        );
        let failed = || StoreError::database("read the tail");
        let mut statement = self.file.conn.prepare_cached(&sql).map_err(failed())?;
        let mut chunks = statement.query([self.first, self.last]).map_err(failed())?;
        let mut known: Option<(i64, Rc<Projection>)> = None;
        let mut damaged = 0;
        while let Some(chunk) = chunks.next().map_err(failed())? {
            let layout = chunk.get(0).map_err(failed())?;
            let projection = match known.take() {
                Some((id, projection)) if id == layout => projection,
                _ => self.projection(layout)?,
            };
            known = Some((layout, Rc::clone(&projection)));
            match self.visit_chunk(chunk, &projection, newest_first, visit).map_err(failed())? {
                Some(ControlFlow::Break(())) => return Ok((damaged, ControlFlow::Break(()))),
                Some(ControlFlow::Continue(())) => {}
                None => {
                    self.note_damage("tail", chunk.get(2).map_err(failed())?);
                    damaged += 1;
                }
            }
        }
        Ok((damaged, ControlFlow::Continue(())))
    }

    /// `None` if the chunk is damaged; the rows before the damage were visited.
    fn visit_chunk(
        &self,
        chunk: &Row<'_>,
        projection: &Projection,
        newest_first: bool,
        visit: &mut Visit<'_>,
    ) -> Result<Option<ControlFlow<()>>, rusqlite::Error> {
        let visited = self.file.inflated(chunk.get_ref(1)?.as_blob()?, |plain| {
            let mut rows: Vec<_> = chunk::rows(plain).collect();
            let sound = rows.last().is_none_or(Result::is_ok);
            if newest_first {
                rows.reverse();
            }
            let mut rows = rows.into_iter().filter_map(Result::ok).filter_map(|row| self.matching_row(row, projection));
            let flow = rows.try_for_each(|row| visit(&row));
            (sound || flow.is_break()).then_some(flow)
        });
        Ok(visited.flatten())
    }

    fn matching_row<'a>(&self, row: ChunkRow<'a>, projection: &'a Projection) -> Option<TailRow<'a>> {
        let time_ns = self.mending.mend(row.sequence, row.time_ns);
        if !(self.first..=self.last).contains(&row.sequence) || !self.in_time(time_ns) {
            return None;
        }
        let cells = projection.decode(None, row.row);
        let cell = |key: &Key| projection.position(key.column).map_or(Cell::Null, |p| cells[p]);
        let matches = self.keys.iter().all(|key| key.matches(cell(key)));
        matches.then_some(TailRow { sequence: row.sequence, time_ns, cells, projection })
    }
}
