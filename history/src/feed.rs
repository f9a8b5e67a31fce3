//! A source's line to the recorder: its health, its counters, its blind periods.

pub mod cause;
mod feeds;
mod losses;

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
};

pub use self::feeds::Feeds;
use self::losses::Losses;
use crate::{
    sink::Bell,
    time::{Nanos, now},
};

/// Most gaps that wait to be written.
const MOST_GAPS: usize = 256;

/// `recorder_sources.state`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FeedState {
    /// Sees events.
    Running,
    /// Its endpoint is not there (yet); followed without polling.
    #[default]
    Waiting,
    /// Its endpoint refused or broke; tried again after a backoff.
    Failed,
    /// Will not record until something outside changes.
    Disabled,
}

impl FeedState {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Failed => "failed",
            Self::Disabled => "disabled",
        }
    }
}

/// A period in which a source was blind: a row of `recorder_gaps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    pub source: String,
    pub endpoint: String,
    /// One of [`cause::ALL`].
    pub cause: String,
    pub from_ns: Nanos,
    /// `None` while it lasts.
    pub to_ns: Option<Nanos>,
    /// Events recovered from this period by replay and reconciling.
    pub recovered: i64,
    pub detail: String,
}

/// One source at one endpoint, as its code and the recorder share it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Feed(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    source: &'static str,
    endpoint: Arc<str>,
    health: Mutex<Health>,
    losses: Mutex<Losses>,
    received: AtomicU64,
    stored: AtomicU64,
    evicted: AtomicU64,
    /// Those of `evicted` that no gap tells of yet.
    overrun: AtomicU64,
    rejected: AtomicU64,
    lost_in_kernel: AtomicU64,
    restarts: AtomicU64,
    lag_ms: AtomicI64,
    last_event_ns: AtomicI64,
    /// Rung when something changed that readers should see.
    bell: Option<Bell>,
}

#[derive(Clone, Debug, Default)]
struct Health {
    state: FeedState,
    since_ns: Nanos,
    last_error: String,
    hint: String,
    /// Gaps to be written by the recorder.
    gaps: Vec<Gap>,
    /// The gap that ends when the source is running again.
    lasting: Option<Gap>,
}

impl Health {
    fn note_gap(&mut self, gap: Gap) {
        // A recorder that cannot write for long keeps the newest.
        if self.gaps.len() >= MOST_GAPS {
            self.gaps.remove(0);
        }
        self.gaps.push(gap);
    }
}

/// A feed at one moment: a row of `recorder_sources`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeedStatus {
    pub source: String,
    pub endpoint: String,
    pub state: String,
    pub since_ns: Nanos,
    /// Stored, those included that only added evidence to an event that another witness told first.
    pub events: u64,
    pub received: u64,
    pub evicted: u64,
    pub rejected: u64,
    pub lost_in_kernel: u64,
    pub lag_ms: i64,
    pub restarts: u64,
    pub last_event_ns: Nanos,
    pub last_error: String,
    pub hint: String,
}

impl Feed {
    /// A feed that waits; `source` is a name from `recorder_sources`, `endpoint` a URL, an interface or empty.
    pub fn new(source: &'static str, endpoint: impl Into<Arc<str>>) -> Self {
        Self::with_bell(source, endpoint, None)
    }

    /// The same, with the bell of the recorder that writes its status.
    pub(crate) fn with_bell(source: &'static str, endpoint: impl Into<Arc<str>>, bell: Option<Bell>) -> Self {
        let health = Health { since_ns: now(), ..Health::default() };
        Self(Arc::new(Inner {
            source,
            endpoint: endpoint.into(),
            health: Mutex::new(health),
            losses: Mutex::default(),
            received: AtomicU64::new(0),
            stored: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            overrun: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            lost_in_kernel: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
            lag_ms: AtomicI64::new(0),
            last_event_ns: AtomicI64::new(0),
            bell,
        }))
    }

    fn ring(&self) {
        if let Some(bell) = &self.0.bell {
            bell.ring();
        }
    }

