//! `mayfly extension`: serves the tables to osqueryd, and records where no `mayfly record` does.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use mayfly_history::{
    Feed, chain,
    recorder::{Lock, LockError, Role},
};
use mayfly_tables::TABLES;

use crate::{
    asking::Asking,
    cli::ExtensionArgs,
    config::Loaded,
    line::Line,
    recording::Recording,
    serve::{Extension, ServeOptions},
    signals,
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
    let recording = if loaded.config.extension.record {
        record_in_turn(&loaded, state_dir, &tell, &told)
    } else {
        while !matches!(told.recv(), Ok(Turn::Stop) | Err(_)) {}
        None
    };
    tracing::info!("stopping");
    let deadline = Instant::now() + LONGEST_END;
    let left = || deadline.saturating_duration_since(Instant::now());
    let ended = end_beside(recording);
    let _ = ended.recv_timeout(LAST_EVENTS);
    asking.stop();
    extension.stop_within(left());
    if ended.recv_timeout(left()) == Err(RecvTimeoutError::Timeout) {
        tracing::warn!("what records did not end in time; it ends with the process");
    }
    Ok(ExitCode::SUCCESS)
}

/// What the recording side of the extension is told.
enum Turn {
    /// Nobody records: it is our turn.
    Ours(Lock),
    /// `mayfly record` wants to.
    HandOver,
    /// The directory cannot be locked; tried again.
    Refused(LockError),
    Stop,
}

/// Records whenever nobody else does, until told to stop; gives what records then.
fn record_in_turn(loaded: &Loaded, state_dir: &Path, tell: &Sender<Turn>, told: &Receiver<Turn>) -> Option<(Recording, Lock)> {
    /// How long before a directory that could not be used is tried again.
    const PAUSE: Duration = Duration::from_secs(30);
    let mut recording: Option<(Recording, Lock)> = None;
    queue_up(state_dir, tell.clone(), Duration::ZERO);
    for turn in told {
        match turn {
            Turn::Ours(lock) => match take_over(loaded, state_dir, &lock, tell) {
                Ok(started) => {
                    tracing::info!(state_dir = %state_dir.display(), "recording, since no `mayfly record` does");
                    recording = Some((started, lock));
                }
                Err(error) => {
                    tracing::error!(error = chain(&*error), "cannot record; trying again");
                    drop(lock);
                    queue_up(state_dir, tell.clone(), PAUSE);
                }
            },
            Turn::HandOver => {
                tracing::info!("handing over to `mayfly record`");
                end(recording.take());
                queue_up(state_dir, tell.clone(), Duration::ZERO);
            }
            Turn::Refused(error) => {
                tracing::error!(error = chain(&error), "cannot record; trying again");
                queue_up(state_dir, tell.clone(), PAUSE);
            }
            Turn::Stop => break,
        }
    }
    recording
}

/// Waits on a thread of its own for the lock: the wait cannot be cut short, and ends with the process.
fn queue_up(state_dir: &Path, tell: Sender<Turn>, pause: Duration) {
    let dir: PathBuf = state_dir.to_owned();
    thread::spawn(move || {
        thread::sleep(pause);
        let turn = match Lock::acquire(&dir, Role::Extension) {
            Ok(lock) => Turn::Ours(lock),
            Err(error) => Turn::Refused(error),
        };
        let _ = tell.send(turn);
    });
}

fn take_over(loaded: &Loaded, state_dir: &Path, lock: &Lock, tell: &Sender<Turn>) -> Result<Recording, Box<dyn std::error::Error>> {
    let recording = Recording::start(loaded, state_dir)?;
    let claimed = tell.clone();
    lock.on_claim(move || drop(claimed.send(Turn::HandOver)))?;
    Ok(recording)
}

/// Stops recording on a thread of its own: a source may take long to end. The channel is closed once it has.
fn end_beside(recording: Option<(Recording, Lock)>) -> Receiver<()> {
    let (end, ended) = mpsc::channel();
    thread::spawn(move || {
        let _end: Sender<()> = end;
        self::end(recording);
    });
    ended
}

/// Stops recording before the lock goes.
fn end(recording: Option<(Recording, Lock)>) {
    if let Some((recording, lock)) = recording {
        if let Err(error) = recording.stop() {
            tracing::error!(error = chain(&error), "cannot close the history in order");
        }
        drop(lock);
    }
}
