//! When a store was written: told by inotify, so that nobody polls it.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use inotify::{EventMask, Inotify, WatchMask};
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io::Errno,
};

/// A commit shows to readers a moment after its bytes are in the log, and nothing tells when: look once more after this.
const SETTLES: Duration = Duration::from_millis(5);

/// The commits of the store in one folder.
#[derive(Debug)]
pub(crate) struct Commits {
    inotify: Inotify,
    bell: Arc<OwnedFd>,
    /// Written, and to be looked at once more.
    unsettled: bool,
}

/// Ends a wait from another thread. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Waker(Arc<OwnedFd>);

impl Waker {
    /// Lets [`Commits::wait`] return, now or next.
    pub(crate) fn wake(&self) {
        // A counter that is full is rung already.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    /// The store may have something new.
    Written,
    /// Another file took the store's place.
    Replaced,
    /// By a [`Waker`].
    Called,
    /// The deadline passed.
    Late,
}

impl Commits {
    /// Watches the store in `dir`, which must be there.
    pub(crate) fn of(dir: &Path) -> io::Result<Self> {
        let inotify = Inotify::init()?;
        // The write-ahead log changes with every commit; a new file replaces one that was set aside.
        inotify.watches().add(dir, WatchMask::MODIFY | WatchMask::CREATE | WatchMask::MOVED_TO)?;
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { inotify, bell: Arc::new(bell), unsettled: false })
    }

    pub(crate) fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.bell))
    }

    /// Waits until the store was written, the waker called, or `deadline` passed.
    pub(crate) fn wait(&mut self, deadline: Option<Instant>) -> io::Result<Woken> {
        loop {
            let settled = self.unsettled.then(|| Instant::now() + SETTLES);
            let until = [deadline, settled].into_iter().flatten().min();
            let (written, called) = self.poll(until)?;
            if called {
                let mut count = [0; 8];
                let _ = rustix::io::read(&*self.bell, &mut count);
                return Ok(Woken::Called);
            }
            if written {
                if let Some(woken) = self.read()? {
                    self.unsettled = true;
                    return Ok(woken);
                }
            } else if std::mem::take(&mut self.unsettled) {
                return Ok(Woken::Written);
            } else if until.is_some_and(|until| until <= Instant::now()) {
                return Ok(Woken::Late);
            }
        }
    }

    /// Whether there are changes of files, and whether the bell rang.
    fn poll(&self, until: Option<Instant>) -> io::Result<(bool, bool)> {
        let patience = until.map(|until| until.saturating_duration_since(Instant::now()));
        let patience = patience.map(Timespec::try_from).transpose().map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut waiting = [PollFd::new(&self.inotify, PollFlags::IN), PollFd::from_borrowed_fd(self.bell.as_fd(), PollFlags::IN)];
        match poll(&mut waiting, patience.as_ref()) {
            Ok(_) => Ok((!waiting[0].revents().is_empty(), !waiting[1].revents().is_empty())),
            Err(Errno::INTR) => Ok((false, false)),
            Err(error) => Err(error.into()),
        }
    }

    /// What happened to the store's files; `None`: nothing to them.
    fn read(&mut self) -> io::Result<Option<Woken>> {
        let mut buffer = [0; 4096];
        let mut woken = None;
        for event in self.inotify.read_events(&mut buffer)? {
            let is_new = event.mask.intersects(EventMask::CREATE | EventMask::MOVED_TO);
            match event.name.and_then(std::ffi::OsStr::to_str) {
                Some("history.db") if is_new => woken = Some(Woken::Replaced),
                Some("history.db" | "history.db-wal") => woken = woken.or(Some(Woken::Written)),
                _ => {}
            }
        }
        Ok(woken)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn tells_of_commits_calls_and_deadlines_and_of_nothing_else() {
        let dir = TempDir::new().unwrap();
        let mut commits = Commits::of(dir.path()).unwrap();
        let soon = || Some(Instant::now() + Duration::from_millis(30));
        fs::write(dir.path().join("other"), "x").unwrap();
        assert_eq!(commits.wait(soon()).unwrap(), Woken::Late);
        fs::write(dir.path().join("history.db"), "x").unwrap();
        assert_eq!(commits.wait(soon()).unwrap(), Woken::Replaced);
        assert_eq!(commits.wait(soon()).unwrap(), Woken::Written, "looks once more");
        fs::write(dir.path().join("history.db-wal"), "x").unwrap();
        assert_eq!(commits.wait(soon()).unwrap(), Woken::Written);
        assert_eq!(commits.wait(soon()).unwrap(), Woken::Written, "looks once more");
        commits.waker().wake();
        assert_eq!(commits.wait(None).unwrap(), Woken::Called);
        assert_eq!(commits.wait(soon()).unwrap(), Woken::Late);
    }
}
