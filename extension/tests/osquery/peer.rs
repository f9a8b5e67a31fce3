//! The peers of these tests: a stand-in for osqueryd (see `manager.py`), an extension, and a store with events.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use mayfly::{
    asking::Asking,
    config::Loaded,
    delivery::DeliveryConfig,
    line::Line,
    serve::{Extension, ServeOptions},
    sql::Database,
};
use mayfly_history::{
    Feed, Nanos, TableSchema,
    identity::Identity,
    image::ImageEvent,
    now,
    store::{Interval, Reader, RowBuf, StoreOptions, Writer},
};
use mayfly_tables::{CONTAINER_IMAGE_EVENTS, HOST_IDENTITY_HISTORY, TABLES};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The event table that these tests deliver.
pub(crate) const EVENTS: &str = "container_image_events";

/// Waits until `condition` holds.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "not within 30 s: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A Python that has osquery's bindings; made once, kept in the target folder.
fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("osquery-python");
        let python = place.join("bin/python");
        let has_bindings = || Command::new(&python).args(["-c", "import osquery.extensions"]).output().is_ok_and(|o| o.status.success());
        if !has_bindings() {
            let run = |program: &Path, arguments: &[&str]| {
                let done =
                    Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("cannot run {}: {e}", program.display()));
                let said = String::from_utf8_lossy(&done.stderr);
                assert!(done.status.success(), "these tests need python3 with venv, and PyPI's osquery: {said}");
            };
            run(Path::new("python3"), &["-m", "venv", "--clear", &place.to_string_lossy()]);
            run(&python, &["-m", "pip", "install", "--quiet", "osquery==3.1.1", "thrift"]);
        }
        python
    })
}

/// A folder with room for a socket, a store and osquery's database.
pub(crate) struct Place {
    dir: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::Builder::new().prefix("mayfly-").tempdir_in("/tmp").unwrap() }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("osquery.em")
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.dir.path().join("osquery.json")
    }

    /// The first column of what `mayfly query` answers.
    pub(crate) fn query(&self, sql: &str) -> Vec<String> {
        let database = Database::open(&self.state_dir()).unwrap();
        let mut statement = database.connection().prepare(sql).unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    }

    /// Our sockets that lie here.
    pub(crate) fn sockets(&self) -> Vec<PathBuf> {
        let files = self.dir.path().read_dir().unwrap().map(|f| f.unwrap().path());
        files.filter(|f| f.file_name().unwrap().to_string_lossy().starts_with("osquery.em.")).collect()
    }

    /// Starts the extension with the tables that users get.
    pub(crate) fn extension(&self) -> Running {
        self.extension_with(DeliveryConfig::default())
    }

    pub(crate) fn extension_with(&self, delivery: DeliveryConfig) -> Running {
        let feed = Feed::new("tables", self.socket().to_string_lossy().into_owned());
        let shutdowns = Arc::new(AtomicUsize::new(0));
        let line = Line::new(self.socket());
        let options = ServeOptions {
            line: line.clone(),
            follow: Vec::new(),
            timeout: Duration::from_secs(30),
            interval: Duration::from_millis(200),
            state_dir: self.state_dir(),
            delivery,
            tables: TABLES,
            feed: feed.clone(),
            on_shutdown: Arc::new({
                let shutdowns = Arc::clone(&shutdowns);
                move || {
                    shutdowns.fetch_add(1, SeqCst);
                }
            }),
        };
        Running { extension: Extension::start(options).unwrap(), feed, shutdowns, line }
    }

    /// Begins to ask and to tell osquery on our own account, beside an extension that runs, as that configuration says.
    pub(crate) fn asking(&self, running: &Running, config: &str) -> Asking {
        let loaded = Loaded { config: toml::from_str(config).unwrap(), ..Loaded::default() };
        Asking::start(&loaded, &self.state_dir(), running.line.clone()).unwrap()
    }

    /// Starts a manager; each name in `tables` is one more table that it has already.
    pub(crate) fn manager(&self, tables: &[&str]) -> Osqueryd {
        let mut osqueryd = self.manager_closed(tables, |program| Command::new(program));
        osqueryd.ask(&json!({"do": "open"}));
        osqueryd
    }

    /// The same, started by the command that `enter` makes of a program; nobody can reach it until it is told to open.
    pub(crate) fn manager_closed(&self, tables: &[&str], enter: impl Fn(&str) -> Command) -> Osqueryd {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/osquery/manager.py");
        let mut child = enter(&python().to_string_lossy())
            .arg(script)
            .args([self.socket(), self.database()])
            .args(tables)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (commands, answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut osqueryd = Osqueryd { child, commands, answers, instance: String::new() };
        osqueryd.instance = osqueryd.read()["ready"].as_str().unwrap().to_owned();
        osqueryd
    }

    /// A store that is being written.
    pub(crate) fn store(&self) -> Store {
        self.store_with(&StoreOptions::default())
    }

    pub(crate) fn store_with(&self, options: &StoreOptions) -> Store {
        let schema = CONTAINER_IMAGE_EVENTS.schema();
        let dir = self.state_dir();
        Store { writer: Writer::open(&dir, options).unwrap().writer, dir, schema, written: 0, identified: None }
    }
}

