//! One mount namespace: its table, read again whenever the kernel marks it as changed.

use std::{
    collections::BTreeMap,
    io,
    os::fd::OwnedFd,
    path::Path,
    time::{Duration, Instant},
};

use mayfly_history::{
    Change, Nanos,
    container::ContainerKey,
    mounted::{Mount, MountChange, MountEvent},
    now,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::mpsc,
    time::{sleep, timeout},
};

use super::{
    difference::{Turn, turns},
    hardware::{Behind, Lower},
    mountinfo::{Line, parse},
};
use crate::{process::Process, supervise::Site};

/// Who saw what is told here.
pub(super) const EVIDENCE: &str = "mounts";

/// Bounds of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) bytes: usize,
    pub(super) mounts: usize,
}

/// A look into a device may take this long; one that hangs tells nothing.
const LOOK_WITHIN: Duration = Duration::from_secs(3);
/// Reading takes this part of the time at most.
const REST: u32 = 9;
const LONGEST_REST: Duration = Duration::from_millis(500);
/// A first process has the host's root until shortly before its start: looked at so often, each time after twice the pause.
const ATTEMPTS: u32 = 9;
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// A namespace, through a process that is in it.
#[derive(Debug)]
pub(super) struct Namespace {
    pub(super) site: Site,
    pub(super) container: ContainerKey,
    pub(super) process: Process,
    pub(super) bounds: Bounds,
    pub(super) lower: Lower,
    pub(super) events: mpsc::Sender<MountEvent>,
    /// Since when nobody saw it, where somebody did before.
    pub(super) blind_since: Option<Nanos>,
    /// Mounts that are there when the source begins are told as of then; those of a younger container as of its beginning.
    pub(super) source_ns: Nanos,
}

/// What is known of the mounts.
#[derive(Debug, Default)]
struct Known {
    lines: BTreeMap<i64, Line>,
    behind: BTreeMap<i64, Behind>,
    rejected: u64,
}

impl Namespace {
    /// Whether the process came to a root of its own; a container's table is a copy of the host's before.
    pub(super) async fn settles(&self, host: &Path) -> bool {
        for attempt in 0..ATTEMPTS {
            match self.process.on_host_root(host) {
                Ok(false) => return true,
                Ok(true) => sleep(FIRST_PAUSE * (1 << attempt)).await,
                Err(_) => return false,
            }
        }
        false
    }

    /// Follows the table until the process ends (a container's) or reading fails.
    pub(super) async fn follow(self) -> io::Result<()> {
        let is_host = self.container.container_id.is_empty();
        let exit = if is_host { None } else { Some(watched(self.process.pidfd()?, Interest::READABLE)?) };
        let table = watched(self.process.mountinfo()?, Interest::PRIORITY)?;
        let inode = self.process.namespace("mnt").ok_or(io::ErrorKind::NotFound)?;
        let mut known = Known::default();
        let began = self.process.began().filter(|began| !is_host && *began >= self.source_ns);
        let first_ns = began.unwrap_or_else(now);
        let lines = self.read(table.get_ref(), &mut known.rejected)?;
        self.know(&mut known, lines).await;
        let facts = known.lines.values().map(|line| self.mount(line, &inode, &known)).collect();
        let evidence = if began.is_some() { EVIDENCE } else { "startup" };
        self.list(facts, first_ns, self.blind_since.filter(|_| began.is_none()), evidence);
        if is_host {
            self.site.feed.running();
        }
        loop {
            tokio::select! {
                changed = table.ready(Interest::PRIORITY) => changed?.clear_ready(),
                () = ends(exit.as_ref()) => {
                    self.list(Vec::new(), now(), None, EVIDENCE);
                    return Ok(());
                }
            }
            let (at_ns, begun) = (now(), Instant::now());
            let lines = match self.read(table.get_ref(), &mut known.rejected) {
                Ok(lines) => lines,
                // The namespace went with its last process.
                Err(_) if !is_host => continue,
                Err(error) => return Err(error),
            };
            let turns = turns(&known.lines, &lines);
            for turn in turns.iter().filter(|turn| turn.change == MountChange::Unmount) {
                self.tell(turn, at_ns, &inode, &known).await;
                known.behind.remove(&turn.line.id);
            }
            self.know(&mut known, lines).await;
            for turn in turns.iter().filter(|turn| turn.change != MountChange::Unmount) {
                self.tell(turn, at_ns, &inode, &known).await;
            }
            sleep((begun.elapsed() * REST).min(LONGEST_REST)).await;
        }
    }

