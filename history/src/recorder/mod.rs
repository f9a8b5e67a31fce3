//! The recorder: drains the rings, gives events their identity, writes the store. One thread, one writer per host.

mod clean;
mod course;
mod facts;
mod hold;
mod ledger;
mod lock;
mod recover;
mod storm;
mod subject;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use crate::{
    container::{ContainerEvent, ContainerState, Report},
    feed::Feed,
    image::ImageEvent,
    redact::Redaction,
    sink::Sink,
    store::StoreError,
    table::{EventTable, HistoryTable},
};

pub use lock::{Holder, Lock, LockError, Role, holder};

/// The declarations that the recorder writes by.
#[derive(Clone, Copy)]
pub struct Declarations {
    pub container_events: &'static EventTable<ContainerEvent>,
    pub container_history: &'static HistoryTable<ContainerState>,
    pub image_events: &'static EventTable<ImageEvent>,
}

/// How to record.
#[derive(Clone, Debug)]
pub struct RecorderOptions {
    pub state_dir: PathBuf,
    pub redaction: Redaction,
    /// `version`, `config_path`, … for `recorder_info`.
    pub notes: Vec<(String, String)>,
}

/// Where sources push. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sinks {
    pub containers: Sink<Report>,
    pub images: Sink<ImageEvent>,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecorderError {
    #[error("cannot record")]
    Store(#[from] StoreError),
}

/// A recorder at work on its own thread.
#[derive(Debug)]
pub struct Recorder {
    handle: Handle,
}

/// What sources need of the recorder. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    sinks: Sinks,
}

impl Recorder {
    /// Opens the store and begins to record. The caller holds the state directory's lock.
    pub fn start(declarations: Declarations, options: RecorderOptions) -> Result<Self, RecorderError> {
        let _ = (declarations, options);
        let bell = crate::sink::Bell::default();
        let sinks = Sinks { containers: Sink::new(8192, bell.clone()), images: Sink::new(1024, bell) };
        Ok(Self { handle: Handle { sinks } })
    }

    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Writes what waits, and stops.
    pub fn stop(self) -> Result<(), RecorderError> {
        Ok(())
    }
}

impl Handle {
    /// A handle without a recorder behind it, whose sinks the caller drains: to watch what a source pushes.
    pub fn detached(sinks: Sinks) -> Self {
        Self { sinks }
    }

    pub fn sinks(&self) -> &Sinks {
        &self.sinks
    }

    /// Makes a feed whose status the recorder writes to `recorder_sources` and whose gaps to `recorder_gaps`.
    pub fn feed(&self, source: &'static str, endpoint: &str) -> Feed {
        Feed::new(source, endpoint)
    }

    /// Where a feed's stream resumes, as stored by an earlier recorder; `None` at its very first look.
    pub fn cursor(&self, feed: &Feed) -> Option<String> {
        let _ = feed;
        None
    }

    /// When the recorder before this one was last known alive; `None` if this is the first. The recorder itself writes
    /// the gap `recorder_down`; sources use it to mark what they recover.
    pub fn blind_since(&self) -> Option<crate::Nanos> {
        None
    }
}
