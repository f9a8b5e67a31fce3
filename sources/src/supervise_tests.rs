use std::{
    os::unix::net::UnixListener,
    sync::{
        Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use mayfly_history::{feed::FeedStatus, recorder::Sinks, sink::Bell};

use super::*;

const SOON: Duration = Duration::from_secs(10);

fn handle() -> Handle {
    let bell = Bell::default();
    Handle::detached(Sinks::new(bell))
}

fn site(endpoint: &str) -> Site {
    Site { endpoint: endpoint.into(), feed: Feed::new("docker", endpoint), recorder: handle(), config: Arc::default() }
}

async fn until(what: impl Fn() -> bool) {
    let deadline = Instant::now() + SOON;
    while !what() {
        assert!(Instant::now() < deadline, "not in time");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Fails, then panics, then works until it is stopped.
struct Clumsy(Feed);

static ATTEMPTS: AtomicUsize = AtomicUsize::new(0);

impl Source for Clumsy {
    async fn follow(&mut self, stop: CancellationToken) -> Result<(), SourceError> {
        match ATTEMPTS.fetch_add(1, Ordering::SeqCst) {
            0 => Err(SourceError::Open { endpoint: "tcp://x".into(), reason: io::ErrorKind::PermissionDenied.into() }),
            1 => std::panic::panic_any("on purpose"),
            _ => {
                self.0.running();
                stop.cancelled().await;
                Ok(())
            }
        }
    }
}

#[tokio::test]
async fn a_source_that_fails_or_panics_is_started_again() {
    let site = site("tcp://x");
    let feed = site.feed.clone();
    let stop = CancellationToken::new();
    let (_send, present) = watch::channel(Present::new());
    let tending = tend(|site| Box::new(Clumsy(site.feed)), site, String::new(), present, stop.clone());
    let states: Mutex<Vec<FeedStatus>> = Mutex::default();
    let watching = async {
        until(|| {
            let status = feed.status();
            let mut states = states.lock().unwrap();
            if states.last().is_none_or(|last| last.last_error != status.last_error) {
                states.push(status.clone());
            }
            status.state == "running"
        })
        .await;
        stop.cancel();
    };
    tokio::join!(tending, watching);
    let states = states.into_inner().unwrap();
    let failed = states.iter().find(|s| s.last_error.contains("permission denied")).expect("the failure was shown");
    assert_eq!((failed.state.as_str(), failed.hint.as_str()), ("failed", "run as root, or in the group that owns the socket"));
    assert!(states.last().unwrap().last_error.contains("defect"), "{states:?}");
    assert_eq!(feed.status().restarts, 2);
    let gaps = feed.take_gaps();
    assert!(gaps.iter().all(|gap| gap.cause == "panicked" && gap.from_ns == gaps[0].from_ns), "{gaps:?}");
    assert_eq!(gaps.iter().map(|gap| gap.to_ns.is_some()).collect::<Vec<_>>(), [false, true], "it begins and ends");
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_followed_is_disabled_for_good() {
    let site = site("ssh://host");
    let feed = site.feed.clone();
    let (_send, present) = watch::channel(Present::new());
    tend(|site| Box::new(crate::docker::Docker::new(site)), site, String::new(), present, CancellationToken::new()).await;
    let status = feed.status();
    assert_eq!(
        (status.state.as_str(), status.last_error.as_str()),
        ("disabled", "ssh://host cannot be followed: neither unix:// nor tcp://")
    );
    assert!(status.hint.contains("unix://"));
}

/// Cannot even be opened.
fn unopenable(_: Site) -> Box<dyn Follow> {
    std::panic::panic_any("on purpose")
}

#[tokio::test]
#[should_panic = "on purpose"]
async fn a_defect_of_the_supervision_itself_is_not_survived() {
    static HOSTS: &[HostSource] = &[HostSource { source: "netlink", enabled: |_| true, open: unopenable }];
    supervise(&[], HOSTS, SourcesConfig::default(), handle(), CancellationToken::new(), STOP_WITHIN).await;
}

/// Notes how often it was begun.
struct Calm(Feed, &'static AtomicUsize);

impl Source for Calm {
    async fn follow(&mut self, stop: CancellationToken) -> Result<(), SourceError> {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.running();
        stop.cancelled().await;
        Ok(())
    }
}

#[tokio::test]
async fn a_socket_is_awaited_and_followed_anew_when_it_is_another() {
    static BEGUN: AtomicUsize = AtomicUsize::new(0);
    let root = tempfile::tempdir().unwrap();
    let socket = root.path().join("run/docker.sock");
    let site = site(&discover::endpoint(&socket));
    let feed = site.feed.clone();
    let stop = CancellationToken::new();
    let places = Places::at(root.path(), [socket.clone()], &[]);
    let (send, present) = watch::channel(sockets::look(&places));
    let tending = tend(|site| Box::new(Calm(site.feed, &BEGUN)), site, "not yet".into(), present, stop.clone());
    let work = async {
        until(|| feed.status().hint == "not yet").await;
        assert_eq!(feed.status().state, "waiting");
        std::fs::create_dir(socket.parent().unwrap()).unwrap();
        let _first = UnixListener::bind(&socket).unwrap();
        until(|| feed.status().state == "running").await;
        std::fs::remove_file(&socket).unwrap();
        let _second = UnixListener::bind(&socket).unwrap();
        until(|| BEGUN.load(Ordering::SeqCst) == 2).await;
        stop.cancel();
    };
    tokio::select! {
        () = async { tokio::join!(tending, work); } => {}
        kept = sockets::keep(&places, &send) => panic!("{kept:?}"),
    }
    assert_eq!(feed.status().restarts, 0);
}

#[tokio::test]
async fn a_source_of_the_host_begins_anew_when_what_it_told_was_lost() {
    static BEGUN: AtomicUsize = AtomicUsize::new(0);
    let site = site("");
    let (feed, stop) = (site.feed.clone(), CancellationToken::new());
    let (_send, present) = watch::channel(Present::new());
    let open = |site: Site| -> Box<dyn Follow> {
        let is_again = BEGUN.load(Ordering::SeqCst) > 0;
        assert_eq!(site.recorder.blind_since(), is_again.then_some(7), "what vanished since ends at an unknown time");
        Box::new(Calm(site.feed, &BEGUN))
    };
    let tending = tend(open, site, String::new(), present, stop.clone());
    let work = async {
        until(|| feed.status().state == "running").await;
        feed.want_resync(7);
        let mut gaps = Vec::new();
        let deadline = Instant::now() + SOON;
        while gaps.len() < 2 {
            assert!(Instant::now() < deadline, "{gaps:?}");
            gaps.extend(feed.take_gaps());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(gaps.iter().all(|gap| gap.cause == "stream_lagged" && gap.from_ns == gaps[0].from_ns), "{gaps:?}");
        assert_eq!(gaps.iter().map(|gap| gap.to_ns.is_some()).collect::<Vec<_>>(), [false, true], "it begins and ends");
        stop.cancel();
    };
    tokio::join!(tending, work);
    assert_eq!((feed.status().restarts, BEGUN.load(Ordering::SeqCst)), (0, 2));
}

/// Hears what happens and can list nothing.
struct Listener(Calm);

impl Source for Listener {
    fn follow(&mut self, stop: CancellationToken) -> impl Future<Output = Result<(), SourceError>> + Send {
        self.0.follow(stop)
    }

    fn lists(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn a_source_that_has_nothing_to_list_goes_on_when_what_it_told_was_lost() {
    static BEGUN: AtomicUsize = AtomicUsize::new(0);
    let site = site("");
    let (feed, stop) = (site.feed.clone(), CancellationToken::new());
    let (_send, present) = watch::channel(Present::new());
    let open = |site: Site| -> Box<dyn Follow> { Box::new(Listener(Calm(site.feed, &BEGUN))) };
    feed.want_resync(7);
    let tending = tend(open, site, String::new(), present, stop.clone());
    let work = async {
        until(|| feed.status().state == "running").await;
        // By now the supervisor has had its turn.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        stop.cancel();
    };
    tokio::join!(tending, work);
    assert_eq!((BEGUN.load(Ordering::SeqCst), feed.take_gaps()), (1, Vec::new()));
}

/// Panics once, then works.
struct Startled(Feed);

static STARTLED: AtomicUsize = AtomicUsize::new(0);

impl Source for Startled {
    async fn follow(&mut self, stop: CancellationToken) -> Result<(), SourceError> {
        if STARTLED.fetch_add(1, Ordering::SeqCst) == 0 {
            std::panic::panic_any("on purpose");
        }
        self.0.running();
        stop.cancelled().await;
        Ok(())
    }
}

const HOSTS: &[HostSource] = &[
    HostSource { source: "netlink", enabled: |_| true, open: |site| Box::new(Startled(site.feed)) },
    HostSource { source: "dhcp", enabled: |_| false, open: |site| Box::new(Startled(site.feed)) },
];

#[tokio::test]
async fn a_source_of_the_host_needs_no_socket_is_started_again_and_says_when_it_is_off() {
    let (recorder, stop) = (handle(), CancellationToken::new());
    let [on, off] = ["netlink", "dhcp"].map(|source| recorder.feed(source, ""));
    let supervising = supervise(&[], HOSTS, SourcesConfig::default(), recorder, stop.clone(), STOP_WITHIN);
    let watching = async {
        until(|| on.status().state == "running" && off.status().state == "disabled").await;
        stop.cancel();
    };
    tokio::join!(supervising, watching);
    assert_eq!(on.status().last_error, "the source of netlink failed by a defect of its own; see the log");
    assert_eq!(off.status().hint, "set `enabled = true` in [dhcp] to record it");
    assert_eq!(STARTLED.load(Ordering::SeqCst), 2);
}

#[test]
fn each_kind_is_a_source_of_its_own_name_and_stops_in_time() {
    let names: BTreeSet<_> = KINDS.iter().map(|kind| kind.source).chain(HOST_SOURCES.iter().map(|host| host.source)).collect();
    assert_eq!(names.len(), KINDS.len() + HOST_SOURCES.len());
    let off = RuntimeConfig { enabled: false, endpoints: Vec::new() };
    let config = SourcesConfig { docker: off.clone(), podman: off.clone(), containerd: off.clone(), cri: off, ..SourcesConfig::default() };
    let began = std::time::Instant::now();
    start(config, handle()).unwrap().stop();
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn pauses_double_up_to_half_a_minute() {
    let mut backoff = Backoff::default();
    let pauses: Vec<_> = (0..12).map(|_| backoff.pause()).collect();
    assert!(pauses[0] >= Duration::from_millis(75) && pauses[0] <= Duration::from_millis(125), "{pauses:?}");
    assert!(pauses[11] >= Duration::from_millis(22_500) && pauses[11] <= Duration::from_millis(37_500), "{pauses:?}");
}

/// What holds a thread until it is opened.
struct Gate(Mutex<bool>, Condvar);

impl Gate {
    const fn new() -> Self {
        Self(Mutex::new(false), Condvar::new())
    }

    fn pass(&self) {
        drop(self.1.wait_while(self.0.lock().unwrap(), |is_open| !*is_open).unwrap());
    }

    fn open(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }
}

/// Waits for something that does not come, and does not hear that it is to stop.
struct Deaf(Feed, &'static Gate, &'static AtomicUsize);

impl Source for Deaf {
    async fn follow(&mut self, _stop: CancellationToken) -> Result<(), SourceError> {
        self.0.running();
        let gate = self.1;
        let _ = tokio::task::spawn_blocking(move || gate.pass()).await;
        Ok(())
    }
}

impl Drop for Deaf {
    fn drop(&mut self) {
        self.2.fetch_add(1, Ordering::SeqCst);
    }
}

/// Takes its time to end in order.
struct Orderly(Feed, &'static AtomicUsize);

impl Source for Orderly {
    async fn follow(&mut self, stop: CancellationToken) -> Result<(), SourceError> {
        self.0.running();
        stop.cancelled().await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        self.1.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

/// Holds the thread of all sources.
struct Holder(Feed, &'static Gate);

impl Source for Holder {
    async fn follow(&mut self, _stop: CancellationToken) -> Result<(), SourceError> {
        self.0.running();
        self.1.pass();
        Ok(())
    }
}

/// Starts these, and waits until each of them runs.
fn started(hosts: &'static [HostSource], stop_within: Duration) -> Sources {
    let recorder = handle();
    let sources = start_of(&[], hosts, SourcesConfig::default(), recorder.clone(), stop_within).unwrap();
    let deadline = std::time::Instant::now() + SOON;
    while hosts.iter().any(|host| recorder.feed(host.source, "").status().state != "running") {
        assert!(std::time::Instant::now() < deadline, "not in time");
        thread::sleep(Duration::from_millis(1));
    }
    sources
}

#[test]
fn a_source_that_hangs_is_dropped_once_all_others_ended_in_order() {
    static GATE: Gate = Gate::new();
    static DROPPED: AtomicUsize = AtomicUsize::new(0);
    static ENDED: AtomicUsize = AtomicUsize::new(0);
    static HOSTS: &[HostSource] = &[
        HostSource { source: "netlink", enabled: |_| true, open: |site| Box::new(Deaf(site.feed, &GATE, &DROPPED)) },
        HostSource { source: "dhcp", enabled: |_| true, open: |site| Box::new(Orderly(site.feed, &ENDED)) },
    ];
    started(HOSTS, Duration::from_secs(2)).stop();
    assert_eq!((ENDED.load(Ordering::SeqCst), DROPPED.load(Ordering::SeqCst)), (1, 1));
    GATE.open();
}

#[test]
fn a_source_that_holds_the_thread_is_left_behind_with_it() {
    static GATE: Gate = Gate::new();
    static HOSTS: &[HostSource] = &[HostSource { source: "netlink", enabled: |_| true, open: |site| Box::new(Holder(site.feed, &GATE)) }];
    started(HOSTS, Duration::ZERO).stop();
    // Nobody else opens it: had the stop waited for the source, it would wait still.
    GATE.open();
}
