//! Retention: the oldest is dropped when it is too old, or when a table or the whole store is too large.
//!
//! Age is the store's own (`clock.rs`). Events go a block at a time; of intervals only ended ones go, the oldest of
//! each class first: within a class they lie in the order of their starts, which is nearly that of recording.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::{
    error::StoreError,
    intervals::OPEN,
    open::{BUSY, FILE, beside},
    options::Bounds,
    status,
    writer::Writer,
};
use crate::time::boot_nanos;

/// Most intervals that one step drops.
const STEP: usize = 256;
/// Pages given back to the file system in one step.
const VACUUM: i64 = 256;
/// A log of this size (1 MiB) is emptied before anything is dropped for the size of the store.
const LOG: u64 = 1 << 20;
/// Gaps kept, whatever their age.
const MAX_GAPS: i64 = 10_000;

/// Size of the store on disk, in bytes.
#[derive(Clone, Copy, Debug)]
struct Size {
    /// File and log.
    total: u64,
    /// Of it: pages that are free.
    free: u64,
    /// Of it: the log.
    log: u64,
}

/// Drops a little of what is too much. Returns whether there may be more.
pub(super) fn step(writer: &mut Writer) -> Result<bool, StoreError> {
    let age = writer.clock.age(boot_nanos());
    let result = expire(writer, age);
    writer.checked("expire what is old", result)
}

fn expire(writer: &Writer, age: i64) -> Result<bool, rusqlite::Error> {
    let tx = writer.conn.unchecked_transaction()?;
    let mut dropped = false;
    for name in writer.logs.iter().map(|tail| &tail.log.name) {
        dropped |= expire_events(&tx, name, &writer.options.bounds(name), age)?;
    }
    for name in writer.histories.iter().map(|history| &history.log.name) {
        dropped |= expire_intervals(&tx, name, &writer.options.bounds(name), age)?;
    }
    let oldest = age.saturating_sub(nanos(writer.options.bounds("").age));
    tx.execute("DELETE FROM gaps WHERE to_ns IS NOT NULL AND age_ns < ?", [oldest])?;
    tx.execute(
        "DELETE FROM gaps WHERE to_ns <= (SELECT to_ns FROM gaps WHERE to_ns IS NOT NULL ORDER BY to_ns DESC LIMIT 1 OFFSET ?)",
        [MAX_GAPS],
    )?;
    tx.commit()?;
    Ok(dropped || fit(writer)?)
}

fn nanos(age: Duration) -> i64 {
    i64::try_from(age.as_nanos()).unwrap_or(i64::MAX)
}

