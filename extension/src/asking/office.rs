//! What the jobs share.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use mayfly_history::{captures::Captures, feed::Feeds};

use crate::{config::Config, line::Line};

/// What the jobs share. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Office(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Config,
    state_dir: PathBuf,
    line: Line,
    feeds: Feeds,
    captures: Mutex<Captures>,
}

impl Office {
    pub(crate) fn new(config: Config, state_dir: &Path, line: Line, feeds: Feeds, captures: Captures) -> Self {
        Self(Arc::new(Inner { config, state_dir: state_dir.to_owned(), line, feeds, captures: Mutex::new(captures) }))
    }

    pub(crate) fn config(&self) -> &Config {
        &self.0.config
    }

    /// Where the recorder's store is.
    pub(crate) fn state_dir(&self) -> &Path {
        &self.0.state_dir
    }

    /// Whether osquery is there, and the way to ask it.
    pub(crate) fn line(&self) -> &Line {
        &self.0.line
    }

    /// Rows of `recorder_sources` and `recorder_gaps`.
    pub(crate) fn feeds(&self) -> &Feeds {
        &self.0.feeds
    }

    /// The store of captures, for a short while: never while osquery is asked.
    pub(crate) fn captures(&self) -> MutexGuard<'_, Captures> {
        self.0.captures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
