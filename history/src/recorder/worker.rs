//! The recorder's thread: waits for the bell or the next deadline, takes what the rings hold, writes what follows.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use super::{
    RecorderError, Shared, Sinks,
    batch::Batch,
    clean,
    gaps::Gaps,
    lane::{Desk, Lane, lane_of},
    ledger::{Ledger, Moment},
    logs::{self, Logs, TableList},
    subject::Subject,
};
use crate::{
    container::{ContainerEvent, ContainerKey, ContainerState, Report},
    error::chain,
    feed::{Feed, FeedStatus, Gap},
    memory::give_back,
    redact::Redaction,
    sink::Excess,
    store::{StoreError, StoreOptions, Writer},
    table::{EventTable, HistoryTable},
    time::{Nanos, now},
};

/// Most reports that one transaction takes.
const MOST_AT_ONCE: usize = 512;
/// How often the recorder says that it lives, and forgets what ended.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How often the state of the sources is written while it changes.
const STATUS: Duration = Duration::from_secs(1);
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Reports after which memory is given back, once they come no faster than a few.
const MUCH_WORK: usize = 4096;
const LITTLE_WORK: usize = 512;
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
    /// Reports taken since the last heartbeat, and those before it since memory was given back.
    taken: usize,
    taken_before: usize,
}

/// A store that takes nothing at the moment.
#[derive(Debug)]
struct Failing {
    since_ns: Nanos,
    error: String,
    /// Containers that were sealed before their end was written.
    sealed: usize,
    pause: Duration,
    retry_at: Instant,
}

/// What a worker begins with.
#[derive(Debug)]
pub(super) struct Beginning {
    pub(super) dir: PathBuf,
    pub(super) store: StoreOptions,
    pub(super) events: &'static EventTable<ContainerEvent>,
    pub(super) history: &'static HistoryTable<ContainerState>,
    pub(super) lanes: Vec<Box<dyn Lane>>,
    pub(super) tables: TableList,
    pub(super) redaction: Redaction,
    pub(super) notes: Vec<(String, String)>,
    pub(super) writer: Writer,
    pub(super) kept: Kept,
    /// Since when nobody recorded; `None`: nobody ever did.
    pub(super) blind_since: Option<Nanos>,
}

/// What the recorder before this one left in the store.
#[derive(Debug)]
pub(super) struct Kept {
    logs: Logs,
    subjects: Vec<(String, Vec<u8>)>,
    open_gaps: Vec<Gap>,
}

impl Kept {
    pub(super) fn read(writer: &mut Writer, tables: &TableList) -> Result<Self, StoreError> {
        Ok(Self { logs: tables.open(writer)?, subjects: writer.subjects()?, open_gaps: writer.open_gaps()? })
    }
}

