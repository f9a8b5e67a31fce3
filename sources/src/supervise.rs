//! Runs sources: one task an endpoint or host source, restarted after a backoff, with its status kept true, stopped in order.

use std::{
    collections::BTreeSet,
    io,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use futures_util::FutureExt;
use mayfly_history::{
    Feed,
    feed::cause,
    now,
    recorder::{Handle, vital},
};
use tokio::{sync::watch, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{RuntimeConfig, SourcesConfig},
    discover::{self, Candidates, Places, Wanted},
    error::{SourceError, chain},
    sockets::{self, Present, Socket},
};

/// How long sources have to stop before they are dropped.
const STOP_WITHIN: Duration = Duration::from_secs(4);
/// How much longer their thread may take, which a source may hold.
const THREAD_ENDS_WITHIN: Duration = Duration::from_secs(1);
/// A source that worked this long begins with the shortest pause again.
const HEALTHY_AFTER: Duration = Duration::from_secs(10);

/// Follows one endpoint, or the host itself.
pub trait Source: Send {
    /// Follows it until `stop`. `Err` means restart after a backoff, `Ok` is final; it never waits for the store.
    ///
    /// Called again on the same value after an `Err`, and after a `stop` that only meant that the socket was replaced; whoever has to
    /// know when the stream broke keeps that in `self`. Says [`Feed::running`] as soon as it sees events; `waiting` and `failed` are the supervisor's.
    fn follow(&mut self, stop: CancellationToken) -> impl Future<Output = Result<(), SourceError>> + Send;

    /// Whether it begins by telling all that there is. One of the host that does begins anew when what it told was lost; another would
    /// only lose more by that.
    fn lists(&self) -> bool {
        true
    }
}

/// What a source needs to follow one endpoint, or the host.
#[derive(Clone, Debug)]
pub struct Site {
    /// `unix:///…` in its one spelling (never `/var/run`), or as configured; empty for a [`HostSource`].
    pub endpoint: Arc<str>,
    pub feed: Feed,
    pub recorder: Handle,
    /// All of it: a source may have to know its neighbours' endpoints.
    pub config: Arc<SourcesConfig>,
}

impl Site {
    /// What messages call it: the endpoint, or the name of the host source.
    pub fn name(&self) -> &str {
        if self.endpoint.is_empty() { self.feed.source() } else { &self.endpoint }
    }

    /// The socket, where the endpoint is one.
    pub fn socket(&self) -> Option<PathBuf> {
        discover::socket_path(&self.endpoint)
    }
}

/// One kind of source.
struct Kind {
    /// As in `recorder_sources.source`.
    source: &'static str,
    config: fn(&SourcesConfig) -> &RuntimeConfig,
    candidates: Candidates,
    open: fn(Site) -> Box<dyn Follow>,
}

/// Every kind of source: a new one is its file and its line here.
const KINDS: &[Kind] = &[
    Kind { source: "docker", config: |c| &c.docker, candidates: discover::DOCKER, open: |site| Box::new(crate::docker::Docker::new(site)) },
    Kind { source: "podman", config: |c| &c.podman, candidates: discover::PODMAN, open: |site| Box::new(crate::docker::Docker::new(site)) },
    Kind {
        source: "containerd",
        config: |c| &c.containerd,
        candidates: discover::CONTAINERD,
        open: |site| Box::new(crate::containerd::Containerd::new(site)),
    },
    Kind { source: "cri", config: |c| &c.cri, candidates: discover::CRI, open: |site| Box::new(crate::cri::Cri::new(site)) },
];

/// A source of the host itself, which follows no socket: the kernel's messages, files, the wire.
struct HostSource {
    /// As in `recorder_sources.source`, and the name of its section in the configuration.
    source: &'static str,
    enabled: fn(&SourcesConfig) -> bool,
    open: fn(Site) -> Box<dyn Follow>,
}

/// Every source of the host: a new one is its file and its line here. Its feed has no endpoint; it may have more feeds of its own.
const HOST_SOURCES: &[HostSource] = &[
    HostSource { source: "accounts", enabled: |c| c.accounts.enabled, open: |site| Box::new(crate::accounts::Accounts::new(site)) },
    HostSource { source: "identity", enabled: |c| c.identity.enabled, open: |site| Box::new(crate::identity::HostIdentity::new(site)) },
    HostSource { source: "mounts", enabled: |c| c.mounts.enabled, open: |site| Box::new(crate::mounts::Mounts::new(site)) },
    HostSource { source: "devices", enabled: |c| c.devices.enabled, open: |site| Box::new(crate::devices::Devices::new(site)) },
    HostSource { source: "lease_file", enabled: |c| c.lease_file.enabled, open: |site| Box::new(crate::lease_file::LeaseFiles::new(site)) },
    HostSource { source: "dhcp", enabled: |c| c.dhcp.enabled, open: |site| Box::new(crate::dhcp::Dhcp::new(site)) },
    HostSource { source: "netlink", enabled: |c| c.netlink.enabled, open: |site| Box::new(crate::netlink::Netlink::new(site)) },
];

/// [`Source`], for a trait object.
trait Follow: Send {
    fn follow_on(&mut self, stop: CancellationToken) -> Pin<Box<dyn Future<Output = Result<(), SourceError>> + Send + '_>>;
    fn lists(&self) -> bool;
}

impl<S: Source> Follow for S {
    fn follow_on(&mut self, stop: CancellationToken) -> Pin<Box<dyn Future<Output = Result<(), SourceError>> + Send + '_>> {
        Box::pin(self.follow(stop))
    }

    fn lists(&self) -> bool {
        Source::lists(self)
    }
}

