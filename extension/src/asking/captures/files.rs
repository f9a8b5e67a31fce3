//! Files that tell of tables, watched with inotify: folders, since a file is mostly replaced by another one of its name.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    time::Instant,
};

use inotify::{EventMask, WatchDescriptor, WatchMask};

use super::map::{FILES, Files, Place};
use crate::watched::{Waker, Watched};

/// Most homes that are looked into, and most folders that are watched.
const MOST_HOMES: usize = 256;
const MOST_FOLDERS: usize = 2048;

/// What a change of a name in a folder means.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Interest {
    /// Only of this name.
    name: Option<OsString>,
    /// It tells of this, a position in [`FILES`]; `None`: only that something may be there now which was not before.
    tells: Option<usize>,
}

/// The files that tell of tables, watched.
#[derive(Debug)]
pub(super) struct Watches {
    watched: Watched,
    root: PathBuf,
    folders: BTreeMap<PathBuf, BTreeSet<Interest>>,
    /// A folder may be reached by several paths.
    known: HashMap<WatchDescriptor, Vec<PathBuf>>,
}

/// Why a wait ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Woken {
    /// These changed, positions in [`FILES`].
    Changed(BTreeSet<usize>),
    /// By a [`Waker`].
    Called,
}

impl Watches {
    /// Watches below `root` (`/`, or a tree in a test).
    pub(super) fn below(root: &Path) -> io::Result<Self> {
        let mut watches = Self { watched: Watched::new()?, root: root.to_owned(), folders: BTreeMap::new(), known: HashMap::new() };
        watches.look()?;
        Ok(watches)
    }

    pub(super) fn waker(&self) -> Waker {
        self.watched.waker()
    }

    /// Waits until something changed; `deadline` ends it with nothing.
    pub(super) fn wait(&mut self, deadline: Option<Instant>) -> io::Result<Woken> {
        loop {
            let seen = self.watched.wait(deadline)?;
            if seen.called {
                return Ok(Woken::Called);
            }
            let changed = if seen.files { self.read()? } else { BTreeSet::new() };
            if !changed.is_empty() || deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Ok(Woken::Changed(changed));
            }
        }
    }

    /// What the kernel told.
    fn read(&mut self) -> io::Result<BTreeSet<usize>> {
        let mut changed = BTreeSet::new();
        let mut look = false;
        let mut buffer = [0; 16 * 1024];
        let events = self.watched.inotify.read_events(&mut buffer)?;
        for event in events {
            if event.mask.contains(EventMask::Q_OVERFLOW) {
                // The kernel told less than there was.
                changed.extend(0..FILES.len());
                look = true;
                continue;
            }
            let Some(folders) = self.known.get(&event.wd) else { continue };
            // Folders of a folder are watched, too.
            look |= event.mask.intersects(EventMask::IGNORED | EventMask::ISDIR);
            for interest in folders.iter().filter_map(|folder| self.folders.get(folder)).flatten() {
                if event.name.is_some() && interest.name.as_deref().is_none_or(|name| Some(name) == event.name) {
                    changed.extend(interest.tells);
                    look |= interest.tells.is_none();
                }
            }
        }
        if look {
            changed.extend(self.look()?);
        }
        Ok(changed)
    }

    /// Watches what is there now; gives what came or went since it was last looked at.
    fn look(&mut self) -> io::Result<BTreeSet<usize>> {
        let mut changed = BTreeSet::new();
        let mut folders = self.folders_now();
        loop {
            changed.extend(self.watch(folders)?);
            // What came before its parent was watched is told by nobody.
            folders = self.folders_now();
            if folders == self.folders {
                return Ok(changed);
            }
        }
    }

    fn watch(&mut self, folders: BTreeMap<PathBuf, BTreeSet<Interest>>) -> io::Result<BTreeSet<usize>> {
        let mut changed = BTreeSet::new();
        let mut known: HashMap<_, Vec<PathBuf>> = HashMap::new();
        for (folder, interests) in folders.iter().take(MOST_FOLDERS) {
            let mask = WatchMask::CLOSE_WRITE | WatchMask::MOVE | WatchMask::CREATE | WatchMask::DELETE | WatchMask::ONLYDIR;
            match self.watched.inotify.watches().add(folder, mask) {
                Ok(watch) => known.entry(watch).or_default().push(folder.clone()),
                // It went away meanwhile, or is nothing to be watched: then its parent tells of the next one.
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => continue,
                Err(error) => return Err(io::Error::new(error.kind(), format!("cannot watch {}: {error}", folder.display()))),
            }
            let before = self.folders.get(folder);
            changed.extend(interests.iter().filter(|i| before.is_none_or(|before| !before.contains(i))).filter_map(|i| i.tells));
        }
        for watch in self.known.drain().map(|(watch, _)| watch).filter(|watch| !known.contains_key(watch)) {
            // Gone by itself if its folder is.
            let _ = self.watched.inotify.watches().remove(watch);
        }
        let gone = self.folders.iter().filter(|(folder, _)| !folders.contains_key(*folder));
        changed.extend(gone.flat_map(|(_, interests)| interests).filter_map(|interest| interest.tells));
        (self.folders, self.known) = (folders, known);
        Ok(changed)
    }

    /// The folders to watch, and what each of their names means.
    fn folders_now(&self) -> BTreeMap<PathBuf, BTreeSet<Interest>> {
        let mut folders = Folders(BTreeMap::new());
        let homes = homes(&self.root);
        for (at, Files { place, .. }) in FILES.iter().enumerate() {
            match place {
                Place::File(path) => folders.file(&below(&self.root, path), at),
                Place::Folder(path) => folders.folder(&below(&self.root, path), at),
                Place::Homes(path) => homes.iter().for_each(|home| folders.folder(&home.join(path), at)),
            }
        }
        // Who has a home is known from here.
        folders.wait_for(&below(&self.root, "/etc/passwd"));
        folders.0
    }
}

