//! `mayfly extension`: serves the tables to osqueryd, and records where no `mayfly record` does.

use std::{
    path::Path,
    process::ExitCode,
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use mayfly_history::Feed;
use mayfly_tables::TABLES;

use crate::{
    asking::Asking,
    cli::ExtensionArgs,
    config::Loaded,
    line::Line,
    recording::Recording,
    serve::{Extension, ServeOptions},
    signals,
    turn::{Turn, record_in_turn},
};

/// How long ending may take: osqueryd kills an extension after 10 seconds.
const LONGEST_END: Duration = Duration::from_secs(9);
/// How long what is recorded at last is waited for before the jobs end, which may push it.
const LAST_EVENTS: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum ExtensionError {
    #[error("cannot wait for signals")]
    Signals(#[source] std::io::Error),
    #[error("cannot serve osquery")]
    Serve(#[source] std::io::Error),
    #[error("cannot begin to ask osquery")]
    Ask(#[source] std::io::Error),
}

/// Serves until SIGTERM, SIGINT, or osquery's request to shut down; whether it can record or not.
pub fn run(loaded: Loaded, args: &ExtensionArgs, state_dir: &Path) -> Result<ExitCode, ExtensionError> {
    let stop = signals::Stop::new().map_err(ExtensionError::Signals)?;
    let (tell, told) = mpsc::channel();
    let shutdown = tell.clone();
    let line = Line::new(&args.socket);
    let extension = Extension::start(ServeOptions {
        line: line.clone(),
        follow: loaded.config.history.tables(),
        timeout: Duration::from_secs(args.timeout),
        interval: Duration::from_secs(args.interval),
        state_dir: state_dir.to_owned(),
        delivery: loaded.config.delivery.clone(),
        tables: TABLES,
        feed: Feed::new("tables", args.socket.to_string_lossy()),
        on_shutdown: Arc::new(move || drop(shutdown.send(Turn::Stop))),
    })
    .map_err(ExtensionError::Serve)?;
    let asking = Asking::start(&loaded, state_dir, line).map_err(ExtensionError::Ask)?;
    let signalled = tell.clone();
    thread::spawn(move || {
        let mut stop = stop;
        stop.wait();
        let _ = signalled.send(Turn::Stop);
    });
    let ended = if loaded.config.extension.record {
        record_in_turn(state_dir, || Ok(Recording::start(&loaded, state_dir)?), &tell, &told)
    } else {
        while !matches!(told.recv(), Ok(Turn::Stop) | Err(_)) {}
        mpsc::channel().1
    };
    tracing::info!("stopping");
    let deadline = Instant::now() + LONGEST_END;
    let left = || deadline.saturating_duration_since(Instant::now());
    let _ = ended.recv_timeout(LAST_EVENTS);
    asking.stop();
    extension.stop_within(left());
    if ended.recv_timeout(left()) == Err(RecvTimeoutError::Timeout) {
        tracing::warn!("what records did not end in time; it ends with the process");
    }
    Ok(ExitCode::SUCCESS)
}
