//! Mounts: the tables of the host's namespace and of each container's, and when they change.
//!
//! The kernel marks `/proc/PID/mountinfo` as urgent when a mount comes, goes or becomes another; then it is read again. What is undone
//! between two looks is not in it, nor who did it. Kernels from 6.14 on give notice of each mount and unmount by fanotify, with the
//! process; a thread takes these at once. Elsewhere, and of changed options, the probes tell who did it, where they are asked to.

mod book;
mod calls;
mod fanotify;
mod hardware;
mod mountinfo;
mod namespace;
mod statmount;
mod tell;
#[cfg(test)]
mod tests;
mod witness;

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use mayfly_history::{Nanos, container::ContainerKey, feed::cause, mounted::MountEvent, now};
use serde::Deserialize;
use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use self::{
    calls::Calls,
    hardware::Lower,
    namespace::{Bounds, Namespace},
    tell::{EVIDENCE, list},
    witness::Witness,
};
use crate::{
    devices::Sysfs,
    error::SourceError,
    process::Process,
    supervise::{Site, Source},
};

/// `[mounts]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MountsConfig {
    /// Whether to record mounts at all. Default true.
    pub enabled: bool,
    /// Whether to follow the mount namespaces of containers too. Default true.
    pub containers: bool,
    /// Whether to learn from eBPF probes who mounts, and who changes options, where the kernel's own notices do not tell. Each system call
    /// of each process then takes some 100 ns longer. Default false.
    pub who: bool,
    /// A process in the host's mount namespace. Default: the first of all, or the recorder itself where that is not to be seen.
    pub process: Option<i64>,
    /// The host's root, where the recorder's own is another; its `sys`, `dev` and `run` are read for the hardware. Default `/`.
    pub root: PathBuf,
}

impl Default for MountsConfig {
    fn default() -> Self {
        Self { enabled: true, containers: true, who: false, process: None, root: "/".into() }
    }
}

const HOST: Bounds = Bounds { bytes: 32 << 20, mounts: 32_768 };
const CONTAINER: Bounds = Bounds { bytes: 4 << 20, mounts: 1024 };
/// Most containers whose tables are followed.
const MOST_CONTAINERS: usize = 4096;
/// Between looks for callers while a change waits for its own, and else.
const SOON: Duration = Duration::from_millis(10);
const IDLE: Duration = Duration::from_secs(1);

/// Follows the mounts of the host and its containers.
#[derive(Debug)]
pub(crate) struct Mounts {
    site: Site,
    config: MountsConfig,
    changed: Arc<Notify>,
    /// Since when the tables were not followed in this process.
    lost_ns: Option<Nanos>,
    began_ns: Nanos,
    /// The list of containers was read once.
    followed: bool,
}

impl Mounts {
    pub(crate) fn new(site: Site) -> Self {
        let config = site.config.mounts.clone();
        let changed = Arc::new(Notify::new());
        if config.containers {
            let woken = Arc::clone(&changed);
            site.recorder.directory().on_change(move || woken.notify_one());
        }
        Self { site, config, changed, lost_ns: None, began_ns: now(), followed: false }
    }

    /// A process in the host's mount namespace.
    fn process(&self) -> io::Result<Process> {
        match self.config.process {
            Some(pid) => Process::open(pid),
            None => {
                let first = Process::open(1).ok().filter(|first| first.namespace("mnt").is_some());
                first.map_or_else(|| Process::open(std::process::id().into()), Ok)
            }
        }
    }

    fn broken(&self, reason: io::Error) -> SourceError {
        let endpoint = "/proc/PID/mountinfo of the host".to_owned();
        SourceError::Broken { endpoint, request: "the table of mounts".into(), reason: reason.into() }
    }

    fn namespace(&self, container: ContainerKey, process: Process, round: &Round) -> Namespace {
        let bounds = if container.container_id.is_empty() { HOST } else { CONTAINER };
        Namespace {
            site: self.site.clone(),
            container,
            process,
            bounds,
            lower: round.lower.clone(),
            witness: round.witness.clone(),
            events: round.events.clone(),
            blind_since: self.lost_ns.or(self.site.recorder.blind_since()),
            source_ns: self.lost_ns.unwrap_or(self.began_ns),
        }
    }