struct Folders(BTreeMap<PathBuf, BTreeSet<Interest>>);

impl Folders {
    fn add(&mut self, folder: &Path, name: Option<&OsStr>, tells: Option<usize>) {
        let interest = Interest { name: name.map(OsStr::to_owned), tells };
        self.0.entry(folder.to_owned()).or_default().insert(interest);
    }

    fn file(&mut self, path: &Path, tells: usize) {
        let (Some(folder), name) = (path.parent(), path.file_name()) else { return };
        if folder.is_dir() {
            self.add(folder, name, Some(tells));
        } else {
            self.wait_for(folder);
        }
    }

    fn folder(&mut self, path: &Path, tells: usize) {
        if !path.is_dir() {
            return self.wait_for(path);
        }
        self.add(path, None, Some(tells));
        // If it is removed, another may come.
        self.wait_for(path);
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.add(&entry.path(), None, Some(tells));
            }
        }
    }

    /// Watches the nearest folder that is there for the next part of the way to `path`.
    fn wait_for(&mut self, path: &Path) {
        let mut awaited = path;
        while let (Some(folder), Some(name)) = (awaited.parent(), awaited.file_name()) {
            if folder.is_dir() {
                return self.add(folder, Some(name), None);
            }
            awaited = folder;
        }
    }
}

fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

