//! Appending chunks to a tail, and sealing: the oldest chunks become a block.

use rusqlite::{Connection, params};
use zstd::bulk::{Compressor, Decompressor};

use super::{
    block::{BlockBuilder, MAX_ROWS},
    chunk::{self, Chunk},
    damage,
    error::StoreError,
    frame::{deflate, inflate},
    layout::Layouts,
    open::FILE,
    schema::Log,
};
use crate::time::Nanos;

/// A tail is sealed early when its rows have this many bytes.
pub(super) const MAX_BYTES: usize = 12 << 20;
/// A chunk is compressed while the recorder waits, and again soon; a block once and for long.
const CHUNK_LEVEL: i32 = 1;
const BLOCK_LEVEL: i32 = 3;

/// What appending and sealing need each time.
pub(super) struct Sealer {
    quick: Compressor<'static>,
    thorough: Compressor<'static>,
    decompressor: Decompressor<'static>,
    layouts: Layouts,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").field("layouts", &self.layouts).finish_non_exhaustive()
    }
}

/// A chunk of a tail, and what it should hold.
#[derive(Debug)]
struct TakenChunk {
    plain: Vec<u8>,
    rows: usize,
    min_ns: Nanos,
    max_ns: Nanos,
}

/// Chunks of a tail that become a block.
#[derive(Debug, Default)]
struct Taken {
    chunks: Vec<TakenChunk>,
    rows: usize,
    first_sequence: i64,
    last_sequence: i64,
    min_ns: Nanos,
    max_ns: Nanos,
    age_ns: i64,
    layout: i64,
}

impl Sealer {
    pub(super) fn new() -> Result<Self, StoreError> {
        let make = || {
            Ok(Self {
                quick: Compressor::new(CHUNK_LEVEL)?,
                thorough: Compressor::new(BLOCK_LEVEL)?,
                decompressor: Decompressor::new()?,
                layouts: Layouts::default(),
            })
        };
        make().map_err(StoreError::file("prepare to compress", FILE))
    }

    /// Appends a chunk to the tail, in the caller's transaction.
    pub(super) fn append(&mut self, conn: &Connection, log: &Log, chunk: &Chunk, age_ns: i64) -> Result<(), StoreError> {
        let data = deflate(&chunk.plain, &mut self.quick).map_err(StoreError::file("compress events for", FILE))?;
        let row = params![
            chunk.last_sequence,
            chunk.first_sequence,
            count(chunk.rows),
            chunk.min_ns,
            chunk.max_ns,
            age_ns,
            count(chunk.plain.len()),
            log.layout,
            data
        ];
        log.insert_into(conn, row).map_err(StoreError::database("append events"))
    }

    /// Moves the oldest chunks of the tail, of one layout and as many as a block takes, into a block, in the caller's transaction.
    pub(super) fn seal(&mut self, conn: &Connection, log: &Log) -> Result<(), StoreError> {
        let taken = self.take(conn, log).map_err(StoreError::database("read the tail"))?;
        if taken.rows == 0 {
            return Ok(());
        }
        let width = if taken.layout == log.layout { log.width } else { self.layouts.get(conn, taken.layout)?.len() };
        // An older layout may have the keys elsewhere; without a filter its block is always opened.
        let keys: &[usize] = if taken.layout == log.layout { &log.keys } else { &[] };
        let mut block = BlockBuilder::new(width, keys.first().copied());
        for chunk in &taken.chunks {
            let before = block.rows();
            for row in chunk::rows(&chunk.plain).map_while(Result::ok) {
                block.push(row.sequence, row.time_ns, row.row);
            }
            // Of a damaged chunk the rows before the damage are kept.
            let lost = chunk.rows.saturating_sub(block.rows() - before);
            if lost > 0 {
                damage::put_gap(conn, &log.name, chunk.min_ns, chunk.max_ns, count(lost), taken.age_ns)
                    .map_err(StoreError::database("store a gap"))?;
            }
        }
        let rows = count(block.rows());
        let filters = block.filters(keys);
        let data = deflate(&block.finish(), &mut self.thorough).map_err(StoreError::file("compress a block of", FILE))?;
        let write = || {
            conn.prepare_cached(&format!(r#"INSERT INTO "{}_blocks" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"#, log.name))?.execute(
                params![
                    taken.last_sequence,
                    taken.first_sequence,
                    rows,
                    taken.min_ns,
                    taken.max_ns,
                    taken.age_ns,
                    count(data.len() + filters.len()),
                    taken.layout,
                    filters,
                    data
                ],
            )?;
            let remove = format!(r#"DELETE FROM "{}_tail" WHERE last_sequence <= ?"#, log.name);
            conn.prepare_cached(&remove)?.execute([taken.last_sequence]).map(drop)
        };
        write().map_err(StoreError::database("seal a block"))
    }

    fn take(&mut self, conn: &Connection, log: &Log) -> Result<Taken, rusqlite::Error> {
        let sql = format!(
            r#"SELECT last_sequence, first_sequence, rows, min_time_ns, max_time_ns, age_ns, bytes, layout, data FROM "{}_tail"
            ORDER BY last_sequence"#,
            log.name
        );
        let mut statement = conn.prepare_cached(&sql)?;
        let mut found = statement.query([])?;
        let mut taken = Taken { min_ns: Nanos::MAX, max_ns: Nanos::MIN, ..Taken::default() };
        let mut bytes = 0;
        while let Some(row) = found.next()? {
            let rows = usize::try_from(row.get::<_, i64>(2)?).unwrap_or(usize::MAX);
            bytes += row.get::<_, i64>(6)?;
            let layout = row.get(7)?;
            let first = taken.chunks.is_empty();
            if !first && (taken.rows.saturating_add(rows) > MAX_ROWS || bytes > count(MAX_BYTES) || layout != taken.layout) {
                break;
            }
            if first {
                (taken.first_sequence, taken.layout) = (row.get(1)?, layout);
            }
            taken.last_sequence = row.get(0)?;
            taken.rows += rows;
            let (min_ns, max_ns): (Nanos, Nanos) = (row.get(3)?, row.get(4)?);
            taken.min_ns = taken.min_ns.min(min_ns);
            taken.max_ns = taken.max_ns.max(max_ns);
            taken.age_ns = taken.age_ns.max(row.get(5)?);
            let mut plain = Vec::new();
            if let Err(why) = inflate(row.get_ref(8)?.as_blob()?, &mut self.decompressor, &mut plain) {
                tracing::error!(table = log.name, chunk = taken.last_sequence, why, "events of the tail are damaged");
            }
            taken.chunks.push(TakenChunk { plain, rows, min_ns, max_ns });
        }
        Ok(taken)
    }
}

/// A count as SQLite keeps it.
pub(super) fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
