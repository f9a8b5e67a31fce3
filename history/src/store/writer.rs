//! The one writer of a store: what the recorder calls.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{error::StoreError, options::StoreOptions, row::RowBuf};
use crate::{
    eid::Eid,
    feed::{FeedStatus, Gap},
    table::TableSchema,
    time::Nanos,
};

/// A store that was opened to write.
#[derive(Debug)]
pub struct Opened {
    pub writer: Writer,
    /// Where a damaged file was put before a new one was begun.
    pub set_aside: Option<PathBuf>,
    /// Wall time at which the recorder before this one was last known alive; `None` if this store is new.
    pub last_alive: Option<Nanos>,
}

/// Writes the store. The caller holds the state directory's lock: there is one writer per directory.
#[derive(Debug)]
pub struct Writer {}

/// An event table of this writer; valid for the writer that gave it.
#[derive(Clone, Copy, Debug)]
pub struct EventLog(usize);

/// A history table of this writer; valid for the writer that gave it.
#[derive(Clone, Copy, Debug)]
pub struct IntervalLog(usize);

/// An interval without its columns.
#[derive(Clone, Copy, Debug, Default)]
pub struct Interval<'a> {
    /// Value of the table's first declared column: what intervals are found by.
    pub key: &'a str,
    /// What tells subjects of the same key apart, e.g. the endpoint and namespace of a container; empty where the key is enough.
    pub scope: &'a str,
    pub valid_from_ns: Nanos,
    /// `None` while it holds. Never before `valid_from_ns`: an earlier end is stored as that.
    pub valid_to_ns: Option<Nanos>,
    /// Why it ended; empty while it holds.
    pub ended_reason: &'a str,
    /// Who saw it: comma-separated, sorted.
    pub evidence: &'a str,
}

/// Changes that become visible together, or not at all: dropped without [`Transaction::commit`], they are undone.
#[derive(Debug)]
pub struct Transaction<'w> {
    writer: &'w mut Writer,
}

impl Writer {
    /// Opens `dir/history.db`, creating both; within milliseconds, whatever its size. A damaged file is set aside; one of a
    /// newer format is refused ([`StoreError::Newer`]). The integrity check runs behind, see [`Writer::maintain`].
    pub fn open(dir: &Path, options: &StoreOptions) -> Result<Opened, StoreError> {
        let _ = (dir, options);
        Ok(Opened { writer: Self {}, set_aside: None, last_alive: None })
    }

    /// Puts a damaged file aside and begins a new one, in a newer generation. Logs must be asked for again.
    pub fn set_aside(self) -> Result<Opened, StoreError> {
        Ok(Opened { writer: self, set_aside: None, last_alive: None })
    }

    /// Prepares an event table: its columns' names are kept, so that its rows stay readable when it gains a column.
    pub fn events(&mut self, table: &TableSchema) -> Result<EventLog, StoreError> {
        let _ = table;
        Ok(EventLog(0))
    }

    /// Prepares a history table.
    pub fn history(&mut self, table: &TableSchema) -> Result<IntervalLog, StoreError> {
        let _ = table;
        Ok(IntervalLog(0))
    }

    /// Begins a transaction.
    pub fn begin(&mut self) -> Result<Transaction<'_>, StoreError> {
        Ok(Transaction { writer: self })
    }

    /// Generation of the events that are written now.
    pub fn generation(&self) -> u32 {
        0
    }

    /// Where a stream resumes ([`crate::Feed::stream`]).
    pub fn cursor(&self, stream: &str) -> Result<Option<String>, StoreError> {
        let _ = stream;
        Ok(None)
    }

    /// What the reducer kept of one subject.
    pub fn subject(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let _ = key;
        Ok(None)
    }

    /// All that the reducer kept, ordered by key.
    pub fn subjects(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        Ok(Vec::new())
    }

    /// The gaps that have no end yet, e.g. of a recorder that was killed.
    pub fn open_gaps(&self) -> Result<Vec<Gap>, StoreError> {
        Ok(Vec::new())
    }

    /// Says, durably and cheaply, that the recorder is alive now. Once a second is often enough.
    pub fn heartbeat(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Does one short step (some milliseconds) of what waits: seals, expires, gives space back, takes over the result of the
    /// integrity check ([`StoreError::Integrity`], once, if it failed). Returns when it wants to be called next: at
    /// once, if there is more to do.
    pub fn maintain(&mut self) -> Result<Instant, StoreError> {
        Ok(Instant::now() + Duration::from_secs(1))
    }
}

impl Transaction<'_> {
    /// Appends an event that happened at `time_ns`; returns its id, which is the next one of all tables.
    pub fn append(&mut self, log: EventLog, time_ns: Nanos, row: &RowBuf) -> Result<Eid, StoreError> {
        let _ = (&self.writer, log.0, time_ns, row);
        Ok(Eid::default())
    }

    /// Stores an interval, in place of the one with the same key, scope and start.
    pub fn put_interval(&mut self, log: IntervalLog, interval: &Interval<'_>, row: &RowBuf) -> Result<(), StoreError> {
        let _ = (log.0, interval, row);
        Ok(())
    }

    /// Removes an interval, e.g. because late evidence moved its start; nothing happens if there is none.
    pub fn remove_interval(&mut self, log: IntervalLog, key: &str, scope: &str, valid_from_ns: Nanos) -> Result<(), StoreError> {
        let _ = (log, key, scope, valid_from_ns);
        Ok(())
    }

    /// Stores a gap, in place of the one with the same source, endpoint, cause and start: that is how an open one is ended.
    pub fn put_gap(&mut self, gap: &Gap) -> Result<(), StoreError> {
        let _ = gap;
        Ok(())
    }

    /// Stores where a stream resumes, together with the events that came before.
    pub fn set_cursor(&mut self, stream: &str, value: &str) -> Result<(), StoreError> {
        let _ = (stream, value);
        Ok(())
    }

    /// Keeps what the reducer knows of a subject, so that it survives a restart.
    pub fn put_subject(&mut self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        let _ = (key, value);
        Ok(())
    }

    /// Forgets a subject.
    pub fn remove_subject(&mut self, key: &str) -> Result<(), StoreError> {
        let _ = key;
        Ok(())
    }

    /// Replaces the sources that readers see.
    pub fn put_sources(&mut self, sources: &[FeedStatus]) -> Result<(), StoreError> {
        let _ = sources;
        Ok(())
    }

    /// Keeps a fact about the recorder for `recorder_info`.
    pub fn put_note(&mut self, name: &str, value: &str) -> Result<(), StoreError> {
        let _ = (name, value);
        Ok(())
    }

    /// Makes the changes visible; they survive the death of this process from here on.
    pub fn commit(self) -> Result<(), StoreError> {
        Ok(())
    }
}