    /// Reads the table, again if it changes meanwhile.
    fn read(&self, table: &OwnedFd, rejected: &mut u64) -> io::Result<BTreeMap<i64, Line>> {
        let mut bytes = Vec::new();
        for _ in 0..4 {
            bytes = read_whole(table, self.bounds.bytes)?;
            let mut changed = [PollFd::new(table, PollFlags::PRI)];
            poll(&mut changed, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
            if !changed[0].revents().contains(PollFlags::PRI) {
                break;
            }
        }
        let (lines, left_out) = parse(&String::from_utf8_lossy(&bytes), self.bounds.mounts);
        if left_out > *rejected {
            self.site.feed.reject(format!("{left_out} mounts of {:?} are left out", self.container.container_id));
        }
        *rejected = left_out;
        if self.container.container_id.is_empty() {
            self.lower.set(lines.clone());
        }
        Ok(lines)
    }

    /// Looks at what is behind the mounts that are new.
    async fn know(&self, known: &mut Known, lines: BTreeMap<i64, Line>) {
        let new: Vec<Line> = lines.values().filter(|line| !known.behind.contains_key(&line.id)).cloned().collect();
        known.lines = lines;
        if new.is_empty() {
            return;
        }
        let lower = self.lower.clone();
        let ids: Vec<i64> = new.iter().map(|line| line.id).collect();
        let look = tokio::task::spawn_blocking(move || new.iter().map(|line| (line.id, lower.behind(line))).collect::<Vec<_>>());
        match timeout(LOOK_WITHIN, look).await {
            Ok(Ok(found)) => known.behind.extend(found),
            _ => {
                self.site.feed.complain("a device does not answer: the hardware behind some mounts stays unknown");
                known.behind.extend(ids.into_iter().map(|id| (id, Behind::default())));
            }
        }
    }

    fn mount(&self, line: &Line, inode: &str, known: &Known) -> Mount {
        let behind = known.behind.get(&line.id).cloned().unwrap_or_default();
        Mount {
            id: line.id,
            device: line.device.clone(),
            path: line.path.clone(),
            fs_type: line.fs_type.clone(),
            flags: line.flags.clone(),
            device_number: line.number.clone(),
            root: line.root.clone(),
            mnt_namespace: inode.to_owned(),
            hardware: behind.hardware,
            fs_uuid: behind.fs_uuid,
            fs_label: behind.fs_label,
            container: self.container.clone(),
        }
    }

    async fn tell(&self, turn: &Turn, at_ns: Nanos, inode: &str, known: &Known) {
        use mayfly_history::Fact;
        let mount = self.mount(&turn.line, inode, known);
        let change = match turn.change {
            MountChange::Unmount => {
                let (key, scope) = (mount.key().into_owned(), mount.scope().into_owned());
                Change::Ended { key, scope, at_ns, reason: "unmounted", evidence: EVIDENCE }
            }
            _ => Change::Holds { fact: mount.clone(), at_ns, evidence: EVIDENCE },
        };
        self.site.recorder.sinks().of().push(&self.site.feed, change);
        // Fails only when the source stops.
        let _ = self.events.send(MountEvent { time_ns: at_ns, action: turn.change, mount, by: None }).await;
    }

    fn list(&self, facts: Vec<Mount>, taken_ns: Nanos, blind_since: Option<Nanos>, evidence: &'static str) {
        list(&self.site, &self.container, facts, taken_ns, blind_since, evidence);
    }
}

/// Tells all mounts of a container, or of the host.
pub(super) fn list(
    site: &Site,
    container: &ContainerKey,
    facts: Vec<Mount>,
    taken_ns: Nanos,
    blind_since: Option<Nanos>,
    evidence: &'static str,
) {
    let group = Mount::list_of(container).into_owned();
    site.recorder.sinks().of().push(&site.feed, Change::Present { group, facts, taken_ns, blind_since, evidence });
}

fn watched(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` answers the same descriptor until it is dropped.
    #[expect(unsafe_code, reason = "the safe constructor is deprecated: it trusts any `AsRawFd`")]
    let watched = unsafe { AsyncFd::register_with_interest(fd, interest) };
    Ok(watched?)
}

async fn ends(exit: Option<&AsyncFd<OwnedFd>>) {
    match exit {
        Some(exit) => drop(exit.readable().await),
        None => std::future::pending().await,
    }
}

/// The whole of a file of /proc from its beginning, up to `most` bytes and then up to the end of a line.
fn read_whole(file: &OwnedFd, most: usize) -> io::Result<Vec<u8>> {
    let (mut bytes, mut chunk) = (Vec::new(), vec![0; 64 << 10]);
    while bytes.len() < most {
        match rustix::io::pread(file, &mut chunk[..], bytes.len() as u64)? {
            0 => break,
            n => bytes.extend_from_slice(&chunk[..n]),
        }
    }
    Ok(bytes)
}
