//! The jobs that are at work, and those that could not begin yet.

use std::{
    io,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use mayfly_history::captures::SOURCE;

use super::{Office, captures, enrolment, farewell, pack, push::Push, triggers};

/// How long before a job that could not begin is tried again: what it watches with may have run out for now.
const PAUSE: Duration = Duration::from_secs(30);

/// A job: does its work on threads of its own until the line is hung up.
type Start = fn(&Office) -> io::Result<Vec<JoinHandle<()>>>;

/// Every job, by whose rows of `recorder_sources` are its own; a new one is one line here.
const JOBS: [(&str, Start); 5] = [
    (SOURCE, captures::start),
    ("push", pack::start),
    ("triggers", triggers::start),
    ("enrolments", enrolment::start),
    ("farewells", farewell::start),
];

#[derive(Debug)]
struct Job {
    source: &'static str,
    start: Start,
    /// `None`: it could not begin yet.
    threads: Option<Vec<JoinHandle<()>>>,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Staff {
    jobs: Vec<Job>,
    push: Option<Push>,
    again_at: Instant,
}

impl Default for Staff {
    fn default() -> Self {
        let jobs = JOBS.map(|(source, start)| Job { source, start, threads: None });
        Self { jobs: jobs.into(), push: None, again_at: Instant::now() }
    }
}

impl Staff {
    /// Lets those begin that have not, now and then, and says of threads that broke down that they did.
    pub(super) fn look_after(&mut self, office: &Office) {
        self.jobs.iter_mut().for_each(|job| job.look_after(office));
        let is_complete = self.push.is_some() && self.jobs.iter().all(|job| job.threads.is_some());
        if is_complete || Instant::now() < self.again_at {
            return;
        }
        self.again_at = Instant::now() + PAUSE;
        for job in self.jobs.iter_mut().filter(|job| job.threads.is_none()) {
            match (job.start)(office) {
                Ok(threads) => job.threads = Some(threads),
                Err(error) => put_off(office, job.source, &error),
            }
        }
        if self.push.is_none() {
            match Push::start(office) {
                Ok(push) => self.push = Some(push),
                Err(error) => put_off(office, "push", &error),
            }
        }
    }

    /// Waits for all of them to end.
    pub(super) fn finish(self) {
        for thread in self.jobs.into_iter().filter_map(|job| job.threads).flatten() {
            let _ = thread.join();
        }
        // What the jobs learnt last is still pushed.
        if let Some(push) = self.push {
            push.finish();
        }
    }
}

impl Job {
    fn look_after(&mut self, office: &Office) {
        for thread in self.threads.iter_mut().flat_map(|threads| threads.extract_if(.., |thread| thread.is_finished())) {
            let name = thread.thread().name().unwrap_or_default().to_owned();
            if thread.join().is_err() {
                tracing::error!(thread = name, "a thread failed in a way that it cannot survive");
                fail(office, self.source, &format!("the thread {name} panicked"), "restart the extension, and report it with its log");
            }
        }
    }
}

fn put_off(office: &Office, source: &'static str, error: &io::Error) {
    tracing::error!(source, %error, "a job cannot begin; trying again");
    fail(office, source, &format!("cannot begin: {error}"), &format!("tried again in {} s", PAUSE.as_secs()));
}

/// Says it in all rows of a source.
fn fail(office: &Office, source: &'static str, why: &str, hint: &str) {
    let feeds = office.feeds();
    match feeds.of(source).as_slice() {
        [] => feeds.feed(source, "").failed(why, hint),
        own => own.iter().for_each(|feed| feed.failed(why, hint)),
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use mayfly_history::{
        captures::{Captures, folder},
        feed::Feeds,
    };
    use tempfile::TempDir;

    use super::*;
    use crate::{config::Config, line::Line};

    /// Begins once a file is there, and then breaks down.
    fn begin(office: &Office) -> io::Result<Vec<JoinHandle<()>>> {
        if !office.state_dir().join("ready").exists() {
            return Err(io::Error::other("no instance is free"));
        }
        Ok(vec![thread::Builder::new().name("breaks".into()).spawn(|| panic!("as the test wants it"))?])
    }

    #[test]
    fn a_job_that_cannot_begin_says_why_and_begins_later_and_one_that_breaks_down_says_so() {
        let dir = TempDir::new().unwrap();
        let config = Config::default();
        let (captures, _) = Captures::open(&folder(dir.path()), &config.store, config.redaction()).unwrap();
        let feeds = Feeds::default();
        let office = Office::new(config, dir.path(), Line::new("/nowhere"), feeds.clone(), captures);
        let jobs = vec![Job { source: "triggers", start: begin, threads: None }];
        let mut staff = Staff { jobs, push: Some(Push::default()), again_at: Instant::now() };
        let feed = feeds.feed("triggers", "one");
        staff.look_after(&office);
        assert!(feed.status().last_error.contains("no instance is free"), "{:?}", feed.status());
        std::fs::write(dir.path().join("ready"), "").unwrap();
        staff.look_after(&office);
        assert!(staff.jobs[0].threads.is_none(), "not at once");
        staff.again_at = Instant::now();
        staff.look_after(&office);
        let deadline = Instant::now() + Duration::from_secs(10);
        while !feed.status().last_error.contains("the thread breaks panicked") {
            assert!(Instant::now() < deadline, "{:?}", feed.status());
            thread::yield_now();
            staff.look_after(&office);
        }
        assert_eq!(feed.status().state, "failed");
    }
}