/// An extension at work.
pub(crate) struct Running {
    pub(crate) extension: Extension,
    pub(crate) feed: Feed,
    pub(crate) shutdowns: Arc<AtomicUsize>,
    pub(crate) line: Line,
}

/// Events `event-1`, `event-2`, ….
pub(crate) struct Store {
    dir: PathBuf,
    writer: Writer,
    schema: TableSchema,
    pub(crate) written: usize,
    identified: Option<Nanos>,
}

impl Store {
    pub(crate) fn record(&mut self, count: usize) {
        self.record_at(now(), count);
    }

    pub(crate) fn record_at(&mut self, time_ns: Nanos, count: usize) {
        let events = (0..count).map(|_| {
            self.written += 1;
            ImageEvent { time_ns, action: "pull", image: Some(format!("event-{}", self.written)), ..ImageEvent::default() }
        });
        let events: Vec<_> = events.collect();
        self.put(&events);
    }

    /// Records these, as of now.
    pub(crate) fn append(&mut self, events: Vec<ImageEvent>) {
        let events: Vec<_> = events.into_iter().map(|event| ImageEvent { time_ns: now(), ..event }).collect();
        self.put(&events);
    }

    fn put(&mut self, events: &[ImageEvent]) {
        let log = self.writer.events(&self.schema).unwrap();
        let mut transaction = self.writer.begin().unwrap();
        let mut row = RowBuf::default();
        for event in events {
            row.encode(CONTAINER_IMAGE_EVENTS.columns, event);
            transaction.append(log, event.time_ns, &row).unwrap();
        }
        transaction.commit().unwrap();
    }

    /// Tells who the host is.
    pub(crate) fn identify(&mut self, incarnation: &str) {
        let log = self.writer.history(&HOST_IDENTITY_HISTORY.schema()).unwrap();
        let identity = Identity { hostname: "host".into(), incarnation_id: incarnation.into(), ..Identity::default() };
        let mut row = RowBuf::default();
        row.encode(HOST_IDENTITY_HISTORY.columns, &identity);
        let from =
            |valid_from_ns| Interval { key: "host", scope: "", valid_from_ns, valid_to_ns: None, ended_reason: "", evidence: "test" };
        let mut transaction = self.writer.begin().unwrap();
        if let Some(before) = self.identified.replace(now()) {
            transaction.end_interval(log, &Interval { valid_to_ns: Some(now()), ..from(before) }).unwrap();
        }
        transaction.put_interval(log, &from(self.identified.unwrap()), &row).unwrap();
        transaction.commit().unwrap();
    }

    /// Lets retention drop something.
    pub(crate) fn expire(&mut self) {
        until("something expired", || {
            self.writer.maintain().unwrap();
            Reader::open(&self.dir).unwrap().dropped(&self.schema).unwrap().is_some()
        });
    }
}

/// The manager's process.
pub(crate) struct Osqueryd {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// osquery's `instance_id`.
    pub(crate) instance: String,
}

impl Osqueryd {
    fn read(&mut self) -> Value {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("the manager said {line:?}: {e}"))
    }

    /// Gives a command; `None` if the manager died of it.
    pub(crate) fn order(&mut self, command: &Value) -> Option<Value> {
        writeln!(self.commands, "{command}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        (!line.is_empty()).then(|| serde_json::from_str(&line).unwrap())
    }

    /// Gives a command that must succeed.
    pub(crate) fn ask(&mut self, command: &Value) -> Value {
        let answer = self.order(command).expect("the manager lives");
        assert!(answer.get("failed").is_none(), "{command}: {answer}");
        answer
    }

    /// Waits until an extension is registered and answers; gives its id.
    pub(crate) fn registered(&mut self) -> i64 {
        let mut found = None;
        until("registered", || {
            let listed = self.ask(&json!({"do": "extensions"}));
            let uuid =
                listed["extensions"].as_object().unwrap().iter().find(|(_, name)| *name == "mayfly").map(|(uuid, _)| uuid.parse().unwrap());
            found = uuid.filter(|uuid: &i64| self.order(&json!({"do": "ping", "uuid": uuid})).is_some_and(|a| a["code"] == 0));
            found.is_some()
        });
        found.unwrap()
    }

    /// Dies without a word, as at `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Osqueryd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
