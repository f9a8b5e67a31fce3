//! Which lease files there are, and when one changes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use futures_util::StreamExt;
use inotify::{EventStream, Inotify, WatchDescriptor, WatchMask};

/// Directories of lease files: dhclient and dhcpd (of several distributions), dnsmasq, networkd, NetworkManager, Kea.
const PLACES: [&str; 9] = [
    "/var/lib/dhcp",
    "/var/lib/dhclient",
    "/var/lib/dhcpd",
    "/var/lib/misc",
    "/var/lib/dnsmasq",
    "/var/lib/libvirt/dnsmasq",
    "/run/systemd/netif/leases",
    "/var/lib/NetworkManager",
    "/var/lib/kea",
];
/// Files of one directory that are followed.
const MOST_FILES: usize = 1024;

/// Which files there are, and whether something changed.
pub(super) struct Watch {
    events: EventStream<[u8; 4096]>,
    /// What matters in a directory; `None`: everything.
    names: HashMap<WatchDescriptor, Option<BTreeSet<OsString>>>,
    /// Directories with all lease files in them.
    directories: Vec<PathBuf>,
    /// Files that the operator named.
    named: Vec<PathBuf>,
}

impl Watch {
    /// Follows what is in the usual places, and the files that the operator named.
    pub(super) fn new(named: &[String]) -> io::Result<Self> {
        Ok(Self {
            events: Inotify::init()?.into_event_stream([0; 4096])?,
            names: HashMap::new(),
            directories: PLACES.iter().map(PathBuf::from).collect(),
            named: named.iter().map(PathBuf::from).collect(),
        })
    }

    /// Watches each directory, or the nearest above it that exists, so that it may come later.
    pub(super) fn arm(&mut self) -> io::Result<()> {
        let mask =
            WatchMask::MODIFY | WatchMask::CLOSE_WRITE | WatchMask::CREATE | WatchMask::DELETE | WatchMask::MOVE | WatchMask::ONLYDIR;
        let mut wanted: BTreeMap<PathBuf, Option<BTreeSet<OsString>>> = BTreeMap::new();
        for directory in &self.directories {
            let (nearest, next) = nearest(directory);
            note(&mut wanted, nearest, next);
        }
        for file in &self.named {
            let parent = file.parent().unwrap_or(Path::new("/"));
            let (nearest, next) = nearest(parent);
            note(&mut wanted, nearest, next.or_else(|| file.file_name().map(ToOwned::to_owned)));
        }
        self.names.clear();
        for (directory, names) in wanted {
            match self.events.watches().add(&directory, mask) {
                Ok(descriptor) => drop(self.names.insert(descriptor, names)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits for a change that matters.
    pub(super) async fn changed(&mut self) -> io::Result<()> {
        while let Some(event) = self.events.next().await {
            let event = event?;
            let matters = match self.names.get(&event.wd) {
                Some(Some(names)) => event.name.as_ref().is_none_or(|name| names.contains(name)),
                // Also when the queue ran over.
                Some(None) | None => true,
            };
            if matters {
                return Ok(());
            }
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    pub(super) fn files(&self) -> BTreeSet<PathBuf> {
        let mut files: BTreeSet<PathBuf> = self.named.iter().cloned().collect();
        for directory in &self.directories {
            let entries = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
            files.extend(entries.filter(|path| is_lease_file(path)).take(MOST_FILES));
        }
        files
    }
}

fn note(wanted: &mut BTreeMap<PathBuf, Option<BTreeSet<OsString>>>, directory: PathBuf, name: Option<OsString>) {
    let names = wanted.entry(directory).or_insert_with(|| Some(BTreeSet::new()));
    match (names.as_mut(), name) {
        (Some(names), Some(name)) => drop(names.insert(name)),
        _ => *names = None,
    }
}

/// The nearest directory that exists, and the name in it that would lead further.
fn nearest(directory: &Path) -> (PathBuf, Option<OsString>) {
    let mut next = None;
    for ancestor in directory.ancestors() {
        if ancestor.is_dir() {
            return (ancestor.to_owned(), next);
        }
        next = ancestor.file_name().map(ToOwned::to_owned);
    }
    ("/".into(), next)
}

/// By its name: not the copies that writers leave.
fn is_lease_file(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let is_of_networkd = path.parent().is_some_and(|dir| dir.ends_with("netif/leases")) && name.bytes().all(|b| b.is_ascii_digit());
    let is_of_kea = name.starts_with("kea-leases") && name.ends_with(".csv");
    is_of_networkd || is_of_kea || name.ends_with(".leases") || name.ends_with(".lease")
}