/// The homes that are there, of all users.
fn homes(root: &Path) -> BTreeSet<PathBuf> {
    let text = fs::read(below(root, "/etc/passwd")).unwrap_or_default();
    let home = |line: &[u8]| {
        let home = line.split(|byte| *byte == b':').nth(5)?;
        (home.starts_with(b"/") && home != b"/").then(|| root.join(OsStr::from_bytes(&home[1..])))
    };
    text.split(|byte| *byte == b'\n').filter_map(home).filter(|home| home.is_dir()).take(MOST_HOMES).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tempfile::TempDir;

    use super::*;

    struct Tree {
        dir: TempDir,
        watches: Watches,
    }

    impl Tree {
        fn new() -> Self {
            let dir = TempDir::new().unwrap();
            for folder in ["etc/cron.d", "root", "var/lib"] {
                fs::create_dir_all(dir.path().join(folder)).unwrap();
            }
            fs::write(dir.path().join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nnone:x:1:1::/:/bin/false\n").unwrap();
            let watches = Watches::below(dir.path()).unwrap();
            Self { dir, watches }
        }

        fn path(&self, path: &str) -> PathBuf {
            self.dir.path().join(path)
        }

        /// The names of what changed, until `name` is among them.
        fn until(&mut self, name: &str) -> BTreeSet<&'static str> {
            let deadline = Instant::now() + Duration::from_secs(10);
            let mut names = BTreeSet::new();
            while !names.contains(name) {
                assert!(Instant::now() < deadline, "{name} is not among {names:?}");
                let Woken::Changed(changed) = self.watches.wait(Some(deadline)).unwrap() else { panic!("nobody called") };
                names.extend(changed.into_iter().map(|at| FILES[at].name()));
            }
            names
        }
    }

    #[test]
    fn a_file_that_is_replaced_or_written_tells_and_its_neighbours_do_not() {
        let mut tree = Tree::new();
        fs::write(tree.path("etc/other"), "x").unwrap();
        fs::write(tree.path("etc/hosts.new"), "x").unwrap();
        fs::rename(tree.path("etc/hosts.new"), tree.path("etc/hosts")).unwrap();
        assert_eq!(tree.until("/etc/hosts"), BTreeSet::from(["/etc/hosts"]));
        fs::write(tree.path("etc/cron.d/job"), "x").unwrap();
        assert_eq!(tree.until("/etc/cron.d"), BTreeSet::from(["/etc/cron.d"]));
        fs::remove_file(tree.path("etc/hosts")).unwrap();
        tree.until("/etc/hosts");
    }

    #[test]
    fn what_appears_later_tells_too_and_so_does_what_is_in_it() {
        let mut tree = Tree::new();
        fs::create_dir_all(tree.path("etc/systemd/system/multi-user.target.wants")).unwrap();
        tree.until("/etc/systemd/system");
        fs::write(tree.path("etc/systemd/system/multi-user.target.wants/x.service"), "x").unwrap();
        tree.until("/etc/systemd/system");
        fs::create_dir_all(tree.path("var/lib/dpkg")).unwrap();
        fs::write(tree.path("var/lib/dpkg/status"), "x").unwrap();
        tree.until("/var/lib/dpkg/status");
        fs::remove_dir_all(tree.path("etc/cron.d")).unwrap();
        tree.until("/etc/cron.d");
        fs::create_dir(tree.path("etc/cron.d")).unwrap();
        tree.until("/etc/cron.d");
    }

    #[test]
    fn homes_are_watched_of_users_that_come_later_too() {
        let mut tree = Tree::new();
        fs::create_dir(tree.path("root/.ssh")).unwrap();
        tree.until(".ssh");
        fs::write(tree.path("root/.ssh/authorized_keys"), "x").unwrap();
        tree.until(".ssh");
        fs::create_dir_all(tree.path("home/ann/.ssh")).unwrap();
        let passwd = fs::read_to_string(tree.path("etc/passwd")).unwrap();
        fs::write(tree.path("etc/passwd"), passwd + "ann:x:2:2::/home/ann:/bin/sh\n").unwrap();
        tree.until(".ssh");
        fs::write(tree.path("home/ann/.ssh/authorized_keys"), "x").unwrap();
        tree.until(".ssh");
    }

    #[test]
    fn a_wait_is_ended_by_a_call() {
        let mut tree = Tree::new();
        tree.watches.waker().wake();
        assert_eq!(tree.watches.wait(None).unwrap(), Woken::Called);
    }
}
