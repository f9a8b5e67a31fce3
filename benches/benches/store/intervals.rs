//! Intervals: what held at an instant, of one key and of all.

use std::{
    fs,
    ops::ControlFlow,
    path::Path,
    time::{Duration, Instant},
};

use mayfly_benches::{
    fleet::{Held, Random},
    measure::{Figure, timed},
};
use mayfly_history::{
    Cell, HistoryTable,
    store::{Interval, IntervalScan, Reader, RowBuf, Writer},
};

use crate::{
    BEGIN, Outcome,
    events::{of_runs, options},
    plain,
};

/// What a table is filled with, and what its figures are called.
pub(crate) struct Load<F: 'static> {
    pub(crate) table: &'static HistoryTable<F>,
    /// The column that is the key, and what a record has there, and as its scope.
    pub(crate) key: &'static str,
    pub(crate) name: fn(&F) -> (String, String),
    pub(crate) count: usize,
    /// How many hold at any time.
    pub(crate) alive: usize,
    /// By their beginning; the same at each call.
    pub(crate) all: Box<dyn Fn() -> Box<dyn Iterator<Item = Held<F>>>>,
    pub(crate) claims: Claims,
}

pub(crate) struct Claims {
    pub(crate) stored: &'static str,
    pub(crate) bytes: &'static str,
    pub(crate) of_one: &'static str,
    pub(crate) of_all: &'static str,
    pub(crate) opened: &'static str,
}

/// When is asked: of some keys while they held, and of all.
pub(crate) struct Instants {
    pub(crate) of_one: Vec<(String, i64)>,
    pub(crate) of_all: Vec<i64>,
}

impl Instants {
    fn of<F>(load: &Load<F>) -> Self {
        let mut random = Random::new(9);
        let every = (load.count / 50).max(1);
        let mut of_one = Vec::new();
        let mut last = BEGIN;
        for (n, held) in (load.all)().enumerate() {
            last = held.from_ns;
            if n % every == every / 2 {
                of_one.push(((load.name)(&held.state).0, held.from_ns));
            }
        }
        let of_all = (0..20).map(|_| BEGIN + (last - BEGIN) / 1000 * (100 + random.below(800)).cast_signed()).collect();
        Self { of_one, of_all }
    }
}

pub(crate) fn measure<F>(dir: &Path, load: &Load<F>) -> Outcome<Vec<Figure>> {
    let instants = Instants::of(load);
    let count = load.count as f64;
    let recorded = record(dir, load)?;
    let file = fs::metadata(dir.join("history.db"))?.len();
    let opened: Vec<Duration> = (0..5).map(|_| timed(|| Writer::open(dir, &options()).map(drop)).0).collect();
    let (of_one, of_all) = read(dir, load, &instants)?;
    let plain = plain::intervals(&dir.with_extension("plain"), load, &instants)?;
    let Claims { stored, bytes, of_one: one, of_all: all, opened: open } = load.claims;
    Ok(vec![
        Figure {
            claim: stored,
            measured: format!("{:.0}", count / recorded.as_secs_f64()),
            bound: "≥ 10000",
            kept: count / recorded.as_secs_f64() >= 10_000.0,
            alternative: format!("{:.0}", count / plain.recorded.as_secs_f64()),
        },
        Figure {
            claim: bytes,
            measured: format!("{:.0}", file as f64 / count),
            bound: "≤ 1000",
            kept: file as f64 / count <= 1000.0,
            alternative: format!("{:.0}", plain.bytes as f64 / count),
        },
        of_runs(one, &of_one, "≤ 1 ms", Duration::from_millis(1), &plain.of_one),
        of_runs(all, &of_all, "≤ 50 ms", Duration::from_millis(50), &plain.of_all),
        of_runs(open, &opened, "≤ 10 ms", Duration::from_millis(10), &[]),
    ])
}

fn record<F>(dir: &Path, load: &Load<F>) -> Outcome<Duration> {
    let mut writer = Writer::open(dir, &options())?.writer;
    let log = writer.history(&load.table.schema())?;
    let mut all = (load.all)();
    let mut row = RowBuf::default();
    let mut total = Duration::ZERO;
    loop {
        let batch: Vec<_> = all.by_ref().take(512).collect();
        if batch.is_empty() {
            return Ok(total);
        }
        let begin = Instant::now();
        let mut tx = writer.begin()?;
        for held in &batch {
            row.encode(load.table.columns, &held.state);
            let (key, scope) = (load.name)(&held.state);
            let interval = Interval {
                key: &key,
                scope: &scope,
                valid_from_ns: held.from_ns,
                valid_to_ns: held.to_ns,
                ended_reason: "ended",
                evidence: "docker",
            };
            tx.put_interval(log, &interval, &row)?;
        }
        tx.commit()?;
        writer.maintain()?;
        total += begin.elapsed();
    }
}

fn read<F>(dir: &Path, load: &Load<F>, instants: &Instants) -> Outcome<(Vec<Duration>, Vec<Duration>)> {
    let schema = load.table.schema();
    let reader = Reader::open(dir)?;
    let ask = |scan: IntervalScan, least: usize| -> Outcome<Duration> {
        let mut length = 0;
        let (took, scanned) = timed(|| {
            reader.intervals(&schema, &scan, &mut |row| {
                length += row.cells.iter().map(|c| if let Cell::Text(text) = c { text.len() } else { 8 }).sum::<usize>();
                ControlFlow::Continue(())
            })
        });
        let rows = scanned?.rows;
        if rows < least || length < rows { Err(format!("only {rows} rows of {scan:?}").into()) } else { Ok(took) }
    };
    let one = |(key, at): &(String, i64)| ask(IntervalScan { keys: vec![key.clone()], as_of: Some(*at), ..IntervalScan::default() }, 1);
    let all = |at: &i64| ask(IntervalScan { as_of: Some(*at), ..IntervalScan::default() }, load.alive * 4 / 5);
    Ok((instants.of_one.iter().map(one).collect::<Outcome<_>>()?, instants.of_all.iter().map(all).collect::<Outcome<_>>()?))
}
