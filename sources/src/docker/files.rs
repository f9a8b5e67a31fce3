//! Docker's own files of a container, read on threads beside the event stream: their disk may be slow, or never answer.

use std::{fmt, path::Path, sync::Arc, time::Duration};

use tokio::sync::Semaphore;

use super::inspect::{self, Inspect};

/// Files that are read at once, over all sessions with a daemon. Each takes a thread for as long as the disk takes; where none is free, the
/// daemon is asked instead.
pub(super) const AT_ONCE: usize = 64;
/// How long the disk is waited for before the daemon is asked instead.
const PATIENCE: Duration = Duration::from_secs(1);

type Read = dyn Fn(&Path) -> Option<Inspect> + Send + Sync;

/// What reads them. Cheap to clone; outlives the sessions, as a thread that hangs does.
#[derive(Clone)]
pub(super) struct Disk {
    threads: Arc<Semaphore>,
    patience: Duration,
    read: Arc<Read>,
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("threads", &self.threads).field("patience", &self.patience).finish_non_exhaustive()
    }
}

impl Default for Disk {
    fn default() -> Self {
        Self::with(PATIENCE, Arc::new(inspect::from_files))
    }
}

impl Disk {
    /// One that is read by `read`, which may block.
    pub(super) fn with(patience: Duration, read: Arc<Read>) -> Self {
        Self { threads: Arc::new(Semaphore::new(AT_ONCE)), patience, read }
    }

    /// What the files of a container tell, below Docker's root directory. Nothing: they cannot be read, or not in time, or too many are.
    pub(super) async fn read(&self, root: &Path, id: &str) -> Option<Inspect> {
        let path = inspect::file_of(root, id)?;
        let thread = Arc::clone(&self.threads).try_acquire_owned().ok()?;
        let read = Arc::clone(&self.read);
        let reading = tokio::task::spawn_blocking(move || {
            let found = read(&path);
            // It counts until the disk answers, whoever still waits for that.
            drop(thread);
            found
        });
        tokio::time::timeout(self.patience, reading).await.ok()?.ok()?
    }
}
