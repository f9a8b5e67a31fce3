//! Runs a daemon for as long as whoever started it lives, however that one ends.
//!
//! `keeper DIR [--bridge NAME] COMMAND ARG…` writes the daemon's pid as its first line, sends what it prints to `DIR/log`, and ends it in order
//! (SIGTERM, after 30 s SIGKILL) at the end of standard input. Then it removes DIR and the bridge, unless a byte came before the end: the daemon will be started again.

use std::{
    env, fs,
    io::{self, Read, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

fn main() -> ExitCode {
    match keep() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "keeper: {error}");
            ExitCode::FAILURE
        }
    }
}

fn keep() -> io::Result<()> {
    let mut args = env::args_os().skip(1).peekable();
    let missing = || io::Error::other("usage: keeper DIR [--bridge NAME] COMMAND ARG…");
    let dir = PathBuf::from(args.next().ok_or_else(missing)?);
    let bridge = args.next_if(|a| a == "--bridge").and_then(|_| args.next());
    let log = fs::File::options().create(true).append(true).open(dir.join("log"))?;
    let mut command = Command::new(args.next().ok_or_else(missing)?);
    // A group of its own: an interrupt at the terminal reaches the starter, which closes our input; the daemon then ends in order.
    let mut child = command.args(args).stdin(Stdio::null()).stderr(log.try_clone()?).stdout(log).process_group(0).spawn()?;
    writeln!(io::stdout(), "{}", child.id())?;
    let mut said = Vec::new();
    io::stdin().read_to_end(&mut said)?;
    end(&mut child)?;
    if said.is_empty() {
        unmount_below(&dir)?;
        let _ = fs::remove_dir_all(&dir);
        if let Some(bridge) = bridge {
            let _ = Command::new("ip").args(["link", "delete"]).arg(bridge).status();
        }
    }
    Ok(())
}

/// Podman leaves its storage mounted.
fn unmount_below(dir: &Path) -> io::Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4)).filter(|point| Path::new(point).starts_with(dir));
    for point in points {
        let _ = rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH);
    }
    Ok(())
}

fn end(child: &mut Child) -> io::Result<()> {
    if child.try_wait()?.is_some() {
        return Ok(());
    }
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        kill_process(pid, Signal::TERM)?;
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            child.kill()?;
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
