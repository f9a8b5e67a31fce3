//! An osquery of Python, on osquery's own bindings: the manager that the extension's own tests have, here for the binary.

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
use serde_json::{Map, Value, json};
use tempfile::TempDir;

/// The version of the bindings that the tests were written for.
const BINDINGS: [&str; 2] = ["osquery==3.1.1", "thrift"];

/// A manager at a socket of its own.
#[derive(Debug)]
pub(crate) struct Manager {
    dir: TempDir,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Manager {
    pub(crate) fn start() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("mayfly-manager-").tempdir_in("/tmp")?;
        let mut python = Command::new(python()?);
        python.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../extension/tests/osquery/manager.py"));
        python.arg(dir.path().join("osquery.em")).arg(dir.path().join("database"));
        let mut child = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (input, output) = (child.stdin.take().ok_or("no input")?, child.stdout.take().ok_or("no output")?);
        let mut manager = Self { dir, child, input, output: BufReader::new(output) };
        manager.read()?;
        manager.ask(&json!({ "do": "open" }))?;
        Ok(manager)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("osquery.em")
    }

    fn read(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        serde_json::from_str(&line).map_err(|error| format!("{error}: {line:?}").into())
    }

    /// Gives a command (see `manager.py`) that must succeed.
    pub(crate) fn ask(&mut self, ask: &Value) -> Result<Value> {
        writeln!(self.input, "{ask}")?;
        let answer = self.read()?;
        if answer.get("failed").is_some() { Err(format!("{ask}: {answer}").into()) } else { Ok(answer) }
    }

    /// Waits until the extension is registered; gives its tables and their routes.
    pub(crate) fn wait_for_tables(&mut self) -> Result<Map<String, Value>> {
        until("registration", Duration::from_secs(20), || {
            let answer = self.ask(&json!({ "do": "routes" }))?;
            let tables = answer.get("routes").and_then(Value::as_object).filter(|tables| !tables.is_empty());
            tables.cloned().ok_or_else(|| "nobody is registered".into())
        })
    }

    /// An ad-hoc query's rows.
    pub(crate) fn generate(&mut self, table: &str, constraints: &[(&str, u8, &str)]) -> Result<Vec<Value>> {
        rows(&self.ask(&json!({ "do": "generate", "table": table, "context": context(constraints) }))?)
    }

    /// What the run of a scheduled query at `second` logs.
    pub(crate) fn scheduled(&mut self, name: &str, sql: &str, table: &str, second: u64) -> Result<Vec<Value>> {
        let sources = json!([{ "table": table, "as": table }]);
        rows(&self.ask(&json!({ "do": "schedule", "name": name, "sql": sql, "second": second, "sources": sources }))?)
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
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

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
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
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("osquery-python");
    let python = venv.join("bin/python");
    let works = |python: &Path| run(Command::new(python).args(["-c", "import osquery"])).is_ok();
    if !works(&python) {
        run(Command::new(tool("python3", "python3 python3-venv")?).args(["-m", "venv", "--clear"]).arg(&venv))
            .map_err(|error| format!("{error}: `apt-get install python3-venv`, or `cargo xtask setup`"))?;
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(BINDINGS))?;
    }
    Ok(python)
}
