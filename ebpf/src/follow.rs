//! Follows the ring: sleeps while nothing happens, polls while much does, and accounts for what did not come through.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use mayfly_history::{
    Feed, Nanos, Sink,
    container::{Report, Snapshot},
    feed::cause,
    mount::MountCall,
    now,
    oom::OomEvent,
    process::ProcessEvent,
    recorder::{Directory, Handle},
    socket::SocketEvent,
};
use rustix::{
    event::{EventfdFlags, Timespec, epoll, eventfd},
    io::Errno,
    param::page_size,
};
use std::collections::HashMap;

use crate::{
    EbpfConfig, Probes,
    cgroups::{self, CgroupMap, legacy_hierarchy},
    clock::Clock,
    error::WANTS_BTF,
    fallback::fall_back,
    images::ExcludedImages,
    interpret::{Heard, Interpreter},
    lives::Lives,
    load,
    patience::Patience,
    proc::Proc,
    programs::Programs,
    records::{Cgroups, Record, STATUS_UNKNOWN},
    statuses::Statuses,
};

/// While events come, the ring is looked at so often.
const TICK: Duration = Duration::from_millis(20);
/// Losses are counted, and the clocks compared, so often.
pub(crate) const ACCOUNTING: Duration = Duration::from_secs(1);
/// Records that are read before something else gets its turn.
const BATCH: usize = 65_536;

/// Where events go.
#[derive(Clone, Debug)]
pub struct KernelSinks {
    pub processes: Sink<ProcessEvent>,
    pub sockets: Sink<SocketEvent>,
    pub ooms: Sink<OomEvent>,
    /// Without it, calls that mount are not listened to.
    pub mounts: Option<Sink<MountCall>>,
    /// For the lives of containers.
    pub containers: Sink<Report>,
    /// Which container has which image.
    pub directory: Directory,
    /// Since when nobody followed; `None`: nobody ever did.
    pub blind_since: Option<Nanos>,
}

impl KernelSinks {
    /// The rings of that recorder.
    pub fn of(recorder: &Handle) -> Self {
        let sinks = recorder.sinks();
        Self {
            processes: sinks.of(),
            sockets: sinks.of(),
            ooms: sinks.of(),
            mounts: None,
            containers: sinks.containers.clone(),
            directory: recorder.directory().clone(),
            blind_since: recorder.blind_since(),
        }
    }
}

/// The probes, followed on a thread of their own.
#[derive(Debug)]
pub struct Follower {
    stop: Arc<OwnedFd>,
    thread: JoinHandle<()>,
}

/// Loads the probes and follows them. Where they cannot be, `feed` says why, and what would help; then the process
/// connector is followed instead, or there is `None` where the kernel has not even that for us.
///
/// # Errors
/// No thread or descriptor can be had.
pub fn follow(config: &EbpfConfig, feed: Feed, sinks: KernelSinks) -> io::Result<Option<Follower>> {
    if !config.enabled {
        feed.disabled("", "set `enabled = true` in [ebpf] to record it");
        return Ok(None);
    }
    let probes = match load(config, legacy_hierarchy(), sinks.mounts.is_some()) {
        Ok(probes) => probes,
        Err(error) => {
            let follower = fall_back(config.host_processes, &feed, &sinks.processes)?;
            let meanwhile = if follower.is_some() { "; meanwhile the process connector tells of processes only" } else { "" };
            feed.disabled(error.explain(), format!("{}{meanwhile}", error.remedy()));
            return Ok(follower);
        }
    };
    let statuses = match probes.plain_because().map(|_| Statuses::open()) {
        Some(Err(error)) => {
            tracing::warn!(%error, "the process connector cannot be had: exits come without their status");
            None
        }
        opened => opened.and_then(Result::ok),
    };
    // What exists is learnt after the probes are in place: a cgroup made meanwhile is told twice, never missed.
    let mut interpreter = Interpreter {
        cgroups: CgroupMap::default(),
        lives: Lives::default(),
        programs: Programs::default(),
        clock: Clock::read(),
        host_processes: config.host_processes,
        excluded_images: ExcludedImages::new(config.exclude_images.clone(), sinks.directory.clone()),
        page_size: u64::try_from(page_size()).unwrap_or(4096),
        asks: probes.plain_because().map(|_| Proc::new()),
        patience: Patience::new(Instant::now()),
    };
    let snapshot = survey(&mut interpreter, sinks.blind_since);
    sinks.containers.push(&feed, Report::Snapshot(Box::new(snapshot)));
    let fill_level = u64::from(config.ring_bytes()) / 4;
    let reader = Reader { probes, statuses, interpreter, feed, sinks, fill_level, books: Books::default() };
    spawn("mayfly-ebpf", |stop| {
        let waker = Waker::new(&reader.probes.ring, stop)?;
        reader.begin();
        Ok(move || reader.run(&waker))
    })
    .map(Some)
}

