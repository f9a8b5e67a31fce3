//! Reading events: blocks, then the tail, in the order of their sequence numbers.

use std::{ops::ControlFlow, rc::Rc};

use rusqlite::OptionalExtension;

use super::{
    block::{Block, BlockColumn},
    clock::Mending,
    damage::Place,
    error::StoreError,
    filter,
    generation::Generations,
    projection::{Key, Projection},
    reader::OpenFile,
    scan::{EventRow, EventScan, Limit, Scanned},
    wire::Malformed,
};
use crate::{cell::Cell, eid::Eid, table::TableSchema, time::Nanos};

type Visit<'v> = dyn FnMut(&EventRow<'_>) -> ControlFlow<()> + 'v;

/// A scan, worked out against one file.
pub(super) struct Search<'s> {
    pub(super) file: &'s OpenFile,
    pub(super) table: &'s TableSchema,
    generations: Generations,
    pub(super) mending: Mending,
    /// First and last sequence number.
    pub(super) first: i64,
    pub(super) last: i64,
    from_ns: Nanos,
    to_ns: Nanos,
    pub(super) keys: Vec<Key>,
    wanted: &'s [bool],
}

/// A block that may have rows that are searched for.
struct Candidate {
    last: i64,
    first: i64,
    rows: usize,
    layout: i64,
}

/// Counts and hands on what was found.
struct Found<'v> {
    visit: &'v mut Visit<'v>,
    most: usize,
    scanned: Scanned,
}

impl Found<'_> {
    fn row(&mut self, row: &EventRow<'_>) -> ControlFlow<()> {
        if self.scanned.rows == self.most {
            self.scanned.cut = true;
            return ControlFlow::Break(());
        }
        self.scanned.rows += 1;
        (self.visit)(row)
    }
}

pub(super) fn scan(file: &OpenFile, table: &TableSchema, scan: &EventScan, visit: &mut Visit<'_>) -> Result<Scanned, StoreError> {
    let mut search = Search::new(file, table, scan)?;
    let mut found = Found { visit: &mut |row| visit(row), most: usize::MAX, scanned: Scanned::default() };
    match scan.limit {
        Limit::All => {}
        Limit::Oldest(n) => found.most = n,
        // Newer rows are counted from the end first; then the scan begins where they begin.
        Limit::Newest(n) => {
            if let Some(first) = search.newest(n)? {
                found.scanned.cut = true;
                search.first = first;
            }
        }
    }
    search.run(&mut found)?;
    Ok(found.scanned)
}

impl<'s> Search<'s> {
    fn new(file: &'s OpenFile, table: &'s TableSchema, scan: &'s EventScan) -> Result<Self, StoreError> {
        let generations = Generations::load(&file.conn).map_err(StoreError::database("read the generations"))?;
        let mending = Mending::load(&file.conn).map_err(StoreError::database("read the clocks"))?;
        Ok(Self {
            first: scan.after.map_or(0, |after| generations.sequence(after)).saturating_add(1),
            last: scan.upto.map_or(i64::MAX, |upto| generations.sequence(upto)),
            from_ns: scan.from_ns.unwrap_or(Nanos::MIN),
            to_ns: scan.to_ns.unwrap_or(Nanos::MAX),
            keys: scan.keys.iter().map(|(column, values)| Key::new(table, *column, values)).collect(),
            wanted: &scan.wanted,
            file,
            table,
            generations,
            mending,
        })
    }

    fn run(&self, found: &mut Found<'_>) -> Result<(), StoreError> {
        for candidate in self.candidates(false)? {
            match self.open(&candidate, |block, projection| self.visit_block(block, projection, found))? {
                Some(ControlFlow::Break(())) => return Ok(()),
                Some(ControlFlow::Continue(())) => {}
                None => found.scanned.damaged += 1,
            }
        }
        let (damaged, _) = self.each_tail_row(false, &mut |row| {
            found.row(&EventRow { eid: self.generations.eid(row.sequence), time_ns: row.time_ns, cells: &row.cells() })
        })?;
        found.scanned.damaged += damaged;
        Ok(())
    }

