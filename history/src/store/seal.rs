//! Sealing: the oldest rows of a tail become a block.

use rusqlite::{Connection, params};
use zstd::bulk::Compressor;

use super::{
    block::{BlockBuilder, MAX_ROWS},
    error::StoreError,
    layout::Layouts,
    schema::Log,
};
use crate::time::Nanos;

/// A block is sealed early when its rows have this many bytes.
pub(super) const MAX_BYTES: usize = 4 << 20;
/// So many rows of one transaction are worth a block of their own: they never lie in the tail, which would cost more than sealing.
const MANY: usize = 256;
const LEVEL: i32 = 3;

/// What sealing needs each time.
pub(super) struct Sealer {
    compressor: Compressor<'static>,
    layouts: Layouts,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").field("layouts", &self.layouts).finish_non_exhaustive()
    }
}

/// Encoded rows on their way into a tail or a block.
#[derive(Debug, Default)]
pub(super) struct Rows {
    bytes: Vec<u8>,
    /// Sequence, time and end in `bytes`.
    rows: Vec<(i64, Nanos, usize)>,
    layout: i64,
    age_ns: i64,
}

impl Rows {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn bytes_len(&self) -> usize {
        self.bytes.len()
    }

    /// Rows of one block share a layout.
    pub(super) fn push(&mut self, sequence: i64, time_ns: Nanos, row: &[u8]) {
        self.bytes.extend_from_slice(row);
        self.rows.push((sequence, time_ns, self.bytes.len()));
    }

    /// What all rows have in common; the age is that of the newest.
    pub(super) fn set(&mut self, layout: i64, age_ns: i64) {
        self.layout = layout;
        self.age_ns = self.age_ns.max(age_ns);
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.rows.clear();
        self.age_ns = i64::MIN;
    }

    fn iter(&self) -> impl Iterator<Item = (i64, Nanos, &[u8])> {
        let begins = std::iter::once(0).chain(self.rows.iter().map(|row| row.2));
        self.rows.iter().zip(begins).map(|(&(sequence, time_ns, end), begin)| (sequence, time_ns, &self.bytes[begin..end]))
    }

    /// Whether `more` can be sealed together with these.
    fn takes(&self, more: &Self) -> bool {
        let fits = self.len() + more.len() <= MAX_ROWS && self.bytes.len() + more.bytes.len() <= 2 * MAX_BYTES;
        fits && (self.rows.is_empty() || self.layout == more.layout)
    }
}

impl Sealer {
    pub(super) fn new() -> Result<Self, StoreError> {
        let compressor = Compressor::new(LEVEL).map_err(StoreError::file("make a compressor for", super::open::FILE))?;
        Ok(Self { compressor, layouts: Layouts::default() })
    }

    /// Moves the oldest rows of the tail into a block, in the caller's transaction.
    pub(super) fn seal(&mut self, conn: &Connection, log: &Log) -> Result<(), StoreError> {
        let rows = read(conn, log).map_err(StoreError::database("read the tail"))?;
        self.write(conn, log, &rows)
    }

    /// Stores rows that follow those of the tail, in the caller's transaction: few go to the tail, many with all of the tail into
    /// blocks. Returns whether the tail is empty now.
    pub(super) fn store(&mut self, conn: &Connection, log: &Log, rows: &Rows) -> Result<bool, StoreError> {
        if rows.len() < MANY {
            append(conn, log, rows).map_err(StoreError::database("append events"))?;
            return Ok(false);
        }
        loop {
            let mut tail = read(conn, log).map_err(StoreError::database("read the tail"))?;
            if tail.takes(rows) {
                rows.iter().for_each(|(sequence, time_ns, row)| tail.push(sequence, time_ns, row));
                tail.set(rows.layout, rows.age_ns);
                return self.write(conn, log, &tail).map(|()| true);
            }
            if tail.len() == 0 {
                // More than a block takes.
                append(conn, log, rows).map_err(StoreError::database("append events"))?;
                return Ok(false);
            }
            self.write(conn, log, &tail)?;
        }
    }

    /// Writes a block and removes its rows from the tail.
    fn write(&mut self, conn: &Connection, log: &Log, rows: &Rows) -> Result<(), StoreError> {
        let (Some(first), Some(last)) = (rows.rows.first(), rows.rows.last()) else { return Ok(()) };
        let width = if rows.layout == log.layout { log.width } else { self.layouts.get(conn, rows.layout)?.len() };
        // An older layout may have the keys elsewhere; without a filter its block is always opened.
        let keys: &[usize] = if rows.layout == log.layout { &log.keys } else { &[] };
        let mut block = BlockBuilder::new(width);
        rows.iter().for_each(|(sequence, time_ns, row)| block.push(sequence, time_ns, row));
        let filters = block.filters(keys);
        let data = block.finish(&mut self.compressor).map_err(StoreError::file("compress a block of", super::open::FILE))?;
        let times = || rows.rows.iter().map(|row| row.1);
        let write = || {
            conn.prepare_cached(&format!(r#"INSERT INTO "{}_blocks" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"#, log.name))?.execute(
                params![
                    last.0,
                    first.0,
                    i64::try_from(rows.len()).unwrap_or(i64::MAX),
                    times().min(),
                    times().max(),
                    rows.age_ns,
                    i64::try_from(data.len() + filters.len()).unwrap_or(i64::MAX),
                    rows.layout,
                    filters,
                    data
                ],
            )?;
            conn.prepare_cached(&format!(r#"DELETE FROM "{}_tail" WHERE sequence <= ?"#, log.name))?.execute([last.0]).map(drop)
        };
        write().map_err(StoreError::database("seal a block"))
    }
}

fn append(conn: &Connection, log: &Log, rows: &Rows) -> Result<(), rusqlite::Error> {
    let mut insert = conn.prepare_cached(&log.insert)?;
    for (sequence, time_ns, row) in rows.iter() {
        insert.execute(params![sequence, time_ns, rows.age_ns, rows.layout, row])?;
    }
    Ok(())
}

/// The oldest rows of the tail, as many as make a block: of one layout.
fn read(conn: &Connection, log: &Log) -> Result<Rows, rusqlite::Error> {
    let sql = format!(r#"SELECT sequence, time_ns, age_ns, layout, row FROM "{}_tail" ORDER BY sequence LIMIT {MAX_ROWS}"#, log.name);
    let mut statement = conn.prepare_cached(&sql)?;
    let mut found = statement.query([])?;
    let mut tail = Rows::default();
    while let Some(row) = found.next()? {
        let layout = row.get(3)?;
        if tail.len() > 0 && (layout != tail.layout || tail.bytes.len() >= MAX_BYTES) {
            break;
        }
        tail.set(layout, row.get(2)?);
        tail.push(row.get(0)?, row.get(1)?, row.get_ref(4)?.as_blob()?);
    }
    Ok(tail)
}
