//! A host whose osquery is followed: a tree of files, a manager, and the binary that records.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command},
    time::Duration,
};

use mayfly::sql::Database;
use serde_json::{Value, json};

use crate::peer::{Osqueryd, Place};

/// In nanoseconds.
pub(crate) const SECOND: i64 = 1_000_000_000;

pub(crate) struct Host {
    pub(crate) place: Place,
    /// Where its files are.
    pub(crate) root: PathBuf,
    pub(crate) osqueryd: Osqueryd,
    mayfly: Option<Child>,
}

impl Host {
    pub(crate) fn new() -> Self {
        Self::within(|program| Command::new(program))
    }

    /// The same, whose osquery is started by the command that `enter` makes of a program.
    pub(crate) fn within(enter: impl Fn(&str) -> Command) -> Self {
        let place = Place::new();
        let root = place.state_dir().with_file_name("root");
        for folder in ["etc/cron.d", "etc/sudoers.d", "etc/apt/sources.list.d", "etc/systemd/system", "var/lib/dpkg", "root/.ssh"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        let mut osqueryd = place.manager_closed(&[], enter);
        osqueryd.ask(&json!({"do": "open"}));
        Self { place, root, osqueryd, mayfly: None }
    }

    /// Starts `mayfly extension`, which follows these tables; `history` is more of that section.
    pub(crate) fn start(&mut self, tables: &[&str], history: &str) {
        self.start_with(tables, history, "", Command::new(env!("CARGO_BIN_EXE_mayfly")));
    }

    /// The same, by a command that ends in the binary, and with `more` sections.
    pub(crate) fn start_with(&mut self, tables: &[&str], history: &str, more: &str, mut mayfly: Command) {
        let config = self.root.with_file_name("mayfly.toml");
        let root = self.root.display();
        let mut off = vec!["docker", "podman", "containerd", "cri", "ebpf", "dhcp", "lease_file", "identity"];
        if more.is_empty() {
            off.extend(["mounts", "netlink"]);
        }
        let off: String = off.into_iter().map(|source| format!("[{source}]\nenabled = false\n")).collect();
        let text = format!(
            "{off}[history]\ntables = {tables:?}\nroot = \"{root}\"\n{history}[accounts]\ncontainers = false\nroot = \"{root}\"\n\
             [log]\nlevel = \"warn\"\n{more}"
        );
        fs::write(&config, text).unwrap();
        mayfly.arg("extension").arg("--socket").arg(self.place.socket()).args(["--timeout", "30", "--interval", "1"]);
        mayfly.arg("--config").arg(config).arg("--state-dir").arg(self.place.state_dir());
        self.mayfly = Some(mayfly.spawn().unwrap());
    }

    /// Runs a command of `mayfly` on what is recorded: its exit code, what it printed, and what it said.
    pub(crate) fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let done =
            Command::new(env!("CARGO_BIN_EXE_mayfly")).args(arguments).arg("--state-dir").arg(self.place.state_dir()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (done.status.code().unwrap(), text(&done.stdout), text(&done.stderr))
    }

    /// Processor time that the extension has taken.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.mayfly.as_ref().unwrap().id())).unwrap();
        let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        // utime and stime, in hundredths of a second on every Linux.
        Duration::from_millis(10 * fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum::<u64>())
    }

    pub(crate) fn put(&mut self, table: &str, columns: &[(&str, &str, u32)], rows: Value) {
        self.osqueryd.ask(&json!({"do": "put", "table": table, "columns": columns, "rows": rows}));
    }

    /// How often osquery was asked for a table.
    pub(crate) fn asked(&mut self, table: &str) -> u64 {
        self.osqueryd.ask(&json!({"do": "asked"}))["asked"][table].as_u64().unwrap()
    }

    pub(crate) fn kill_osquery(&mut self) {
        self.osqueryd.kill();
    }

    /// Starts an osquery that `prepare` has given tables before anybody can register.
    pub(crate) fn start_osquery(&mut self, prepare: impl FnOnce(&mut Osqueryd)) {
        self.osqueryd = self.place.manager_closed(&[], |program| Command::new(program));
        prepare(&mut self.osqueryd);
        self.osqueryd.ask(&json!({"do": "open"}));
    }

    /// Replaces a file below the root, as editors do.
    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.root.join(path);
        let new = path.with_extension("new-of-test");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&new, text).unwrap();
        fs::rename(new, path).unwrap();
    }

    /// The first column of what a query gives; nothing while there is no store yet.
    pub(crate) fn texts(&self, sql: &str) -> Vec<String> {
        let Ok(database) = Database::open(&self.place.state_dir()) else { return Vec::new() };
        let Ok(mut statement) = database.connection().prepare(sql) else { return Vec::new() };
        let text = |row: &rusqlite::Row<'_>| row.get::<_, rusqlite::types::Value>(0);
        let values: Vec<_> = statement.query_map([], text).unwrap().collect::<Result<_, _>>().unwrap();
        values.into_iter().map(spelt).collect()
    }

    pub(crate) fn number(&self, sql: &str) -> i64 {
        self.texts(sql)[0].parse().unwrap()
    }

    pub(crate) fn has(&self, table: &str) -> bool {
        Database::open(&self.place.state_dir())
            .is_ok_and(|database| database.connection().prepare(&format!("SELECT 1 FROM {table}")).is_ok())
    }
}

/// A value as osquery would spell it.
pub(crate) fn spelt(value: rusqlite::types::Value) -> String {
    use rusqlite::types::Value;
    match value {
        Value::Null => String::new(),
        Value::Integer(int) => int.to_string(),
        Value::Real(real) => real.to_string(),
        Value::Text(text) => text,
        Value::Blob(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut mayfly) = self.mayfly.take() {
            let _ = mayfly.kill();
            let _ = mayfly.wait();
        }
    }
}
