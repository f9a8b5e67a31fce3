//! What there was before: asking the runtime once a second which containers it has, stopped ones included.

use std::{
    collections::BTreeMap,
    process::Command,
    sync::mpsc,
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::command::run;

/// A poller at work beside the recorder.
#[derive(Debug)]
pub struct Poller {
    stop: mpsc::Sender<()>,
    thread: JoinHandle<BTreeMap<String, String>>,
}

impl Poller {
    /// Runs `list`, which prints a line for each present container, its name and what is known of it, once each `interval`.
    pub fn start(mut list: Command, interval: Duration) -> Self {
        let (stop, stopped) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut seen = BTreeMap::new();
            while stopped.recv_timeout(interval) == Err(mpsc::RecvTimeoutError::Timeout) {
                for line in run(&mut list).unwrap_or_default().lines() {
                    let (name, known) = line.split_once(' ').unwrap_or((line, ""));
                    seen.insert(name.to_owned(), known.to_owned());
                }
            }
            seen
        });
        Self { stop, thread }
    }

    /// All that it ever saw: names, and what it knew last.
    pub fn stop(self) -> BTreeMap<String, String> {
        drop(self.stop);
        self.thread.join().unwrap_or_default()
    }
}
