//! Files that tell of tables, watched with inotify: folders, since a file is mostly replaced by another one of its name.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use inotify::{EventMask, WatchDescriptor, WatchMask};
use mayfly_history::Feed;
use rustix::io::Errno;

use super::map::{FILES, Files, Place};
use crate::watched::{Waker, Watched};

/// Most homes that are looked into, most folders of one folder that are watched, and most folders after which no folders of others are.
const MOST_HOMES: usize = 256;
const MOST_SUBFOLDERS: usize = 256;
const MOST_FOLDERS: usize = 2048;
/// Folders that come and go while they are looked at are looked at again so often, …
const MOST_ROUNDS: usize = 3;
/// …and then after this time: users may make and remove folders of their homes as fast as they like.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

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
    /// Folders may have come or gone since they were last looked at, and when that was.
    is_stale: bool,
    looked_at: Instant,
    /// Says what cannot be watched.
    feed: Feed,
    /// What was said of that at the last look.
    said: BTreeSet<String>,
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
    /// Watches below `root` (`/`, or a tree in a test); says to `feed` what of it cannot be watched.
    pub(super) fn below(root: &Path, feed: Feed) -> io::Result<Self> {
        let mut watches = Self {
            watched: Watched::new()?,
            root: root.to_owned(),
            folders: BTreeMap::new(),
            known: HashMap::new(),
            is_stale: true,
            looked_at: Instant::now(),
            feed,
            said: BTreeSet::new(),
        };
        watches.look()?;
        Ok(watches)
    }

    pub(super) fn waker(&self) -> Waker {
        self.watched.waker()
    }

    /// Waits until something changed; `deadline` ends it with nothing.
    pub(super) fn wait(&mut self, deadline: Option<Instant>) -> io::Result<Woken> {
        loop {
            let look_at = self.is_stale.then(|| self.looked_at + LOOK_PAUSE);
            let seen = self.watched.wait([deadline, look_at].into_iter().flatten().min())?;
            if seen.called {
                return Ok(Woken::Called);
            }
            let mut changed = if seen.files { self.read()? } else { BTreeSet::new() };
            if self.is_stale && self.looked_at.elapsed() >= LOOK_PAUSE {
                changed.extend(self.look()?);
            }
            if !changed.is_empty() || deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Ok(Woken::Changed(changed));
            }
        }
    }

    /// What the kernel told.
    fn read(&mut self) -> io::Result<BTreeSet<usize>> {
        let mut changed = BTreeSet::new();
        let mut buffer = [0; 16 * 1024];
        let events = self.watched.read(&mut buffer)?;
        for event in events {
            if event.mask.contains(EventMask::Q_OVERFLOW) {
                // The kernel told less than there was.
                changed.extend(0..FILES.len());
                self.is_stale = true;
                continue;
            }
            let Some(folders) = self.known.get(&event.wd) else { continue };
            // Folders of a folder are watched, too.
            self.is_stale |= event.mask.intersects(EventMask::IGNORED | EventMask::ISDIR);
            for interest in folders.iter().filter_map(|folder| self.folders.get(folder)).flatten() {
                if event.name.is_some() && interest.name.as_deref().is_none_or(|name| Some(name) == event.name) {
                    changed.extend(interest.tells);
                    self.is_stale |= interest.tells.is_none();
                }
            }
        }
        Ok(changed)
    }

    /// Watches what is there now; gives what came or went since it was last looked at.
    fn look(&mut self) -> io::Result<BTreeSet<usize>> {
        (self.is_stale, self.looked_at) = (false, Instant::now());
        let mut changed = BTreeSet::new();
        let mut said = BTreeSet::new();
        let mut folders = self.folders_now(&mut said);
        for _ in 0..MOST_ROUNDS {
            changed.extend(self.watch(folders, &mut said)?);
            // What came before its parent was watched is told by nobody.
            folders = self.folders_now(&mut said);
            if folders == self.folders {
                return Ok(self.say(said, changed));
            }
        }
        self.is_stale = true;
        Ok(self.say(said, changed))
    }

    /// Says what cannot be watched, once; passes `changed` on.
    fn say(&mut self, said: BTreeSet<String>, changed: BTreeSet<usize>) -> BTreeSet<usize> {
        for why in said.difference(&self.said) {
            tracing::warn!(why, "tables that it tells of are captured at their interval only");
            self.feed.complain(format!("{why}: changes there are seen late"));
        }
        self.said = said;
        changed
    }

    /// Watches these folders and no others; what of them cannot be watched goes into `said`.
    fn watch(&mut self, folders: Interests, said: &mut BTreeSet<String>) -> io::Result<BTreeSet<usize>> {
        let mut changed = BTreeSet::new();
        let mut known: HashMap<_, Vec<PathBuf>> = HashMap::new();
        for (folder, interests) in &folders {
            let mask = WatchMask::CLOSE_WRITE | WatchMask::MOVE | WatchMask::CREATE | WatchMask::DELETE | WatchMask::ONLYDIR;
            let watch = match self.watched.add(folder, mask) {
                Ok(watch) => watch,
                // It went away meanwhile, or is nothing to be watched: then its parent tells of the next one.
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => continue,
                Err(error) if is_exhausted(&error) => {
                    return Err(io::Error::new(error.kind(), format!("cannot watch {}: {error}", folder.display())));
                }
                // One alone, e.g. a home on another host that does not let root in.
                Err(error) => {
                    said.insert(format!("cannot watch {}: {error}", folder.display()));
                    continue;
                }
            };
            // Another folder may have taken its place.
            let was_known = self.known.get(&watch).is_some_and(|known| known.contains(folder));
            let before = self.folders.get(folder).filter(|_| was_known);
            changed.extend(interests.iter().filter(|i| before.is_none_or(|before| !before.contains(i))).filter_map(|i| i.tells));
            known.entry(watch).or_default().push(folder.clone());
        }
        for watch in self.known.drain().map(|(watch, _)| watch).filter(|watch| !known.contains_key(watch)) {
            self.watched.remove(watch);
        }
        let gone = self.folders.iter().filter(|(folder, _)| !folders.contains_key(*folder));
        changed.extend(gone.flat_map(|(_, interests)| interests).filter_map(|interest| interest.tells));
        (self.folders, self.known) = (folders, known);
        Ok(changed)
    }

    /// The folders to watch, and what each of their names means; what is left out goes into `said`.
    fn folders_now(&self, said: &mut BTreeSet<String>) -> Interests {
        let mut folders = Folders { interests: BTreeMap::new(), said };
        let mut homes = homes(&self.root);
        if homes.len() > MOST_HOMES {
            folders.said.insert(format!("only {MOST_HOMES} of {} homes are watched", homes.len()));
        }
        homes = homes.into_iter().take(MOST_HOMES).collect();
        for (at, Files { place, .. }) in FILES.iter().enumerate() {
            match place {
                Place::File(path) => folders.file(&below(&self.root, path), at),
                Place::Folder(path) => folders.flat(&below(&self.root, path), at),
                // A user may make any number of folders: what is in them tells nothing.
                Place::Homes(path) => homes.iter().for_each(|home| folders.flat(&home.join(path), at)),
            }
        }
        // Who has a home is known from here.
        folders.wait_for(&below(&self.root, "/etc/passwd"));
        // The folders of a folder come last: they must not take the place of one that is named.
        for (at, Files { place, .. }) in FILES.iter().enumerate() {
            if let Place::Folder(path) = place {
                folders.subfolders(&below(&self.root, path), at);
            }
        }
        folders.interests
    }
}

