//! The alternative: a typed SQLite table with an index over time and one over the key.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use mayfly_benches::{
    fleet::Fleet,
    measure::{cpu_time, timed},
};
use mayfly_history::{Cell, Column, TableSchema};
use mayfly_tables::CONTAINER_LIFECYCLE_EVENTS;
use rusqlite::{Connection, Statement, ToSql, params_from_iter, types::ToSqlOutput, types::ValueRef};

use crate::{
    BEGIN, Outcome,
    events::Questions,
    intervals::{Instants, Load},
};

pub(crate) struct PlainEvents {
    pub(crate) recorded: Duration,
    pub(crate) cpu: Duration,
    pub(crate) longest: Duration,
    pub(crate) bytes: u64,
    pub(crate) ranges: Vec<Duration>,
    pub(crate) ids: Vec<Duration>,
    pub(crate) newest: Vec<Duration>,
    pub(crate) all: Duration,
}

fn open(dir: &Path) -> Outcome<Connection> {
    fs::create_dir_all(dir)?;
    let conn = Connection::open(dir.join("plain.db"))?;
    conn.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 4096; PRAGMA cache_size = -4096",
    )?;
    Ok(conn)
}

fn columns(schema: &TableSchema) -> String {
    schema.stored().map(|c| format!("\"{}\" {}", c.name, c.kind.as_str())).collect::<Vec<_>>().join(", ")
}

enum Owned {
    Null,
    Int(i64),
    Text(String),
}

impl ToSql for Owned {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Int(value) => ValueRef::Integer(*value),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}

/// The stored columns of a record, after the given ones: those that are joined when they are read have no value of their own.
fn values<R>(first: impl IntoIterator<Item = Owned>, columns: &[Column<R>], record: &R) -> Vec<Owned> {
    let mut values: Vec<Owned> = first.into_iter().collect();
    for column in columns.iter().filter(|column| column.joined.is_none()) {
        column.visit(record, &mut |cell| {
            values.push(match cell {
                Cell::Null => Owned::Null,
                Cell::Int(value) => Owned::Int(value),
                Cell::Text(text) => Owned::Text(text.to_owned()),
            });
        });
    }
    values
}

fn marks(n: usize) -> String {
    vec!["?"; n].join(", ")
}

/// Reads all rows and all columns.
fn drain(statement: &mut Statement<'_>, params: impl rusqlite::Params) -> Outcome<Duration> {
    let width = statement.column_count();
    let (took, length) = timed(|| {
        let mut rows = statement.query(params)?;
        let mut length = 0;
        while let Some(row) = rows.next()? {
            for i in 0..width {
                length += if let ValueRef::Text(text) = row.get_ref(i)? { text.len() } else { 8 };
            }
        }
        Ok::<usize, rusqlite::Error>(length)
    });
    if length? == 0 { Err("nothing was found".into()) } else { Ok(took) }
}

