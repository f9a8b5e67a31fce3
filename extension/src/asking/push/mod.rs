//! Push: events on their way to osquery's active logger as they happen, as the lines that its own scheduled queries write.
//!
//! The stores are the spool: an event stays due until the logger has taken it, however often osquery or we are killed meanwhile. Each
//! store has a thread, so that results of triggers, which have one of their own, wait behind no flood of events.

mod batch;
mod config;
mod courier;
mod decorators;
mod envelope;
mod envelopes;
mod spool;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
};

use mayfly_history::captures;
use mayfly_tables::Home;

use super::Office;
use crate::{commits::Commits, watched::Waker};
pub use config::PushConfig;
use envelopes::Envelopes;
use spool::Spool;

/// The source in `recorder_sources`.
const SOURCE: &str = "push";

/// Those who push. They end last, with what the others have left.
#[derive(Debug, Default)]
pub(super) struct Push {
    ending: Arc<AtomicBool>,
    spools: Vec<(Waker, JoinHandle<()>)>,
}

impl Push {
    /// Begins to push the tables that the configuration names.
    pub(super) fn start(office: &Office) -> io::Result<Self> {
        let mut push = Self::default();
        let mut spools = Vec::new();
        let envelopes = Envelopes::new(office);
        let config = &office.config().push;
        // The store of results first: they are few, and they are why somebody is woken.
        for (home, endpoint) in [(Home::Captures, "results"), (Home::Recorder, "events")] {
            let tables = config.tables(home);
            if tables.is_empty() {
                continue;
            }
            let dir = match home {
                Home::Captures => captures::folder(office.state_dir()),
                Home::Recorder => office.state_dir().to_owned(),
            };
            let feed = office.feeds().feed(SOURCE, endpoint);
            let commits = Commits::of(&dir)?;
            let (office, envelopes, ending) = (office.clone(), envelopes.clone(), Arc::clone(&push.ending));
            spools.push((endpoint, Spool { office, dir, tables, feed, commits, envelopes, ending }));
        }
        // Only once both can be watched: who tries again must not find one of them at work.
        for (endpoint, spool) in spools {
            let waker = spool.commits.waker();
            let thread = thread::Builder::new().name(format!("push-{endpoint}")).spawn(move || spool.work())?;
            push.spools.push((waker, thread));
        }
        Ok(push)
    }

    /// Sends what there is now, as far as time allows, and ends.
    pub(super) fn finish(self) {
        self.ending.store(true, SeqCst);
        for (waker, _) in &self.spools {
            waker.wake();
        }
        for (_, thread) in self.spools {
            let _ = thread.join();
        }
    }
}
