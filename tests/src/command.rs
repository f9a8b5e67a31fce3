//! Running programs, with errors that say which, how and why.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::Result;

/// Runs a program to its end and gives what it printed; its words on stderr are the error if it fails.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("cannot run {command:?}: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()).into())
    }
}

/// Runs a program that must end with `code`: what a container's main process said.
pub fn exits(command: &mut Command, code: i32) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("cannot run {command:?}: {error}"))?;
    if output.status.code() == Some(code) {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?}: {} instead of {code}: {}", output.status, said.trim()).into())
}

/// Ends a process in order (SIGTERM).
pub fn end(child: &mut Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::TERM);
    }
    let _ = child.wait();
}

/// Finds a program that a test cannot do without.
pub fn tool(name: &str, package: &str) -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from)).map(|dir| dir.join(name)).find(|p| p.is_file());
    found.ok_or_else(|| format!("{name} is not installed: `apt-get install {package}`, or `cargo xtask setup`").into())
}

/// A program of this workspace, as cargo has built it beside this one.
pub fn built(name: &str) -> Result<PathBuf> {
    let own = env::current_exe()?;
    let beside = own.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|p| p.is_file());
    beside.ok_or_else(|| format!("{name} is not built beside {}: `cargo build --workspace`", own.display()).into())
}

/// The workspace's folder.
pub(crate) fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"))
}
