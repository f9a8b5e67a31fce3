//! Running programs from the workspace's folder, and saying so.

use std::{
    env,
    error::Error,
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
};

pub(crate) type Result<T = (), E = Box<dyn Error>> = std::result::Result<T, E>;

/// The workspace's folder.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Prints a line on stderr, where cargo prints its own.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// The cargo that runs us.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args);
    command
}

/// Runs a program to its end, having printed it; its failure is ours.
pub(crate) fn run(command: &mut Command) -> Result {
    let name = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let line = format!("{name} {}", args.join(" "));
    say(&format!("\n> {line}"));
    let status = command.current_dir(root()).status().map_err(|error| format!("cannot run {line}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{line}: {status}").into()) }
}

/// Whether a program is installed.
pub(crate) fn installed(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from)).any(|dir| dir.join(program).is_file())
}
