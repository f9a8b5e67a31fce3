//! What the kernel knows of a container's first process: namespaces, cgroup, addresses, when it began.

use std::{
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::Path,
    sync::OnceLock,
};

use mayfly_history::{Nanos, container::Run};
use rustix::fs::{CWD, Mode, OFlags, openat, readlinkat};

use crate::netns::{self, Addresses};

/// A process, held by its open `/proc/PID`: another one that gets the same number is never mistaken for it.
#[derive(Debug)]
pub(crate) struct Process {
    pid: i64,
    dir: OwnedFd,
}

impl Process {
    pub(crate) fn open(pid: i64) -> io::Result<Self> {
        let dir = openat(CWD, format!("/proc/{pid}"), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { pid, dir })
    }

    /// All that a [`Run`] holds, but its addresses. Fields that cannot be read stay unknown.
    pub(crate) fn run(&self) -> Run {
        let mut run = Run {
            pid: Some(self.pid),
            pid_namespace: self.namespace("pid"),
            net_namespace: self.namespace("net"),
            mnt_namespace: self.namespace("mnt"),
            ..Run::default()
        };
        if let Some(cgroup) = self.read("cgroup").as_deref().and_then(Cgroup::parse) {
            run.cgroup_id = cgroup.id();
            run.cgroup_path = Some(cgroup.path);
        }
        run
    }

    /// Whether it has the host's network, and thus no addresses of its own: that of the first process, or the recorder's, which is the
    /// host's by another name where the first process was put aside.
    pub(crate) fn on_host_network(&self) -> bool {
        let host = [1, std::process::id().into()].map(|pid| Self::open(pid).ok().and_then(|process| process.namespace("net")));
        self.namespace("net").is_some_and(|namespace| host.contains(&Some(namespace)))
    }

