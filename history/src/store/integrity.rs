//! The integrity check of the whole file: on its own thread and connection, so that recording need not wait for it.

use std::{
    path::Path,
    sync::mpsc::{Receiver, TryRecvError, sync_channel},
    thread::{self, JoinHandle},
    time::Duration,
};

use rusqlite::{Connection, InterruptHandle, OpenFlags};

/// A check that runs, or whose result was not yet taken.
pub(super) struct Integrity {
    findings: Receiver<Result<String, rusqlite::Error>>,
    interrupt: InterruptHandle,
    /// `None`: it could not be started.
    thread: Option<JoinHandle<()>>,
}

impl Integrity {
    /// Begins a check of the file at `path`.
    pub(super) fn begin(path: &Path) -> Result<Self, rusqlite::Error> {
        let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        let interrupt = conn.get_interrupt_handle();
        let (tell, findings) = sync_channel(1);
        let check = move || {
            let finding = conn.query_row("PRAGMA quick_check(1)", [], |r| r.get(0));
            // Nobody may be there to hear it any more.
            let _ = tell.send(finding);
        };
        let thread = thread::Builder::new().name("integrity".into()).spawn(check);
        let thread = thread.inspect_err(|error| tracing::warn!(%error, "the store is not checked")).ok();
        Ok(Self { findings, interrupt, thread })
    }

    /// `None` while it runs; then `ok` or what was found, once. An empty text: the check did not come to an end.
    pub(super) fn finding(&self) -> Option<String> {
        match self.findings.try_recv() {
            Ok(Ok(finding)) => Some(finding),
            Ok(Err(error)) if matches!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::DatabaseCorrupt)) => Some(error.to_string()),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the integrity check broke off");
                Some(String::new())
            }
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(String::new()),
        }
    }
}

impl std::fmt::Debug for Integrity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Integrity").finish_non_exhaustive()
    }
}

impl Drop for Integrity {
    /// Ends the check, and returns when its connection is closed.
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        // To interrupt a check that has not begun yet does nothing.
        while !thread.is_finished() {
            self.interrupt.interrupt();
            thread::sleep(Duration::from_millis(1));
        }
        drop(thread.join());
    }
}