pub(crate) fn events(dir: &Path, count: usize, questions: &Questions) -> Outcome<PlainEvents> {
    let schema = CONTAINER_LIFECYCLE_EVENTS.schema();
    let conn = open(dir)?;
    conn.execute_batch(&format!(
        "CREATE TABLE events (sequence INTEGER PRIMARY KEY, time_ns INTEGER NOT NULL, {});
        CREATE INDEX by_time ON events (time_ns); CREATE INDEX by_container ON events (container_id)",
        columns(&schema)
    ))?;
    let mut insert = conn.prepare(&format!("INSERT INTO events VALUES ({})", marks(schema.stored().count() + 2)))?;
    let mut fleet = Fleet::new(1, BEGIN).take(count);
    let (mut recorded, mut cpu, mut longest) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    loop {
        let batch: Vec<_> = fleet.by_ref().take(512).collect();
        if batch.is_empty() {
            break;
        }
        let (begin, before) = (Instant::now(), cpu_time());
        conn.execute_batch("BEGIN IMMEDIATE")?;
        for event in &batch {
            let row = values([Owned::Null, Owned::Int(event.time_ns)], CONTAINER_LIFECYCLE_EVENTS.columns, event);
            insert.execute(params_from_iter(row))?;
        }
        conn.execute_batch("COMMIT")?;
        recorded += begin.elapsed();
        cpu += cpu_time() - before;
        longest = longest.max(begin.elapsed());
    }
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    let mut range = conn.prepare("SELECT * FROM events WHERE time_ns BETWEEN ? AND ? ORDER BY sequence")?;
    let mut of_id = conn.prepare("SELECT * FROM events WHERE container_id = ? ORDER BY sequence")?;
    let mut newest = conn.prepare("SELECT * FROM events ORDER BY sequence DESC LIMIT 100")?;
    Ok(PlainEvents {
        recorded,
        cpu,
        longest,
        bytes: fs::metadata(dir.join("plain.db"))?.len(),
        ranges: questions.ranges.iter().map(|r| drain(&mut range, *r)).collect::<Outcome<_>>()?,
        ids: questions.ids.iter().map(|id| drain(&mut of_id, [id])).collect::<Outcome<_>>()?,
        newest: (0..20).map(|_| drain(&mut newest, [])).collect::<Outcome<_>>()?,
        all: drain(&mut conn.prepare("SELECT * FROM events ORDER BY sequence")?, [])?,
    })
}

pub(crate) struct PlainIntervals {
    pub(crate) recorded: Duration,
    pub(crate) bytes: u64,
    pub(crate) of_one: Vec<Duration>,
    pub(crate) of_all: Vec<Duration>,
}

pub(crate) fn intervals<F>(dir: &Path, load: &Load<F>, instants: &Instants) -> Outcome<PlainIntervals> {
    let (schema, key) = (load.table.schema(), load.key);
    let conn = open(dir)?;
    conn.execute_batch(&format!(
        "CREATE TABLE history (valid_from_ns INTEGER, valid_to_ns INTEGER, ended_reason TEXT, evidence TEXT, {});
        CREATE INDEX by_time ON history (valid_from_ns); CREATE INDEX by_key ON history ({key}, valid_from_ns)",
        columns(&schema)
    ))?;
    let mut insert = conn.prepare(&format!("INSERT INTO history VALUES ({})", marks(schema.stored().count() + 4)))?;
    let mut all = (load.all)();
    let mut recorded = Duration::ZERO;
    loop {
        let batch: Vec<_> = all.by_ref().take(512).collect();
        if batch.is_empty() {
            break;
        }
        let begin = Instant::now();
        conn.execute_batch("BEGIN IMMEDIATE")?;
        for held in &batch {
            let to = held.to_ns.map_or(Owned::Null, Owned::Int);
            let first = [Owned::Int(held.from_ns), to, Owned::Text("ended".into()), Owned::Text("docker".into())];
            insert.execute(params_from_iter(values(first, load.table.columns, &held.state)))?;
        }
        conn.execute_batch("COMMIT")?;
        recorded += begin.elapsed();
    }
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    let held = "valid_from_ns <= ?1 AND (valid_to_ns > ?1 OR valid_to_ns IS NULL)";
    let mut of_one = conn.prepare(&format!("SELECT * FROM history WHERE {held} AND {key} = ?2"))?;
    let mut of_all = conn.prepare(&format!("SELECT * FROM history WHERE {held} ORDER BY {key}, valid_from_ns"))?;
    Ok(PlainIntervals {
        recorded,
        bytes: fs::metadata(dir.join("plain.db"))?.len(),
        of_one: instants.of_one.iter().map(|(key, at)| drain(&mut of_one, (at, key))).collect::<Outcome<_>>()?,
        of_all: instants.of_all.iter().map(|at| drain(&mut of_all, [at])).collect::<Outcome<_>>()?,
    })
}
