//! Probes under test, and what was heard of them.

use std::{
    path::Path,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::{Duration, Instant},
};

use mayfly_ebpf::{EbpfConfig, Follower, KernelSinks, follow};
use mayfly_history::{
    Feed, Sink,
    feed::FeedState,
    mount::MountCall,
    oom::OomEvent,
    process::ProcessEvent,
    sink::{Bell, Pushed},
    socket::SocketEvent,
};
use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};

/// Longer than any machine needs.
const DEADLINE: Duration = Duration::from_secs(20);

/// A configuration that leaves nothing out.
pub(crate) fn everything() -> EbpfConfig {
    EbpfConfig { host_processes: true, max_events_per_second: 0, ..EbpfConfig::default() }
}

/// The kernel leaves out a probe of a system call where another thread has just been interrupted within a call of bpf(2), and counts
/// it as lost. So tests of those run while no other loads probes.
static TURNS: RwLock<()> = RwLock::new(());

#[expect(dead_code, reason = "held until it is dropped")]
enum Turn {
    WithOthers(RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
}

/// Gives this thread mounts of its own, and tracefs among them.
pub(crate) fn leave_mounts_of_others() {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    if !Path::new("/sys/kernel/tracing/events").exists() {
        mount("tracefs", "/sys/kernel/tracing", "tracefs", MountFlags::empty(), None).unwrap();
    }
}

pub(crate) struct Probing {
    pub(crate) feed: Feed,
    pub(crate) sinks: KernelSinks,
    follower: Option<Follower>,
    _turn: Turn,
}

impl Probing {
    /// Starts the probes. `None`, with the reason printed, where this kernel takes none.
    pub(crate) fn start(config: &EbpfConfig) -> Option<Self> {
        Self::start_with(config, false)
    }

    /// The same, with those of calls that mount.
    pub(crate) fn start_with_mounts(config: &EbpfConfig) -> Option<Self> {
        Self::start_with(config, true)
    }

    /// Where the configuration or the rights keep the probes out. `None`, with the reason printed, where there is no process
    /// connector either.
    pub(crate) fn start_without_probes(config: &EbpfConfig) -> Option<Self> {
        let turn = Turn::WithOthers(TURNS.read().unwrap_or_else(PoisonError::into_inner));
        let (feed, sinks) = Self::sinks(false);
        let follower = follow(config, feed.clone(), sinks.clone()).unwrap();
        if follower.is_none() {
            println!("not run here: this kernel has no process connector for us");
        }
        follower.map(|follower| Self { feed, sinks, follower: Some(follower), _turn: turn })
    }

    /// Sinks that hold much.
    pub(crate) fn sinks(mounts: bool) -> (Feed, KernelSinks) {
        let bell = Bell::default();
        let sinks = KernelSinks {
            processes: Sink::new(1 << 20, bell.clone()),
            sockets: Sink::new(1 << 16, bell.clone()),
            ooms: Sink::new(1 << 10, bell.clone()),
            mounts: mounts.then(|| Sink::new(1 << 10, bell.clone())),
            containers: Sink::new(1 << 14, bell),
            directory: mayfly_history::recorder::Directory::default(),
            blind_since: None,
        };
        (Feed::new("ebpf", ""), sinks)
    }

    /// Those that know no types, in mounts of this thread's own.
    pub(crate) fn start_plain(config: &EbpfConfig) -> Option<Self> {
        leave_mounts_of_others();
        let turn = Turn::Alone(TURNS.write().unwrap_or_else(PoisonError::into_inner));
        Self::followed(config, false, turn)
    }

    fn start_with(config: &EbpfConfig, mounts: bool) -> Option<Self> {
        let turn = if mounts {
            Turn::Alone(TURNS.write().unwrap_or_else(PoisonError::into_inner))
        } else {
            Turn::WithOthers(TURNS.read().unwrap_or_else(PoisonError::into_inner))
        };
        let probing = Self::followed(config, mounts, turn)?;
        assert_eq!(probing.feed.status().last_error, "", "some tracepoint was refused");
        Some(probing)
    }

    fn followed(config: &EbpfConfig, mounts: bool, turn: Turn) -> Option<Self> {
        let (feed, sinks) = Self::sinks(mounts);
        let follower = follow(config, feed.clone(), sinks.clone()).unwrap();
        let status = feed.status();
        if status.state == FeedState::Disabled.as_str() {
            // Whatever else keeps the probes out is a fault of theirs.
            let excused = ["cannot read the kernel's type information", "may not load BPF programs", "the kernel is locked down"];
            assert!(!status.hint.is_empty() && excused.iter().any(|start| status.last_error.starts_with(start)), "{status:?}");
            println!("not run here: {} ({})", status.last_error, status.hint);
            if let Some(follower) = follower {
                follower.stop();
            }
            return None;
        }
        Some(Self { feed, sinks, follower, _turn: turn })
    }

    /// The first process event that is as wanted, from here on.
    pub(crate) fn process(&mut self, wanted: impl Fn(&ProcessEvent) -> bool) -> ProcessEvent {
        until(&self.sinks.processes, wanted).pop().unwrap()
    }

    /// All process events up to the wanted one.
    pub(crate) fn processes_until(&mut self, wanted: impl Fn(&ProcessEvent) -> bool) -> Vec<ProcessEvent> {
        until(&self.sinks.processes, wanted)
    }

    pub(crate) fn socket(&mut self, wanted: impl Fn(&SocketEvent) -> bool) -> SocketEvent {
        until(&self.sinks.sockets, wanted).pop().unwrap()
    }

    pub(crate) fn mount(&mut self, wanted: impl Fn(&MountCall) -> bool) -> MountCall {
        until(self.sinks.mounts.as_ref().unwrap(), wanted).pop().unwrap()
    }

    pub(crate) fn oom(&mut self, wanted: impl Fn(&OomEvent) -> bool) -> OomEvent {
        until(&self.sinks.ooms, wanted).pop().unwrap()
    }

    /// Stops; everything that was produced before is in the sinks then.
    pub(crate) fn stop(&mut self) {
        if let Some(follower) = self.follower.take() {
            follower.stop();
        }
    }
}

impl Drop for Probing {
    fn drop(&mut self) {
        self.stop();
    }
}

fn until<T: Pushed + std::fmt::Debug>(sink: &Sink<T>, wanted: impl Fn(&T) -> bool) -> Vec<T> {
    let deadline = Instant::now() + DEADLINE;
    let mut seen = Vec::new();
    while Instant::now() < deadline {
        for received in sink.drain(1) {
            let found = wanted(&received.item);
            seen.push(received.item);
            if found {
                return seen;
            }
        }
        if seen.is_empty() {
            std::thread::yield_now();
        }
    }
    panic!("not heard within {DEADLINE:?}; the last of {}: {:#?}", seen.len(), &seen[seen.len().saturating_sub(5)..]);
}
