//! Lease files of DHCP servers and clients: read when inotify says that they changed.
//!
//! Writers truncate, append or replace. So a file is read a moment after its last change, and a lease that vanished from it is believed to be
//! gone only when it is still not there a moment later.

mod book;
mod isc;
mod kea;
mod parse;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::OsString,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::StreamExt;
use inotify::{EventStream, Inotify, WatchDescriptor, WatchMask};
use mayfly_history::{
    Nanos,
    lease::{LeaseReport, LeaseSource, PresentLeases},
    now,
};
use tokio_util::sync::CancellationToken;

#[doc(hidden)]
pub use parse::decode_lease_file;

use self::{
    book::{Book, Page},
    parse::Entry,
};
use crate::{
    disk::read_regular,
    error::SourceError,
    sight::Sight,
    supervise::{Site, Source},
};

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
/// Files that are followed, and the longest that is read.
const MOST_FILES: usize = 1024;
const LONGEST: u64 = 64 << 20;
/// Wrong lines of one look that are counted each.
const MOST_FAULTS: usize = 100;
/// A writer is done after this long without a change.
const SETTLE: Duration = Duration::from_millis(50);
/// A lease that vanished is looked for again after this.
const DOUBT: Duration = Duration::from_millis(200);

/// Follows the lease files.
#[derive(Debug)]
pub(crate) struct LeaseFiles {
    site: Site,
    sight: Sight,
}

impl LeaseFiles {
    pub(crate) fn new(site: Site) -> Self {
        let sight = Sight::new(&site);
        Self { site, sight }
    }
}

impl Source for LeaseFiles {
    async fn follow(&mut self, stop: CancellationToken) -> Result<(), SourceError> {
        let failed = |reason| SourceError::Host { attempt: "watch the directories of lease files".into(), reason };
        let mut watch = Watch::new(&self.site).map_err(failed)?;
        let mut shelf = Shelf { site: self.site.clone(), blind_since: self.sight.blind_since(), files: BTreeMap::new() };
        watch.arm().map_err(failed)?;
        let mut doubts = shelf.look(&watch.files());
        self.site.feed.running();
        self.sight.regain(&self.site, "of leases that came and went meanwhile nothing is known");
        let follow = async {
            loop {
                if doubts {
                    // Whatever is told meanwhile waits.
                    tokio::time::sleep(DOUBT).await;
                } else {
                    watch.changed().await?;
                    tokio::time::sleep(SETTLE).await;
                }
                watch.arm()?;
                doubts = shelf.look(&watch.files());
            }
        };
        let ended: Option<io::Result<()>> = stop.run_until_cancelled(follow).await;
        self.sight.lose();
        ended.unwrap_or(Ok(())).map_err(failed)
    }
}

/// Which files there are, and whether something changed.
struct Watch {
    events: EventStream<[u8; 4096]>,
    /// What matters in a directory; `None`: everything.
    names: HashMap<WatchDescriptor, Option<BTreeSet<OsString>>>,
    /// Directories with all lease files in them.
    directories: Vec<PathBuf>,
    /// Files that the operator named.
    named: Vec<PathBuf>,
}

impl Watch {
    fn new(site: &Site) -> io::Result<Self> {
        Ok(Self {
            events: Inotify::init()?.into_event_stream([0; 4096])?,
            names: HashMap::new(),
            directories: PLACES.iter().map(PathBuf::from).collect(),
            named: site.config.lease_file.paths.iter().map(PathBuf::from).collect(),
        })
    }

