//! `[[trigger]]`: what osquery is asked at once when an event meets a condition.
//!
//! One thread reads the events that the recorder writes and judges them; what they ask for waits in a bounded queue, in which equal queries are
//! one; two threads ask osquery, so that one slow query does not hold up all others, and osquery is never flooded. How far events are done
//! with is kept with the results: after a restart what was not answered fires, if it is not too old by then.

mod condition;
mod config;
mod gate;
mod queue;
mod run;
mod watch;

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
};

use mayfly_history::Feed;

use self::{config::Trigger, queue::Queue, watch::Watched};
use super::{Office, Refused};
use crate::{commits::Commits, config::Config};

/// Threads that ask.
const WORKERS: usize = 2;
/// `recorder_sources.source`; the endpoint is the trigger's name. Of enrolments and farewells, which fire without an event, too.
pub(super) const SOURCE: &str = "triggers";
pub(super) const KIND: &str = "trigger";

/// What is wrong with the triggers of a configuration.
pub(super) fn refused(config: &Config) -> Vec<Refused> {
    config::read_all(&config.trigger).into_iter().filter_map(Result::err).collect()
}

pub(super) fn start(office: &Office) -> io::Result<Vec<JoinHandle<()>>> {
    let mut triggers: Vec<(Trigger, Feed)> = Vec::new();
    for read in config::read_all(&office.config().trigger) {
        match read {
            Ok(trigger) => {
                let feed = office.feeds().feed(SOURCE, &trigger.name);
                triggers.push((trigger, feed));
            }
            Err(refused) => refused.tell(office, SOURCE),
        }
    }
    if triggers.is_empty() {
        return Ok(Vec::new());
    }
    let triggers: Arc<[(Trigger, Feed)]> = triggers.into();
    let mut watched: Vec<Watched> = Vec::new();
    for (trigger, _) in triggers.iter() {
        if !watched.iter().any(|watched| watched.is_on(trigger.table)) {
            watched.push(Watched::new(trigger.table, &triggers).map_err(io::Error::other)?);
        }
    }
    let queue = Queue::default();
    let mut commits = Commits::of(office.state_dir())?;
    let waker = commits.waker();
    office.line().on_change(move || waker.wake());
    let reads = (office.clone(), queue.clone(), Arc::clone(&triggers));
    let mut threads = vec![thread::Builder::new().name("triggers".into()).spawn(move || {
        let (office, queue, triggers) = reads;
        watch::work(&office, &mut commits, &mut watched, &queue, &triggers);
    })?];
    for _ in 0..WORKERS {
        let (office, queue, triggers) = (office.clone(), queue.clone(), Arc::clone(&triggers));
        threads.push(thread::Builder::new().name("trigger".into()).spawn(move || run::work(&office, &queue, &triggers))?);
    }
    Ok(threads)
}