impl Worker {
    /// Takes up what the recorder before this one knew.
    pub(super) fn begin(beginning: Beginning, shared: Arc<Shared>, sinks: Sinks) -> Self {
        let Beginning { dir, store, events, history, mut lanes, tables, redaction, notes, writer, kept, blind_since } = beginning;
        let Kept { logs, subjects, open_gaps } = kept;
        let (mut ledger, mut gaps) = (Ledger::default(), Gaps::default());
        let moment = Moment { at: Instant::now(), wall_ns: now() };
        let mut containers = Vec::new();
        for (key, bytes) in subjects {
            if let Some(name) = lane_of(&key) {
                if let Some(lane) = lanes.iter_mut().find(|lane| lane.name() == name) {
                    lane.restore(&bytes);
                }
                continue;
            }
            match serde_json::from_slice::<Subject>(&bytes) {
                Ok(subject) => {
                    if subject.sealed_ns.is_none() {
                        shared.directory.put(&subject.key, &subject.course().newest_run());
                    }
                    containers.push(subject.key.clone());
                    ledger.restore(subject, moment);
                }
                Err(error) => tracing::warn!(key, %error, "what was known of a container cannot be read"),
            }
        }
        for subject in containers.iter().filter_map(|key| ledger.subject(key)) {
            lanes.iter_mut().for_each(|lane| lane.see_container(subject, moment));
        }
        // What was blind when the last recorder ended is from here on its own gap.
        for gap in open_gaps {
            let to_ns = blind_since.unwrap_or(moment.wall_ns).max(gap.from_ns);
            gaps.put(Gap { to_ns: Some(to_ns), ..gap });
        }
        if let Some(from_ns) = blind_since {
            gaps.put(own_gap("recorder_down", from_ns.min(moment.wall_ns), moment.wall_ns, String::new()));
        }
        let mut batch = Batch::default();
        batch.notes = notes;
        // What the sources of the recorder before this one were doing is not what they do now.
        batch.sources = Some(Vec::new());
        Self {
            dir,
            store,
            events,
            history,
            tables,
            redaction,
            shared,
            sinks,
            writer: Some((writer, logs)),
            failing: None,
            replaced_at: None,
            ledger,
            batch,
            gaps,
            lanes,
            statuses: Vec::new(),
            status_ns: moment.wall_ns,
            status_at: None,
            next_status: moment.at,
            heartbeat_at: moment.at,
            maintain_at: moment.at,
            // What the start needs is given back too, once it is over.
            taken: LITTLE_WORK,
            taken_before: MUCH_WORK,
        }
    }

