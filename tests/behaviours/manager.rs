//! An osquery of Python: the manager and the scheduler of `tests/python/manager.py`, on osquery's own bindings.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::LazyLock,
    time::Duration,
};

use mayfly_tests::{Mayfly, Result, run, tool, until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The version of the bindings that the tests were written for.
const BINDINGS: &str = "osquery==3.1.1";

/// A manager that can be killed and started again over the same database.
#[derive(Debug)]
pub(crate) struct Manager {
    dir: TempDir,
    process: Option<Process>,
}

#[derive(Debug)]
struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Manager {
    pub(crate) fn start() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("mayfly-manager-").tempdir_in("/tmp")?;
        let mut manager = Self { dir, process: None };
        manager.restart()?;
        Ok(manager)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("osquery.em")
    }

    /// Ends it as a crash does, and starts it again.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.kill();
        let mut python = Command::new(python()?);
        python
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("python/manager.py"))
            .arg(self.socket())
            .arg(self.dir.path().join("database"));
        let mut child = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (input, output) = (child.stdin.take().ok_or("no input")?, child.stdout.take().ok_or("no output")?);
        self.process = Some(Process { child, input, output: BufReader::new(output) });
        Ok(())
    }

    /// Forgets everything, as when osquery's database was wiped, and starts again.
    pub(crate) fn wipe(&mut self) -> Result<()> {
        self.kill();
        fs::remove_file(self.dir.path().join("database"))?;
        self.restart()
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
    }

    fn ask(&mut self, ask: &Value) -> Result<Value> {
        let process = self.process.as_mut().ok_or("the manager is down")?;
        writeln!(process.input, "{ask}")?;
        let mut line = String::new();
        process.output.read_line(&mut line)?;
        let mut answer: Value = serde_json::from_str(&line).map_err(|error| format!("{ask}: {error}: {line:?}"))?;
        match answer.get_mut("ok") {
            Some(value) => Ok(value.take()),
            None => Err(format!("{ask}: {answer}").into()),
        }
    }

    /// Waits until the extension is registered; gives its tables and their routes.
    pub(crate) fn wait_for_tables(&mut self) -> Result<Value> {
        until("registration", Duration::from_secs(20), || {
            let tables = self.ask(&json!({ "do": "tables" }))?;
            if tables.as_object().is_some_and(|t| !t.is_empty()) { Ok(tables) } else { Err("nobody is registered".into()) }
        })
    }

    /// What the extension says of a table's columns.
    pub(crate) fn columns(&mut self, table: &str) -> Result<Value> {
        self.ask(&json!({ "do": "columns", "table": table }))
    }

    /// An ad-hoc query's rows.
    pub(crate) fn generate(&mut self, table: &str, constraints: &[(&str, u8, &str)]) -> Result<Vec<Value>> {
        rows(&self.ask(&json!({ "do": "generate", "table": table, "context": context(constraints) }))?)
    }

    /// One run of a scheduled query that asks `table` once for each of `calls`; gives each call's rows.
    pub(crate) fn scheduled(&mut self, name: &str, table: &str, calls: &[&[(&str, u8, &str)]], accept: bool) -> Result<Vec<Vec<Value>>> {
        let calls: Vec<_> = calls.iter().map(|constraints| json!({ "table": table, "context": context(constraints) })).collect();
        let answers = self.ask(&json!({ "do": "run", "name": name, "calls": calls, "accept": accept }))?;
        answers.as_array().ok_or("no answers")?.iter().map(rows).collect()
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.kill();
    }
}

fn rows(answer: &Value) -> Result<Vec<Value>> {
    answer.get("rows").and_then(Value::as_array).cloned().ok_or_else(|| answer.to_string().into())
}

/// A query context as core writes it: column, operator, operand.
fn context(constraints: &[(&str, u8, &str)]) -> Value {
    let list = constraints.iter().map(|(name, op, expr)| json!({ "name": name, "list": [{ "op": op, "expr": expr }], "affinity": "TEXT" }));
    json!({ "constraints": list.collect::<Vec<_>>() })
}

/// `mayfly extension` under a manager.
#[derive(Debug)]
pub(crate) struct Extension {
    child: Child,
}

impl Extension {
    pub(crate) fn start(mayfly: &Mayfly, socket: &Path) -> Result<Self> {
        let log = fs::File::options().create(true).append(true).open(mayfly.config().with_file_name("log"))?;
        let mut command = mayfly.command("extension")?;
        command.arg("--socket").arg(socket).args(["--timeout", "10", "--interval", "1"]).stdout(log.try_clone()?).stderr(log);
        Ok(Self { child: command.spawn()? })
    }

    /// Asks it to end, as osqueryd does; it must, in order.
    pub(crate) fn terminate(&mut self) -> Result<()> {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            kill_process(pid, Signal::TERM)?;
        }
        let status =
            until("end of the extension", Duration::from_secs(10), || self.child.try_wait()?.ok_or_else(|| "it still runs".into()))?;
        if status.success() { Ok(()) } else { Err(format!("the extension ended with {status}").into()) }
    }
}

impl Drop for Extension {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A Python with the bindings, in a virtual environment beside cargo's other products.
fn python() -> Result<&'static Path> {
    static PYTHON: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| install().map_err(|error| error.to_string()));
    PYTHON.as_deref().map_err(|error| error.clone().into())
}

fn install() -> Result<PathBuf> {
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python");
    let python = venv.join("bin/python");
    let works = |python: &Path| run(Command::new(python).args(["-c", "import osquery"])).is_ok();
    if !works(&python) {
        run(Command::new(tool("python3", "python3 python3-venv")?).args(["-m", "venv", "--clear"]).arg(&venv))
            .map_err(|error| format!("{error}: `apt-get install python3-venv`, or `cargo xtask setup`"))?;
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", BINDINGS]))?;
    }
    Ok(python)
}