    /// Its network namespace. Holding it keeps the namespace alive when the process is gone.
    pub(crate) fn netns(&self) -> io::Result<OwnedFd> {
        Ok(openat(&self.dir, "ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// Its addresses; none on the host's network.
    pub(crate) async fn addresses(&self) -> io::Result<Addresses> {
        if self.on_host_network() { Ok(Addresses::default()) } else { netns::addresses(self.netns()?).await }
    }

    /// When it was forked, to a hundredth of a second.
    pub(crate) fn began(&self) -> Option<Nanos> {
        let stat = self.read("stat")?;
        let ticks: i64 = start_ticks(&stat)?;
        let since_boot = ticks.checked_mul(1_000_000_000 / TICKS)?;
        Some(mayfly_history::now() - mayfly_history::boot_nanos() + since_boot)
    }

    /// Its root, held without being opened. While it is held, so is the mount: let it go soon.
    pub(crate) fn root(&self) -> io::Result<OwnedFd> {
        Ok(openat(&self.dir, "root", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// Whether its root is that of the host, as the first process of a container has it until shortly before its start. `host`: where the
    /// recorder reads the host's files, where that is not its own root.
    pub(crate) fn on_host_root(&self, host: &Path) -> io::Result<bool> {
        let identity = |directory: OwnedFd| rustix::fs::fstat(directory).map(|stat| (stat.st_dev, stat.st_ino)).ok();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let at = |path: &Path| openat(CWD, path, flags, Mode::empty()).ok().and_then(identity);
        let own = identity(self.root()?);
        Ok([host, Path::new("/"), Path::new("/proc/1/root")].into_iter().any(|path| at(path) == own))
    }

    /// The mounts of its namespace. Holding it keeps the namespace alive when the process is gone.
    pub(crate) fn mountinfo(&self) -> io::Result<OwnedFd> {
        Ok(openat(&self.dir, "mountinfo", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// Becomes readable when this very process ends.
    pub(crate) fn pidfd(&self) -> io::Result<OwnedFd> {
        let pid = i32::try_from(self.pid).ok().and_then(rustix::process::Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::NONBLOCK)?;
        // The number may be another's by now: its folder would be gone then.
        self.read("stat").ok_or(io::ErrorKind::NotFound)?;
        Ok(pidfd)
    }

    /// Inode of one of its namespaces.
    pub(crate) fn namespace(&self, kind: &str) -> Option<String> {
        let link = readlinkat(&self.dir, format!("ns/{kind}"), Vec::new()).ok()?;
        let inode = link.to_str().ok()?.strip_prefix(kind)?.strip_prefix(":[")?.strip_suffix(']')?;
        Some(inode.to_owned())
    }

    /// The file that it executes; once it has ended, its name alone.
    pub(crate) fn program(&self) -> Option<String> {
        let file = || readlinkat(&self.dir, "exe", Vec::new()).ok()?.into_string().ok();
        file().or_else(|| Some(self.read("comm")?.trim_end().to_owned()))
    }

    /// The user whose it is, as the host numbers them, whatever rights it took on.
    pub(crate) fn uid(&self) -> Option<i64> {
        let status = self.read("status")?;
        status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_ascii_whitespace().next()?.parse().ok()
    }

    /// Its mount namespace, to be named to the kernel.
    pub(crate) fn mount_namespace(&self) -> io::Result<OwnedFd> {
        Ok(openat(&self.dir, "ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// One of the kernel's files about it.
    pub(crate) fn read(&self, name: &str) -> Option<String> {
        let file = openat(&self.dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let mut text = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            match rustix::io::read(file.as_fd(), &mut chunk[..]).ok()? {
                0 => return Some(String::from_utf8_lossy(&text).into_owned()),
                n => text.extend_from_slice(&chunk[..n]),
            }
        }
    }
}

/// The kernel shows times to user space in hundredths of a second (USER_HZ), on every architecture that containers run on.
const TICKS: i64 = 100;

/// Field 22 of `/proc/PID/stat`. The command before it is in parentheses and may hold anything.
fn start_ticks(stat: &str) -> Option<i64> {
    let after_command = &stat[stat.rfind(')')? + 1..];
    after_command.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Where a process is in the hierarchy that names containers: the unified one, on hosts without it that of `pids`.
#[derive(Debug, PartialEq, Eq)]
struct Cgroup {
    path: String,
    unified: bool,
}

impl Cgroup {
    /// From the lines `ID:CONTROLLERS:PATH` of `/proc/PID/cgroup`.
    fn parse(lines: &str) -> Option<Self> {
        let all: Vec<(&str, &str)> = lines.lines().filter_map(|line| line.split_once(':')?.1.split_once(':')).collect();
        let of = |wanted: &str| all.iter().find(|(list, _)| list.split(',').any(|c| c == wanted)).map(|(_, path)| *path);
        let (unified, path) = match (of(""), of("pids").or_else(|| of("memory"))) {
            // A hybrid host whose runtime leaves the unified hierarchy alone.
            (Some("/") | None, Some(path)) => (false, path),
            (path, _) => (true, path?),
        };
        Some(Self { path: path.to_owned(), unified })
    }

    /// The inode of its directory, which is the id that the kernel's probes see.
    fn id(&self) -> Option<i64> {
        static UNIFIED: OnceLock<&str> = OnceLock::new();
        let root = if self.unified {
            UNIFIED.get_or_init(|| {
                if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/unified" }
            })
        } else {
            "/sys/fs/cgroup/pids"
        };
        std::fs::metadata(format!("{root}{}", self.path)).ok()?.ino().try_into().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_hierarchy_that_names_the_container() {
        let parse = |text| Cgroup::parse(text).map(|c| (c.path, c.unified));
        assert_eq!(parse("0::/system.slice/docker-ab.scope\n"), Some(("/system.slice/docker-ab.scope".into(), true)));
        assert_eq!(parse("5:pids:/docker/ab\n4:cpu,memory:/docker/ab\n0::/docker/ab\n"), Some(("/docker/ab".into(), true)));
        assert_eq!(parse("5:pids:/docker/ab\n0::/\n"), Some(("/docker/ab".into(), false)));
        assert_eq!(parse("4:cpu,memory:/docker/ab\n"), Some(("/docker/ab".into(), false)));
        assert_eq!(parse("0::/\n"), Some(("/".into(), true)));
        assert_eq!(parse("garbage"), None);
    }

    #[test]
    fn a_hostile_command_does_not_shift_the_start_time() {
        let stat = "42 (a) R 1 (b) c) S 1 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 123456 7 8";
        assert_eq!(start_ticks(stat), Some(123_456));
        assert_eq!(start_ticks(""), None);
    }

    #[test]
    fn knows_this_very_process() {
        let process = Process::open(std::process::id().into()).unwrap();
        let run = process.run();
        assert_eq!(run.pid, Some(std::process::id().into()));
        assert!(run.net_namespace.is_some_and(|inode| inode.parse::<u64>().is_ok()));
        assert!(run.cgroup_path.is_some_and(|path| path.starts_with('/')));
        let age = mayfly_history::now() - process.began().unwrap();
        assert!((-1_000_000_000..3_600_000_000_000).contains(&age), "began {age} ns ago");
        assert!(Process::open(i64::from(i32::MAX)).is_err());
    }
}