/// Learns what exists, and lists the containers among it.
fn survey(interpreter: &mut Interpreter, blind_since: Option<Nanos>) -> Snapshot {
    let taken_ns = now();
    let Interpreter { cgroups, lives, programs, .. } = interpreter;
    cgroups.learn_existing(|hierarchy, id, path, named| lives.found(hierarchy, id, path, named));
    programs.learn_existing();
    lives.list(taken_ns, blind_since, cgroups::folders())
}

/// Starts a thread that ends when its follower is stopped. `prepare` gets what tells it to.
pub(crate) fn spawn<R: FnOnce() + Send + 'static>(
    name: &str,
    prepare: impl FnOnce(&Arc<OwnedFd>) -> io::Result<R>,
) -> io::Result<Follower> {
    let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let run = prepare(&stop)?;
    let thread = thread::Builder::new().name(name.into()).spawn(run)?;
    Ok(Follower { stop, thread })
}

impl Follower {
    /// Reads what waits in the ring, takes the probes out of the kernel and ends the thread.
    pub fn stop(self) {
        // It cannot fail: the counter is far from full.
        let _ = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
        if self.thread.join().is_err() {
            tracing::error!("the thread that follows the probes panicked");
        }
    }
}

/// Waits for the kernel to tell something, or for the end.
pub(crate) struct Waker {
    epoll: OwnedFd,
}

const RING: u64 = 0;
const STOP: u64 = 1;

