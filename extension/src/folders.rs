//! Files that come and go in folders, by their names.

use std::{ffi::OsStr, io, path::Path, time::Instant};

use inotify::{EventMask, WatchMask};

use crate::watched::{Seen, Waker, Watched};

/// What changes in a folder are told.
const MASK: WatchMask =
    WatchMask::CREATE.union(WatchMask::MOVED_TO).union(WatchMask::MOVED_FROM).union(WatchMask::DELETE).union(WatchMask::CLOSE_WRITE);
/// The folder itself went.
const GONE: EventMask = EventMask::IGNORED.union(EventMask::MOVE_SELF);

/// Why a wait for a file ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// A file of that name came, went or was written.
    Changed,
    /// A folder went, and is no longer watched.
    Gone,
    /// By a [`Waker`].
    Called,
    /// The deadline passed.
    Late,
}

/// Folders that are watched; none at first.
#[derive(Debug)]
pub(crate) struct Folders(Watched);

impl Folders {
    pub(crate) fn new() -> io::Result<Self> {
        Watched::new().map(Self)
    }

    /// Watches `dir`, which must be there; one that is watched already stays so.
    pub(crate) fn watch(&mut self, dir: &Path) -> io::Result<()> {
        self.0.add(dir, MASK | WatchMask::MOVE_SELF).map(drop)
    }

    pub(crate) fn waker(&self) -> Waker {
        self.0.waker()
    }

    /// Waits until something happened to a file of one of these names, or to a folder.
    pub(crate) fn wait_for(&mut self, names: &[&OsStr], deadline: Option<Instant>) -> io::Result<Heard> {
        loop {
            let Seen { files, called } = self.0.wait(deadline)?;
            if called {
                return Ok(Heard::Called);
            }
            let (mut found, mut gone) = (false, false);
            if files {
                let mut buffer = [0; 4096];
                for event in self.0.read(&mut buffer)? {
                    gone |= event.mask.intersects(GONE);
                    found |= event.name.is_some_and(|name| names.contains(&name));
                }
            }
            if gone {
                return Ok(Heard::Gone);
            }
            if found {
                return Ok(Heard::Changed);
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Ok(Heard::Late);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, thread, time::Duration};

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn tells_of_the_file_that_is_meant_and_of_a_folder_that_went() {
        let dir = TempDir::new().unwrap();
        let watched = dir.path().join("run");
        fs::create_dir(&watched).unwrap();
        let mut folders = Folders::new().unwrap();
        folders.watch(&watched).unwrap();
        let soon = || Some(Instant::now() + Duration::from_millis(30));
        let names = [OsStr::new("socket")];
        fs::write(watched.join("other"), "").unwrap();
        assert_eq!(folders.wait_for(&names, soon()).unwrap(), Heard::Late);
        fs::write(watched.join("socket"), "").unwrap();
        assert_eq!(folders.wait_for(&names, None).unwrap(), Heard::Changed);
        assert_eq!(folders.wait_for(&names, soon()).unwrap(), Heard::Late);
        let waker = folders.waker();
        let caller = thread::spawn(move || waker.wake());
        assert_eq!(folders.wait_for(&names, None).unwrap(), Heard::Called);
        caller.join().unwrap();
        fs::remove_dir_all(&watched).unwrap();
        while folders.wait_for(&names, soon()).unwrap() == Heard::Changed {}
        fs::create_dir(&watched).unwrap();
        folders.watch(&watched).unwrap();
        fs::write(watched.join("socket"), "").unwrap();
        assert_eq!(folders.wait_for(&names, None).unwrap(), Heard::Changed);
    }
}
