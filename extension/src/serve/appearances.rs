//! When something appears at the manager's socket.

use std::{
    io,
    path::{Path, PathBuf},
    sync::atomic::Ordering::SeqCst,
    thread,
    time::{Duration, Instant},
};

use super::Signal;
use crate::{
    folders::{Folders, Heard},
    watched::Waker,
};

/// The longest pause where nothing tells that the socket appeared: its folder is not there either.
const UNTOLD_PAUSE: Duration = Duration::from_secs(1);
/// Where nothing tells at all.
const DEAF_PAUSE: Duration = Duration::from_millis(200);

/// Why a pause ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paused {
    /// It is time to stop.
    Stop,
    /// The manager's socket appeared, or another one in its place.
    Appeared,
    Over,
}

/// Tells when something appears at the manager's socket, as long as its folder is there.
pub(super) struct Appearances {
    socket: PathBuf,
    folders: Folders,
}

impl Appearances {
    pub(super) fn new(socket: &Path) -> io::Result<Self> {
        Ok(Self { socket: socket.to_owned(), folders: Folders::new()? })
    }

    /// Ends a pause.
    pub(super) fn waker(&self) -> Waker {
        self.folders.waker()
    }

    /// Waits until the socket appears, until `signal`, or for `pause`.
    pub(super) fn pause(&mut self, signal: &Signal, pause: Duration) -> Paused {
        let names: Vec<_> = self.socket.file_name().into_iter().collect();
        let is_watched = self.socket.parent().is_some_and(|dir| self.folders.watch(dir).is_ok());
        let pause = if is_watched { pause } else { pause.min(UNTOLD_PAUSE) };
        let heard = self.folders.wait_for(&names, Some(Instant::now() + pause));
        if signal.stopping.load(SeqCst) {
            return Paused::Stop;
        }
        match heard {
            Ok(Heard::Changed) if self.socket.exists() => Paused::Appeared,
            Ok(_) => Paused::Over,
            Err(error) => {
                tracing::debug!(%error, "nothing tells when osquery's socket appears");
                thread::sleep(DEAF_PAUSE);
                Paused::Over
            }
        }
    }
}
