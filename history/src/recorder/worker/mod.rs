//! The recorder's thread: waits for the bell or the next deadline, takes what the rings hold, writes what follows.

mod beginning;
mod housework;
mod saving;
#[cfg(test)]
mod tests;

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

pub(super) use self::beginning::{Beginning, Kept};
use self::saving::Failing;
use super::{
    RecorderError, Shared, Sinks,
    batch::Batch,
    clean,
    gaps::Gaps,
    lane::{Desk, Lane},
    ledger::{Ledger, Moment},
    logs::{self, Logs, TableList},
};
use crate::{
    container::{ContainerEvent, ContainerKey, ContainerState, Report},
    feed::{Feed, FeedStatus, Gap, cause},
    memory::Frugality,
    redact::Redaction,
    sink::Excess,
    store::{StoreOptions, Writer},
    table::{EventTable, HistoryTable},
    time::{Nanos, now},
};

/// Most reports that one transaction takes.
const MOST_AT_ONCE: usize = 512;
/// How often the state of the sources is written while it changes.
const STATUS: Duration = Duration::from_secs(1);
/// How often the last batch is offered to the store.
const LAST_ATTEMPTS: usize = 3;

#[derive(Debug)]
pub(super) struct Worker {
    pub(super) dir: PathBuf,
    pub(super) store: StoreOptions,
    events: &'static EventTable<ContainerEvent>,
    history: &'static HistoryTable<ContainerState>,
    tables: TableList,
    redaction: Redaction,
    shared: Arc<Shared>,
    sinks: Sinks,
    /// Gone only while a damaged store could not be replaced.
    writer: Option<(Writer, Logs)>,
    failing: Option<Failing>,
    /// When a damaged store was last replaced.
    replaced_at: Option<Instant>,
    ledger: Ledger,
    batch: Batch,
    gaps: Gaps,
    lanes: Vec<Box<dyn Lane>>,
    statuses: Vec<FeedStatus>,
    status_ns: Nanos,
    status_at: Option<Instant>,
    next_status: Instant,
    heartbeat_at: Instant,
    maintain_at: Instant,
    /// Reports taken since the last heartbeat.
    taken: usize,
    frugality: Frugality,
}

impl Worker {
    /// Records until it is told to stop; then writes what waits.
    pub(super) fn run(mut self) -> Result<(), RecorderError> {
        loop {
            let was_rung = self.shared.feeds.wait(self.next_deadline());
            let is_last = self.shared.stop.load(Relaxed);
            let taken = self.drain();
            let moment = Moment { at: Instant::now(), wall_ns: now() };
            self.digest(moment);
            if self.learn() {
                self.digest(moment);
            }
            if is_last && taken < MOST_AT_ONCE {
                return self.finish(moment);
            }
            if was_rung {
                self.status_at.get_or_insert(self.next_status);
            }
            if self.status_at.is_some_and(|at| at <= moment.at) {
                self.note_status(moment);
            }
            self.commit_if_due(moment.at);
            self.beat(moment);
            if taken >= MOST_AT_ONCE {
                self.shared.feeds.wake();
            }
        }
    }

    /// Works out what follows from all that was taken.
    fn digest(&mut self, moment: Moment) {
        self.ledger.settle(moment);
        self.collect(moment);
        self.at_desk(moment, |lane, desk| lane.settle(desk));
    }

    /// Hands the ledger what lanes found out about containers; whether that was anything.
    fn learn(&mut self) -> bool {
        let findings: Vec<_> = self.lanes.iter_mut().flat_map(|lane| lane.take_findings()).collect();
        let found = !findings.is_empty();
        findings.into_iter().for_each(|finding| self.ledger.take_finding(finding));
        found
    }

    fn finish(mut self, moment: Moment) -> Result<(), RecorderError> {
        self.ledger.flush(moment);
        self.collect(moment);
        self.at_desk(moment, |lane, desk| {
            lane.settle(desk);
            lane.finish(desk);
        });
        // A store that had to be replaced has taken nothing yet, and one that recovered has a gap to tell of.
        for _ in 0..LAST_ATTEMPTS {
            self.note_status(moment);
            self.commit();
        }
        if let Some(failing) = self.failing {
            return Err(RecorderError::Unwritten(failing.error));
        }
        if !self.batch.is_empty() {
            return Err(RecorderError::Unwritten("the store was damaged again and again".to_owned()));
        }
        if let Some((writer, _)) = &mut self.writer {
            writer.heartbeat()?;
        }
        Ok(())
    }

    fn next_deadline(&self) -> Instant {
        let retry_at = self.failing.as_ref().map(|f| f.retry_at);
        let others = [self.ledger.next_alarm(), self.status_at, retry_at];
        let lanes = self.lanes.iter().filter_map(|lane| lane.next_alarm());
        others.into_iter().flatten().chain(lanes).fold(self.heartbeat_at.min(self.maintain_at), Instant::min)
    }

