//! The events of one store on their way to osquery's logger: the store is the spool.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use mayfly_history::{Feed, chain, store::Reader};
use mayfly_tables::Table;

use super::{
    batch::{Batch, ends},
    courier::Courier,
    envelope::Envelope,
    envelopes::Envelopes,
};
use crate::{
    asking::{
        Office,
        recovery::{self, recovering},
    },
    commits::{Commits, Woken},
    delivery::{Delivery, Outbox},
    line::Up,
};

/// How long events are collected before they are sent.
const COLLECTS: Duration = Duration::from_millis(100);
/// How long osquery may take to tell what a line must say.
const PATIENCE: Duration = Duration::from_secs(1);
/// The pauses after failures, from the first to the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// How long the last flush may take: the process is to end.
const LAST_FLUSH: Duration = Duration::from_secs(2);

/// Pushes tables of one store.
pub(super) struct Spool {
    pub(super) office: Office,
    /// Where the store is.
    pub(super) dir: PathBuf,
    pub(super) tables: Vec<&'static dyn Table>,
    pub(super) feed: Feed,
    pub(super) commits: Commits,
    pub(super) envelopes: Envelopes,
    /// Nothing more is to come: send what there is, and end.
    pub(super) ending: Arc<AtomicBool>,
}

/// What a round came to.
enum Round {
    /// Nothing is due.
    Idle,
    /// A batch was sent; there may be more.
    Sent,
}

impl Spool {
    /// Pushes until the end. What breaks down begins anew where the store of deliveries says that it was.
    pub(super) fn work(mut self) {
        let (line, feed) = (self.office.line().clone(), self.feed.clone());
        recovering(&line, recovery::PAUSES, |why, hint| feed.failed(why, format!("{hint}; events wait in the store")), || self.push());
    }

    fn push(&mut self) {
        let delivery = Delivery::new(self.office.state_dir(), self.office.config().delivery.clone());
        let mut outbox = Outbox::new(&delivery);
        let mut store = None;
        let mut courier = Courier::new(self.office.line().clone(), self.feed.clone());
        let mut pause = PAUSES.0;
        let mut is_idle = true;
        while !self.ending.load(SeqCst) {
            let Some(up) = self.registration() else { continue };
            if is_idle && self.has_news(&mut store, &mut outbox) {
                self.pause(Instant::now() + COLLECTS);
            }
            match self.round(&mut store, &mut outbox, &mut courier, &up, None) {
                Ok(round) => {
                    self.feed_runs();
                    pause = PAUSES.0;
                    is_idle = matches!(round, Round::Idle);
                    if is_idle {
                        self.wait();
                    }
                }
                Err(why) => {
                    tracing::debug!(tables = self.name(), error = why, "nothing can be pushed now");
                    self.feed.failed(why, "events wait in the store; tried again after a pause");
                    self.pause(Instant::now() + pause);
                    pause = (pause * 2).min(PAUSES.1);
                }
            }
        }
        self.flush(&mut store, &mut outbox, &mut courier);
    }

    fn name(&self) -> &str {
        self.feed.endpoint()
    }

    /// The registration, once there is one; `None`: look again whether this is the end.
    fn registration(&mut self) -> Option<Up> {
        let line = self.office.line();
        if let Some(up) = line.up() {
            return Some(up);
        }
        self.feed.waiting("not registered with osquery; events wait in the store");
        let up = line.wait_for_other(0, None);
        if up.is_none() {
            // The process ends, and nobody takes anything any longer.
            self.wait();
        }
        up
    }

    fn has_news(&self, store: &mut Option<Reader>, outbox: &mut Outbox<'_>) -> bool {
        self.open(store).and_then(|store| Batch::is_due(&self.tables, store, outbox)).unwrap_or(false)
    }