    /// The sequence number with which the newest `n` begin; `None` if there are no more than that.
    fn newest(&self, n: usize) -> Result<Option<i64>, StoreError> {
        let mut left = n;
        let mut first = i64::MAX;
        let (_, end) = self.each_tail_row(true, &mut |row| {
            if left == 0 {
                return ControlFlow::Break(());
            }
            left -= 1;
            first = row.sequence;
            ControlFlow::Continue(())
        })?;
        if end.is_break() {
            return Ok(Some(first));
        }
        for candidate in self.candidates(true)? {
            if self.takes_all_of(&candidate) && candidate.rows <= left {
                left -= candidate.rows;
                first = candidate.first;
                continue;
            }
            let matching = self.open(&candidate, |block, projection| {
                let sequences = block.sequences()?;
                Ok(self.matching(block, projection, &sequences)?.into_iter().map(|row| sequences[row]).collect::<Vec<_>>())
            })?;
            let matching = matching.unwrap_or_default();
            if matching.len() > left {
                return Ok(Some(if left == 0 { first } else { matching[matching.len() - left] }));
            }
            left -= matching.len();
            first = matching.first().copied().unwrap_or(first);
        }
        Ok(None)
    }

    fn takes_all_of(&self, candidate: &Candidate) -> bool {
        let any_time = self.from_ns == Nanos::MIN && self.to_ns == Nanos::MAX;
        any_time && self.keys.is_empty() && candidate.first >= self.first && candidate.last <= self.last
    }

    /// The blocks whose ranges and filters do not rule them out.
    fn candidates(&self, newest_first: bool) -> Result<Vec<Candidate>, StoreError> {
        let order = if newest_first { "DESC" } else { "ASC" };
        let filters = if self.keys.is_empty() { "NULL" } else { "filters" };
        let sql = format!(
            r#"SELECT last_sequence, first_sequence, rows, layout, min_time_ns, max_time_ns, {filters} FROM "{}_blocks"
            WHERE last_sequence >= ? AND first_sequence <= ? ORDER BY last_sequence {order}"#,
            self.table.name
        );
        let read = || {
            let mut statement = self.file.conn.prepare_cached(&sql)?;
            let mut rows = statement.query([self.first, self.last])?;
            let mut candidates = Vec::new();
            while let Some(row) = rows.next()? {
                let (min_ns, max_ns): (Nanos, Nanos) = (row.get(4)?, row.get(5)?);
                let in_time = min_ns <= self.to_ns && self.mending.widen(min_ns, max_ns) >= self.from_ns;
                if in_time && self.may_contain(row.get_ref(6)?.as_blob_or_null()?.unwrap_or_default(), row.get(3)?) {
                    let rows: i64 = row.get(2)?;
                    let rows = usize::try_from(rows).unwrap_or(usize::MAX);
                    candidates.push(Candidate { last: row.get(0)?, first: row.get(1)?, rows, layout: row.get(3)? });
                }
            }
            Ok(candidates)
        };
        read().map_err(StoreError::database("look for blocks"))
    }

    fn may_contain(&self, filters: &[u8], layout: i64) -> bool {
        let Ok(layout) = self.file.layouts.get(&self.file.conn, layout) else { return true };
        let positions = layout.project(self.table);
        // A damaged filter rules nothing out.
        self.keys.iter().all(|key| match positions.get(key.column).copied().flatten() {
            Some(position) => filter::may_contain(filters, position, &key.hashes).unwrap_or(true),
            None => key.matches(Cell::Null),
        })
    }

