//! The signals that end the process in order: SIGTERM and SIGINT.

use std::io;

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};

/// A request to stop; registered when made, so that an early signal is not missed.
#[derive(Debug)]
pub(crate) struct Stop(Signals);

impl Stop {
    pub(crate) fn new() -> io::Result<Self> {
        Signals::new([SIGTERM, SIGINT]).map(Self)
    }

    /// Blocks until one arrives.
    pub(crate) fn wait(&mut self) {
        self.0.forever().next();
    }
}
