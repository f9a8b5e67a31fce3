//! The small tables: gaps, cursors, what the reducer keeps, the sources as readers see them, notes.

use rusqlite::{Connection, OptionalExtension, Result, params};

use crate::{
    feed::{FeedStatus, Gap},
    time::Nanos,
};

pub(super) fn put_gap(conn: &Connection, gap: &Gap, age_ns: i64) -> Result<()> {
    conn.prepare_cached("INSERT OR REPLACE INTO gaps VALUES (?, ?, ?, ?, ?, ?, ?, ?)")?.execute(params![
        gap.source,
        gap.endpoint,
        gap.cause,
        gap.from_ns,
        gap.to_ns,
        gap.recovered,
        gap.detail,
        age_ns
    ])?;
    Ok(())
}

/// All gaps, or only those without an end; the oldest first.
pub(super) fn gaps(conn: &Connection, open_only: bool) -> Result<Vec<Gap>> {
    let mut statement = conn.prepare_cached(
        "SELECT source, endpoint, cause, from_ns, to_ns, recovered, detail FROM gaps WHERE NOT ? OR to_ns IS NULL ORDER BY from_ns, source, endpoint",
    )?;
    let rows = statement.query_map([open_only], |r| {
        Ok(Gap {
            source: r.get(0)?,
            endpoint: r.get(1)?,
            cause: r.get(2)?,
            from_ns: r.get(3)?,
            to_ns: r.get(4)?,
            recovered: r.get(5)?,
            detail: r.get(6)?,
        })
    })?;
    rows.collect()
}

pub(super) fn set_cursor(conn: &Connection, stream: &str, value: &str) -> Result<()> {
    conn.prepare_cached("INSERT OR REPLACE INTO cursors VALUES (?, ?)")?.execute([stream, value])?;
    Ok(())
}

pub(super) fn cursor(conn: &Connection, stream: &str) -> Result<Option<String>> {
    conn.prepare_cached("SELECT value FROM cursors WHERE stream = ?")?.query_row([stream], |r| r.get(0)).optional()
}

pub(super) fn put_subject(conn: &Connection, key: &str, value: &[u8]) -> Result<()> {
    conn.prepare_cached("INSERT OR REPLACE INTO subjects VALUES (?, ?)")?.execute(params![key, value])?;
    Ok(())
}

pub(super) fn remove_subject(conn: &Connection, key: &str) -> Result<()> {
    conn.prepare_cached("DELETE FROM subjects WHERE key = ?")?.execute([key])?;
    Ok(())
}

/// Removes those whose keys begin so.
pub(super) fn remove_subjects(conn: &Connection, prefix: &str) -> Result<()> {
    conn.prepare_cached("DELETE FROM subjects WHERE substr(key, 1, length(?1)) = ?1")?.execute([prefix])?;
    Ok(())
}

pub(super) fn subject(conn: &Connection, key: &str) -> Result<Option<Vec<u8>>> {
    conn.prepare_cached("SELECT value FROM subjects WHERE key = ?")?.query_row([key], |r| r.get(0)).optional()
}

pub(super) fn subjects(conn: &Connection) -> Result<Vec<(String, Vec<u8>)>> {
    conn.prepare("SELECT key, value FROM subjects ORDER BY key")?.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?.collect()
}

pub(super) fn put_sources(conn: &Connection, sources: &[FeedStatus]) -> Result<()> {
    conn.prepare_cached("DELETE FROM sources")?.execute([])?;
    let mut insert = conn.prepare_cached("INSERT OR REPLACE INTO sources VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")?;
    for s in sources {
        insert.execute(params![
            s.source,
            s.endpoint,
            s.state,
            s.since_ns,
            s.events.cast_signed(),
            s.received.cast_signed(),
            s.evicted.cast_signed(),
            s.rejected.cast_signed(),
            s.lost_in_kernel.cast_signed(),
            s.lag_ms,
            s.restarts.cast_signed(),
            s.last_event_ns,
            s.last_error,
            s.hint
        ])?;
    }
    Ok(())
}

pub(super) fn sources(conn: &Connection) -> Result<Vec<FeedStatus>> {
    let mut statement = conn.prepare_cached("SELECT * FROM sources ORDER BY source, endpoint")?;
    let rows = statement.query_map([], |r| {
        let count = |i: usize| r.get::<_, i64>(i).map(i64::cast_unsigned);
        Ok(FeedStatus {
            source: r.get(0)?,
            endpoint: r.get(1)?,
            state: r.get(2)?,
            since_ns: r.get(3)?,
            events: count(4)?,
            received: count(5)?,
            evicted: count(6)?,
            rejected: count(7)?,
            lost_in_kernel: count(8)?,
            lag_ms: r.get(9)?,
            restarts: count(10)?,
            last_event_ns: r.get(11)?,
            last_error: r.get(12)?,
            hint: r.get(13)?,
        })
    })?;
    rows.collect()
}

pub(super) fn put_note(conn: &Connection, name: &str, value: &str) -> Result<()> {
    conn.prepare_cached("INSERT OR REPLACE INTO notes VALUES (?, ?)")?.execute([name, value])?;
    Ok(())
}

pub(super) fn notes(conn: &Connection) -> Result<Vec<(String, String)>> {
    conn.prepare_cached("SELECT name, value FROM notes ORDER BY name")?.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?.collect()
}

/// A fact about the file itself.
pub(super) fn meta<T: rusqlite::types::FromSql>(conn: &Connection, name: &str) -> Result<Option<T>> {
    conn.prepare_cached("SELECT value FROM meta WHERE name = ?")?.query_row([name], |r| r.get(0)).optional()
}

/// Name of the note that says how far retention has dropped a table's events.
fn dropped_key(table: &str) -> String {
    format!("dropped {table}")
}

/// The sequence number of the newest event of a table that retention has dropped.
pub(super) fn dropped(conn: &Connection, table: &str) -> Result<Option<i64>> {
    meta(conn, &dropped_key(table))
}

pub(super) fn advance_dropped(conn: &Connection, table: &str, sequence: i64) -> Result<()> {
    conn.prepare_cached("INSERT INTO meta VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)")?
        .execute(params![dropped_key(table), sequence])?;
    Ok(())
}

/// From when on everything recorded is kept: the time before is a gap to readers.
pub(super) fn kept_since(conn: &Connection) -> Result<Option<Nanos>> {
    meta(conn, "kept_since_ns")
}

/// Moves that time on, after something was dropped.
pub(super) fn advance_kept_since(conn: &Connection, to_ns: Nanos) -> Result<()> {
    conn.prepare_cached(
        "INSERT INTO meta VALUES ('kept_since_ns', ?1) ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)",
    )?
    .execute([to_ns])?;
    Ok(())
}
