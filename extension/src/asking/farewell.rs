//! `[[farewell]]`: what osquery is asked at last: when the extension ends, and when the host is said to end soon.

mod notices;

use std::{
    io,
    sync::mpsc::{self, Receiver},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use mayfly_history::{Feed, chain, triggered::Occasion};
use mayfly_tables::TRIGGERED_RESULTS;

use self::notices::{Interruptions, Scheduled};
use super::{Office, Refused, answer::Question, standing::Standing};
use crate::{config::Config, folders::Heard, watched::Waker};

const KIND: &str = "farewell";

/// How long all of them may take when the process ends: osqueryd gives an extension 10 seconds, and there is more to do.
const LONGEST: Duration = Duration::from_secs(2);
/// What was asked so lately is not asked again.
const FRESH: Duration = Duration::from_secs(30);

/// What is wrong with the farewells of a configuration.
pub(super) fn refused(config: &Config) -> Vec<Refused> {
    Standing::read_all(KIND, &config.farewell).into_iter().filter_map(Result::err).collect()
}

pub(super) fn start(office: &Office) -> io::Result<Vec<JoinHandle<()>>> {
    let farewells = Standing::employed(KIND, &office.config().farewell, office);
    if farewells.is_empty() {
        return Ok(Vec::new());
    }
    let mut scheduled = Scheduled::of(&office.config().identity.root)?;
    let waker = scheduled.waker();
    office.line().on_change(move || waker.wake());
    let notices = listen(office, scheduled.waker())?;
    let mut porter = Porter { office: office.clone(), farewells, said_at: None };
    Ok(vec![thread::Builder::new().name("farewells".into()).spawn(move || porter.work(&mut scheduled, &notices))?])
}

/// Asks the cloud whether it takes the host back, on a thread that nobody waits for at the end: the answer may take seconds.
fn listen(office: &Office, waker: Waker) -> io::Result<Receiver<String>> {
    let mut interruptions = Interruptions::new(&office.config().identity.metadata_url, office.state_dir());
    let line = office.line().clone();
    let (tell, told) = mpsc::channel();
    thread::Builder::new().name("notices".into()).spawn(move || {
        while let Some(next) = interruptions.next()
            && !line.wait_for_end(next)
        {
            if let Some(notice) = interruptions.ask() {
                let _ = tell.send(notice);
                waker.wake();
            }
        }
    })?;
    Ok(told)
}

struct Porter {
    office: Office,
    farewells: Vec<(Standing, Feed)>,
    said_at: Option<Instant>,
}

impl Porter {
    fn work(&mut self, scheduled: &mut Scheduled, notices: &Receiver<String>) {
        self.farewells.iter().for_each(|(_, feed)| feed.running());
        loop {
            let shutdown_at = scheduled.due();
            let heard = scheduled.wait(shutdown_at);
            if self.office.line().is_hung_up() {
                self.say("the extension ends");
                return;
            }
            if heard == Heard::Late && shutdown_at.is_some_and(|at| at <= Instant::now()) {
                scheduled.told();
                self.say("a shutdown is scheduled");
            }
            for notice in notices.try_iter() {
                self.say(&notice);
            }
        }
    }

    /// Asks all, each within its own time; when the process ends, each within its share of what is left.
    fn say(&mut self, why: &str) {
        if self.said_at.is_some_and(|said_at| said_at.elapsed() < FRESH) {
            return;
        }
        tracing::info!(why, "asking the farewells");
        let mut ends_by = None;
        let mut queries_left = self.farewells.iter().map(|(standing, _)| standing.run.len()).sum();
        for (standing, feed) in &self.farewells {
            for sql in &standing.run {
                if self.office.line().is_hung_up() {
                    ends_by.get_or_insert_with(|| Instant::now() + LONGEST);
                }
                let patience = ends_by.map_or(standing.patience, |at| standing.patience.min(share(at, queries_left)));
                queries_left -= 1;
                if patience.is_zero() {
                    feed.reject("there was no time left to ask");
                    continue;
                }
                let answer =
                    Question { occasion: Occasion::Farewell, name: &standing.name, sql, event: None, patience }.ask(self.office.line());
                let stored = self.office.captures().append(&TRIGGERED_RESULTS, answer.results).map_err(|error| chain(&error));
                match stored.err().or(answer.error) {
                    Some(error) => feed.reject(error),
                    None => {
                        feed.count_received();
                        feed.count_stored(mayfly_history::now(), 0);
                    }
                }
            }
        }
        self.said_at = Some(Instant::now());
        self.office.feeds().wake();
    }
}

/// What one of so many queries may take of the time until `deadline`.
fn share(deadline: Instant, queries: usize) -> Duration {
    deadline.saturating_duration_since(Instant::now()) / u32::try_from(queries).unwrap_or(u32::MAX).max(1)
}
