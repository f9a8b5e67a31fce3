//! `mayfly record`: records until it is told to stop.

use std::{path::Path, process::ExitCode};

use mayfly_history::recorder::{Lock, LockError, Role};

use crate::{
    config::Loaded,
    recording::{Recording, RecordingError},
    signals,
};

#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("cannot become the recorder")]
    Lock(#[from] LockError),
    #[error("cannot record")]
    Recording(#[from] RecordingError),
    #[error("cannot wait for signals")]
    Signals(#[source] std::io::Error),
    #[error("cannot close the history")]
    Stop(#[from] mayfly_history::recorder::RecorderError),
}

/// Takes the directory's lock (an extension that records hands over), records, and ends in order on SIGTERM or SIGINT.
pub fn run(loaded: &Loaded, state_dir: &Path) -> Result<ExitCode, RecordError> {
    // While it waits for the lock, a signal just ends the process: nothing is open yet.
    let lock = Lock::acquire(state_dir, Role::Record)?;
    let mut stop = signals::Stop::new().map_err(RecordError::Signals)?;
    let recording = Recording::start(loaded, state_dir)?;
    tracing::info!(state_dir = %state_dir.display(), "recording");
    stop.wait();
    tracing::info!("stopping");
    recording.stop()?;
    drop(lock);
    Ok(ExitCode::SUCCESS)
}
