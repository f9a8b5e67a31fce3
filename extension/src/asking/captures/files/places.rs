//! Where the files are that tell, or will be: the folders to watch, and what each of their names means.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use crate::asking::captures::map::{FILES, Files, Place};

/// Most homes that are looked into, most folders of one folder that are watched, and most folders after which no folders of others are.
const MOST_HOMES: usize = 256;
pub(super) const MOST_SUBFOLDERS: usize = 256;
const MOST_FOLDERS: usize = 2048;

/// What a change of a name in a folder means.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Interest {
    /// Only of this name.
    pub(super) name: Option<OsString>,
    /// It tells of this, a position in [`FILES`]; `None`: only that something may be there now which was not before.
    pub(super) tells: Option<usize>,
}

/// Folders, and what each of their names means.
pub(super) type Interests = BTreeMap<PathBuf, BTreeSet<Interest>>;

/// The folders to watch below `root`, and what each of their names means; what is left out goes into `said`.
pub(super) fn folders_below(root: &Path, said: &mut BTreeSet<String>) -> Interests {
    let mut folders = Folders { interests: BTreeMap::new(), said };
    let Homes { there, awaited } = Homes::below(root);
    for (homes, how) in [(&there, "watched"), (&awaited, "waited for")] {
        if homes.len() > MOST_HOMES {
            folders.said.insert(format!("only {MOST_HOMES} of {} homes are {how}", homes.len()));
        }
    }
    let homes: Vec<_> = [&there, &awaited].into_iter().flat_map(|homes| homes.iter().take(MOST_HOMES)).collect();
    for (at, Files { place, .. }) in FILES.iter().enumerate() {
        match place {
            Place::File(path) => folders.file(&below(root, path), at),
            Place::Folder(path) => folders.flat(&below(root, path), at),
            // A user may make any number of folders: what is in them tells nothing.
            Place::Homes(path) => homes.iter().for_each(|home| folders.flat(&home.join(path), at)),
        }
    }
    // Who has a home is known from here.
    folders.wait_for(&below(root, "/etc/passwd"));
    // The folders of a folder come last: they must not take the place of one that is named.
    for (at, Files { place, .. }) in FILES.iter().enumerate() {
        if let Place::Folder(path) = place {
            folders.subfolders(&below(root, path), at);
        }
    }
    folders.interests
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

/// The homes of all users.
struct Homes {
    there: BTreeSet<PathBuf>,
    /// Not there yet: some are made at the first login, or after the user.
    awaited: BTreeSet<PathBuf>,
}

impl Homes {
    fn below(root: &Path) -> Self {
        let text = fs::read(below(root, "/etc/passwd")).unwrap_or_default();
        let home = |line: &[u8]| {
            let home = line.split(|byte| *byte == b':').nth(5)?;
            (home.starts_with(b"/") && home != b"/").then(|| root.join(OsStr::from_bytes(&home[1..])))
        };
        let (there, other): (_, BTreeSet<PathBuf>) = text.split(|byte| *byte == b'\n').filter_map(home).partition(|home| home.is_dir());
        // What is no folder, such as /dev/null, becomes none.
        Self { there, awaited: other.into_iter().filter(|home| !home.exists()).collect() }
    }
}
