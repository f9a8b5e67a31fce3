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

/// Rows of a tail, on their way into a block.
#[derive(Default)]
struct Rows {
    bytes: Vec<u8>,
    /// Sequence, time and end in `bytes`.
    rows: Vec<(i64, Nanos, usize)>,
    layout: i64,
    age_ns: i64,
}

impl Sealer {
    pub(super) fn new() -> Result<Self, StoreError> {
        let compressor = Compressor::new(LEVEL).map_err(StoreError::file("make a compressor for", super::open::FILE))?;
        Ok(Self { compressor, layouts: Layouts::default() })
    }

    /// Moves the oldest rows of the tail into a block, in the caller's transaction. Returns how many.
    pub(super) fn seal(&mut self, conn: &Connection, log: &Log) -> Result<usize, StoreError> {
        let tail = read(conn, log).map_err(StoreError::database("read the tail"))?;
        let (Some(first), Some(last)) = (tail.rows.first(), tail.rows.last()) else { return Ok(0) };
        let width = if tail.layout == log.layout { log.width } else { self.layouts.get(conn, tail.layout)?.len() };
        // An older layout may have the keys elsewhere; without a filter its block is always opened.
        let keys: &[usize] = if tail.layout == log.layout { &log.keys } else { &[] };
        let mut block = BlockBuilder::new(width);
        let mut begin = 0;
        for &(sequence, time_ns, end) in &tail.rows {
            block.push(sequence, time_ns, &tail.bytes[begin..end]);
            begin = end;
        }
        let filters = block.filters(keys);
        let data = block.finish(&mut self.compressor).map_err(StoreError::file("compress a block of", super::open::FILE))?;
        let times = || tail.rows.iter().map(|row| row.1);
        let write = || {
            conn.prepare_cached(&format!(r#"INSERT INTO "{}_blocks" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"#, log.name))?.execute(
                params![
                    last.0,
                    first.0,
                    i64::try_from(tail.rows.len()).unwrap_or(i64::MAX),
                    times().min(),
                    times().max(),
                    tail.age_ns,
                    i64::try_from(data.len() + filters.len()).unwrap_or(i64::MAX),
                    tail.layout,
                    filters,
                    data
                ],
            )?;
            conn.prepare_cached(&format!(r#"DELETE FROM "{}_tail" WHERE sequence <= ?"#, log.name))?.execute([last.0])
        };
        write().map_err(StoreError::database("seal a block"))
    }
}

/// The oldest rows of the tail, as many as make a block: of one layout.
fn read(conn: &Connection, log: &Log) -> Result<Rows, rusqlite::Error> {
    let sql = format!(r#"SELECT sequence, time_ns, age_ns, layout, row FROM "{}_tail" ORDER BY sequence LIMIT {MAX_ROWS}"#, log.name);
    let mut statement = conn.prepare_cached(&sql)?;
    let mut found = statement.query([])?;
    let mut tail = Rows::default();
    while let Some(row) = found.next()? {
        let layout = row.get(3)?;
        if tail.rows.is_empty() {
            tail.layout = layout;
        } else if layout != tail.layout || tail.bytes.len() >= MAX_BYTES {
            break;
        }
        tail.bytes.extend_from_slice(row.get_ref(4)?.as_blob()?);
        tail.age_ns = tail.age_ns.max(row.get(2)?);
        tail.rows.push((row.get(0)?, row.get(1)?, tail.bytes.len()));
    }
    Ok(tail)
}