    fn open<'s>(&self, store: &'s mut Option<Reader>) -> Result<&'s Reader, String> {
        match store {
            Some(open) => Ok(open),
            none => Ok(none.insert(Reader::open(&self.dir).map_err(|error| chain(&error))?)),
        }
    }

    /// Sends one batch. What of it was taken is noted, whatever becomes of the rest.
    fn round(
        &self,
        store: &mut Option<Reader>,
        outbox: &mut Outbox<'_>,
        courier: &mut Courier,
        up: &Up,
        ends_by: Option<Instant>,
    ) -> Result<Round, String> {
        let store = self.open(store)?;
        if !Batch::is_due(&self.tables, store, outbox)? {
            return Ok(Round::Idle);
        }
        let envelope: Arc<Envelope> = self.envelopes.current(up.number, Instant::now() + PATIENCE)?;
        if envelope.loggers.is_empty() {
            return Err("osquery runs with --disable_logging".into());
        }
        let batch = Batch::next(&self.tables, store, outbox, &envelope)?;
        let (done, sent) = courier.send(&batch, &envelope, ends_by);
        let taken = if done == batch.events.len() { batch.ends } else { ends(&batch.events[..done]) };
        outbox.settle(&taken).map_err(|error| chain(&error))?;
        // The counters are shown.
        self.office.feeds().wake();
        sent.map_err(|refusal| format!("event {}: {}", refusal.eid, chain(&refusal.error)))?;
        Ok(Round::Sent)
    }

    /// Says so once.
    fn feed_runs(&self) {
        if self.feed.status().state != "running" {
            self.feed.running();
        }
    }

    /// Waits for news, or for the end.
    fn wait(&mut self) {
        if let Err(error) = self.commits.wait(None) {
            self.feed.complain(format!("cannot watch the store: {error}"));
            self.office.line().wait_for_end(Instant::now() + PAUSES.1);
        }
    }

    /// Waits until then, or for the end; not for news.
    fn pause(&mut self, until: Instant) {
        while !self.ending.load(SeqCst) {
            match self.commits.wait(Some(until)) {
                Ok(Woken::Written | Woken::Replaced) if Instant::now() < until => {}
                _ => return,
            }
        }
    }

    /// Sends what is left, as far as the time allows.
    fn flush(&self, store: &mut Option<Reader>, outbox: &mut Outbox<'_>, courier: &mut Courier) {
        let Some(up) = self.office.line().up() else { return };
        let ends_by = Instant::now() + LAST_FLUSH;
        while Instant::now() < ends_by {
            match self.round(store, outbox, courier, &up, Some(ends_by)) {
                Ok(Round::Sent) => {}
                Ok(Round::Idle) => return,
                Err(why) => {
                    tracing::warn!(tables = self.name(), error = why, "the last events were not pushed; they will be when we start again");
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use mayfly_history::{
        TableSchema,
        captures::{Captures, folder},
        feed::Feeds,
    };
    use mayfly_tables::{Answered, Query, Rows, TableError};
    use tempfile::TempDir;

    use super::*;
    use crate::{config::Config, line::Line};

    struct Broken;

    impl Table for Broken {
        fn schema(&self) -> &TableSchema {
            panic!("as the test wants it")
        }

        fn generate(&self, _: &Reader, _: &Query, _: &mut dyn Rows) -> Result<Answered, TableError> {
            Ok(Answered::default())
        }
    }

    #[test]
    fn a_spool_that_breaks_down_says_so_and_does_not_hold_up_the_end() {
        let dir = TempDir::new().unwrap();
        let config = Config::default();
        let (captures, _) = Captures::open(&folder(dir.path()), &config.store, config.redaction()).unwrap();
        let (line, feed, ending) = (Line::new("/nowhere"), Feeds::default().feed("push", "events"), Arc::new(AtomicBool::new(false)));
        let office = Office::new(config, dir.path(), line.clone(), Feeds::default(), captures);
        let spool = Spool {
            dir: dir.path().to_owned(),
            tables: vec![&Broken],
            feed: feed.clone(),
            commits: Commits::of(dir.path()).unwrap(),
            envelopes: Envelopes::new(&office),
            ending: Arc::clone(&ending),
            office,
        };
        line.raise(Vec::new(), Vec::new());
        let thread = thread::Builder::new().name("push-events".into()).spawn(move || spool.work()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while feed.status().last_error != "the thread push-events panicked: as the test wants it" {
            assert!(Instant::now() < deadline, "{:?}", feed.status());
            thread::yield_now();
        }
        assert_eq!(feed.status().state, "failed");
        line.hang_up();
        ending.store(true, SeqCst);
        thread.join().unwrap();
    }
}