    /// Hands a block to `read`; `None` if it is damaged.
    fn open<T>(
        &self,
        candidate: &Candidate,
        read: impl FnOnce(&Block<'_>, &Projection) -> Result<T, Malformed>,
    ) -> Result<Option<T>, StoreError> {
        let projection = self.projection(candidate.layout)?;
        let sql = format!(r#"SELECT data FROM "{}_blocks" WHERE last_sequence = ?"#, self.table.name);
        let read = |data: &[u8]| self.file.inflated(data, |plain| Block::parse(plain).and_then(|block| read(&block, &projection)));
        let result = || {
            let mut statement = self.file.conn.prepare_cached(&sql)?;
            let mut rows = statement.query([candidate.last])?;
            Ok(match rows.next()? {
                Some(row) => read(row.get_ref(0)?.as_blob()?),
                None => None,
            })
        };
        let result = result().map_err(StoreError::database("read a block"))?;
        let read = result.and_then(|parsed| {
            parsed.inspect_err(|why| tracing::error!(table = self.table.name, block = candidate.last, why, "a block is damaged")).ok()
        });
        if read.is_none() {
            self.note_damage("blocks", candidate.last);
        }
        Ok(read)
    }

    /// Some events of the table cannot be read.
    pub(super) fn note_damage(&self, part: &'static str, last_sequence: i64) {
        self.file.note_damage(Place { part, table: self.table.name.into(), last_sequence });
    }

    pub(super) fn projection(&self, layout: i64) -> Result<Rc<Projection>, StoreError> {
        let layout = self.file.layouts.get(&self.file.conn, layout)?;
        Ok(Rc::new(Projection::new(&layout, self.table, self.wanted, &self.keys)))
    }

    pub(super) fn in_time(&self, time_ns: Nanos) -> bool {
        (self.from_ns..=self.to_ns).contains(&time_ns)
    }

    /// The rows of a block that are searched for.
    fn matching(&self, block: &Block<'_>, projection: &Projection, sequences: &[i64]) -> Result<Vec<usize>, Malformed> {
        let times = block.times()?;
        let mut allowed: Vec<(BlockColumn<'_>, Vec<bool>)> = Vec::new();
        for key in &self.keys {
            let column = match projection.position(key.column) {
                Some(position) => block.column(position)?,
                None => BlockColumn::default(),
            };
            let matches = if column.dictionary.is_empty() {
                vec![key.matches(Cell::Null)]
            } else {
                column.dictionary.iter().map(|cell| key.matches(*cell)).collect()
            };
            allowed.push((column, matches));
        }
        let matches = |row: &usize| {
            (self.first..=self.last).contains(&sequences[*row])
                && self.in_time(self.mending.mend(sequences[*row], times[*row]))
                && allowed.iter().all(|(column, matches)| matches[column.entry(*row)])
        };
        Ok((0..sequences.len()).filter(matches).collect())
    }

    fn visit_block(&self, block: &Block<'_>, projection: &Projection, found: &mut Found<'_>) -> Result<ControlFlow<()>, Malformed> {
        let sequences = block.sequences()?;
        let matching = self.matching(block, projection, &sequences)?;
        if matching.is_empty() {
            return Ok(ControlFlow::Continue(()));
        }
        let times = block.times()?;
        let columns: Vec<BlockColumn<'_>> = projection
            .wanted()
            .map(|position| position.map_or(Ok(BlockColumn::default()), |p| block.column(p)))
            .collect::<Result<_, _>>()?;
        let mut cells = vec![Cell::Null; columns.len()];
        for row in matching {
            for (cell, column) in cells.iter_mut().zip(&columns) {
                *cell = column.cell(row);
            }
            let time_ns = self.mending.mend(sequences[row], times[row]);
            if found.row(&EventRow { eid: self.generations.eid(sequences[row]), time_ns, cells: &cells }).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

pub(super) fn nth_after(file: &OpenFile, table: &TableSchema, after: Option<Eid>, count: usize) -> Result<Option<Eid>, StoreError> {
    let scan = EventScan { after, wanted: vec![false; table.stored().count()], ..EventScan::default() };
    let search = Search::new(file, table, &scan)?;
    let mut left = count;
    let mut last = None;
    for candidate in search.candidates(false)? {
        if search.takes_all_of(&candidate) && candidate.rows < left {
            left -= candidate.rows;
            last = Some(candidate.last);
            continue;
        }
        let sequences = search.open(&candidate, |block, _| block.sequences())?.unwrap_or_default();
        for sequence in sequences.into_iter().filter(|s| *s >= search.first).take(left) {
            left -= 1;
            last = Some(sequence);
        }
        if left == 0 {
            break;
        }
    }
    if left > 0 {
        let _ = search.each_tail_row(false, &mut |row| {
            last = Some(row.sequence);
            left -= 1;
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
    }
    Ok(last.map(|sequence| search.generations.eid(sequence)))
}

pub(super) fn bounds(file: &OpenFile, table: &TableSchema) -> Result<Option<(Eid, Eid)>, StoreError> {
    let name = table.name;
    let end = |sql: String| file.conn.prepare_cached(&sql)?.query_row([], |r| r.get::<_, i64>(0)).optional();
    let read = || {
        let newest = end(format!(r#"SELECT last_sequence FROM "{name}_tail" ORDER BY last_sequence DESC LIMIT 1"#))?
            .or(end(format!(r#"SELECT last_sequence FROM "{name}_blocks" ORDER BY last_sequence DESC LIMIT 1"#))?);
        let oldest = end(format!(r#"SELECT first_sequence FROM "{name}_blocks" ORDER BY last_sequence LIMIT 1"#))?
            .or(end(format!(r#"SELECT first_sequence FROM "{name}_tail" ORDER BY last_sequence LIMIT 1"#))?);
        Ok(newest.zip(oldest).zip(Some(Generations::load(&file.conn)?)))
    };
    let found = read().map_err(StoreError::database("read the ends of a table"))?;
    Ok(found.map(|((newest, oldest), generations)| (generations.eid(newest), generations.eid(oldest))))
}