/// All sources at work, on a thread and runtime of their own.
#[derive(Debug)]
pub struct Sources {
    stop: CancellationToken,
    thread: thread::JoinHandle<()>,
    stopped: mpsc::Receiver<()>,
    stop_within: Duration,
}

/// Starts every source that the configuration asks for.
pub fn start(config: SourcesConfig, recorder: Handle) -> io::Result<Sources> {
    start_of(KINDS, HOST_SOURCES, config, recorder, STOP_WITHIN)
}

/// Starts those of these sources.
fn start_of(
    kinds: &'static [Kind],
    hosts: &'static [HostSource],
    config: SourcesConfig,
    recorder: Handle,
    stop_within: Duration,
) -> io::Result<Sources> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let stop = CancellationToken::new();
    let (done, stopped) = mpsc::channel();
    let stopping = stop.clone();
    let thread = thread::Builder::new().name("sources".into()).spawn(move || {
        vital(|| runtime.block_on(supervise(kinds, hosts, config, recorder, stopping, stop_within)));
        runtime.shutdown_timeout(Duration::ZERO);
        let _ = done.send(());
    })?;
    Ok(Sources { stop, thread, stopped, stop_within })
}

impl Sources {
    /// Stops all sources and waits for them, 5 seconds at most: a source that hangs is dropped, one that holds the thread is left behind with it.
    pub fn stop(self) {
        self.stop.cancel();
        match self.stopped.recv_timeout(self.stop_within + THREAD_ENDS_WITHIN) {
            Err(mpsc::RecvTimeoutError::Timeout) => tracing::warn!("sources did not stop in time; left behind"),
            Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => drop(self.thread.join()),
        }
    }
}

