//! The way of 100,000 rows of 20 columns from the store to a peer's socket, beside the way with a map for each row.
//!
//! `cargo bench -p mayfly-benches --bench wire [ROWS]`; ends with 1 if the bound is missed.

use std::{
    collections::BTreeMap,
    env,
    error::Error,
    io::{Read, Write},
    net::Shutdown,
    ops::ControlFlow,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use mayfly::{
    context,
    thrift::{Answer, Limits, Reply, Server, Service, Strings},
};
use mayfly_benches::{
    fleet::Fleet,
    measure::{Figure, spread, table, timed},
};
use mayfly_history::{
    Cell, TableSchema,
    store::{Reader, RowBuf, StoreOptions, Writer},
};
use mayfly_tables::{CONTAINER_LIFECYCLE_EVENTS as EVENTS, Rows, find};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// What the question reads.
const COLUMNS: [&str; 20] = [
    "time",
    "time_ns",
    "eid",
    "action",
    "runtime",
    "source",
    "container_id",
    "name",
    "image",
    "image_id",
    "image_digest",
    "command",
    "pid",
    "exit_code",
    "lifetime_ms",
    "ip_addresses",
    "mac_addresses",
    "labels",
    "pod_name",
    "compose_project",
];

/// Answers in the way that the plugin's name says.
struct Plugin {
    dir: PathBuf,
}

impl Service for Plugin {
    fn uuid(&self) -> i64 {
        1
    }

    fn call(&self, _: &str, way: &str, request: &Strings) -> Reply {
        self.answer(way, request.get(b"context".as_slice()).map(Vec::as_slice)).unwrap_or_else(Reply::failure)
    }

    fn shutdown(&self) {}
}

impl Plugin {
    fn answer(&self, way: &str, context: Option<&[u8]>) -> Outcome<Reply> {
        let table = find(EVENTS.name).ok_or("the table is registered")?;
        let query = context::parse(table.schema(), context)?;
        let store = Reader::open(&self.dir)?;
        if way == "straight" {
            let mut answer = Answer::new(table.schema(), &query.wanted, usize::MAX);
            table.generate(&store, &query, &mut answer)?;
            return Ok(Reply::Rows(answer.finish()));
        }
        let mut maps = Maps { schema: table.schema(), wanted: &query.wanted, rows: Vec::new() };
        table.generate(&store, &query, &mut maps)?;
        Ok(Reply::success(maps.rows))
    }
}

/// The way that Thrift's generated code wants: each row a map of its own.
struct Maps<'a> {
    schema: &'a TableSchema,
    wanted: &'a [bool],
    rows: Vec<Strings>,
}

impl Rows for Maps<'_> {
    fn row(&mut self, cells: &[Cell<'_>]) -> ControlFlow<()> {
        let mut row = BTreeMap::new();
        for ((column, cell), _) in self.schema.columns.iter().zip(cells).zip(self.wanted).filter(|(_, wanted)| **wanted) {
            let value = match cell {
                Cell::Null => continue,
                Cell::Int(number) => number.to_string(),
                Cell::Text(text) => (*text).to_owned(),
            };
            row.insert(column.name.as_bytes().to_vec(), value.into_bytes());
        }
        self.rows.push(row);
        ControlFlow::Continue(())
    }
}

fn record(dir: &Path, count: usize) -> Outcome<()> {
    let options = StoreOptions { max_size_mib: 16 * 1024, ..StoreOptions::default() };
    let mut writer = Writer::open(dir, &options)?.writer;
    let log = writer.events(&EVENTS.schema())?;
    let mut row = RowBuf::default();
    let events: Vec<_> = Fleet::new(1, 1_761_955_200_000_000_000).take(count).collect();
    for batch in events.chunks(512) {
        let mut transaction = writer.begin()?;
        for event in batch {
            row.encode(EVENTS.columns, event);
            transaction.append(log, event.time_ns, &row)?;
        }
        transaction.commit()?;
        writer.maintain()?;
    }
    Ok(())
}

/// A request as a client writes it.
fn request(way: &str) -> Vec<u8> {
    let context = format!(r#"{{"constraints":[],"colsUsed":["{}"]}}"#, COLUMNS.join(r#"",""#));
    let mut bytes = vec![0x80, 0x01, 0, 1];
    let mut put = |before: &[u8], text: &str| {
        bytes.extend_from_slice(before);
        bytes.extend(u32::try_from(text.len()).unwrap_or_default().to_be_bytes());
        bytes.extend_from_slice(text.as_bytes());
    };
    put(b"", "call");
    put(b"\0\0\0\x01\x0b\0\x01", "table");
    put(b"\x0b\0\x02", way);
    put(b"\x0d\0\x03\x0b\x0b\0\0\0\x01", "context");
    put(b"", &context);
    bytes.push(0);
    bytes
}

/// Asks, and reads to the end; the bytes that came.
fn ask(socket: &Path, way: &str) -> Outcome<usize> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(&request(way))?;
    stream.shutdown(Shutdown::Write)?;
    let (mut buffer, mut total) = (vec![0; 1 << 18], 0);
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(total),
            read => total += read,
        }
    }
}

fn measure(socket: &Path, way: &str) -> Outcome<(usize, Duration, Duration)> {
    let mut runs = Vec::new();
    let mut bytes = 0;
    for _ in 0..7 {
        let (took, asked) = timed(|| ask(socket, way));
        bytes = asked?;
        runs.push(took);
    }
    let (median, longest) = spread(runs);
    Ok((bytes, median, longest))
}

#[expect(clippy::print_stdout, reason = "the table is what this program is for")]
fn main() -> Outcome<ExitCode> {
    let count = env::args().skip(1).find_map(|a| a.parse().ok()).unwrap_or(100_000);
    let dir = tempfile::tempdir()?;
    record(dir.path(), count)?;
    let socket = dir.path().join("socket");
    let _server = Server::start(&socket, Arc::new(Plugin { dir: dir.path().to_owned() }), Limits::default())?;
    let (bytes, straight, longest) = measure(&socket, "straight")?;
    let (map_bytes, maps, _) = measure(&socket, "maps")?;
    if bytes < count * COLUMNS.len() || bytes.abs_diff(map_bytes) > 64 {
        return Err(format!("the answers differ: {bytes} and {map_bytes} bytes").into());
    }
    let title = format!("{count} rows of {} columns, {:.1} MB, from the store to a socket", COLUMNS.len(), bytes as f64 / 1e6);
    let kept = straight <= Duration::from_millis(500);
    let figure = Figure {
        claim: "store → socket, median (longest) of seven",
        measured: format!("{straight:.0?} ({longest:.0?})"),
        bound: "≤ 500ms",
        kept,
        alternative: format!("{maps:.0?}"),
    };
    println!("{}", table(&title, "a map for each row", &[figure]));
    Ok(if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