    /// Follows the tables of the containers that run, and leaves those of others.
    fn follow_containers(&mut self, round: &mut Round) {
        if !self.config.containers {
            return;
        }
        let is_first = !std::mem::replace(&mut self.followed, true);
        let running: HashMap<_, _> = self.site.recorder.directory().running().into_iter().collect();
        round.containers.retain(|key, (pid, leave)| {
            let runs = running.get(key) == Some(pid);
            if !runs {
                leave.cancel();
            }
            runs
        });
        for (key, pid) in running {
            if round.containers.contains_key(&key) || round.containers.len() >= MOST_CONTAINERS {
                continue;
            }
            // What the recorder before this one knew of may be gone, and its pid another's.
            let is_its = |process: &Process| !is_first || process.run().cgroup_path.is_some_and(|path| path.contains(&*key.container_id));
            let Some(process) = Process::open(pid).ok().filter(is_its) else {
                if is_first {
                    list(&self.site, &key, Vec::new(), now(), self.site.recorder.blind_since(), EVIDENCE);
                }
                continue;
            };
            let namespace = self.namespace(key.clone(), process, round);
            let leave = CancellationToken::new();
            round.containers.insert(key.clone(), (pid, leave.clone()));
            let (site, host) = (self.site.clone(), self.config.root.clone());
            round.tasks.spawn(async move {
                let following = async {
                    if namespace.settles(&host).await
                        && let Err(error) = namespace.follow().await
                    {
                        tracing::debug!(container = &*key.container_id, error = &error as &dyn std::error::Error, "mounts not followed");
                    }
                };
                if leave.run_until_cancelled(following).await.is_none() {
                    list(&site, &key, Vec::new(), now(), None, EVIDENCE);
                }
            });
        }
    }
}

/// One life of the source.
struct Round {
    lower: Lower,
    witness: Option<Arc<Witness>>,
    events: mpsc::Sender<MountEvent>,
    containers: BTreeMap<ContainerKey, (i64, CancellationToken)>,
    tasks: JoinSet<()>,
}

impl Source for Mounts {
    async fn follow(&mut self, stop: CancellationToken) -> Result<(), SourceError> {
        let (events, mut seen) = mpsc::channel(1024);
        let lower = Lower::new(Sysfs::new(&self.config.root));
        let witness = Witness::start(&self.config.root)
            .inspect_err(|error| tracing::info!(%error, "the kernel does not tell who mounts"))
            .ok()
            .map(Arc::new);
        let mut round = Round { lower, witness, events, containers: BTreeMap::new(), tasks: JoinSet::new() };
        let sinks = self.site.recorder.sinks().clone();
        let mut calls = Calls::new(sinks.of());
        let process = self.process().map_err(|reason| self.broken(reason))?;
        let host = self.namespace(ContainerKey::default(), process, &round).follow();
        let mut host = std::pin::pin!(host);
        let changed = Arc::clone(&self.changed);
        if let Some(from_ns) = self.lost_ns {
            self.site.feed.blind(cause::STREAM_LAGGED, from_ns, Some(now()), 0, "the tables of mounts were not followed");
        }
        let mut listed = false;
        let outcome = loop {
            let pause = if calls.are_awaited() { SOON } else { IDLE };
            tokio::select! {
                () = stop.cancelled() => break Ok(()),
                ended = &mut host => break ended.map_err(|reason| self.broken(reason)),
                Some(event) = seen.recv() => {
                    calls.wait(event);
                    while let Ok(event) = seen.try_recv() {
                        calls.wait(event);
                    }
                }
                () = changed.notified(), if listed => self.follow_containers(&mut round),
                Some(_) = round.tasks.join_next() => {}
                () = sleep(pause) => {}
            }
            // The layers of containers lie on the host's mounts, which are read by now.
            if !listed && round.lower.is_known() {
                listed = true;
                self.follow_containers(&mut round);
            }
            if let Some(witness) = &round.witness {
                self.site.feed.hint(witness.hint());
            }
            for event in calls.settle(now()) {
                sinks.of().push(&self.site.feed, event);
            }
        };
        self.lost_ns = Some(now());
        outcome
    }
}

/// Whether this kernel gives notice of who mounts.
///
/// # Errors
/// Why it does not.
pub fn tells_who_mounts() -> io::Result<()> {
    witness::probe()
}

/// The number of the device that is mounted as the root, by the text of a table.
pub(crate) fn number_of_root(table: &str) -> Option<String> {
    let (mounts, _) = mountinfo::parse(table, HOST.mounts);
    mounts.into_values().rfind(|mount| mount.path == "/").map(|mount| mount.number)
}

/// What fuzzers call.
pub mod fuzzing {
    /// The table of a hostile namespace.
    pub fn decode(bytes: &[u8]) {
        let (mounts, _) = super::mountinfo::parse(&String::from_utf8_lossy(bytes), 1024);
        let _ = super::book::Book::default().compare(&mounts, 0);
    }
}