/// Tends the host's sources, and each wanted endpoint from the moment that it exists.
async fn supervise(
    kinds: &'static [Kind],
    hosts: &'static [HostSource],
    config: SourcesConfig,
    recorder: Handle,
    stop: CancellationToken,
    stop_within: Duration,
) {
    let config = Arc::new(config);
    let mut tasks = JoinSet::new();
    let disable = |source| recorder.feed(source, "").disabled("", format!("set `enabled = true` in [{source}] to record it"));
    let mut wanted = Vec::new();
    for kind in kinds {
        if (kind.config)(&config).enabled {
            wanted.push((kind, Wanted::new((kind.config)(&config), kind.candidates)));
        } else {
            disable(kind.source);
        }
    }
    let places = Places::new(wanted.iter().map(|(_, w)| w));
    let users = places.users.clone();
    let (send, mut present) = watch::channel(sockets::look(&places));
    tasks.spawn(stop.clone().run_until_cancelled_owned(watch_sockets(places, send)).map(drop));
    for host in hosts {
        if (host.enabled)(&config) {
            let feed = recorder.feed(host.source, "");
            let site = Site { endpoint: "".into(), feed, recorder: recorder.clone(), config: Arc::clone(&config) };
            tasks.spawn(tend(host.open, site, String::new(), present.clone(), stop.clone()));
        } else {
            disable(host.source);
        }
    }
    let mut tended = BTreeSet::new();
    loop {
        for (kind, wanted) in &wanted {
            let found: Vec<_> =
                present.borrow_and_update().keys().filter(|s| wanted.covers(s, &users)).map(|s| discover::endpoint(s)).collect();
            for endpoint in wanted.named.iter().cloned().chain(wanted.usual()).chain(found) {
                if tended.insert((kind.source, endpoint.clone())) {
                    let hint = if wanted.named.contains(&endpoint) {
                        format!("{endpoint} does not exist; it is followed as soon as its daemon makes it")
                    } else {
                        format!("followed as soon as one appears; looked for {}", wanted.places())
                    };
                    let feed = recorder.feed(kind.source, &endpoint);
                    let site = Site { endpoint: endpoint.into(), feed, recorder: recorder.clone(), config: Arc::clone(&config) };
                    tasks.spawn(tend(kind.open, site, hint, present.clone(), stop.clone()));
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => break,
            Ok(()) = present.changed() => {}
            Some(ended) = tasks.join_next() => if let Err(error) = ended && error.is_panic() {
                std::panic::resume_unwind(error.into_panic());
            },
        }
    }
    let _ = tokio::time::timeout(stop_within, async { while tasks.join_next().await.is_some() {} }).await;
}

/// Keeps the list of sockets true. Where the kernel refuses to watch (too many watches), looks again after a pause.
async fn watch_sockets(places: Places, present: watch::Sender<Present>) {
    let mut backoff = Backoff::default();
    loop {
        if let Err(error) = sockets::keep(&places, &present).await {
            let pause = backoff.pause();
            tracing::warn!(error = &error as &dyn std::error::Error, ?pause, "cannot watch for new sockets; looking again after a pause");
            tokio::time::sleep(pause).await;
        }
    }
}

/// Runs one source until `stop`: waits for its socket, where it has one, restarts it after errors and when the socket is another.
async fn tend(open: fn(Site) -> Box<dyn Follow>, site: Site, hint: String, mut present: watch::Receiver<Present>, stop: CancellationToken) {
    let socket = site.socket();
    let mut source = open(site.clone());
    let mut backoff = Backoff::default();
    while !stop.is_cancelled() {
        let mut at = None;
        if let Some(path) = &socket {
            at = present.borrow_and_update().get(path).copied();
            if at.is_none() {
                site.feed.waiting(hint.clone());
                backoff = Backoff::default();
                stop.run_until_cancelled(appears(path, &mut present)).await;
                continue;
            }
        }
        let began = Instant::now();
        let run = stop.child_token();
        let mut stale_since = None;
        // Those of an endpoint ask it for all that there is.
        let begins_anew = site.endpoint.is_empty() && source.lists();
        let outcome = {
            let mut following = AssertUnwindSafe(source.follow_on(run.clone())).catch_unwind();
            tokio::select! {
                outcome = &mut following => Some(outcome),
                since_ns = site.feed.resync_wanted(), if begins_anew => {
                    tracing::info!(source = site.name(), "what it told was lost on its way; it begins anew");
                    // What is unread is thrown away with it.
                    site.feed.blind_until_running(cause::STREAM_LAGGED, "what it told was lost on its way; it begins anew");
                    stale_since = Some(since_ns);
                    run.cancel();
                    tokio::time::timeout(STOP_WITHIN, following).await.ok().filter(|outcome| !matches!(outcome, Ok(Ok(()))))
                }
                () = replaced(socket.as_deref(), at, present.clone()) => {
                    tracing::info!(endpoint = &*site.endpoint, "its socket was replaced");
                    run.cancel();
                    tokio::time::timeout(STOP_WITHIN, following).await.ok().filter(|outcome| !matches!(outcome, Ok(Ok(()))))
                }
            }
        };
        if let Some(since_ns) = stale_since {
            source = open(Site { recorder: site.recorder.blind_from(since_ns), ..site.clone() });
        }
        if began.elapsed() >= HEALTHY_AFTER {
            backoff = Backoff::default();
        }
        let error = match outcome {
            None => continue,
            Some(Ok(Ok(()))) => return,
            Some(Ok(Err(error @ SourceError::Unsupported { .. }))) => {
                site.feed.disabled(chain(&error), error.hint());
                return;
            }
            Some(Ok(Err(error))) => error,
            Some(Err(_)) => {
                site.feed.blind_until_running(cause::PANICKED, "its source failed by a defect; what existed is listed again");
                source = open(site.clone());
                SourceError::Panicked { endpoint: site.name().to_owned() }
            }
        };
        let pause = backoff.pause();
        tracing::warn!(source = site.name(), error = chain(&error), ?pause, "source broke; trying again after a pause");
        site.feed.failed(chain(&error), error.hint());
        // A socket that changed is worth a try at once.
        let _ = tokio::time::timeout(pause, stop.run_until_cancelled(changes(socket.as_deref(), at, &mut present))).await;
    }
}

/// Waits until there is a socket at `path`.
async fn appears(path: &Path, present: &mut watch::Receiver<Present>) {
    if present.wait_for(|p| p.contains_key(path)).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Waits until there is another socket at `path` than `at`.
async fn replaced(path: Option<&Path>, at: Option<Socket>, mut present: watch::Receiver<Present>) {
    let (Some(path), Some(at)) = (path, at) else { return std::future::pending().await };
    if present.wait_for(|p| p.get(path).is_some_and(|now| !now.is(&at))).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Waits until what is at `path` differs from `at` in any way: removed, replaced, other owner or mode.
async fn changes(path: Option<&Path>, at: Option<Socket>, present: &mut watch::Receiver<Present>) {
    let Some(path) = path else { return std::future::pending().await };
    if present.wait_for(|p| p.get(path) != at.as_ref()).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Pauses between attempts: doubled from 100 ms to 30 s, each varied by a quarter so that sources do not march in step.
#[derive(Debug)]
struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: Duration::from_millis(100) }
    }
}

impl Backoff {
    fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(Duration::from_secs(30));
        let dice = u32::try_from(now().rem_euclid(1000)).unwrap_or(0);
        pause * 3 / 4 + pause * dice / 2000
    }
}

#[cfg(test)]
#[path = "supervise_tests.rs"]
mod tests;
