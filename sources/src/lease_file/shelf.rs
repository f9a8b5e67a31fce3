//! All lease files as they were read last.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::IpAddr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use mayfly_history::{
    Nanos,
    lease::{LeaseReport, LeaseSource, PresentLeases},
    now,
};
use nix::ifaddrs::getifaddrs;

use super::{
    book::Book,
    parse::{self, Entry, Page},
};
use crate::{disk::read_regular, supervise::Site};

/// The longest file that is read.
const LONGEST: u64 = 64 << 20;

#[derive(Debug)]
pub(super) struct Shelf {
    site: Site,
    blind_since: Option<Nanos>,
    files: BTreeMap<PathBuf, File>,
    /// When all were looked at last; `None`: never.
    looked_ns: Option<Nanos>,
}

#[derive(Debug)]
struct File {
    book: Book,
    /// Inode, size and time of the last change, when it was read.
    state: Option<(u64, u64, Nanos)>,
    is_open: bool,
    /// A lease was missed in it at the last look.
    doubted: bool,
    /// Wrong lines that were told.
    faults: usize,
}

impl Shelf {
    pub(super) fn new(site: Site, blind_since: Option<Nanos>) -> Self {
        Self { site, blind_since, files: BTreeMap::new(), looked_ns: None }
    }

    /// Reads what changed; whether a lease vanished, so that it must be looked at again.
    pub(super) fn look(&mut self, present: &BTreeSet<PathBuf>) -> bool {
        let known: Vec<PathBuf> = self.files.keys().filter(|path| !present.contains(*path)).cloned().collect();
        let now_ns = now();
        let mut doubts = false;
        for path in present.iter().chain(&known) {
            doubts |= self.read(path);
        }
        self.looked_ns = Some(now_ns);
        doubts
    }

    fn read(&mut self, path: &Path) -> bool {
        let state = fs::symlink_metadata(path).ok().map(|m| (m.ino(), m.size(), m.mtime() * 1_000_000_000 + m.mtime_nsec()));
        let file = self.files.entry(path.to_owned()).or_insert_with(|| File {
            // A file that comes later says what happened since the last look.
            book: Book::new(path, self.looked_ns.unwrap_or_default()),
            state: None,
            is_open: self.looked_ns.is_some(),
            doubted: false,
            faults: 0,
        });
        if file.is_open && file.state == state && !file.doubted {
            return false;
        }
        let site = &self.site;
        let page = match read_pages(path) {
            Ok(parsed) => {
                for (line, why) in parsed.faults.iter().skip(file.faults) {
                    site.feed.reject(format!("{}:{line}: {why}", path.display()));
                }
                file.faults = parsed.faults.len();
                parsed.page
            }
            // It was removed: its leases with it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Page::default(),
            Err(error) => {
                site.feed.complain(format!("cannot read {}: {error}", path.display()));
                return false;
            }
        };
        let now_ns = now();
        let changed_ns = state.map_or(now_ns, |(_, _, modified_ns)| modified_ns);
        file.state = state;
        if file.is_open && !file.doubted && file.book.misses(&page, now_ns) {
            file.doubted = true;
            return true;
        }
        file.doubted = false;
        let sink = site.recorder.sinks().of::<LeaseReport>();
        if file.is_open {
            for event in file.book.turn(page, changed_ns, now_ns) {
                // Where the next recorder knows that it was blind from.
                let cursor = event.time_ns.to_string();
                sink.push_at(&site.feed, LeaseReport::Event(Box::new(event)), cursor);
            }
        } else {
            file.is_open = true;
            let held = page.into_iter().filter(|(ip, _)| !is_left_behind(path, *ip)).collect();
            let leases = file.book.open(held, now_ns);
            let channel = file.book.channel().clone();
            let present =
                PresentLeases { source: LeaseSource::LeaseFile, channel, taken_ns: now_ns, blind_since: self.blind_since, leases };
            sink.push(&site.feed, LeaseReport::Present(Box::new(present)));
        }
        false
    }
}

/// Reads a file, with those that its server put aside when it cleaned up: Kea goes on in a new file, and the leases are in the old ones.
fn read_pages(path: &Path) -> io::Result<parse::Parsed> {
    let text = |path: &Path| read_regular(path, LONGEST).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    // The newest file first: what is moved meanwhile is read twice, not missed.
    let mut texts = vec![text(path)?];
    if path.extension().is_some_and(|extension| extension == "csv") {
        let aside = |suffix: &str| text(&PathBuf::from(format!("{}.{suffix}", path.display()))).ok();
        texts.extend(aside("1"));
        texts.extend(aside("completed").or_else(|| aside("2")));
    }
    let mut whole = parse::Parsed::default();
    for text in texts.iter().rev() {
        let parse::Parsed { page, faults } = parse::parse(text);
        for entry in page.into_values().flatten() {
            whole.add(complete(entry, path));
        }
        // Those of the file that is written to, which have its lines.
        whole.faults = faults;
    }
    Ok(whole)
}

/// Adds what a client's own file does not say: which interface it is, and its hardware.
fn complete(mut entry: Entry, path: &Path) -> Entry {
    if !entry.is_own {
        return entry;
    }
    if entry.interface.is_none() {
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        // networkd calls the file as the interface's index, NetworkManager after the connection and the interface.
        entry.interface = match stem.parse::<u32>() {
            Ok(index) => interface_of(index),
            Err(_) => stem.strip_prefix(INTERNAL).and_then(|rest| rest.get(UUID + 1..)).map(ToOwned::to_owned),
        };
    }
    if let Some(interface) = entry.interface.as_deref().filter(|name| !name.contains('/') && !name.starts_with('.')) {
        let address = fs::read_to_string(format!("/sys/class/net/{interface}/address"));
        entry.mac = address.ok().and_then(|text| parse::mac(text.trim()));
    }
    entry
}

/// What NetworkManager's own client calls its files: this, the connection's UUID, and the interface.
const INTERNAL: &str = "internal-";
const UUID: usize = 36;

/// Whether it is a lease of a connection that is no more: NetworkManager keeps them, to ask for the same address again.
fn is_left_behind(path: &Path, ip: IpAddr) -> bool {
    let is_kept = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(INTERNAL));
    let is_here = |ip| {
        let of = |address: &nix::sys::socket::SockaddrStorage| address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        getifaddrs().is_ok_and(|mut all| all.any(|one| one.address.as_ref().and_then(of) == Some(ip)))
    };
    is_kept && !is_here(ip)
}

fn interface_of(index: u32) -> Option<String> {
    let mut links = fs::read_dir("/sys/class/net").ok()?.flatten();
    let is_it = |dir: &fs::DirEntry| fs::read_to_string(dir.path().join("ifindex")).is_ok_and(|text| text.trim().parse() == Ok(index));
    links.find(is_it).map(|dir| dir.file_name().to_string_lossy().into_owned())
}