    /// Takes what the rings hold, up to the size of a batch; returns how much of it.
    fn drain(&mut self) -> usize {
        let moment = Moment { at: Instant::now(), wall_ns: now() };
        let containers = self.sinks.containers.drain(MOST_AT_ONCE);
        let mut taken = containers.len();
        for mut received in containers {
            clean::report(&mut received.item, &self.redaction, moment.wall_ns);
            let cursor = received.cursor.take().map(|cursor| (received.feed.stream(), cursor));
            self.ledger.take(received, moment);
            if let Some((stream, cursor)) = cursor {
                self.batch.set_cursor(stream, cursor);
            }
        }
        for Excess { first: mut report, events } in self.sinks.containers.take_excesses() {
            clean::report(&mut report, &self.redaction, moment.wall_ns);
            if let Report::Event(event) = report {
                self.ledger.note_shed(&event.key, events, moment);
            }
        }
        self.at_desk(moment, |lane, desk| taken = taken.max(lane.drain(MOST_AT_ONCE, desk)));
        self.taken += taken;
        taken
    }

    /// Lets each lane do something.
    fn at_desk(&mut self, moment: Moment, mut work: impl FnMut(&mut dyn Lane, &mut Desk<'_>)) {
        let seen = &self.shared.seen;
        let mut desk = Desk { batch: &mut self.batch, redaction: &self.redaction, seen, moment };
        for lane in &mut self.lanes {
            work(&mut **lane, &mut desk);
        }
    }

    /// Moves what the ledger gave out into the batch.
    fn collect(&mut self, moment: Moment) {
        let output = self.ledger.take_output();
        for told in output.told {
            if told.event.recovered {
                self.gaps.count_recovered(&told.event.key.endpoint, told.event.time_ns);
            }
            self.batch.add_event(logs::CONTAINER_EVENTS, self.events.columns, &*told.event, told.event.time_ns, told.feeds);
        }
        for (key, noticed_ns) in output.vanished {
            self.gaps.note_vanished(&key, noticed_ns);
        }
        for key in &output.dirty {
            self.note_in_directory(key);
            if let Some(subject) = self.ledger.subject(key) {
                self.lanes.iter_mut().for_each(|lane| lane.see_container(subject, moment));
            }
        }
        output.forgotten.iter().for_each(|key| self.shared.directory.remove(key));
        self.batch.add_known(output.known);
        self.batch.add_dirty(output.dirty);
        self.batch.add_former(output.former);
        for (key, starts) in &output.withdrawn {
            self.batch.withdraw(key, starts);
            self.lanes.iter_mut().for_each(|lane| lane.withdraw_container(key));
        }
        self.batch.forget(output.forgotten);
        for feed in self.shared.feeds.all() {
            feed.take_gaps().into_iter().for_each(|gap| self.gaps.put(gap));
        }
    }

    fn note_in_directory(&mut self, key: &ContainerKey) {
        let Some(subject) = self.ledger.subject(key) else { return };
        if subject.sealed_ns.is_some() {
            self.shared.directory.remove(key);
            return;
        }
        if subject.gone_ns.is_none() || subject.destroyed_ns().is_some() {
            self.gaps.note_found(key);
        }
        self.shared.directory.put(key, &subject.course().newest_run());
        if let Some(image) = subject.image() {
            self.shared.directory.note_image(key, image);
        }
    }

    /// Puts the state of the sources into the batch, if it changed, and the gaps of rings that ran over.
    fn note_status(&mut self, moment: Moment) {
        self.status_at = None;
        self.next_status = moment.at + STATUS;
        let feeds = self.shared.feeds.all();
        for feed in &feeds {
            feed.mend(moment.wall_ns);
            let evicted = feed.take_overrun();
            if evicted > 0 {
                self.gaps.put(Gap {
                    source: feed.source().into(),
                    endpoint: feed.endpoint().to_string(),
                    cause: cause::RING_FULL.into(),
                    from_ns: self.status_ns,
                    to_ns: Some(moment.wall_ns),
                    recovered: 0,
                    detail: format!("{evicted} events evicted"),
                });
            }
        }
        self.status_ns = moment.wall_ns;
        let statuses: Vec<_> = feeds.iter().map(Feed::status).collect();
        if statuses != self.statuses {
            self.statuses.clone_from(&statuses);
            self.batch.sources = Some(statuses);
        }
    }
}

/// A gap that is the recorder's own: it blinds every source.
fn own_gap(cause: &str, from_ns: Nanos, to_ns: Nanos, detail: String) -> Gap {
    let (source, endpoint) = ("recorder".into(), String::new());
    Gap { source, endpoint, cause: cause.into(), from_ns, to_ns: Some(to_ns), recovered: 0, detail }
}
