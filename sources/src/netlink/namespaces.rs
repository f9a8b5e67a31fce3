//! Which namespace an id means. The kernel numbers namespaces; everybody else knows them by the inode of `/proc/PID/ns/net`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, Mode, OFlags, fstat, openat};

use super::request::Requests;

/// Where runtimes keep namespaces as files.
const USUAL: [&str; 2] = ["/run/docker/netns", "/run/netns"];
/// Most namespaces that are looked at.
const MOST: usize = 16_384;

/// The namespaces that are known by their ids.
#[derive(Debug)]
pub(super) struct Namespaces {
    requests: Requests,
    /// Device and inode of the host's.
    host: (u64, u64),
    known: HashMap<i32, u64>,
    /// Directories of namespace files; more are learned from what is mounted.
    directories: BTreeSet<PathBuf>,
}

impl Namespaces {
    pub(super) fn new() -> io::Result<Self> {
        let host = fs::metadata("/proc/self/ns/net")?;
        Ok(Self {
            requests: Requests::open()?,
            host: (host.dev(), host.ino()),
            known: HashMap::new(),
            directories: USUAL.iter().map(PathBuf::from).collect(),
        })
    }

    pub(super) fn requests(&mut self) -> &mut Requests {
        &mut self.requests
    }

    /// Inode of the host's own.
    pub(super) fn host(&self) -> u64 {
        self.host.1
    }

    /// The id means nothing any more, and may soon mean another.
    pub(super) fn forget(&mut self, nsid: i32) {
        self.known.remove(&nsid);
    }

    /// Finds the namespace of an id: among the files of runtimes, of those that mounts show, at last among those of processes.
    pub(super) fn find(&mut self, nsid: i32) -> Option<u64> {
        if let Some(inode) = self.known.get(&nsid) {
            return Some(*inode);
        }
        let filed = self.filed();
        self.ask(filed, nsid).or_else(|| {
            self.learn_directories();
            let mut all = self.filed();
            all.extend(self.of_processes());
            self.ask(all, nsid)
        })
    }

    /// Every namespace that can be found, and its id; one without gets one.
    pub(super) fn all(&mut self) -> BTreeMap<i32, u64> {
        self.known.clear();
        self.learn_directories();
        let mut found = self.filed();
        found.extend(self.of_processes());
        for (inode, path) in found {
            let Ok(namespace) = self.open(&path, inode) else { continue };
            let nsid = match self.requests.nsid(namespace.as_fd()) {
                Ok(None) => self.requests.number(namespace.as_fd()).unwrap_or_default(),
                found => found.unwrap_or_default(),
            };
            self.known.extend(nsid.map(|nsid| (nsid, inode)));
        }
        self.known.iter().map(|(nsid, inode)| (*nsid, *inode)).collect()
    }

    /// Asks for the ids of `found` until one is `nsid`; those first that have no id yet: inodes come back before the kernel has told that
    /// the last one is gone.
    fn ask(&mut self, found: BTreeMap<u64, PathBuf>, nsid: i32) -> Option<u64> {
        let known: BTreeSet<u64> = self.known.values().copied().collect();
        let (old, new): (Vec<_>, Vec<_>) = found.into_iter().partition(|(inode, _)| known.contains(inode));
        for (inode, path) in new.into_iter().chain(old) {
            let Ok(namespace) = self.open(&path, inode) else { continue };
            if let Ok(Some(id)) = self.requests.nsid(namespace.as_fd()) {
                self.known.insert(id, inode);
                if id == nsid {
                    return Some(inode);
                }
            }
        }
        None
    }

    /// Opens what is still the namespace of that inode.
    fn open(&self, path: &Path, inode: u64) -> io::Result<OwnedFd> {
        let fd = openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY, Mode::empty())?;
        let stat = fstat(&fd)?;
        if (stat.st_dev, stat.st_ino) == (self.host.0, inode) { Ok(fd) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    /// By inode. All namespaces are on one device; nothing else is.
    fn filed(&self) -> BTreeMap<u64, PathBuf> {
        let mut found = BTreeMap::new();
        for entry in self.directories.iter().filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten().take(MOST) {
            self.note(entry.path(), &mut found);
        }
        found
    }

    fn of_processes(&self) -> BTreeMap<u64, PathBuf> {
        let mut found = BTreeMap::new();
        let is_pid = |name: &std::ffi::OsStr| name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
        for process in fs::read_dir("/proc").into_iter().flatten().flatten().filter(|entry| is_pid(&entry.file_name())) {
            self.note(process.path().join("ns/net"), &mut found);
        }
        found
    }

    fn note(&self, path: PathBuf, found: &mut BTreeMap<u64, PathBuf>) {
        if let Ok(meta) = fs::metadata(&path)
            && meta.dev() == self.host.0
            && meta.ino() != self.host.1
        {
            found.entry(meta.ino()).or_insert(path);
        }
    }

    /// A daemon with a directory of its own (`--exec-root`) mounts its namespaces there.
    fn learn_directories(&mut self) {
        let Ok(mounts) = fs::read_to_string("/proc/self/mountinfo") else { return };
        for mount in mounts.lines() {
            let mut fields = mount.split(' ');
            let (Some(root), Some(path)) = (fields.nth(3), fields.next()) else { continue };
            if root.starts_with("net:[")
                && let Some(directory) = Path::new(path).parent()
                && self.directories.len() < 64
            {
                self.directories.insert(directory.to_owned());
            }
        }
    }
}
