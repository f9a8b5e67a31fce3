//! What /proc tells of a process, as long as it is there.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use mayfly_history::container::ContainerKey;
use rustix::param::clock_ticks_per_second;

use crate::{
    attribution::container_here,
    cgroups::{Hierarchy, cgroup_paths, hierarchy_mounts},
    patience::Patience,
    records::UNSET,
};

/// Bytes of arguments that are read, as many as the probes take.
const ARGUMENTS: u64 = 65_536;

/// A process, as far as it let itself be read: it may have ended meanwhile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Process {
    /// The first fifteen bytes of what it was called when it was executed.
    pub(crate) name: String,
    pub(crate) parent: Option<i64>,
    pub(crate) ns_pid: Option<i64>,
    pub(crate) uid: Option<i64>,
    pub(crate) euid: Option<i64>,
    pub(crate) gid: Option<i64>,
    pub(crate) auid: Option<i64>,
    /// Of its program, in its own root.
    pub(crate) path: Arc<str>,
    pub(crate) cmdline: String,
    pub(crate) cwd: String,
    pub(crate) pid_namespace: Option<u32>,
    /// Bytes.
    pub(crate) total_vm: i64,
    pub(crate) rss: i64,
    pub(crate) container: ContainerKey,
    pub(crate) cgroup_id: Option<i64>,
}

/// Where processes are looked up.
#[derive(Clone, Debug)]
pub(crate) struct Proc {
    hierarchies: Vec<(Hierarchy, PathBuf)>,
}

impl Proc {
    /// Looks where the cgroups are mounted.
    pub(crate) fn new() -> Self {
        Self { hierarchies: hierarchy_mounts() }
    }

    /// The process of that pid, or `None` where it is gone.
    pub(crate) fn process(&self, pid: u32) -> Option<Process> {
        let folder = PathBuf::from(format!("/proc/{pid}"));
        let status = fs::read_to_string(folder.join("status")).ok()?;
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
        let number = |name: &str, nth: usize| field(name)?.split_ascii_whitespace().nth(nth)?.parse::<i64>().ok();
        let bytes = |name: &str| number(name, 0).unwrap_or(0).saturating_mul(1024);
        let (container, cgroup_id) = self.cgroup(&folder);
        Some(Process {
            name: field("Name").unwrap_or_default().to_owned(),
            parent: number("PPid", 0),
            ns_pid: field("NSpid").and_then(|pids| pids.split_ascii_whitespace().next_back()?.parse().ok()),
            uid: number("Uid", 0),
            euid: number("Uid", 1),
            gid: number("Gid", 0),
            auid: read_number(&folder.join("loginuid")).filter(|&auid| auid != i64::from(UNSET)),
            path: link(&folder.join("exe")).into(),
            cmdline: command_line(&folder),
            cwd: link(&folder.join("cwd")),
            pid_namespace: link(&folder.join("ns/pid")).strip_prefix("pid:[").and_then(|inode| inode.strip_suffix(']')?.parse().ok()),
            total_vm: bytes("VmSize"),
            rss: bytes("VmRSS"),
            container,
            cgroup_id,
        })
    }

    /// Each process with the id of its cgroup in the v1 hierarchy.
    pub(crate) fn legacy_cgroups(&self) -> Vec<(u32, u64)> {
        let Some((_, mountpoint)) = self.hierarchies.iter().find(|(hierarchy, _)| *hierarchy == Hierarchy::Legacy) else {
            return Vec::new();
        };
        let mut ids: HashMap<String, Option<u64>> = HashMap::new();
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let cgroup = |entry: fs::DirEntry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let lines = fs::read_to_string(entry.path().join("cgroup")).ok()?;
            let (_, path) = cgroup_paths(&lines).into_iter().find(|(hierarchy, _)| *hierarchy == Hierarchy::Legacy)?;
            let id = *ids.entry(path.to_owned()).or_insert_with(|| inode(mountpoint, path));
            Some((pid, id?))
        };
        processes.filter_map(cgroup).collect()
    }

    /// The container that the cgroups name, and the id of the cgroup that names it.
    fn cgroup(&self, folder: &Path) -> (ContainerKey, Option<i64>) {
        let lines = fs::read_to_string(folder.join("cgroup")).unwrap_or_default();
        let paths = cgroup_paths(&lines);
        let named = paths.iter().find_map(|&(hierarchy, path)| Some((hierarchy, path, container_here(path)?)));
        let chosen = named.as_ref().map(|&(hierarchy, path, _)| (hierarchy, path)).or_else(|| paths.first().copied());
        let id = chosen.and_then(|(hierarchy, path)| {
            let (_, mountpoint) = self.hierarchies.iter().find(|(mounted, _)| *mounted == hierarchy)?;
            i64::try_from(inode(mountpoint, path)?).ok()
        });
        let container = named.map(|(.., named)| named.key()).unwrap_or_default();
        (container, id)
    }
}

