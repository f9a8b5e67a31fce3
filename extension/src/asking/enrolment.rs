//! `[[enrolment]]`: what osquery is asked once in each incarnation of the host, as soon as it answers.

use std::{
    collections::BTreeMap,
    io,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use mayfly_history::{Feed, chain, triggered::Occasion};
use mayfly_tables::TRIGGERED_RESULTS;

use super::{Office, Refused, answer::Question, host::Host, standing::Standing};
use crate::{
    commits::{Commits, Woken},
    config::Config,
};

const KIND: &str = "enrolment";

/// The first and the longest pause before a query that failed is asked again.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How often it is looked who the host is, at most: the store is written many times a second.
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);

/// What is wrong with the enrolments of a configuration.
pub(super) fn refused(config: &Config) -> Vec<Refused> {
    Standing::read_all(KIND, &config.enrolment).into_iter().filter_map(Result::err).collect()
}

pub(super) fn start(office: &Office) -> io::Result<Vec<JoinHandle<()>>> {
    let enrolments = Standing::employed(KIND, &office.config().enrolment, office);
    if enrolments.is_empty() {
        return Ok(Vec::new());
    }
    let mut commits = Commits::of(office.state_dir())?;
    let waker = commits.waker();
    office.line().on_change(move || waker.wake());
    let mut desk = Desk { office: office.clone(), enrolments: enrolments.into_iter().map(Enrolment::new).collect() };
    Ok(vec![thread::Builder::new().name("enrolments".into()).spawn(move || desk.work(&mut commits))?])
}

struct Enrolment {
    standing: Standing,
    feed: Feed,
    pause: Duration,
    again_at: Instant,
    /// The last failure of each query that was written down: one that lasts is one row.
    said: BTreeMap<usize, String>,
}

impl Enrolment {
    fn new((standing, feed): (Standing, Feed)) -> Self {
        Self { standing, feed, pause: FIRST_PAUSE, again_at: Instant::now(), said: BTreeMap::new() }
    }

    fn hurry(&mut self) {
        (self.pause, self.again_at) = (FIRST_PAUSE, Instant::now());
    }

    /// Asks what was not answered yet in this incarnation; true: all was. One that fails keeps none of the others from being asked.
    fn enrol(&mut self, office: &Office, incarnation: &str) -> bool {
        let mut failed = None;
        for (place, sql) in self.standing.run.iter().enumerate() {
            let stream = format!("enrolment {} {place}", self.standing.name);
            match office.captures().cursor(&stream) {
                Ok(done) if done.as_deref() == Some(incarnation) => continue,
                Ok(_) => {}
                Err(error) => return self.fail(chain(&error)),
            }
            let (name, patience) = (&self.standing.name, self.standing.patience);
            let answer = Question { occasion: Occasion::Enrolment, name, sql, event: None, patience }.ask(office.line());
            if answer.is_gone {
                return self.fail(answer.error.unwrap_or_default());
            }
            let is_new = answer.is_answered || answer.error.as_ref() != self.said.get(&place);
            let mut captures = office.captures();
            let stored = if is_new { captures.append(&TRIGGERED_RESULTS, answer.results) } else { Ok(()) };
            let kept = stored.and_then(|()| if answer.is_answered { captures.set_cursor(&stream, incarnation) } else { Ok(()) });
            drop(captures);
            if let Err(error) = kept {
                return self.fail(chain(&error));
            }
            if answer.is_answered {
                self.feed.count_received();
                self.feed.count_stored(mayfly_history::now(), 0);
                answer.error.into_iter().for_each(|error| self.feed.complain(error));
            } else if let Some(error) = answer.error {
                self.said.insert(place, error.clone());
                failed.get_or_insert(error);
            }
        }
        if let Some(error) = failed {
            return self.fail(error);
        }
        self.said.clear();
        self.hurry();
        self.feed.running();
        true
    }

    fn fail(&mut self, error: String) -> bool {
        self.again_at = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        self.feed.failed(error, "asked again until osquery answers");
        false
    }
}

struct Desk {
    office: Office,
    enrolments: Vec<Enrolment>,
}

impl Desk {
    fn work(&mut self, commits: &mut Commits) {
        let mut registration = 0;
        while !self.office.line().is_hung_up() {
            let again_at = self.office.line().up().and_then(|up| {
                if up.number != registration {
                    registration = up.number;
                    // Another osquery is worth an attempt before its time.
                    self.enrolments.iter_mut().for_each(Enrolment::hurry);
                }
                self.look()
            });
            // Who the host is may turn out to be another with any commit: a clone learns so from its cloud.
            let waited = commits.wait(again_at);
            let pause = if waited.is_ok() { BETWEEN_LOOKS } else { LONGEST_PAUSE };
            if !matches!(waited, Ok(Woken::Called | Woken::Late)) {
                self.office.line().wait_for_end(Instant::now() + pause);
            }
        }
    }

    /// Looks who the host is, and asks what is due; gives when to ask again.
    fn look(&mut self) -> Option<Instant> {
        match Host::look(self.office.state_dir()) {
            Ok(Some(host)) => return self.enrol_all(&host.incarnation),
            Ok(None) => self.wait_for_host("host_identity has no row yet: `[identity]` tells it, of the recorder"),
            Err(error) => self.wait_for_host(&chain(&error)),
        }
        None
    }

    fn wait_for_host(&self, why: &str) {
        self.enrolments.iter().for_each(|enrolment| enrolment.feed.waiting(why));
    }

    /// Asks what is due; gives when to ask again.
    fn enrol_all(&mut self, incarnation: &str) -> Option<Instant> {
        let office = &self.office;
        let due = |enrolment: &mut Enrolment| {
            let is_done = enrolment.again_at <= Instant::now() && enrolment.enrol(office, incarnation);
            (!is_done).then_some(enrolment.again_at)
        };
        self.enrolments.iter_mut().filter_map(due).min()
    }
}