    /// Records until it is told to stop; then writes what waits.
    pub(super) fn run(mut self) -> Result<(), RecorderError> {
        loop {
            let was_rung = self.shared.bell.wait(Some(self.next_deadline()));
            let is_last = self.shared.stop.load(Relaxed);
            let taken = self.drain();
            let moment = Moment { at: Instant::now(), wall_ns: now() };
            self.ledger.settle(moment);
            if is_last && taken < MOST_AT_ONCE {
                return self.finish(moment);
            }
            self.collect(moment);
            self.at_desk(moment, |lane, desk| lane.settle(desk));
            if was_rung {
                self.status_at.get_or_insert(self.next_status);
            }
            if self.status_at.is_some_and(|at| at <= moment.at) {
                self.note_status(moment);
            }
            self.commit_if_due(moment.at);
            self.beat(moment);
            if taken >= MOST_AT_ONCE {
                self.shared.bell.ring();
            }
        }
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
        let seen = &self.shared.seen_users;
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
        output.withdrawn.iter().for_each(|(key, starts)| self.batch.withdraw(key, starts));
        self.batch.forget(output.forgotten);
        for feed in self.shared.feeds() {
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
        let feeds = self.shared.feeds();
        for feed in &feeds {
            feed.mend(moment.wall_ns);
            let evicted = feed.take_overrun();
            if evicted > 0 {
                self.gaps.put(Gap {
                    source: feed.source().into(),
                    endpoint: feed.endpoint().to_string(),
                    cause: "ring_full".into(),
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

    fn commit_if_due(&mut self, at: Instant) {
        if self.failing.as_ref().is_none_or(|f| f.retry_at <= at) {
            self.commit();
        }
    }

    /// Writes the batch. A store that fails is tried again later; the thread lives on.
    fn commit(&mut self) {
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

    fn note_failure(&mut self, error: &StoreError) {
        let text = chain(error);
        let pause = match &self.failing {
            Some(failing) => (failing.pause * 2).min(LONGEST_PAUSE),
            None => {
                tracing::error!(error = text, "cannot store: events are kept in memory for the moment");
                self.shared.feeds().iter().for_each(|feed| feed.complain(format!("cannot store: {text}")));
                SHORTEST_PAUSE
            }
        };
        let (since_ns, sealed) = self.failing.as_ref().map_or_else(|| (now(), 0), |f| (f.since_ns, f.sealed));
        self.failing = Some(Failing { since_ns, error: text, sealed, pause, retry_at: Instant::now() + pause });
    }

    /// Says so when the store takes events again, and what was lost meanwhile.
    fn note_recovery(&mut self) {
        let Some(failing) = self.failing.take() else { return };
        let lost = std::mem::take(&mut self.batch.evicted);
        tracing::info!(lost, "the store takes events again");
        if lost > 0 || failing.sealed > 0 {
            let detail = match failing.sealed {
                0 => format!("{lost} events lost: {}", failing.error),
                sealed => format!("{lost} events and the ends of {sealed} containers lost: {}", failing.error),
            };
            self.gaps.put(own_gap("store_failed", failing.since_ns, now(), detail));
            // What holds may be among it; sources would only repeat what is known to hold.
            let moment = Moment { at: Instant::now(), wall_ns: now() };
            self.at_desk(moment, |lane, desk| lane.write_anew(desk));
            self.resync(failing.since_ns);
            self.shared.bell.ring();
        }
    }

    /// Asks all sources to tell what exists: what they told since then is not in the store.
    fn resync(&self, since_ns: Nanos) {
        self.shared.feeds().iter().for_each(|feed| feed.want_resync(since_ns));
    }

    /// Puts a damaged store aside; what lives is written again into the new one.
    fn replace_store(&mut self, error: &StoreError) {
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
                self.shared.feeds().iter().for_each(|feed| feed.complain(text.clone()));
                self.gaps.put(own_gap("store_failed", self.status_ns, now(), text));
                self.resync(self.status_ns);
                self.writer = Some((writer, logs));
                self.replaced_at = Some(Instant::now());
                self.write_anew();
            }
            Err(failed) => {
                let text = format!("the store was damaged: {}", chain(error));
                self.gaps.put(own_gap("store_failed", self.status_ns, now(), text));
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
        let keys = self.ledger.forget_written();
        self.statuses.clear();
        let moment = Moment { at: Instant::now(), wall_ns: now() };
        self.status_at = Some(moment.at);
        self.at_desk(moment, |lane, desk| lane.write_anew(desk));
        for subject in keys.iter().filter_map(|key| self.ledger.subject(key)) {
            self.lanes.iter_mut().for_each(|lane| lane.see_container(subject, moment));
        }
        self.batch.add_dirty(keys);
        self.shared.bell.ring();
    }

    /// What is done now and then: says that it lives, forgets what ended, lets the store do its housework.
    fn beat(&mut self, moment: Moment) {
        if self.ledger.is_crowded() {
            if self.batch.is_empty() {
                self.ledger.sweep(moment);
            } else if let Some(failing) = &mut self.failing {
                failing.sealed += self.batch.end(self.ledger.seal_oldest(moment));
            }
        }
        if moment.at >= self.heartbeat_at {
            self.heartbeat_at = moment.at + HEARTBEAT;
            if self.batch.is_empty() {
                self.ledger.sweep(moment);
            }
            self.status_at.get_or_insert(moment.at);
            let taken = std::mem::take(&mut self.taken);
            self.taken_before += taken;
            if self.taken_before >= MUCH_WORK && taken < LITTLE_WORK {
                self.taken_before = 0;
                self.ledger.shrink();
                self.shared.directory.shrink();
                give_back();
            }
            if self.failing.is_none()
                && let Some((writer, _)) = &mut self.writer
                && let Err(error) = writer.heartbeat()
            {
                self.note_failure(&error);
            }
        }
        if moment.at >= self.maintain_at {
            self.maintain_at = moment.at + LONGEST_PAUSE;
            match self.writer.as_mut().map(|(writer, _)| writer.maintain()) {
                Some(Ok(next)) => self.maintain_at = next,
                Some(Err(error)) if error.is_corrupt() => self.replace_store(&error),
                Some(Err(error)) => self.note_failure(&error),
                None => {}
            }
        }
    }
}

/// A gap that is the recorder's own: it blinds every source.
fn own_gap(cause: &str, from_ns: Nanos, to_ns: Nanos, detail: String) -> Gap {
    let (source, endpoint) = ("recorder".into(), String::new());
    Gap { source, endpoint, cause: cause.into(), from_ns, to_ns: Some(to_ns), recovered: 0, detail }
}

#[cfg(test)]
mod tests;
