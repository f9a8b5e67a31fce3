//! The binary under test: its configuration, its state directory, its recorder, its answers.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{LazyLock, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Map, Value};
use tempfile::TempDir;

use crate::{
    Result,
    command::{run, workspace},
    wait::until,
};

/// A row of an answer.
pub type Row = Map<String, Value>;

/// `mayfly` with a configuration and a state directory of its own.
#[derive(Debug)]
pub struct Mayfly {
    home: TempDir,
}

impl Mayfly {
    /// Follows what `config` (TOML) says; every runtime and source of the host that it does not mention is off.
    pub fn with(config: &str) -> Result<Self> {
        let home = tempfile::Builder::new().prefix("mayfly-state-").tempdir_in("/tmp")?;
        let mut text = config.to_owned();
        for source in
            ["docker", "podman", "containerd", "cri", "accounts", "mounts", "devices", "identity", "netlink", "dhcp", "lease_file"]
        {
            if !config.contains(&format!("[{source}]")) {
                text.push_str(&format!("\n[{source}]\nenabled = false\n"));
            }
        }
        fs::write(home.path().join("mayfly.toml"), text)?;
        Ok(Self { home })
    }

    /// Follows one endpoint of one kind of runtime.
    pub fn following(runtime: &str, endpoint: &str) -> Result<Self> {
        Self::with(&format!("[{runtime}]\nendpoints = [\"{endpoint}\"]\n"))
    }

    pub fn state_dir(&self) -> PathBuf {
        self.home.path().join("state")
    }

    pub fn config(&self) -> PathBuf {
        self.home.path().join("mayfly.toml")
    }

    /// `mayfly COMMAND` with this configuration and state directory.
    pub fn command(&self, command: &str) -> Result<Command> {
        let mut cli = Command::new(binary()?);
        cli.arg(command).arg("--config").arg(self.config()).arg("--state-dir").arg(self.state_dir());
        cli.env_remove("DOCKER_HOST").env_remove("MAYFLY_CONFIG").env_remove("MAYFLY_STATE_DIR");
        Ok(cli)
    }

    /// Starts `mayfly record`, and waits until each source that is on says what it is doing.
    pub fn record(&self) -> Result<Recording<'_>> {
        let recording = self.launch()?;
        recording.wait_for(&["docker", "podman", "containerd", "cri", "ebpf", "accounts", "mounts", "devices", "identity"], "running")?;
        Ok(recording)
    }

    /// Starts `mayfly record`, and waits for nothing.
    pub fn launch(&self) -> Result<Recording<'_>> {
        self.launch_by(&[])
    }

    /// The same, started by another program that takes its command line as arguments; by none if it is empty.
    pub fn launch_by(&self, launcher: &[&str]) -> Result<Recording<'_>> {
        let log = fs::File::options().create(true).append(true).open(self.home.path().join("log"))?;
        let mut command = self.command("record")?;
        if let Some((program, arguments)) = launcher.split_first() {
            let mut launched = Command::new(program);
            launched.args(arguments).arg(command.get_program()).args(command.get_args());
            command = launched;
        }
        let child = command.stdin(Stdio::null()).stderr(log.try_clone()?).stdout(log).spawn()?;
        Ok(Recording { mayfly: self, child })
    }

    /// What the recorder said on stderr so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    /// `mayfly query SQL`, parsed.
    pub fn query(&self, sql: &str) -> Result<Vec<Row>> {
        let text = run(self.command("query")?.args(["--format", "json", sql]))?;
        serde_json::from_str(&text).map_err(|error| format!("{sql}: {error}: {text}").into())
    }

    /// The first column of each row, a text.
    pub fn lines(&self, sql: &str) -> Result<Vec<String>> {
        let text = |row: &Row| row.values().next().and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(self.query(sql)?.iter().map(text).collect())
    }

    /// The first column of the first row, as a number.
    pub fn count(&self, sql: &str) -> Result<i64> {
        let rows = self.query(sql)?;
        let value = rows.first().and_then(|row| row.values().next()).ok_or_else(|| format!("{sql}: no row"))?;
        number(value).ok_or_else(|| format!("{sql}: {value} is no number").into())
    }

    /// Waits until `sql` counts at least `least`.
    pub fn wait_for_count(&self, sql: &str, least: usize) -> Result<i64> {
        let least = i64::try_from(least)?;
        until("count", Duration::from_secs(20), || match self.count(sql)? {
            n if n >= least => Ok(n),
            n => Err(format!("{sql}: {n} of {least}").into()),
        })
    }

    /// Prints each lifecycle event from now on, with the time when it became visible to a reader.
    pub fn watch(&self) -> Result<Watch> {
        let mut child = self.command("watch")?.args(["--json", "container_lifecycle_events"]).stdout(Stdio::piped()).spawn()?;
        let out = child.stdout.take().ok_or("mayfly watch has no output")?;
        let (first, started) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut seen = Vec::new();
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
                if let Ok(Value::Object(row)) = serde_json::from_str(&line) {
                    let _ = first.send(());
                    seen.push((i64::try_from(now).unwrap_or(i64::MAX), row));
                }
            }
            seen
        });
        Ok(Watch { child, started, thread })
    }
}

