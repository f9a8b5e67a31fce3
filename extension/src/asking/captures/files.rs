//! Files that tell of tables, watched with inotify: folders, since a file is mostly replaced by another one of its name.

mod places;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap},
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use inotify::{EventMask, WatchDescriptor, WatchMask};
use mayfly_history::Feed;
use rustix::io::Errno;

use self::places::{Interest, Interests, folders_below};
use super::map::FILES;
use crate::watched::{Waker, Watched};

/// Folders that come and go while they are looked at are looked at again so often, …
const MOST_ROUNDS: usize = 3;
/// …and then after this time: users may make and remove folders of their homes as fast as they like. What is written to a new folder is told as much
/// later.
pub(super) const LOOK_PAUSE: Duration = Duration::from_millis(250);
/// So often they are looked at in any case: nothing tells of a file system that is mounted over one, or of the folder two above that got another name.
const LOOK_ANYWAY: Duration = Duration::from_secs(60);

/// The files that tell of tables, watched.
#[derive(Debug)]
pub(super) struct Watches {
    watched: Watched,
    root: PathBuf,
    folders: Interests,
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
            folders: Interests::new(),
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
            let look_at = self.look_at();
            let seen = self.watched.wait(Some(deadline.map_or(look_at, |deadline| deadline.min(look_at))))?;
            if seen.called {
                return Ok(Woken::Called);
            }
            let mut changed = if seen.files { self.read()? } else { BTreeSet::new() };
            if self.look_at() <= Instant::now() {
                changed.extend(self.look()?);
            }
            if !changed.is_empty() || deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Ok(Woken::Changed(changed));
            }
        }
    }

    /// When to look again what is there.
    fn look_at(&self) -> Instant {
        self.looked_at + if self.is_stale { LOOK_PAUSE } else { LOOK_ANYWAY }
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
            // The folder itself is gone, or is called otherwise now.
            self.is_stale |= event.mask.intersects(EventMask::IGNORED | EventMask::MOVE_SELF);
            let is_folder = event.mask.contains(EventMask::ISDIR);
            for interest in folders.iter().filter_map(|folder| self.folders.get(folder)).flatten() {
                if event.name.is_some() && interest.name.as_deref().is_none_or(|name| Some(name) == event.name) {
                    changed.extend(interest.tells);
                    // Folders of a folder are watched, too.
                    self.is_stale |= is_folder || interest.tells.is_none();
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
        let mut folders = folders_below(&self.root, &mut said);
        for _ in 0..MOST_ROUNDS {
            changed.extend(self.watch(folders, &mut said)?);
            // What came before its parent was watched is told by nobody.
            folders = folders_below(&self.root, &mut said);
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
            let watch = match self.watched.add(folder, notices(interests)) {
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
}

/// What the kernel is to tell of a folder, besides what it is to tell of the same one under another path.
fn notices(interests: &BTreeSet<Interest>) -> WatchMask {
    let names = WatchMask::CREATE | WatchMask::DELETE | WatchMask::MOVE;
    let mask = names | WatchMask::MOVE_SELF | WatchMask::ONLYDIR | WatchMask::MASK_ADD;
    // Where something is only awaited, e.g. in /run, what is written there is nothing to wake up for.
    let is_told = interests.iter().any(|interest| interest.tells.is_some());
    if is_told { mask | WatchMask::CLOSE_WRITE } else { mask }
}

/// Whether the system has no room for any watch, rather than this one being refused.
fn is_exhausted(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOSPC | Errno::NOMEM | Errno::MFILE | Errno::NFILE))
}
