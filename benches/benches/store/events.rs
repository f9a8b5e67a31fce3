//! Events: recording, sealing, and what queries ask most.

use std::{
    fs,
    ops::ControlFlow,
    path::Path,
    time::{Duration, Instant},
};

use mayfly_benches::{
    fleet::{Fleet, Random},
    measure::{Figure, cpu_time, resident_mib, spread, timed},
};
use mayfly_history::{
    Cell, Eid,
    container::ContainerEvent,
    store::{EventScan, Limit, Reader, RowBuf, StoreOptions, Writer},
};
use mayfly_tables::CONTAINER_LIFECYCLE_EVENTS as TABLE;

use crate::{BEGIN, Outcome, plain};

const BATCH: usize = 512;

pub(crate) fn options() -> StoreOptions {
    StoreOptions { max_size_mib: 16 * 1024, max_rows: u64::MAX, ..StoreOptions::default() }
}

/// What queries are asked with: some containers, and the ends of one percent of the time.
pub(crate) struct Questions {
    pub(crate) ids: Vec<String>,
    pub(crate) ranges: Vec<(i64, i64)>,
}

impl Questions {
    fn of(count: usize) -> Self {
        let mut random = Random::new(7);
        let wanted: Vec<usize> = (0..20).map(|_| usize::try_from(random.below(count as u64)).unwrap_or(0)).collect();
        let (mut ids, mut last) = (Vec::new(), BEGIN);
        for (n, event) in Fleet::new(1, BEGIN).take(count).enumerate() {
            if wanted.contains(&n) {
                ids.push(event.key.container_id.to_string());
            }
            last = event.time_ns;
        }
        let percent = (last - BEGIN) / 100;
        let ranges =
            (0..20).map(|_| BEGIN + (last - BEGIN - percent) / 1000 * random.below(1000).cast_signed()).map(|from| (from, from + percent));
        Self { ids, ranges: ranges.collect() }
    }
}

pub(crate) fn measure(dir: &Path, count: usize) -> Outcome<Vec<Figure>> {
    let questions = Questions::of(count);
    let recorded = record(dir, count)?;
    let (rss, highest) = resident_mib();
    let bytes = sealed_bytes(dir)?;
    let per_event = bytes.0 / bytes.1;
    let file = fs::metadata(dir.join("history.db"))?.len();
    let read = read(dir, &questions)?;
    let opened: Vec<Duration> = (0..5).map(|_| timed(|| Writer::open(dir, &options()).map(drop)).0).collect();

    let plain_dir = dir.with_extension("plain");
    let plain = plain::events(&plain_dir, count, &questions)?;
    let rate = count as f64 / recorded.total.as_secs_f64();
    Ok(vec![
        Figure {
            claim: "lifecycle events recorded a second, sealing included",
            measured: format!("{rate:.0}"),
            bound: "≥ 150000",
            kept: rate >= 150_000.0,
            alternative: format!("{:.0}", count as f64 / plain.recorded.as_secs_f64()),
        },
        Figure {
            claim: "the same for each second of CPU time",
            measured: format!("{:.0}", count as f64 / recorded.cpu.as_secs_f64()),
            bound: "≥ 150000",
            kept: count as f64 / recorded.cpu.as_secs_f64() >= 150_000.0,
            alternative: format!("{:.0}", count as f64 / plain.cpu.as_secs_f64()),
        },
        Figure {
            claim: "longest commit or maintenance step",
            measured: format!("{:.1?}", recorded.longest),
            bound: "≤ 250 ms",
            kept: recorded.longest <= Duration::from_millis(250),
            alternative: format!("{:.1?}", plain.longest),
        },
        Figure {
            claim: "bytes of an event once sealed",
            measured: format!("{per_event:.1}"),
            bound: "≤ 80",
            kept: per_event <= 80.0,
            alternative: format!("{:.1}", plain.bytes as f64 / count as f64),
        },
        Figure {
            claim: "bytes of an event, whole file",
            measured: format!("{:.1}", file as f64 / count as f64),
            bound: "≤ 100",
            kept: file as f64 / count as f64 <= 100.0,
            alternative: format!("{:.1}", plain.bytes as f64 / count as f64),
        },
        Figure {
            claim: "resident memory after recording (highest), MiB",
            measured: format!("{rss:.0} ({highest:.0})"),
            bound: "≤ 60",
            kept: rss <= 60.0,
            alternative: String::new(),
        },
        of_runs("events of 1 % of the time, median (longest)", &read.ranges, "≤ 10 ms", Duration::from_millis(10), &plain.ranges),
        of_runs("events of one container, median (longest)", &read.ids, "≤ 20 ms", Duration::from_millis(20), &plain.ids),
        of_runs("the newest 100 events, median (longest)", &read.newest, "≤ 10 ms", Duration::from_millis(10), &plain.newest),
        Figure {
            claim: "all events, all columns, a second",
            measured: format!("{:.0}", count as f64 / read.all.as_secs_f64()),
            bound: "≥ 1000000",
            kept: count as f64 / read.all.as_secs_f64() >= 1e6,
            alternative: format!("{:.0}", count as f64 / plain.all.as_secs_f64()),
        },
        Figure {
            claim: "all events, three columns, a second",
            measured: format!("{:.0}", count as f64 / read.few.as_secs_f64()),
            bound: "≥ 1000000",
            kept: count as f64 / read.few.as_secs_f64() >= 1e6,
            alternative: String::new(),
        },
        of_runs("opening it to write, median (longest)", &opened, "≤ 10 ms", Duration::from_millis(10), &[]),
    ])
}

