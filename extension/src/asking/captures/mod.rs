//! Histories of osquery's tables: each is captured when something tells that it may have changed, and at an interval.
//!
//! One thread asks osquery, one table after the other; two more wait for what tells, the recorder's events and files. None of them runs
//! where osquery waits for us.

mod budget;
mod config;
mod events;
mod files;
mod followed;
mod map;
mod schedule;

use std::{
    collections::BTreeSet,
    hash::{BuildHasher, Hasher, RandomState},
    io,
    sync::mpsc::{self, Receiver, SyncSender, TrySendError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use mayfly_history::{Nanos, captures::SOURCE, chain, now};

pub use self::config::HistoryConfig;
use self::{
    budget::Budget,
    events::Seen,
    followed::Tables,
    map::FILES,
    schedule::{Schedule, Turn},
};
use super::Office;
use crate::commits::{Commits, Woken};

/// News that wait to be taken; who brings more waits.
const MOST_NEWS: usize = 64;
/// How long before files and events that could not be watched are tried again.
const PAUSE: Duration = Duration::from_secs(30);

/// What the thread that asks osquery waits for.
enum News {
    /// We were registered, or no longer are, or the process ends.
    Line,
    /// These tables may have changed, since that time.
    Told { by: &'static str, tables: &'static [&'static str], since_ns: Nanos },
}

/// Begins to follow the configured tables.
pub(super) fn start(office: &Office) -> io::Result<Vec<JoinHandle<()>>> {
    if office.config().history.tables().is_empty() {
        return Ok(Vec::new());
    }
    let (tell, news) = mpsc::sync_channel(MOST_NEWS);
    let line_tell = tell.clone();
    // Where the channel is full, the line is looked at in any case.
    office.line().on_change(move || !matches!(line_tell.try_send(News::Line), Err(TrySendError::Disconnected(_))));
    let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| thread::Builder::new().name(name.into()).spawn(work);
    let (asker, of_events, of_files) = (office.clone(), office.clone(), office.clone());
    let events_tell = tell.clone();
    Ok(vec![
        spawn("capture-events", Box::new(move || keep("events", &of_events, |office| follow_events(office, &events_tell))))?,
        spawn("capture-files", Box::new(move || keep("files", &of_files, |office| follow_files(office, &tell))))?,
        // Last, so that there is never a second one where another thread could not be started.
        spawn("captures", Box::new(move || Asker::new(asker, news).work()))?,
    ])
}

/// The thread that asks osquery.
struct Asker {
    office: Office,
    news: Receiver<News>,
    schedule: Schedule,
    tables: Tables,
}

impl Asker {
    fn new(office: Office, news: Receiver<News>) -> Self {
        let history = &office.config().history;
        let schedule = Schedule::new(history.interval(), Budget::new(history.share(), Instant::now()), random);
        let tables = Tables::new(office.clone());
        Self { office, news, schedule, tables }
    }

    fn work(mut self) {
        let line = self.office.line().clone();
        while !line.is_hung_up() {
            self.tables.meet(line.up(), &mut self.schedule);
            let turn = if self.tables.is_up() { self.schedule.next(Instant::now()) } else { Turn::Wait(None) };
            match turn {
                Turn::Capture(due) => {
                    self.tables.capture(&due, &mut self.schedule);
                    while let Ok(news) = self.news.try_recv() {
                        self.take(&news);
                    }
                }
                Turn::Wait(until) => {
                    if let Some(news) = self.wait(until) {
                        self.take(&news);
                    }
                }
            }
        }
        self.tables.end();
    }

    fn wait(&self, until: Option<Instant>) -> Option<News> {
        match until {
            None => self.news.recv().ok(),
            // The line keeps a sender for as long as it lives: it ends by the time alone.
            Some(until) => self.news.recv_timeout(until.saturating_duration_since(Instant::now())).ok(),
        }
    }

    fn take(&mut self, news: &News) {
        if let News::Told { by, tables, since_ns } = news {
            self.schedule.tell(by, tables, Instant::now());
            self.tables.told(tables, *since_ns);
        }
    }
}

/// A number in [0, 1).
fn random() -> f64 {
    // The keys of each of these are random.
    let bits = u32::try_from(RandomState::new().build_hasher().finish() >> 32).unwrap_or_default();
    f64::from(bits) / (f64::from(u32::MAX) + 1.0)
}

/// Runs `follow` until the process ends, again after a pause where it failed.
fn keep(what: &'static str, office: &Office, mut follow: impl FnMut(&Office) -> Result<(), String>) {
    let feed = office.feeds().feed(SOURCE, "");
    while !office.line().is_hung_up() {
        if let Err(error) = follow(office) {
            tracing::warn!(what, error, "cannot be watched: tables that they tell of are captured at their interval only");
            feed.complain(format!("{what} cannot be watched, so that changes of tables which they tell of are seen late: {error}"));
            office.line().wait_for_end(Instant::now() + PAUSE);
        }
    }
}

/// Tells what the recorder's events tell, until the process ends.
fn follow_events(office: &Office, tell: &SyncSender<News>) -> Result<(), String> {
    let mut commits = Commits::of(office.state_dir()).map_err(|error| chain(&error))?;
    let waker = commits.waker();
    office.line().on_change(move || waker.wake());
    let mut seen = Seen::from_now(office.state_dir()).map_err(|error| chain(&error))?;
    while !office.line().is_hung_up() {
        if commits.wait(None).map_err(|error| chain(&error))? == Woken::Called {
            continue;
        }
        for (events, since_ns) in seen.news().map_err(|error| chain(&error))? {
            if tell.send(News::Told { by: events.table, tables: events.tell_of, since_ns }).is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Tells what files tell, until the process ends.
fn follow_files(office: &Office, tell: &SyncSender<News>) -> Result<(), String> {
    let mut watches =
        files::Watches::below(&office.config().history.root, office.feeds().feed(SOURCE, "")).map_err(|error| chain(&error))?;
    let waker = watches.waker();
    office.line().on_change(move || waker.wake());
    while !office.line().is_hung_up() {
        let changed: BTreeSet<usize> = match watches.wait(None).map_err(|error| chain(&error))? {
            files::Woken::Called => continue,
            files::Woken::Changed(changed) => changed,
        };
        for files in changed.into_iter().filter_map(|at| FILES.get(at)) {
            if tell.send(News::Told { by: files.name(), tables: files.tell_of, since_ns: now() }).is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_appears_in_a_new_folder_is_captured_within_a_second_too() {
        // The rest is for osquery to answer.
        assert!(files::LOOK_PAUSE + schedule::LATEST <= Duration::from_millis(750));
    }
}
