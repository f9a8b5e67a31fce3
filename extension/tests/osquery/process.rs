//! The extension as osqueryd starts it: a process of its own, with a configuration.

use std::{
    collections::BTreeMap,
    fs,
    ops::ControlFlow,
    process::{Child, Command, ExitStatus},
    time::{Duration, Instant},
};

use mayfly_history::{Cell, feed::FeedStatus, store::Reader};
use mayfly_tables::{Home, Query, Rows, TableError, find};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::peer::{Osqueryd, Place, until};

/// `mayfly extension`, which does not record: the test does.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn start(place: &Place, config: &str) -> Self {
        let file = place.state_dir().with_extension("toml");
        fs::write(&file, format!("[extension]\nrecord = false\n[history]\ntables = []\n[log]\nlevel = \"error\"\n{config}")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_mayfly"));
        command.arg("extension").arg("--socket").arg(place.socket()).args(["--timeout", "1", "--interval", "1"]);
        Self(command.env("MAYFLY_CONFIG", file).env("MAYFLY_STATE_DIR", place.state_dir()).spawn().unwrap())
    }

    /// Ends it as osqueryd does; gives how long that took.
    pub(crate) fn terminate(mut self) -> (ExitStatus, Duration) {
        let began = Instant::now();
        kill_process(Pid::from_child(&self.0), Signal::TERM).unwrap();
        (self.0.wait().unwrap(), began.elapsed())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A manager that has the table `people`, and `sleepers`, which answers after so many seconds.
pub(crate) fn manager(place: &Place, sleep: u32) -> Osqueryd {
    let mut osqueryd = place.manager_closed(&[], |program| Command::new(program));
    for (table, columns, row) in [("people", "username", "root"), ("sleepers", "it", "hangs")] {
        osqueryd.ask(&json!({"do": "put", "table": table, "columns": [[columns, "TEXT", 8]], "rows": [[row]]}));
    }
    osqueryd.ask(&json!({"do": "pause", "table": "sleepers", "seconds": sleep}));
    osqueryd.ask(&json!({"do": "open"}));
    osqueryd
}

/// A row of `triggered_results`; NULL is empty.
pub(crate) type Found = BTreeMap<&'static str, String>;

struct Collect<'c>(Vec<&'static str>, &'c mut Vec<Found>);

impl Rows for Collect<'_> {
    fn row(&mut self, cells: &[Cell<'_>]) -> ControlFlow<()> {
        let text = |cell: &Cell<'_>| match cell {
            Cell::Null => String::new(),
            Cell::Int(int) => int.to_string(),
            Cell::Text(text) => (*text).to_owned(),
        };
        self.1.push(self.0.iter().copied().zip(cells.iter().map(text)).collect());
        ControlFlow::Continue(())
    }
}

/// What was kept under that name, the oldest first.
pub(crate) fn results(place: &Place, name: &str) -> Vec<Found> {
    let table = find("triggered_results").unwrap();
    let mut found = Vec::new();
    let read = |found: &mut Vec<Found>| -> Result<(), TableError> {
        let columns = table.schema().columns.iter().map(|column| column.name).collect();
        table.generate(&Home::Captures.open(&place.state_dir())?, &Query::default(), &mut Collect(columns, found)).map(drop)
    };
    read(&mut found).unwrap();
    found.retain(|row| row["name"] == name);
    found
}

/// Waits until there are that many.
pub(crate) fn wait_for_results(place: &Place, name: &str, count: usize) -> Vec<Found> {
    let mut found = Vec::new();
    until(&format!("{count} results of {name}"), || {
        found = results(place, name);
        found.len() >= count
    });
    assert_eq!(found.len(), count, "{name}: {found:?}");
    found
}

/// How a trigger fares.
pub(crate) fn status(place: &Place, source: &str, name: &str) -> Option<FeedStatus> {
    let sources = Reader::open(&mayfly_history::captures::folder(&place.state_dir())).unwrap().sources().unwrap();
    sources.into_iter().find(|status| status.source == source && status.endpoint == name)
}

pub(crate) fn wait_for_status(place: &Place, source: &str, name: &str, holds: impl Fn(&FeedStatus) -> bool) -> FeedStatus {
    let mut last = None;
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(status) = status(place, source, name) {
            if holds(&status) {
                return status;
            }
            last = Some(status);
        }
        assert!(Instant::now() < deadline, "{source} {name}: {last:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