    /// Watches each directory, or the nearest above it that exists, so that it may come later.
    fn arm(&mut self) -> io::Result<()> {
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
    async fn changed(&mut self) -> io::Result<()> {
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

    fn files(&self) -> BTreeSet<PathBuf> {
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

/// All files as they were read last.
struct Shelf {
    site: Site,
    blind_since: Option<Nanos>,
    files: BTreeMap<PathBuf, File>,
}

#[derive(Debug)]
struct File {
    book: Book,
    /// Inode, size and time of the last change, when it was read.
    state: Option<(u64, u64, i64, i64)>,
    is_open: bool,
    /// A lease was missed in it at the last look.
    doubted: bool,
}

impl Shelf {
    /// Reads what changed; whether a lease vanished, so that it must be looked at again.
    fn look(&mut self, present: &BTreeSet<PathBuf>) -> bool {
        let known: Vec<PathBuf> = self.files.keys().filter(|path| !present.contains(*path)).cloned().collect();
        let mut doubts = false;
        for path in present.iter().chain(&known) {
            doubts |= self.read(path);
        }
        doubts
    }

    fn read(&mut self, path: &Path) -> bool {
        let state = fs::symlink_metadata(path).ok().map(|m| (m.ino(), m.size(), m.mtime(), m.mtime_nsec()));
        let file = self.files.entry(path.to_owned()).or_insert_with(|| File {
            book: Book::new(path),
            state: None,
            is_open: false,
            doubted: false,
        });
        if file.is_open && file.state == state && !file.doubted {
            return false;
        }
        let site = &self.site;
        let page = match read_regular(path, LONGEST) {
            Ok(bytes) => {
                let parsed = parse::parse(&String::from_utf8_lossy(&bytes));
                if file.state != state {
                    for (line, why) in parsed.faults.iter().take(MOST_FAULTS) {
                        site.feed.reject(format!("{}:{line}: {why}", path.display()));
                    }
                }
                let modified_ns = state.map(|(_, _, seconds, nanos)| seconds * 1_000_000_000 + nanos);
                Page::of(parsed.entries.into_iter().map(|entry| complete(entry, path, modified_ns)).collect())
            }
            // It was removed: its leases with it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Page::default(),
            Err(error) => {
                site.feed.complain(format!("cannot read {}: {error}", path.display()));
                return false;
            }
        };
        let now_ns = now();
        file.state = state;
        if file.is_open && !file.doubted && file.book.misses(&page, now_ns) {
            file.doubted = true;
            return true;
        }
        file.doubted = false;
        let sink = site.recorder.sinks().of::<LeaseReport>();
        if file.is_open {
            for event in file.book.turn(page, now_ns) {
                // Where the next recorder knows that it was blind from.
                let cursor = event.time_ns.to_string();
                sink.push_at(&site.feed, LeaseReport::Event(Box::new(event)), cursor);
            }
        } else {
            file.is_open = true;
            let leases = file.book.open(page, now_ns);
            let channel = file.book.channel().clone();
            let present =
                PresentLeases { source: LeaseSource::LeaseFile, channel, taken_ns: now_ns, blind_since: self.blind_since, leases };
            sink.push(&site.feed, LeaseReport::Present(Box::new(present)));
        }
        false
    }
}

/// Adds what a client's own file does not say: which interface it is, and when the lease ends.
fn complete(mut entry: Entry, path: &Path, modified_ns: Option<Nanos>) -> Entry {
    if !entry.is_own {
        return entry;
    }
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    if entry.interface.is_none() {
        // networkd calls the file as the interface's index, NetworkManager ends it with its name.
        entry.interface = match stem.parse::<u32>() {
            Ok(index) => interface_of(index),
            Err(_) => stem.starts_with("internal-").then(|| stem.rsplit('-').next().map(ToOwned::to_owned)).flatten(),
        };
    }
    if let Some(interface) = entry.interface.as_deref().filter(|name| !name.contains('/') && !name.starts_with('.')) {
        let address = fs::read_to_string(format!("/sys/class/net/{interface}/address"));
        entry.mac = address.ok().and_then(|text| parse::mac(text.trim()));
    }
    if entry.until_ns.is_none()
        && let (Some(modified_ns), Some(seconds)) = (modified_ns, entry.lease_seconds)
    {
        entry.until_ns = Some(modified_ns.saturating_add(seconds.saturating_mul(1_000_000_000)));
    }
    entry
}

fn interface_of(index: u32) -> Option<String> {
    let mut links = fs::read_dir("/sys/class/net").ok()?.flatten();
    let is_it = |dir: &fs::DirEntry| fs::read_to_string(dir.path().join("ifindex")).is_ok_and(|text| text.trim().parse() == Ok(index));
    links.find(is_it).map(|dir| dir.file_name().to_string_lossy().into_owned())
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
