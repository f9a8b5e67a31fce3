//! `[[farewell]]`: what osquery is asked at last: when the extension ends, and when the host is said to end soon.

mod notices;

use std::{
    io,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use mayfly_history::{Feed, chain, triggered::Occasion};
use mayfly_tables::TRIGGERED_RESULTS;

use self::notices::{Interruptions, Scheduled};
use super::{Office, Refused, answer::Question, standing::Standing};
use crate::{config::Config, folders::Heard};

const SOURCE: &str = "farewells";
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
    let farewells = Standing::employed(KIND, &office.config().farewell, office, SOURCE);
    if farewells.is_empty() {
        return Ok(Vec::new());
    }
    let mut scheduled = Scheduled::of(&office.config().identity.root)?;
    let waker = scheduled.waker();
    office.line().on_change(move || waker.wake());
    let mut porter = Porter { office: office.clone(), farewells, said_at: None };
    Ok(vec![thread::Builder::new().name("farewells".into()).spawn(move || porter.work(&mut scheduled))?])
}

struct Porter {
    office: Office,
    farewells: Vec<(Standing, Feed)>,
    said_at: Option<Instant>,
}

impl Porter {
    fn work(&mut self, scheduled: &mut Scheduled) {
        let mut interruptions = Interruptions::new(&self.office.config().identity.metadata_url, self.office.state_dir());
        self.farewells.iter().for_each(|(_, feed)| feed.running());
        loop {
            let shutdown_at = scheduled.due();
            let deadline = [shutdown_at, Some(interruptions.next())].into_iter().flatten().min();
            let heard = scheduled.wait(deadline);
            if self.office.line().is_hung_up() {
                self.say("the extension ends", Instant::now() + LONGEST);
                return;
            }
            if heard == Heard::Late && shutdown_at.is_some_and(|at| at <= Instant::now()) {
                scheduled.told();
                self.notice("a shutdown is scheduled");
            }
            if let Some(notice) = interruptions.ask() {
                self.notice(&notice);
            }
        }
    }

    fn notice(&mut self, why: &str) {
        let longest: Duration = self.farewells.iter().map(|(standing, _)| standing.patience).sum();
        self.say(why, Instant::now() + longest);
    }

    /// Asks all, each within its own time and what is left of all of it.
    fn say(&mut self, why: &str, deadline: Instant) {
        if self.said_at.is_some_and(|said_at| said_at.elapsed() < FRESH) {
            return;
        }
        tracing::info!(why, "asking the farewells");
        for (standing, feed) in &self.farewells {
            for sql in &standing.run {
                let patience = standing.patience.min(deadline.saturating_duration_since(Instant::now()));
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