/// The built `mayfly`: `MAYFLY_BIN`, or this workspace's, built now if it is not up to date.
fn binary() -> Result<&'static Path> {
    static BINARY: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| {
        if let Some(given) = env::var_os("MAYFLY_BIN") {
            return Ok(given.into());
        }
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.current_dir(workspace()).args(["build", "--package", "mayfly", "--message-format", "json"]);
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        let messages = run(&mut build).map_err(|error| error.to_string())?;
        let made = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        made.filter_map(|m| m.get("executable")?.as_str().map(PathBuf::from))
            .find(|p| p.ends_with("mayfly"))
            .ok_or_else(|| "cargo built no mayfly".to_owned())
    });
    BINARY.as_deref().map_err(|error| error.clone().into())
}

/// A running recorder. Dropping it kills it.
#[derive(Debug)]
pub struct Recording<'m> {
    mayfly: &'m Mayfly,
    child: Child,
}

impl Recording<'_> {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether the process has ended, and how.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits until all runtimes' sources that are not off are in `state`, and there is at least one.
    pub fn wait_for_state(&self, state: &str) -> Result<()> {
        self.wait_for(
            &["docker", "podman", "containerd", "cri", "accounts", "mounts", "devices", "identity", "netlink", "lease_file"],
            state,
        )
    }

    /// The same for these sources.
    pub fn wait_for(&self, sources: &[&str], state: &str) -> Result<()> {
        let sources = format!(
            "SELECT source, endpoint, state, last_error, hint, r.pid FROM recorder_sources CROSS JOIN recorder_info r \
             WHERE source IN ('{}') AND state <> 'disabled'",
            sources.join("', '")
        );
        let what = format!("source that is {state}");
        until(&what, Duration::from_secs(20), || {
            let sources = self.mayfly.query(&sources)?;
            // Not what the recorder before this one said last.
            let is_own = |row: &Row| row.get("pid").and_then(number) == Some(self.pid().into());
            let is_so = |row: &Row| is_own(row) && row.get("state").and_then(Value::as_str) == Some(state);
            let there = !sources.is_empty() && sources.iter().all(is_so);
            if there { Ok(()) } else { Err(format!("{sources:?}; {}", self.mayfly.log()).into()) }
        })
    }

    /// Ends it as a crash or the kernel's OOM killer does.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Ends it in order (SIGTERM) and gives its status.
    pub fn stop(mut self) -> Result<ExitStatus> {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            kill_process(pid, Signal::TERM)?;
        }
        until("end of the recorder", Duration::from_secs(10), || self.child.try_wait()?.ok_or_else(|| "it still runs".into()))
    }
}

impl Drop for Recording<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running `mayfly watch`.
#[derive(Debug)]
pub struct Watch {
    child: Child,
    started: mpsc::Receiver<()>,
    thread: JoinHandle<Vec<(i64, Row)>>,
}

impl Watch {
    /// Waits for the first event: from then on nothing is missed.
    pub fn wait_for_first(&self, within: Duration) -> Result<()> {
        self.started.recv_timeout(within).map_err(|_| format!("mayfly watch printed nothing within {within:?}").into())
    }

    /// What it printed, each with the UNIX time in nanoseconds when it did.
    pub fn stop(mut self) -> Vec<(i64, Row)> {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.thread.join().unwrap_or_default()
    }
}

/// A number, whether it is spelt as one or as text.
pub(crate) fn number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}
