//! What Mayfly asks osquery on its own account, and tells it: captures of its tables, queries at event time, events pushed to its logger.
//!
//! What is learnt belongs to the connection with osquery: it is kept in a store of its own ([`mayfly_history::captures`]). The process that holds
//! that folder's lock asks; another extension on the same state directory only serves. Each job runs on a thread of its own, so that a
//! slow one delays no other, and none of them ever runs inside a `generate`.

mod answer;
mod captures;
mod enrolment;
mod farewell;
mod host;
mod office;
mod pack;
mod push;
mod recovery;
mod refused;
mod staff;
mod standing;
mod template;
mod triggers;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use mayfly_history::{
    Feed,
    captures::{Captures, SOURCE, folder},
    chain,
    feed::{Feeds, Gap, cause},
    now,
    recorder::{Lock, Role},
};

use crate::{
    config::{Config, Loaded},
    line::Line,
};
pub use captures::HistoryConfig;
pub(crate) use office::Office;
pub use pack::OsqueryConfig;
pub use push::PushConfig;
pub(crate) use refused::Refused;
use staff::Staff;

/// How long before a store that could not be opened is tried again.
const PAUSE: Duration = Duration::from_secs(30);
/// How often the state of the jobs is written while it changes.
const STATUS: Duration = Duration::from_secs(1);
/// How often the store is told that its writer lives.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How long the jobs may take to end.
const LONGEST_END: Duration = Duration::from_secs(5);

/// What of a configuration no job can use, by line.
pub(crate) fn refused(config: &Config) -> Vec<Refused> {
    let mut all = [triggers::refused(config), enrolment::refused(config), farewell::refused(config)].concat();
    all.sort_by_key(|refused| refused.line);
    all
}

/// The jobs at work. Dropping it stops them.
#[derive(Debug)]
pub struct Asking {
    line: Line,
    feeds: Feeds,
    /// The clerk has the lock, and something to write at the end.
    at_work: Arc<AtomicBool>,
    clerk: Option<JoinHandle<()>>,
}

impl Asking {
    /// Begins, once no other process asks on this state directory; returns at once.
    pub fn start(loaded: &Loaded, state_dir: &Path, line: Line) -> io::Result<Self> {
        let (feeds, at_work) = (Feeds::default(), Arc::new(AtomicBool::new(false)));
        let clerk = Clerk {
            config: loaded.config.clone(),
            state_dir: state_dir.to_owned(),
            line: line.clone(),
            feeds: feeds.clone(),
            gaps: Vec::new(),
            at_work: Arc::clone(&at_work),
        };
        let clerk = thread::Builder::new().name("asking".into()).spawn(move || clerk.work())?;
        Ok(Self { line, feeds, at_work, clerk: Some(clerk) })
    }

    /// Ends the jobs; what they have is written.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.line.hang_up();
        self.feeds.wake();
        let deadline = Instant::now() + LONGEST_END;
        // One that still waits for the lock has nothing to write, and ends with the process.
        if let Some(clerk) = self.clerk.take().filter(|_| self.at_work.load(SeqCst)) {
            while !clerk.is_finished() && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.end();
    }
}

/// Opens the store, starts the jobs, and keeps the store in order while they work.
struct Clerk {
    config: Config,
    state_dir: PathBuf,
    line: Line,
    feeds: Feeds,
    /// Gaps that the store has not taken yet.
    gaps: Vec<Gap>,
    at_work: Arc<AtomicBool>,
}

impl Clerk {
    fn work(mut self) {
        let Some((_lock, captures)) = self.open() else { return };
        self.at_work.store(true, SeqCst);
        let office = Office::new(self.config.clone(), &self.state_dir, self.line.clone(), self.feeds.clone(), captures);
        let mut staff = Staff::default();
        self.look_after(&office, &mut staff);
        staff.finish();
        self.write(&office);
    }

    /// Takes the folder's lock and opens the store, however long that takes.
    fn open(&self) -> Option<(Lock, Captures)> {
        let dir = folder(&self.state_dir);
        let feed: Feed = self.feeds.feed(SOURCE, "");
        loop {
            let opened = Lock::acquire(&dir, Role::Extension).map_err(|error| chain(&error)).and_then(|lock| {
                let options = self.config.store.clone();
                let (captures, last_alive) = Captures::open(&dir, &options, self.config.redaction()).map_err(|error| chain(&error))?;
                Ok((lock, captures, last_alive))
            });
            match opened {
                Ok((lock, mut captures, last_alive)) => {
                    if let Some(from_ns) = last_alive
                        && let Err(error) = captures.put_gap(&gap_since(from_ns))
                    {
                        feed.complain(chain(&error));
                    }
                    feed.running();
                    return Some((lock, captures));
                }
                Err(why) => {
                    tracing::error!(dir = %dir.display(), error = why, "cannot keep what osquery tells; trying again");
                    feed.failed(why, "tried again; nothing is captured, triggered or pushed meanwhile");
                }
            }
            if self.line.wait_for_end(Instant::now() + PAUSE) {
                return None;
            }
        }
    }

    /// Keeps the jobs at work, writes their state while it changes, and lets the store do its housework, until the line is hung up.
    fn look_after(&mut self, office: &Office, staff: &mut Staff) {
        let mut maintain_at = Instant::now();
        while !self.line.is_hung_up() {
            staff.look_after(office);
            if maintain_at <= Instant::now() {
                maintain_at = Instant::now() + HEARTBEAT;
                match office.captures().maintain() {
                    Ok(next) => maintain_at = maintain_at.min(next.max(Instant::now() + Duration::from_millis(10))),
                    Err(error) => tracing::warn!(error = chain(&error), "cannot look after the store of captures"),
                }
            }
            if self.feeds.wait(maintain_at) {
                self.write(office);
                self.line.wait_for_end(Instant::now() + STATUS);
            }
        }
    }

    fn write(&mut self, office: &Office) {
        let mut captures = office.captures();
        self.gaps.extend(self.feeds.take_gaps());
        let mut written = Ok(());
        while written.is_ok()
            && let Some(gap) = self.gaps.first()
        {
            written = captures.put_gap(gap);
            if written.is_ok() {
                self.gaps.remove(0);
            }
        }
        if let Err(error) = written.and_then(|()| captures.put_statuses(self.feeds.statuses())) {
            tracing::warn!(error = chain(&error), "cannot write how the captures fare");
        }
    }
}

/// Nobody asked osquery since the extension before this one ended.
fn gap_since(from_ns: mayfly_history::Nanos) -> Gap {
    let to_ns = now();
    Gap {
        source: SOURCE.into(),
        endpoint: String::new(),
        cause: cause::EXTENSION_DOWN.into(),
        from_ns: from_ns.min(to_ns),
        to_ns: Some(to_ns),
        recovered: 0,
        detail: String::new(),
    }
}