/// Folders, and what each of their names means.
type Interests = BTreeMap<PathBuf, BTreeSet<Interest>>;

/// Whether the system has no room for any watch, rather than this one being refused.
fn is_exhausted(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOSPC | Errno::NOMEM | Errno::MFILE | Errno::NFILE))
}

struct Folders<'s> {
    interests: Interests,
    said: &'s mut BTreeSet<String>,
}

impl Folders<'_> {
    fn add(&mut self, folder: &Path, name: Option<&OsStr>, tells: Option<usize>) {
        let interest = Interest { name: name.map(OsStr::to_owned), tells };
        self.interests.entry(folder.to_owned()).or_default().insert(interest);
    }

    fn file(&mut self, path: &Path, tells: usize) {
        let (Some(folder), name) = (path.parent(), path.file_name()) else { return };
        if folder.is_dir() {
            self.add(folder, name, Some(tells));
        } else {
            self.wait_for(folder);
        }
    }

    /// A folder without those that are in it.
    fn flat(&mut self, path: &Path, tells: usize) {
        if path.is_dir() {
            self.add(path, None, Some(tells));
        }
        // If it is removed, another may come.
        self.wait_for(path);
    }

    fn subfolders(&mut self, path: &Path, tells: usize) {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let room = MOST_FOLDERS.saturating_sub(self.interests.len()).min(MOST_SUBFOLDERS);
        for (at, folder) in folders.take(room + 1).enumerate() {
            if at == room {
                self.said.insert(format!("only {room} of the folders in {} are watched", path.display()));
                return;
            }
            self.add(&folder.path(), None, Some(tells));
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
    text.split(|byte| *byte == b'\n').filter_map(home).filter(|home| home.is_dir()).collect()
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
            let watches = Watches::below(dir.path(), Feed::new("tables", "")).unwrap();
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
    fn folders_of_a_users_are_not_watched_and_those_of_root_to_a_bound() {
        let mut tree = Tree::new();
        for at in 0..MOST_SUBFOLDERS + 10 {
            fs::create_dir_all(tree.path(&format!("root/.ssh/{at}"))).unwrap();
            fs::create_dir_all(tree.path(&format!("etc/systemd/system/{at}.d"))).unwrap();
        }
        tree.until("/etc/systemd/system");
        tree.watches.look().unwrap();
        let watched = |path: &str| {
            let path = tree.path(path);
            tree.watches.folders.keys().filter(|folder| folder.parent() == Some(&path)).count()
        };
        assert_eq!((watched("root/.ssh"), watched("etc/systemd/system")), (0, MOST_SUBFOLDERS));
        let said = tree.watches.feed.status().last_error;
        assert!(said.contains("only 256 of the folders in") && said.contains("etc/systemd/system"), "{said}");
    }

    #[test]
    fn a_folder_that_took_the_place_of_another_between_two_looks_tells() {
        let mut tree = Tree::new();
        fs::create_dir(tree.path("etc/new")).unwrap();
        fs::rename(tree.path("etc/cron.d"), tree.path("etc/old")).unwrap();
        fs::rename(tree.path("etc/new"), tree.path("etc/cron.d")).unwrap();
        assert_eq!(tree.until("/etc/cron.d"), BTreeSet::from(["/etc/cron.d"]));
    }

    #[test]
    fn a_wait_is_ended_by_a_call() {
        let mut tree = Tree::new();
        tree.watches.waker().wake();
        assert_eq!(tree.watches.wait(None).unwrap(), Woken::Called);
    }
}
