//! A daemon under its keeper.

use std::{
    ffi::OsStr,
    fmt, fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{Result, command::built, wait::until};

/// A running daemon. Dropping it ends the daemon and removes its directory; so does the end of this process, however it comes.
pub(super) struct Kept {
    keeper: Child,
    pid: Pid,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Kept").field(&self.pid).finish()
    }
}

impl Kept {
    pub(super) fn start(dir: &Path, bridge: Option<&str>, command: &[&OsStr]) -> Result<Self> {
        let mut keeper = Command::new(built("keeper")?);
        keeper.arg(dir).stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(bridge) = bridge {
            keeper.args(["--bridge", bridge]);
        }
        let mut keeper = keeper.args(command).spawn()?;
        let mut line = String::new();
        let out = keeper.stdout.take().ok_or("keeper has no output")?;
        BufReader::new(out).read_line(&mut line)?;
        let pid = line.trim().parse().ok().and_then(Pid::from_raw).ok_or_else(|| format!("keeper started nothing: {command:?}"))?;
        Ok(Self { keeper, pid })
    }

    /// Ends the daemon in order and leaves its directory, for another start.
    pub(super) fn stop(&mut self) -> Result<()> {
        if let Some(mut input) = self.keeper.stdin.take() {
            input.write_all(b"k")?;
        }
        self.keeper.wait()?;
        Ok(())
    }

    /// Ends the daemon as a crash does.
    pub(super) fn kill(&mut self) -> Result<()> {
        kill_process(self.pid, Signal::KILL)?;
        self.stop()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// A directory for a daemon; short, because socket paths are.
pub(super) fn place(name: &str) -> Result<PathBuf> {
    Ok(tempfile::Builder::new().prefix(&format!("mayfly-{name}-")).tempdir_in("/tmp")?.keep())
}

/// Waits until `ask` is answered; the daemon's last words are in the error.
pub(super) fn ready(dir: &Path, mut ask: impl FnMut() -> Result<String>) -> Result<()> {
    let answered = until("answer from the daemon", Duration::from_secs(60), || {
        let answer = ask();
        if answer.is_err() {
            thread::sleep(Duration::from_millis(80));
        }
        answer
    });
    answered.map(drop).map_err(|error| {
        let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
        let tail: Vec<_> = log.lines().rev().take(8).collect();
        format!("{error}\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n")).into()
    })
}
