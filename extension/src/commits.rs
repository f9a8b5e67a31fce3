//! When a store was written: told by inotify, so that nobody polls it.

use std::{
    io,
    path::Path,
    time::{Duration, Instant},
};

use inotify::{EventMask, WatchMask};

use crate::watched::{Seen, Waker, Watched};

/// A commit shows to readers a moment after its bytes are in the log, and nothing tells when: look once more after this, and then after this, for a
/// writer that was kept from the processor in between.
const SETTLES: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(100)];

/// The commits of the store in one folder.
#[derive(Debug)]
pub(crate) struct Commits {
    watched: Watched,
    /// Written, and to be looked at once more: when, and how long after that again.
    again: Option<(Instant, &'static [Duration])>,
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
        let mut watched = Watched::new()?;
        // The write-ahead log changes with every commit; a new file replaces one that was set aside.
        watched.add(dir, WatchMask::MODIFY | WatchMask::CREATE | WatchMask::MOVED_TO)?;
        Ok(Self { watched, again: None })
    }

    /// Lets [`Commits::wait`] return, now or next.
    pub(crate) fn waker(&self) -> Waker {
        self.watched.waker()
    }

    /// Waits until the store was written, the waker called, or `deadline` passed.
    pub(crate) fn wait(&mut self, deadline: Option<Instant>) -> io::Result<Woken> {
        loop {
            let until = [deadline, self.again.map(|(at, _)| at)].into_iter().flatten().min();
            let Seen { files, called } = self.watched.wait(until)?;
            if called {
                return Ok(Woken::Called);
            }
            if files && let Some(woken) = self.read()? {
                self.look_again(&SETTLES);
                return Ok(woken);
            }
            let now = Instant::now();
            match self.again {
                Some((at, later)) if at <= now => {
                    self.look_again(later);
                    return Ok(Woken::Written);
                }
                _ if deadline.is_some_and(|deadline| deadline <= now) => return Ok(Woken::Late),
                _ => {}
            }
        }
    }

    fn look_again(&mut self, pauses: &'static [Duration]) {
        self.again = pauses.split_first().map(|(pause, later)| (Instant::now() + *pause, later));
    }

    /// What happened to the store's files; `None`: nothing to them.
    fn read(&mut self) -> io::Result<Option<Woken>> {
        let mut buffer = [0; 4096];
        let mut woken = None;
        for event in self.watched.read(&mut buffer)? {
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
        let later = || Some(Instant::now() + Duration::from_secs(60));
        fs::write(dir.path().join("other"), "x").unwrap();
        assert_eq!(commits.wait(soon()).unwrap(), Woken::Late);
        fs::write(dir.path().join("history.db"), "x").unwrap();
        assert_eq!(commits.wait(later()).unwrap(), Woken::Replaced);
        assert_eq!(commits.wait(later()).unwrap(), Woken::Written, "looks once more");
        fs::write(dir.path().join("history.db-wal"), "x").unwrap();
        assert_eq!(commits.wait(later()).unwrap(), Woken::Written);
        assert_eq!(commits.wait(later()).unwrap(), Woken::Written, "looks once more");
        assert_eq!(commits.wait(later()).unwrap(), Woken::Written, "and again, if the writer was held up");
        assert_eq!(commits.wait(soon()).unwrap(), Woken::Late, "and no more");
        commits.waker().wake();
        assert_eq!(commits.wait(later()).unwrap(), Woken::Called);
        assert_eq!(commits.wait(soon()).unwrap(), Woken::Late);
    }
}