    /// Whether both are the same feed.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub fn source(&self) -> &'static str {
        self.0.source
    }

    pub fn endpoint(&self) -> &Arc<str> {
        &self.0.endpoint
    }

    /// Name of this feed's cursor in the store.
    pub fn stream(&self) -> String {
        format!("{} {}", self.0.source, self.0.endpoint)
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.0.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn losses(&self) -> MutexGuard<'_, Losses> {
        self.0.losses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that the source sees events from now on; clears the last hint, keeps the last error.
    pub fn running(&self) {
        self.running_with("");
    }

    /// Says the same of a source that sees less than it could; `hint` tells an operator what would show it the rest.
    pub fn running_with(&self, hint: impl Into<String>) {
        self.enter(FeedState::Running, None, hint.into());
    }

    /// Says that the endpoint is not there; `hint` tells an operator what would bring it.
    pub fn waiting(&self, hint: impl Into<String>) {
        self.enter(FeedState::Waiting, None, hint.into());
    }

    /// Says that the endpoint refused or broke. Counts a restart.
    pub fn failed(&self, error: impl Into<String>, hint: impl Into<String>) {
        self.0.restarts.fetch_add(1, Relaxed);
        self.enter(FeedState::Failed, Some(error.into()), hint.into());
    }

    /// Says that this source will not record, why, and how to enable it.
    pub fn disabled(&self, error: impl Into<String>, hint: impl Into<String>) {
        self.enter(FeedState::Disabled, Some(error.into()), hint.into());
    }

    fn enter(&self, state: FeedState, error: Option<String>, hint: String) {
        let mut health = self.health();
        if health.state != state {
            health.state = state;
            health.since_ns = now();
        }
        if let Some(error) = error {
            health.last_error = error;
        }
        health.hint = hint;
        if state == FeedState::Running
            && let Some(gap) = health.lasting.take()
        {
            health.note_gap(Gap { to_ns: Some(now().max(gap.from_ns)), ..gap });
        }
        drop(health);
        self.ring();
    }

    /// Counts one thing of the stream that could not be used, and keeps why.
    pub fn reject(&self, why: impl Into<String>) {
        self.0.received.fetch_add(1, Relaxed);
        self.0.rejected.fetch_add(1, Relaxed);
        self.complain(why);
    }

    /// Notes an error that did not change the state.
    pub fn complain(&self, why: impl Into<String>) {
        self.health().last_error = why.into();
        self.ring();
    }

    /// Tells an operator something of a source in whatever state.
    pub fn hint(&self, hint: impl Into<String>) {
        let hint = hint.into();
        let mut health = self.health();
        if health.hint != hint {
            health.hint = hint;
            drop(health);
            self.ring();
        }
    }

    /// Reports a blind period; the recorder writes it. `source` and `endpoint` are this feed's.
    pub fn blind(&self, cause: &str, from_ns: Nanos, to_ns: Option<Nanos>, recovered: i64, detail: impl Into<String>) {
        let gap = Gap { from_ns, to_ns, recovered, ..self.gap(cause, detail.into()) };
        self.health().note_gap(gap);
        self.ring();
    }

    /// Reports a blind period that begins now and ends when the source says that it is running again. Within such a one, it does nothing.
    pub fn blind_until_running(&self, cause: &str, detail: impl Into<String>) {
        let mut health = self.health();
        if health.lasting.is_none() {
            let gap = Gap { from_ns: now(), ..self.gap(cause, detail.into()) };
            health.lasting = Some(gap.clone());
            health.note_gap(gap);
        }
        drop(health);
        self.ring();
    }

    fn gap(&self, cause: &str, detail: String) -> Gap {
        debug_assert!(cause::ALL.contains(&cause), "{cause} is not among the causes that are documented");
        let (source, endpoint) = (self.0.source.into(), self.0.endpoint.to_string());
        Gap { source, endpoint, cause: cause.into(), from_ns: 0, to_ns: None, recovered: 0, detail }
    }

    /// Gaps reported since the last call.
    pub fn take_gaps(&self) -> Vec<Gap> {
        std::mem::take(&mut self.health().gaps)
    }

    /// A source pushed something into a ring.
    pub fn count_received(&self) {
        self.0.received.fetch_add(1, Relaxed);
    }

    /// The recorder stored an event of this feed that happened at `time_ns`, and was `lag_ms` behind.
    pub fn count_stored(&self, time_ns: Nanos, lag_ms: i64) {
        self.0.stored.fetch_add(1, Relaxed);
        self.0.last_event_ns.fetch_max(time_ns, Relaxed);
        self.0.lag_ms.store(lag_ms, Relaxed);
    }

    /// The ring dropped an event of this feed.
    pub fn count_evicted(&self) {
        self.0.evicted.fetch_add(1, Relaxed);
        self.0.overrun.fetch_add(1, Relaxed);
    }

    /// What the ring dropped since the last call.
    pub(crate) fn take_overrun(&self) -> u64 {
        self.0.overrun.swap(0, Relaxed)
    }

    /// An event of this feed was dropped because the store failed for too long; shown among the evicted.
    pub(crate) fn count_unstored(&self) {
        self.0.evicted.fetch_add(1, Relaxed);
    }

    /// The recorder shed or refused an event of this feed that was received.
    pub fn count_rejected(&self) {
        self.0.rejected.fetch_add(1, Relaxed);
    }

    /// The kernel dropped `n` events before the source could read them.
    pub fn count_lost_in_kernel(&self, n: u64) {
        self.0.lost_in_kernel.fetch_add(n, Relaxed);
    }

    /// This feed now.
    pub fn status(&self) -> FeedStatus {
        let health = self.health().clone();
        let inner = &*self.0;
        FeedStatus {
            source: inner.source.into(),
            endpoint: inner.endpoint.to_string(),
            state: health.state.as_str().into(),
            since_ns: health.since_ns,
            events: inner.stored.load(Relaxed),
            received: inner.received.load(Relaxed),
            evicted: inner.evicted.load(Relaxed),
            rejected: inner.rejected.load(Relaxed),
            lost_in_kernel: inner.lost_in_kernel.load(Relaxed),
            lag_ms: inner.lag_ms.load(Relaxed),
            restarts: inner.restarts.load(Relaxed),
            last_event_ns: inner.last_event_ns.load(Relaxed),
            last_error: health.last_error,
            hint: health.hint,
        }
    }
}