impl Waker {
    pub(crate) fn new(told: impl AsFd, stop: &OwnedFd) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, told, epoll::EventData::new_u64(RING), epoll::EventFlags::IN)?;
        epoll::add(&epoll, stop, epoll::EventData::new_u64(STOP), epoll::EventFlags::IN)?;
        Ok(Self { epoll })
    }

    /// Sleeps until woken or `timeout`; whether it is time to stop.
    pub(crate) fn wait(&self, timeout: Duration) -> io::Result<bool> {
        let mut events = [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(RING) }; 2];
        let timeout = Timespec { tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(1), tv_nsec: timeout.subsec_nanos().into() };
        match epoll::wait(&self.epoll, &mut events, Some(&timeout)) {
            Ok(n) => Ok(events[..n].iter().any(|event| event.data.u64() == STOP)),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// What was accounted for already.
#[derive(Debug, Default)]
struct Books {
    lost: u64,
    shed: HashMap<[u64; 2], u64>,
    /// When the last accounts were made, UNIX nanoseconds.
    at_ns: i64,
}

struct Reader {
    probes: Probes,
    /// How processes ended, where the probes do not tell.
    statuses: Option<Statuses>,
    interpreter: Interpreter,
    feed: Feed,
    sinks: KernelSinks,
    fill_level: u64,
    books: Books,
}

impl Reader {
    /// Says that the kernel is listened to from now on, and what is not heard.
    fn begin(&self) {
        for (hook, reason) in self.probes.refused() {
            tracing::warn!(hook, reason, "the kernel does not offer this hook as expected");
        }
        // The verifier's log is long.
        let missing = |(hook, reason): &(&str, String)| format!("{hook}: {}", reason.lines().next().unwrap_or_default());
        let missing: Vec<_> = self.probes.refused().iter().map(missing).collect();
        let mut complaints = Vec::new();
        if let Some(because) = self.probes.plain_because() {
            let codes = if self.statuses.is_some() { "" } else { ", no exit codes" };
            complaints.push(format!(
                "cannot read the kernel's type information (BTF): {because}; plain tracepoints tell less: no arguments and namespaces of \
                 processes that end at once, no accepted connections{codes}"
            ));
        }
        if !missing.is_empty() {
            complaints.push(format!("not heard on this kernel: {}", missing.join("; ")));
        }
        if !complaints.is_empty() {
            self.feed.complain(complaints.join("; "));
        }
        self.feed.running_with(if self.probes.plain_because().is_some() { WANTS_BTF } else { "" });
    }

    fn run(mut self, waker: &Waker) {
        self.books.at_ns = now();
        let mut next_accounts = Instant::now() + ACCOUNTING;
        loop {
            let busy = self.drain() > 0;
            // Asleep, the first record wakes us; so look once more after saying so.
            let level = if busy { self.fill_level } else { 1 };
            if let Err(error) = self.probes.wake_at(level) {
                self.feed.complain(format!("cannot ask to be woken: {error}"));
            }
            if !busy && self.drain() > 0 {
                continue;
            }
            let now = Instant::now();
            if now >= next_accounts {
                self.account();
                next_accounts = now + ACCOUNTING;
            }
            let patience = next_accounts.saturating_duration_since(now);
            match waker.wait(if busy { patience.min(TICK) } else { patience }) {
                Ok(false) => {}
                Ok(true) => break,
                Err(error) => {
                    self.feed.failed(format!("cannot wait for the ring: {error}"), "");
                    break;
                }
            }
        }
        self.drain();
        self.account();
    }

    /// Reads what waits, a batch at most; how much that was.
    fn drain(&mut self) -> usize {
        let mut read = 0;
        while read < BATCH {
            let Some(bytes) = self.probes.ring.next() else { break };
            read += 1;
            let heard = match Record::parse(&bytes) {
                Ok(mut record) => {
                    add_status(&mut record, self.statuses.as_mut(), &self.feed);
                    self.interpreter.hear(&record)
                }
                Err(malformed) => {
                    self.feed.reject(malformed.to_string());
                    continue;
                }
            };
            drop(bytes);
            self.pass_on(heard);
            for event in self.interpreter.lives.take() {
                self.sinks.containers.push(&self.feed, Report::Event(Box::new(event)));
            }
        }
        read
    }

    fn pass_on(&mut self, heard: Heard) {
        match heard {
            Heard::Process(event) => self.sinks.processes.push(&self.feed, event),
            Heard::Socket(event) => self.sinks.sockets.push(&self.feed, event),
            Heard::Oom(event) => self.sinks.ooms.push(&self.feed, event),
            Heard::Mount(call) => {
                if let Some(mounts) = &self.sinks.mounts {
                    mounts.push(&self.feed, call);
                }
            }
            Heard::Nothing => {}
            Heard::Unwanted(cgroups) => {
                if let Err(error) = self.probes.silence(key(cgroups)) {
                    self.feed.complain(format!("cannot silence a cgroup: {error}"));
                }
            }
            Heard::Gone(pairs) => {
                if !pairs.is_empty() {
                    self.account_for_shed();
                }
                for pair in pairs {
                    self.probes.forget(&key(pair));
                    self.books.shed.remove(&key(pair));
                }
            }
            Heard::Nonsense(why) => self.feed.reject(why),
        }
    }

    /// Tells what did not come through since the last time.
    fn account(&mut self) {
        self.interpreter.clock.follow();
        let collected = self.statuses.as_mut().map_or(Ok(()), Statuses::collect);
        if let Err(error) = collected {
            self.feed.complain(format!("cannot read the process connector: {error}"));
        }
        let at_ns = now();
        let lost = self.probes.lost();
        if let Some(fresh) = lost.checked_sub(self.books.lost).filter(|&n| n > 0) {
            self.feed.count_lost_in_kernel(fresh);
            self.feed.blind(cause::RING_FULL, self.books.at_ns, Some(at_ns), 0, format!("{fresh} records found no room in the ring"));
            self.feed.miss(at_ns);
        }
        let unheard = self.statuses.as_mut().map_or(0, Statuses::take_overruns);
        if unheard > 0 {
            // How many each time, the kernel does not tell.
            self.feed.count_lost_in_kernel(unheard);
            self.feed.blind(
                cause::RING_FULL,
                self.books.at_ns,
                Some(at_ns),
                0,
                "exit codes found no room in the process connector's socket",
            );
        }
        self.books.lost = lost;
        self.books.at_ns = at_ns;
        self.account_for_shed();
        if let Some(since) = self.feed.take_resync() {
            let snapshot = survey(&mut self.interpreter, Some(since));
            self.sinks.containers.push(&self.feed, Report::Snapshot(Box::new(snapshot)));
        }
    }

    fn account_for_shed(&mut self) {
        let at_ns = now();
        let shed: Vec<_> = self.probes.admissions().filter(|admission| admission.shed > 0).collect();
        for admission in shed {
            let told = self.books.shed.entry(admission.cgroups).or_default();
            let fresh = admission.shed.saturating_sub(*told);
            *told = admission.shed;
            if fresh > 0 {
                let [unified, legacy] = admission.cgroups;
                let event = self.interpreter.throttled(Cgroups { unified, legacy }, fresh, at_ns);
                self.sinks.processes.push(&self.feed, event);
            }
        }
    }
}

/// Asks how a process ended where the record does not tell.
fn add_status(record: &mut Record<'_>, statuses: Option<&mut Statuses>, feed: &Feed) {
    if let (Record::Exit(exit), Some(statuses)) = (record, statuses)
        && exit.status == STATUS_UNKNOWN
    {
        match statuses.of(exit.header.pid, exit.started_boot_ns) {
            Ok(status) => exit.status = status.unwrap_or(STATUS_UNKNOWN),
            Err(error) => feed.complain(format!("cannot read the process connector: {error}")),
        }
    }
}

const fn key(cgroups: Cgroups) -> [u64; 2] {
    [cgroups.unified, cgroups.legacy]
}
