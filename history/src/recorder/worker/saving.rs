//! The worker and its store: what is done where it fails, is damaged, and takes events again.

use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use super::{Worker, own_gap};
use crate::{
    error::chain,
    feed::cause,
    recorder::{ledger::Moment, logs::Logs},
    store::{StoreError, Writer},
    time::{Nanos, now},
};

/// Between two attempts to write to a store that fails, and between two damaged ones that are replaced.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A store that takes nothing at the moment.
#[derive(Debug)]
pub(super) struct Failing {
    since_ns: Nanos,
    pub(super) error: String,
    /// Containers that were sealed before their end was written.
    pub(super) sealed: usize,
    pause: Duration,
    pub(super) retry_at: Instant,
}

impl Worker {
    pub(super) fn commit_if_due(&mut self, at: Instant) {
        match &self.failing {
            Some(failing) if failing.retry_at > at => self.batch.trim(),
            _ => self.commit(),
        }
    }

    /// Writes the batch. A store that fails is tried again later; the thread lives on.
    pub(super) fn commit(&mut self) {
        self.batch.gaps = self.gaps.changed();
        if self.batch.is_empty() && self.failing.is_none() {
            return;
        }
        let cursors = self.batch.cursors().clone();
        match self.write() {
            Ok(()) => {
                self.shared.store_cursors(cursors);
                self.gaps.settle();
                // What was written may have to be sealed.
                self.maintain_at = Instant::now();
                self.note_recovery();
            }
            Err(error) if error.is_corrupt() => self.replace_store(&error),
            Err(error) => self.note_failure(&error),
        }
    }

    fn write(&mut self) -> Result<(), StoreError> {
        let (mut writer, logs) = match self.writer.take() {
            Some(opened) => opened,
            None => self.reopen()?,
        };
        let begun = if self.shared.is_another_host.load(Relaxed) {
            writer.begin_generation().map(|()| self.shared.is_another_host.store(false, Relaxed))
        } else {
            Ok(())
        };
        let written = begun.and_then(|()| self.batch.commit(&mut writer, &logs, self.history, &mut self.ledger));
        self.writer = Some((writer, logs));
        written
    }

    pub(super) fn note_failure(&mut self, error: &StoreError) {
        let text = chain(error);
        let pause = match &self.failing {
            Some(failing) => (failing.pause * 2).min(LONGEST_PAUSE),
            None => {
                tracing::error!(error = text, "cannot store: events are kept in memory for the moment");
                self.shared.feeds.all().iter().for_each(|feed| feed.complain(format!("cannot store: {text}")));
                SHORTEST_PAUSE
            }
        };
        let (since_ns, sealed) = self.failing.as_ref().map_or_else(|| (now(), 0), |f| (f.since_ns, f.sealed));
        self.failing = Some(Failing { since_ns, error: text, sealed, pause, retry_at: Instant::now() + pause });
        self.batch.trim();
    }

    /// Says so when the store takes events again, and what was lost meanwhile.
    fn note_recovery(&mut self) {
        let Some(failing) = self.failing.take() else { return };
        let (lost, is_short) = (std::mem::take(&mut self.batch.evicted), std::mem::take(&mut self.batch.is_short));
        tracing::info!(lost, "the store takes events again");
        if lost > 0 || is_short || failing.sealed > 0 {
            let detail = match failing.sealed {
                0 => format!("{lost} events lost: {}", failing.error),
                sealed => format!("{lost} events and the ends of {sealed} containers lost: {}", failing.error),
            };
            self.gaps.put(own_gap(cause::STORE_FAILED, failing.since_ns, now(), detail));
            // What holds, and what ended, may be among it; sources would only repeat what is known to hold.
            self.put_all();
            let lanes = self.lanes.iter().map(|lane| lane.name()).collect();
            self.batch.complete(now(), lanes);
            self.resync(failing.since_ns);
        }
    }

    /// Asks all sources to tell what exists: what they told since then is not in the store.
    fn resync(&self, since_ns: Nanos) {
        self.shared.feeds.all().iter().for_each(|feed| feed.want_resync(since_ns));
    }

    /// Puts a damaged store aside; what lives is written again into the new one.
    pub(super) fn replace_store(&mut self, error: &StoreError) {
        // What damages one file after the other must not fill the disk with them.
        if self.replaced_at.is_some_and(|at| at.elapsed() < LONGEST_PAUSE) {
            return self.note_failure(error);
        }
        tracing::error!(error = chain(error), "the store is damaged: beginning a new one");
        let Some((writer, _)) = self.writer.take() else { return self.note_failure(error) };
        let replaced = writer.set_aside().and_then(|opened| {
            let mut writer = opened.writer;
            let logs = self.tables.open(&mut writer)?;
            Ok((writer, logs, opened.set_aside))
        });
        match replaced {
            Ok((writer, logs, set_aside)) => {
                let place = set_aside.map(|p| p.display().to_string()).unwrap_or_default();
                let text = format!("the store was damaged and set aside as {place}: {}", chain(error));
                self.shared.feeds.all().iter().for_each(|feed| feed.complain(text.clone()));
                self.gaps.put(own_gap(cause::STORE_FAILED, self.status_ns, now(), text));
                self.resync(self.status_ns);
                self.writer = Some((writer, logs));
                self.replaced_at = Some(Instant::now());
                self.write_anew();
            }
            Err(failed) => {
                let text = format!("the store was damaged: {}", chain(error));
                self.gaps.put(own_gap(cause::STORE_FAILED, self.status_ns, now(), text));
                self.note_failure(&failed);
            }
        }
    }

    /// Opens a store again that could not be replaced at once.
    fn reopen(&mut self) -> Result<(Writer, Logs), StoreError> {
        let mut writer = Writer::open(&self.dir, &self.store)?.writer;
        let logs = self.tables.open(&mut writer)?;
        self.write_anew();
        Ok((writer, logs))
    }

    /// The store is empty: all that is known goes into it.
    fn write_anew(&mut self) {
        self.ledger.forget_written();
        self.statuses.clear();
        self.status_at = Some(Instant::now());
        self.put_all();
    }

    /// Puts all that is known into the batch.
    fn put_all(&mut self) {
        let moment = Moment { at: Instant::now(), wall_ns: now() };
        self.at_desk(moment, |lane, desk| lane.write_anew(desk));
        let keys = self.ledger.keys();
        for subject in keys.iter().filter_map(|key| self.ledger.subject(key)) {
            self.lanes.iter_mut().for_each(|lane| lane.see_container(subject, moment));
        }
        self.at_desk(moment, |lane, desk| lane.settle(desk));
        self.batch.add_dirty(keys);
        self.shared.feeds.wake();
    }
}
