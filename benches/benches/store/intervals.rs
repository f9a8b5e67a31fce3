//! Intervals: what held at an instant, of one container and of all.

use std::{
    fs,
    ops::ControlFlow,
    path::Path,
    time::{Duration, Instant},
};

use mayfly_benches::{
    fleet::{Random, states},
    measure::{Figure, timed},
};
use mayfly_history::{
    Cell,
    store::{Interval, IntervalScan, Reader, RowBuf, Writer},
};
use mayfly_tables::CONTAINER_HISTORY as TABLE;

use crate::{
    BEGIN, Outcome,
    events::{of_runs, options},
    plain,
};

/// When is asked: of some containers while they were, and of all.
pub(crate) struct Instants {
    pub(crate) of_one: Vec<(String, i64)>,
    pub(crate) of_all: Vec<i64>,
}

impl Instants {
    fn of(containers: usize) -> Self {
        let mut random = Random::new(9);
        let every = (containers / 50).max(1);
        let mut of_one = Vec::new();
        let mut last = BEGIN;
        for (n, life) in states(2, BEGIN, containers as u64, 500).enumerate() {
            last = life[0].from_ns;
            if n % every == 0 {
                let held = &life[1];
                of_one.push((held.state.key.container_id.to_string(), held.from_ns));
            }
        }
        let of_all = (0..20).map(|_| BEGIN + (last - BEGIN) / 1000 * (100 + random.below(800)).cast_signed()).collect();
        Self { of_one, of_all }
    }
}

pub(crate) fn measure(dir: &Path, containers: usize) -> Outcome<Vec<Figure>> {
    let instants = Instants::of(containers);
    let count = (containers * 4) as f64;
    let recorded = record(dir, containers)?;
    let file = fs::metadata(dir.join("history.db"))?.len();
    let opened: Vec<Duration> = (0..5).map(|_| timed(|| Writer::open(dir, &options()).map(drop)).0).collect();
    let (of_one, of_all) = read(dir, &instants)?;
    let plain = plain::intervals(&dir.with_extension("plain"), containers, &instants)?;
    Ok(vec![
        Figure {
            claim: "intervals stored a second",
            measured: format!("{:.0}", count / recorded.as_secs_f64()),
            bound: "≥ 10000",
            kept: count / recorded.as_secs_f64() >= 10_000.0,
            alternative: format!("{:.0}", count / plain.recorded.as_secs_f64()),
        },
        Figure {
            claim: "bytes of an interval, whole file",
            measured: format!("{:.0}", file as f64 / count),
            bound: "≤ 1000",
            kept: file as f64 / count <= 1000.0,
            alternative: format!("{:.0}", plain.bytes as f64 / count),
        },
        of_runs("as_of of one container, median (longest)", &of_one, "≤ 1 ms", Duration::from_millis(1), &plain.of_one),
        of_runs("full state as of T, median (longest)", &of_all, "≤ 50 ms", Duration::from_millis(50), &plain.of_all),
        of_runs("opening it to write, median (longest)", &opened, "≤ 10 ms", Duration::from_millis(10), &[]),
    ])
}

fn record(dir: &Path, containers: usize) -> Outcome<Duration> {
    let mut writer = Writer::open(dir, &options())?.writer;
    let log = writer.history(&TABLE.schema())?;
    let mut fleet = states(2, BEGIN, containers as u64, 500);
    let mut row = RowBuf::default();
    let mut total = Duration::ZERO;
    loop {
        let batch: Vec<_> = fleet.by_ref().take(128).collect();
        if batch.is_empty() {
            return Ok(total);
        }
        let begin = Instant::now();
        let mut tx = writer.begin()?;
        for held in batch.iter().flatten() {
            row.encode(TABLE.columns, &held.state);
            let interval = Interval {
                key: &held.state.key.container_id,
                scope: &held.state.key.endpoint,
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

fn read(dir: &Path, instants: &Instants) -> Outcome<(Vec<Duration>, Vec<Duration>)> {
    let schema = TABLE.schema();
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
    let one = |(id, at): &(String, i64)| ask(IntervalScan { keys: vec![id.clone()], as_of: Some(*at), ..IntervalScan::default() }, 1);
    let all = |at: &i64| ask(IntervalScan { as_of: Some(*at), ..IntervalScan::default() }, 400);
    Ok((instants.of_one.iter().map(one).collect::<Outcome<_>>()?, instants.of_all.iter().map(all).collect::<Outcome<_>>()?))
}
