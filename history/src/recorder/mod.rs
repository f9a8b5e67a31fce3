//! The recorder: drains the rings, gives events their identity, writes the store. One thread, one writer per host.

mod batch;
mod clean;
mod course;
mod declarations;
mod directory;
mod facts;
mod gaps;
mod heard;
mod hold;
mod kernel;
mod lane;
mod leases;
mod ledger;
mod lock;
mod logs;
mod namesakes;
mod ports;
mod recover;
mod runs;
mod seen;
mod sinks;
mod storm;
mod subject;
#[cfg(test)]
mod tests;
mod timeline;
mod told;
mod worker;

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
};

use crate::{
    feed::{Feed, Feeds},
    memory,
    redact::Redaction,
    sink::Cursor,
    store::{Reader, StoreError, StoreOptions, Writer},
    time::{Nanos, now},
};

pub use declarations::Declarations;
pub use directory::Directory;
pub use lock::{Holder, Lock, LockError, Role, holder};
use seen::SeenAccounts;
pub use seen::{SeenId, SeenIds};
pub use sinks::Sinks;

/// How to record.
#[derive(Clone, Debug)]
pub struct RecorderOptions {
    pub state_dir: PathBuf,
    /// How much is kept.
    pub store: StoreOptions,
    pub redaction: Redaction,
    /// `version`, `config_path`, … for `recorder_info`; `pid` and `started_ns` are added.
    pub notes: Vec<(String, String)>,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecorderError {
    #[error("cannot record")]
    Store(#[from] StoreError),
    #[error("cannot start the recorder's thread")]
    Thread(#[source] io::Error),
    #[error("what was recorded last could not be stored: {0}")]
    Unwritten(String),
    #[error("the recorder's thread panicked")]
    Panicked,
}

/// A recorder at work on its own thread.
#[derive(Debug)]
pub struct Recorder {
    handle: Handle,
    thread: thread::JoinHandle<Result<(), RecorderError>>,
}

/// What sources need of the recorder. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    sinks: Sinks,
    shared: Arc<Shared>,
    /// Where the source that has it begins anew.
    anew_since: Option<Nanos>,
}

/// What the recorder's thread shares with its handles.
#[derive(Debug, Default)]
struct Shared {
    feeds: Feeds,
    stop: AtomicBool,
    /// Cursors that were stored since the start.
    cursors: Mutex<HashMap<String, Cursor>>,
    directory: Directory,
    seen: SeenAccounts,
    /// The host is another than the store was written on.
    is_another_host: AtomicBool,
    blind_since: Option<Nanos>,
    /// `None`: there is no recorder behind.
    state_dir: Option<PathBuf>,
}

impl Shared {
    fn store_cursors(&self, cursors: BTreeMap<String, Cursor>) {
        self.cursors.lock().unwrap_or_else(PoisonError::into_inner).extend(cursors);
    }
}

/// Runs a thread without which the process would be blind; if it panics, the process ends, so that whoever supervises it starts
/// another: a process that holds the lock and records nothing would be worse.
pub fn vital<T>(work: impl FnOnce() -> T) -> T {
    struct Guard;
    impl Drop for Guard {
        fn drop(&mut self) {
            if thread::panicking() {
                tracing::error!("the recorder failed in a way that it cannot survive; ending the process");
                std::process::abort();
            }
        }
    }
    let _guard = Guard;
    work()
}

impl Recorder {
    /// Opens the store and begins to record. The caller holds the state directory's lock.
    ///
    /// # Errors
    /// When the store cannot be opened at all; one that fails later is tried again, and said in `recorder_sources`.
    pub fn start(declarations: Declarations, options: RecorderOptions) -> Result<Self, RecorderError> {
        let RecorderOptions { state_dir: dir, store, redaction, mut notes } = options;
        memory::keep_little();
        let mut opened = Writer::open(&dir, &store)?;
        let blind_since = opened.last_alive;
        let shared = Arc::new(Shared { blind_since, state_dir: Some(dir.clone()), ..Shared::default() });
        let sinks = Sinks::new(shared.feeds.bell().clone());
        let (events, history) = (declarations.container_events, declarations.container_history);
        let (lanes, tables) = declarations.open(&sinks);
        let kept = match worker::Kept::read(&mut opened.writer, &tables) {
            Err(error) if error.is_corrupt() => {
                opened = opened.writer.set_aside()?;
                worker::Kept::read(&mut opened.writer, &tables)?
            }
            kept => kept?,
        };
        if let Some(place) = &opened.set_aside {
            tracing::error!(set_aside = %place.display(), "the store was damaged: a new one is begun");
        }
        notes.push(("pid".into(), std::process::id().to_string()));
        notes.push(("started_ns".into(), now().to_string()));
        let beginning =
            worker::Beginning { dir, store, events, history, lanes, tables, redaction, notes, writer: opened.writer, kept, blind_since };
        let worker = worker::Worker::begin(beginning, shared.clone(), sinks.clone());
        let thread = thread::Builder::new().name("recorder".into()).spawn(move || vital(|| worker.run())).map_err(RecorderError::Thread)?;
        Ok(Self { handle: Handle { sinks, shared, anew_since: None }, thread })
    }

    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Writes what waits, and stops.
    ///
    /// # Errors
    /// When the store did not take it.
    pub fn stop(self) -> Result<(), RecorderError> {
        self.handle.shared.stop.store(true, Relaxed);
        self.handle.shared.feeds.wake();
        self.thread.join().unwrap_or(Err(RecorderError::Panicked))
    }
}

impl Handle {
    /// A handle without a recorder behind it, whose sinks the caller drains: to watch what a source pushes.
    pub fn detached(sinks: Sinks) -> Self {
        Self { sinks, shared: Arc::default(), anew_since: None }
    }

    pub fn sinks(&self) -> &Sinks {
        &self.sinks
    }

    /// Makes a feed whose status the recorder writes to `recorder_sources` and whose gaps to `recorder_gaps`; the same one for the same
    /// source and endpoint.
    pub fn feed(&self, source: &'static str, endpoint: &str) -> Feed {
        self.shared.feeds.feed(source, endpoint)
    }

    /// Where a feed's stream resumes, as stored last; `None` at its very first look.
    pub fn cursor(&self, feed: &Feed) -> Option<String> {
        let stream = feed.stream();
        let stored = self.shared.cursors.lock().unwrap_or_else(PoisonError::into_inner).get(&stream).cloned();
        if stored.is_some() {
            return stored;
        }
        let dir = self.shared.state_dir.as_ref()?;
        let read = Reader::open(dir).and_then(|reader| reader.cursor(&stream));
        read.unwrap_or_else(|error| {
            feed.complain(format!("cannot read where the stream resumes: {}", crate::error::chain(&error)));
            None
        })
    }

    /// When the recorder before this one was last known alive; `None` if this is the first. The recorder itself writes
    /// the gap `recorder_down`; sources use it to mark what they recover.
    pub fn blind_since(&self) -> Option<Nanos> {
        self.anew_since.or(self.shared.blind_since)
    }

    /// For a source that begins anew while the recorder goes on: of what it told since then, something is missing.
    #[must_use]
    pub fn blind_from(&self, since_ns: Nanos) -> Self {
        Self { anew_since: Some(since_ns), ..self.clone() }
    }

    /// Which container a cgroup, a network namespace or an id belongs to.
    pub fn directory(&self) -> &Directory {
        &self.shared.directory
    }

    /// The host turned out to be a copy of the one that wrote the store before: no event of it may bear a name that the other gives too.
    pub fn begin_generation(&self) {
        self.shared.is_another_host.store(true, Relaxed);
        self.shared.feeds.wake();
    }

    /// Which users of the host records name.
    pub fn seen_users(&self) -> &SeenIds {
        &self.shared.seen.users
    }

    /// Which of its groups.
    pub fn seen_groups(&self) -> &SeenIds {
        &self.shared.seen.groups
    }
}
