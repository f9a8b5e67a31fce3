//! Messages to stderr: coloured on a terminal, plain lines elsewhere.

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, fmt};

/// Sets the process's log up; `MAYFLY_LOG` (a tracing filter) overrides the level.
pub(crate) fn start(level: &str) {
    let filter = EnvFilter::try_from_env("MAYFLY_LOG")
        .or_else(|_| EnvFilter::try_new(format!("warn,mayfly={level},mayfly_history={level},mayfly_sources={level}")));
    let filter = filter.unwrap_or_else(|_| EnvFilter::new("info"));
    let format = fmt().with_env_filter(filter).with_writer(io::stderr).with_target(false).with_ansi(io::stderr().is_terminal());
    // A second start in one process (a test) keeps the first log.
    let _ = format.try_init();
}
