//! Which of the awaited sockets exist now: inotify on their directories tells, nothing is polled.
//!
//! Every existing ancestor of every place is watched, so that a directory may appear, vanish or be moved. A directory
//! that is mounted over (as `/run/user/UID` is at login) makes no inotify event; the kernel's notice that the table of mounts
//! changed covers that.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::{OsStr, OsString},
    fs::{self, File},
    io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::StreamExt;
use inotify::{Event, EventMask, EventStream, Inotify, WatchDescriptor, WatchMask};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::watch,
};

use crate::discover::Places;

/// Least time between two looks: a user who churns their own directory costs no more than this.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// A socket at a path: another inode there is another daemon, or the same one restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Socket {
    device: u64,
    inode: u64,
    changed: (i64, i64),
}

impl Socket {
    /// Whether it is the same socket, whatever became of its owner and mode.
    pub(crate) fn is(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// The sockets that exist, by path.
pub(crate) type Present = BTreeMap<PathBuf, Socket>;

/// Looks once.
pub(crate) fn look(places: &Places) -> Present {
    let socket = |path: PathBuf| {
        let meta = fs::metadata(&path).ok().filter(|m| m.file_type().is_socket())?;
        let socket = Socket { device: meta.dev(), inode: meta.ino(), changed: (meta.ctime(), meta.ctime_nsec()) };
        places.stands_for_itself(&path).then_some((path, socket))
    };
    places.paths().into_iter().filter_map(socket).collect()
}

/// Keeps `present` true, for ever. An error means that the kernel refused to watch; what was found so far is in `present`.
pub(crate) async fn keep(places: &Places, present: &watch::Sender<Present>) -> io::Result<()> {
    let mut events = Inotify::init()?.into_event_stream([0; 4096])?;
    let mounts = places.has_users().then(mount_table).transpose()?;
    let mut watched = HashMap::new();
    loop {
        // Armed first, then looked: what happens in between is seen, or told.
        let names = arm(places, &mut events, &mut watched)?;
        let found = look(places);
        present.send_if_modified(|known| {
            *known != found && {
                *known = found;
                true
            }
        });
        tokio::time::sleep(BETWEEN_LOOKS).await;
        tokio::select! {
            told = concerning(&names, &mut events) => told?,
            told = remounted(mounts.as_ref()) => told?,
        }
    }
}

/// Watches all directories on the way to the places; answers the names in them that matter.
fn arm<T: AsMut<[u8]> + AsRef<[u8]>>(
    places: &Places,
    events: &mut EventStream<T>,
    watched: &mut HashMap<PathBuf, WatchDescriptor>,
) -> io::Result<BTreeSet<OsString>> {
    let mut paths = places.paths();
    if places.has_users() {
        paths.insert(places.users.join("0"));
    }
    let directories: BTreeSet<&Path> = paths.iter().flat_map(|path| path.ancestors().skip(1)).collect();
    let mut armed = HashMap::new();
    let mask = WatchMask::CREATE | WatchMask::DELETE | WatchMask::MOVE | WatchMask::ATTRIB | WatchMask::DELETE_SELF | WatchMask::MOVE_SELF;
    for directory in directories {
        match events.watches().add(directory, mask | WatchMask::ONLYDIR) {
            Ok(descriptor) => drop(armed.insert(directory.to_owned(), descriptor)),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(error) => return Err(error),
        }
    }
    for (path, stale) in watched.drain() {
        if armed.get(&path) != Some(&stale) && !armed.values().any(|d| *d == stale) {
            // The kernel drops the watch itself when the directory is gone.
            let _ = events.watches().remove(stale);
        }
    }
    *watched = armed;
    Ok(paths.iter().flat_map(|p| p.components()).map(|c| c.as_os_str().to_owned()).collect())
}

/// Waits for an event about one of `names`, a user's directory, or a watched directory itself.
async fn concerning<T: AsMut<[u8]> + AsRef<[u8]> + Unpin>(names: &BTreeSet<OsString>, events: &mut EventStream<T>) -> io::Result<()> {
    let numeric = |name: &OsStr| name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
    let concerns = |event: &Event<OsString>| {
        // ATTRIB without a name is the watched directory's own: times of `/run` change all the time.
        event.name.as_ref().map_or(event.mask != EventMask::ATTRIB | EventMask::ISDIR, |name| names.contains(name) || numeric(name))
    };
    loop {
        match events.next().await {
            Some(Ok(event)) if !concerns(&event) => {}
            Some(Ok(_)) => return Ok(()),
            Some(Err(error)) => return Err(error),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// The table of mounts, which the kernel marks as urgent when it changes.
fn mount_table() -> io::Result<AsyncFd<File>> {
    let table = File::open("/proc/self/mountinfo")?;
    // SAFETY: a `File` owns its descriptor and answers the same one until it is dropped.
    #[expect(unsafe_code, reason = "the safe constructor is deprecated: it trusts any `AsRawFd`")]
    let table = unsafe { AsyncFd::register_with_interest(table, Interest::PRIORITY) };
    Ok(table?)
}

/// Waits until the table of mounts changes.
async fn remounted(mounts: Option<&AsyncFd<File>>) -> io::Result<()> {
    match mounts {
        Some(mounts) => {
            mounts.ready(Interest::PRIORITY).await?.clear_ready();
            Ok(())
        }
        None => std::future::pending().await,
    }
}

#[cfg(test)]
#[path = "sockets_tests.rs"]
mod tests;