fn expire_events(conn: &Connection, name: &str, bounds: &Bounds, age: i64) -> Result<bool, rusqlite::Error> {
    let sums = |table: &str| {
        let sql = format!(r#"SELECT coalesce(sum(rows), 0), coalesce(sum(bytes), 0) FROM "{name}_{table}""#);
        conn.prepare_cached(&sql)?.query_row([], |r| Ok((r.get::<_, i64>(0)?.cast_unsigned(), r.get::<_, i64>(1)?.cast_unsigned())))
    };
    let ((sealed, bytes), (waiting, _)) = (sums("blocks")?, sums("tail")?);
    let too_many = sealed + waiting > bounds.rows || bounds.bytes.is_some_and(|most| bytes > most);
    drop_events(conn, name, if too_many { i64::MAX } else { age.saturating_sub(nanos(bounds.age)) })
}

/// Drops the oldest block, or chunk if there is none, if it was recorded before that age.
fn drop_events(conn: &Connection, name: &str, before: i64) -> Result<bool, rusqlite::Error> {
    for table in ["blocks", "tail"] {
        let sql = format!(r#"SELECT last_sequence, max_time_ns, age_ns FROM "{name}_{table}" ORDER BY last_sequence LIMIT 1"#);
        let oldest: Option<(i64, i64, i64)> =
            conn.prepare_cached(&sql)?.query_row([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?))).optional()?;
        let Some((last_sequence, max_time_ns, age_ns)) = oldest else { continue };
        if age_ns >= before {
            return Ok(false);
        }
        status::advance_kept_since(conn, max_time_ns)?;
        status::advance_dropped(conn, name, last_sequence)?;
        conn.prepare_cached(&format!(r#"DELETE FROM "{name}_{table}" WHERE last_sequence = ?"#))?.execute([last_sequence])?;
        return Ok(true);
    }
    Ok(false)
}

fn expire_intervals(conn: &Connection, name: &str, bounds: &Bounds, age: i64) -> Result<bool, rusqlite::Error> {
    let rows: i64 = conn.query_row(&format!(r#"SELECT count(*) FROM "{name}_intervals""#), [], |r| r.get(0))?;
    if rows.cast_unsigned() > bounds.rows {
        return drop_intervals(conn, name, i64::MAX, usize::try_from(rows.cast_unsigned() - bounds.rows).unwrap_or(STEP));
    }
    drop_intervals(conn, name, age.saturating_sub(nanos(bounds.age)), STEP)
}

/// Drops up to `most` ended intervals that were recorded before that age, the oldest first.
fn drop_intervals(conn: &Connection, name: &str, before: i64, most: usize) -> Result<bool, rusqlite::Error> {
    let sql = format!(
        r#"SELECT age_ns, key, valid_from_ns, scope, valid_to_ns FROM "{name}_intervals" WHERE class = ? ORDER BY valid_from_ns LIMIT {STEP}"#
    );
    let mut heads = conn.prepare_cached(&sql)?;
    let mut oldest: Vec<(i64, String, i64, String, i64)> = Vec::new();
    for class in 0..OPEN {
        let rows = heads.query_map([class], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?)))?;
        for row in rows {
            let row: (i64, String, i64, String, i64) = row?;
            if row.0 >= before {
                break;
            }
            oldest.push(row);
        }
    }
    oldest.sort_unstable();
    oldest.truncate(most.min(STEP));
    let mut remove =
        conn.prepare_cached(&format!(r#"DELETE FROM "{name}_intervals" WHERE key = ? AND valid_from_ns = ? AND scope = ?"#))?;
    for (_, key, from, scope, to) in &oldest {
        status::advance_kept_since(conn, *to)?;
        remove.execute(params![key, from, scope])?;
    }
    Ok(!oldest.is_empty())
}

fn size(writer: &Writer) -> Result<Size, rusqlite::Error> {
    let pragma = |name: &str| writer.conn.pragma_query_value(None, name, |r| r.get::<_, i64>(0)).map(i64::cast_unsigned);
    let page = pragma("page_size")?;
    let log = log_size(writer);
    Ok(Size { total: page * pragma("page_count")? + log, free: page * pragma("freelist_count")?, log })
}

fn log_size(writer: &Writer) -> u64 {
    std::fs::metadata(beside(&writer.dir.join(FILE), "-wal")).map_or(0, |m| m.len())
}

/// Empties a log that is longer than this, unless a reader still needs it.
pub(super) fn empty_log(writer: &Writer, most: u64) -> Result<(), rusqlite::Error> {
    if log_size(writer) > most {
        checkpoint(&writer.conn)?;
    }
    Ok(())
}

/// Makes the store fit its size: gives back free pages, then drops the oldest of the largest table.
fn fit(writer: &Writer) -> Result<bool, rusqlite::Error> {
    let (size, most) = (size(writer)?, writer.options.bytes());
    // What was freed is used again by what comes; a file that is mostly free gives it back.
    if size.free > (size.total / 4).max(16 << 20) || (size.total > most && size.free > 0) {
        return vacuum(&writer.conn).map(|()| true);
    }
    if size.total <= most {
        return Ok(false);
    }
    if size.log > LOG && checkpoint(&writer.conn)? {
        return Ok(true);
    }
    let tx = writer.conn.unchecked_transaction()?;
    let mut largest: Option<(i64, &str)> = None;
    let mut in_events = 0;
    for tail in &writer.logs {
        let sql = format!(r#"SELECT coalesce(sum(bytes), 0) FROM "{}_blocks""#, tail.log.name);
        let bytes: i64 = tx.query_row(&sql, [], |r| r.get(0))?;
        in_events += bytes;
        largest = largest.max(Some((bytes, &tail.log.name)));
    }
    let in_intervals = (size.total - size.free).cast_signed() - in_events;
    let mut dropped = false;
    if in_intervals > largest.map_or(0, |l| l.0) {
        for history in &writer.histories {
            dropped |= drop_intervals(&tx, &history.log.name, i64::MAX, STEP)?;
        }
    }
    if let Some((_, name)) = largest
        && !dropped
    {
        dropped = drop_events(&tx, name, i64::MAX)?;
    }
    tx.commit()?;
    Ok(dropped)
}

/// Empties the log. Returns false where a reader still needs it: it is not waited for.
fn checkpoint(conn: &Connection) -> Result<bool, rusqlite::Error> {
    conn.busy_timeout(Duration::ZERO)?;
    let busy = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |r| r.get::<_, bool>(0));
    conn.busy_timeout(BUSY)?;
    busy.map(|busy| !busy)
}

fn vacuum(conn: &Connection) -> Result<(), rusqlite::Error> {
    // The pragma gives a row for each page; it works as it is stepped.
    let mut statement = conn.prepare_cached(&format!("PRAGMA incremental_vacuum({VACUUM})"))?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}
