//! What there was before: asking the runtime once a second which containers it has, stopped ones included.

use std::{
    collections::BTreeSet,
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
    thread: JoinHandle<BTreeSet<String>>,
}

impl Poller {
    /// Runs `list`, which prints the names of the present containers, once each `interval`.
    pub fn start(mut list: Command, interval: Duration) -> Self {
        let (stop, stopped) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut seen = BTreeSet::new();
            while stopped.recv_timeout(interval) == Err(mpsc::RecvTimeoutError::Timeout) {
                if let Ok(names) = run(&mut list) {
                    seen.extend(names.split_whitespace().map(str::to_owned));
                }
            }
            seen
        });
        Self { stop, thread }
    }

    /// All that it ever saw.
    pub fn stop(self) -> BTreeSet<String> {
        drop(self.stop);
        self.thread.join().unwrap_or_default()
    }
}