/// The pauses before another look at what seems to go on, from the first to the longest.
const LOOKS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(16));

/// Whether a process that was there by then goes on without its first thread: another thread may have executed a program in its place, or
/// runs on beside what is left of it. Once it has taken the signal that kills it, a thread looks alive until it ends, so that it is looked at again
/// as far as there is patience. `boot_ns`: on the clock of the probes.
pub(crate) fn goes_on(pid: u32, boot_ns: u64, patience: &mut Patience) -> bool {
    let mut pause = LOOKS.0;
    while has_running(pid, boot_ns) {
        if pause > LOOKS.1 || pause > patience.left(Instant::now()) {
            return true;
        }
        thread::sleep(pause);
        patience.spend(pause);
        pause *= 2;
    }
    false
}

/// Whether the process has a thread that began by then and neither ends nor was told to.
fn has_running(pid: u32, boot_ns: u64) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut folders = threads.map(|entry| entry.path());
    folders.any(|folder| is_running(&folder, boot_ns).unwrap_or(false))
}

/// Whether a thread that began by then neither ends nor was told to. `None`: it is gone.
fn is_running(folder: &Path, boot_ns: u64) -> Option<bool> {
    /// `PF_EXITING` of the kernel's `linux/sched.h`: set before the probes hear of an end.
    const EXITING: u64 = 4;
    const KILL: u64 = 1 << (9 - 1);
    let stat = fs::read(folder.join("stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    // The program's name is before it, and may be anything.
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    let (state, flags, began) = (*fields.first()?, number(6)?, number(19)?);
    let began_ns = began.saturating_mul(1_000_000_000 / clock_ticks_per_second().max(1));
    // A process that began later only got the pid.
    if matches!(state, "Z" | "X" | "x") || flags & EXITING != 0 || began_ns > boot_ns {
        return Some(false);
    }
    // When a process ends as a whole, the kernel kills each of its other threads first.
    let status = fs::read(folder.join("status")).ok()?;
    let status = String::from_utf8_lossy(&status);
    let pending = status.lines().find_map(|line| line.strip_prefix("SigPnd:"))?;
    Some(u64::from_str_radix(pending.trim(), 16).ok()? & KILL == 0)
}

/// Id of the cgroup at `path` of a hierarchy.
fn inode(mountpoint: &Path, path: &str) -> Option<u64> {
    Some(fs::metadata(mountpoint.join(path.trim_start_matches('/'))).ok()?.ino())
}

fn link(path: &Path) -> String {
    fs::read_link(path).map(|target| target.to_string_lossy().into_owned()).unwrap_or_default()
}

fn read_number(path: &Path) -> Option<i64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The arguments in one line; `…` where there are more.
fn command_line(folder: &Path) -> String {
    let mut arguments = Vec::new();
    if let Ok(file) = File::open(folder.join("cmdline")) {
        // What was read before an error is told.
        let _ = file.take(ARGUMENTS + 1).read_to_end(&mut arguments);
    }
    let cut = u64::try_from(arguments.len()).is_ok_and(|n| n > ARGUMENTS);
    arguments.truncate(usize::try_from(ARGUMENTS).unwrap_or(usize::MAX));
    let mut line = String::from_utf8_lossy(arguments.strip_suffix(b"\0").unwrap_or(&arguments)).replace('\0', " ");
    if cut {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_this_process_and_none_that_is_gone() {
        let proc = Proc::new();
        let me = proc.process(std::process::id()).unwrap();
        assert_eq!(&*me.path, std::env::current_exe().unwrap().to_str().unwrap());
        assert_eq!(me.cwd, std::env::current_dir().unwrap().to_str().unwrap());
        assert!(me.cmdline.starts_with(&std::env::args().next().unwrap()) && me.rss > 0 && me.total_vm >= me.rss, "{me:?}");
        assert_eq!(me.uid, Some(rustix::process::getuid().as_raw().into()));
        assert!(me.parent.is_some() && me.ns_pid.is_some() && me.pid_namespace.is_some(), "{me:?}");
        assert_eq!(proc.process(u32::MAX), None);
    }

    #[test]
    fn a_process_goes_on_unless_it_ended_or_only_got_the_pid_of_one_that_did() {
        use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
        let now = Instant::now();
        let mut patience = Patience::new(now);
        let before = patience.left(now);
        let mut goes_on = |pid, boot_ns| goes_on(pid, boot_ns, &mut patience);
        assert!(!goes_on(std::process::id(), 0), "it began after that");
        assert!(!goes_on(u32::MAX, u64::MAX));
        assert!(goes_on(std::process::id(), u64::MAX), "and at each further look");
        let mut child = std::process::Command::new("true").spawn().unwrap();
        waitid(WaitId::Pid(Pid::from_child(&child)), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).unwrap();
        assert!(!goes_on(child.id(), u64::MAX), "a zombie");
        child.wait().unwrap();
        assert!(patience.left(now) < before, "only what seems to go on was waited for");
    }
}