/// The median is what is bounded; the longest is shown.
pub(crate) fn of_runs(claim: &'static str, runs: &[Duration], bound: &'static str, most: Duration, plain: &[Duration]) -> Figure {
    let (median, longest) = spread(runs.to_vec());
    let alternative = spread(plain.to_vec());
    Figure {
        claim,
        measured: format!("{median:.1?} ({longest:.1?})"),
        bound,
        kept: median <= most,
        alternative: if plain.is_empty() { String::new() } else { format!("{:.1?} ({:.1?})", alternative.0, alternative.1) },
    }
}

struct Recorded {
    total: Duration,
    cpu: Duration,
    longest: Duration,
}

/// Records as the recorder does; making up the events is not counted.
fn record(dir: &Path, count: usize) -> Outcome<Recorded> {
    let mut writer = Writer::open(dir, &options())?.writer;
    let log = writer.events(&TABLE.schema())?;
    let mut fleet = Fleet::new(1, BEGIN).take(count);
    let mut row = RowBuf::default();
    let mut recorded = Recorded { total: Duration::ZERO, cpu: Duration::ZERO, longest: Duration::ZERO };
    let mut batch: Vec<ContainerEvent> = Vec::with_capacity(BATCH);
    loop {
        batch.clear();
        batch.extend(fleet.by_ref().take(BATCH));
        if batch.is_empty() {
            return Ok(recorded);
        }
        let (begin, cpu) = (Instant::now(), cpu_time());
        let mut tx = writer.begin()?;
        for event in &batch {
            row.encode(TABLE.columns, event);
            tx.append(log, event.time_ns, &row)?;
        }
        tx.commit()?;
        let mut step = begin;
        loop {
            recorded.longest = recorded.longest.max(step.elapsed());
            step = Instant::now();
            if writer.maintain()? > step {
                break;
            }
        }
        recorded.total += begin.elapsed();
        recorded.cpu += cpu_time() - cpu;
    }
}

/// Bytes and rows of the blocks.
fn sealed_bytes(dir: &Path) -> Outcome<(f64, f64)> {
    let conn = rusqlite::Connection::open(dir.join("history.db"))?;
    Ok(conn.query_row("SELECT sum(bytes), sum(rows) FROM container_lifecycle_events_blocks", [], |r| Ok((r.get(0)?, r.get(1)?)))?)
}

struct Read {
    ranges: Vec<Duration>,
    ids: Vec<Duration>,
    newest: Vec<Duration>,
    all: Duration,
    few: Duration,
}

fn read(dir: &Path, questions: &Questions) -> Outcome<Read> {
    let schema = TABLE.schema();
    let reader = Reader::open(dir)?;
    let id = schema.stored().position(|c| c.name == "container_id").ok_or("no such column")?;
    let width = schema.stored().count();
    let few = (0..width).map(|i| i == 0 || i == id || i == 4).collect();
    let ask = |scan: EventScan, least: usize| -> Outcome<Duration> {
        let mut length = 0;
        let (took, scanned) = timed(|| {
            reader.events(&schema, &scan, &mut |row| {
                length += row.cells.iter().map(|c| if let Cell::Text(text) = c { text.len() } else { 8 }).sum::<usize>();
                ControlFlow::Continue(())
            })
        });
        let rows = scanned?.rows;
        if rows < least || length < rows { Err(format!("only {rows} rows of {scan:?}").into()) } else { Ok(took) }
    };
    let range = |&(from, to): &(i64, i64)| ask(EventScan { from_ns: Some(from), to_ns: Some(to), ..EventScan::default() }, 100);
    let of_id = |container: &String| ask(EventScan { keys: vec![(id, vec![container.clone()])], ..EventScan::default() }, 1);
    Ok(Read {
        ranges: questions.ranges.iter().map(range).collect::<Outcome<_>>()?,
        ids: questions.ids.iter().map(of_id).collect::<Outcome<_>>()?,
        newest: (0..20).map(|_| ask(EventScan { limit: Limit::Newest(100), ..EventScan::default() }, 100)).collect::<Outcome<_>>()?,
        all: ask(EventScan { after: Some(Eid::default()), ..EventScan::default() }, 1)?,
        few: ask(EventScan { wanted: few, ..EventScan::default() }, 1)?,
    })
}
