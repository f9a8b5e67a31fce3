//! What waits to be written, and the transaction that writes it. A batch survives a store that fails: it is kept, bounded, and tried again.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
};

use super::{
    course::Span,
    ledger::Ledger,
    logs::{self, Logs, TableId},
    subject::Subject,
};
use crate::{
    container::{ContainerKey, ContainerState},
    feed::{Feed, FeedStatus, Gap},
    sink::Cursor,
    store::{Interval, IntervalLog, RowBuf, StoreError, Transaction, Writer},
    table::{Column, HistoryTable},
    time::{Nanos, now},
};

/// Rows that are kept while the store fails; of more, or of more bytes, the oldest are evicted.
const MOST_ROWS: usize = 16_384;
const MOST_BYTES: usize = 16 << 20;
/// Earlier lives of containers that are kept.
const MOST_FORMER: usize = 512;

/// An encoded row.
#[derive(Debug)]
struct Row {
    table: TableId,
    time_ns: Nanos,
    bytes: RowBuf,
    /// One for each report that it stands for.
    feeds: Vec<Feed>,
}

/// What names an interval in the store: table, start, key and scope.
type IntervalName = (TableId, Nanos, String, String);

/// The rest of an interval, encoded.
#[derive(Debug)]
struct Content {
    to_ns: Option<Nanos>,
    ended_reason: &'static str,
    evidence: String,
    row: RowBuf,
}

/// An interval that is to be stored, in place of the one with the same key, scope and start.
#[derive(Debug)]
pub(super) struct Written<'f, S> {
    pub(super) key: String,
    pub(super) scope: String,
    pub(super) from_ns: Nanos,
    pub(super) to_ns: Option<Nanos>,
    pub(super) ended_reason: &'static str,
    pub(super) evidence: String,
    pub(super) fact: &'f S,
}

#[derive(Debug, Default)]
pub(super) struct Batch {
    rows: VecDeque<Row>,
    /// Of all rows.
    bytes: usize,
    /// `None`: is to be removed.
    intervals: BTreeMap<IntervalName, Option<Content>>,
    /// What lanes keep for the next recorder; `None` forgets it.
    subjects: BTreeMap<String, Option<Vec<u8>>>,
    /// Reports that only added evidence: counted as stored with the subjects.
    known: Vec<(Feed, Nanos)>,
    dirty: BTreeSet<ContainerKey>,
    former: Vec<Subject>,
    forgotten: Vec<ContainerKey>,
    /// When containers ended of which nothing else is known any more.
    endings: BTreeMap<ContainerKey, Nanos>,
    cursors: BTreeMap<String, Cursor>,
    pub(super) gaps: Vec<Gap>,
    pub(super) sources: Option<Vec<FeedStatus>>,
    pub(super) notes: Vec<(String, String)>,
    /// Rows lost because the store failed for too long.
    pub(super) evicted: u64,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
            && self.intervals.is_empty()
            && self.subjects.is_empty()
            && self.known.is_empty()
            && self.dirty.is_empty()
            && self.former.is_empty()
            && self.forgotten.is_empty()
            && self.endings.is_empty()
            && self.cursors.is_empty()
            && self.gaps.is_empty()
            && self.notes.is_empty()
            && self.sources.is_none()
    }

    /// Adds an event's row; `feeds`: one for each report that it stands for.
    pub(super) fn add_event<E>(&mut self, table: TableId, columns: &[Column<E>], event: &E, time_ns: Nanos, feeds: Vec<Feed>) {
        let mut bytes = RowBuf::default();
        bytes.encode(columns, event);
        self.add(Row { table, time_ns, bytes, feeds });
    }

    /// Adds an interval that a lane keeps.
    pub(super) fn add_interval<S>(&mut self, table: TableId, columns: &[Column<S>], written: Written<'_, S>) {
        let Written { key, scope, from_ns, to_ns, ended_reason, evidence, fact } = written;
        let mut row = RowBuf::default();
        row.encode(columns, fact);
        self.change_interval((table, from_ns, key, scope), Some(Content { to_ns, ended_reason, evidence, row }));
    }

    /// Removes an interval of a lane: what is known now says otherwise.
    pub(super) fn remove_interval(&mut self, table: TableId, from_ns: Nanos, key: String, scope: String) {
        self.change_interval((table, from_ns, key, scope), None);
    }

    fn change_interval(&mut self, name: IntervalName, content: Option<Content>) {
        self.intervals.insert(name, content);
        if self.intervals.len() > MOST_ROWS && self.intervals.pop_first().is_some() {
            self.evicted += 1;
        }
    }

    #[cfg(test)]
    pub(super) fn row_count(&self) -> usize {
        self.rows.len()
    }

    /// Whether some row's bytes have these among them.
    #[cfg(test)]
    pub(super) fn has_row_with(&self, bytes: &[u8]) -> bool {
        self.rows.iter().any(|row| row.bytes.bytes().windows(bytes.len()).any(|window| window == bytes))
    }

    /// Keeps something of a lane for the next recorder, or forgets it.
    pub(super) fn keep(&mut self, name: String, value: Option<Vec<u8>>) {
        self.subjects.insert(name, value);
    }

    fn add(&mut self, row: Row) {
        self.bytes += row.bytes.len();
        self.rows.push_back(row);
        while (self.rows.len() > MOST_ROWS || self.bytes > MOST_BYTES)
            && let Some(oldest) = self.rows.pop_front()
        {
            self.bytes -= oldest.bytes.len();
            self.evicted += 1;
            oldest.feeds.iter().for_each(Feed::count_unstored);
        }
    }

    pub(super) fn add_known(&mut self, known: impl IntoIterator<Item = (Feed, Nanos)>) {
        self.known.extend(known);
        // Their evidence is in the subjects, which are kept: they are as good as stored.
        if self.known.len() > MOST_ROWS {
            count_stored(&std::mem::take(&mut self.known));
        }
    }

    pub(super) fn add_dirty(&mut self, keys: impl IntoIterator<Item = ContainerKey>) {
        self.dirty.extend(keys);
    }

    /// Takes note that containers ended, whose evidence is forgotten. Returns of how many it was not written yet.
    pub(super) fn end(&mut self, sealed: Vec<(ContainerKey, Nanos)>) -> usize {
        let before = self.endings.len();
        self.endings.extend(sealed.into_iter().filter(|(key, _)| self.dirty.contains(key)));
        let unwritten = self.endings.len() - before;
        while self.endings.len() > MOST_ROWS {
            self.endings.pop_first();
        }
        unwritten
    }

    pub(super) fn add_former(&mut self, former: Vec<Subject>) {
        self.former.extend(former);
        let excess = self.former.len().saturating_sub(MOST_FORMER);
        self.former.drain(..excess);
    }

    pub(super) fn forget(&mut self, keys: Vec<ContainerKey>) {
        for key in keys {
            self.dirty.remove(&key);
            self.forgotten.push(key);
        }
        // What is left in the store of the others, the next recorder reads and forgets.
        let excess = self.forgotten.len().saturating_sub(MOST_ROWS);
        self.forgotten.drain(..excess);
    }

    /// Removes the intervals of what turned out to be another container.
    pub(super) fn withdraw(&mut self, key: &ContainerKey, starts: &[Nanos]) {
        for from_ns in starts {
            self.remove_interval(logs::CONTAINER_HISTORY, *from_ns, key.container_id.to_string(), scope(key));
        }
    }

    pub(super) fn set_cursor(&mut self, stream: String, cursor: Cursor) {
        self.cursors.insert(stream, cursor);
    }

    /// The cursors that the next commit stores.
    pub(super) const fn cursors(&self) -> &BTreeMap<String, Cursor> {
        &self.cursors
    }

    /// Writes everything in one transaction. On success the batch is empty; on failure all of it is still there.
    pub(super) fn commit(
        &mut self,
        writer: &mut Writer,
        logs: &Logs,
        history: &'static HistoryTable<ContainerState>,
        ledger: &mut Ledger,
    ) -> Result<(), StoreError> {
        // What the subjects say is in the store is undone with the transaction.
        let mut before = Vec::new();
        let written = self.write(writer, logs, history, ledger, &mut before);
        if written.is_err() {
            for (key, was) in before {
                if let Some(subject) = ledger.subject_mut(&key) {
                    subject.written = was;
                }
            }
            return written;
        }
        let stored: Vec<_> = self.rows.drain(..).flat_map(|row| row.feeds.into_iter().map(move |feed| (feed, row.time_ns))).collect();
        count_stored(&stored);
        count_stored(&std::mem::take(&mut self.known));
        *self = Self { evicted: self.evicted, ..Self::default() };
        Ok(())
    }

    fn write(
        &mut self,
        writer: &mut Writer,
        logs: &Logs,
        history: &'static HistoryTable<ContainerState>,
        ledger: &mut Ledger,
        before: &mut Vec<(ContainerKey, Vec<(Nanos, u64)>)>,
    ) -> Result<(), StoreError> {
        let mut tx = writer.begin()?;
        let mut oversized = Vec::new();
        for (at, row) in self.rows.iter().enumerate() {
            match tx.append(logs.events(row.table), row.time_ns, &row.bytes) {
                Err(error @ StoreError::RowTooLong { .. }) => oversized.push((at, error)),
                result => drop(result?),
            }
        }
        for ((table, from_ns, key, scope), content) in &self.intervals {
            let Some(content) = content else {
                tx.remove_interval(logs.history(*table), key, scope, *from_ns)?;
                continue;
            };
            let Content { to_ns, ended_reason, evidence, row } = content;
            let interval = Interval { key, scope, valid_from_ns: *from_ns, valid_to_ns: *to_ns, ended_reason, evidence };
            put(&mut tx, logs.history(*table), &interval, row)?;
        }
        for (name, value) in &self.subjects {
            match value {
                Some(value) => tx.put_subject(name, value)?,
                None => tx.remove_subject(name)?,
            }
        }
        let history = History { log: logs.history(logs::CONTAINER_HISTORY), columns: history.columns };
        for (key, ended_ns) in &self.endings {
            tx.end_intervals(history.log, &key.container_id, &scope(key), *ended_ns)?;
        }
        for former in &self.former {
            history.write(&mut tx, former)?;
        }
        for key in &self.dirty {
            let Some(subject) = ledger.subject_mut(key) else { continue };
            if subject.sealed_ns.is_none() {
                let written = history.write(&mut tx, subject)?;
                before.push((key.clone(), std::mem::replace(&mut subject.written, written)));
            }
            if let Ok(bytes) = serde_json::to_vec(subject) {
                tx.put_subject(&subject_key(key), &bytes)?;
            }
        }
        for key in &self.forgotten {
            tx.remove_subject(&subject_key(key))?;
        }
        for (stream, cursor) in &self.cursors {
            tx.set_cursor(stream, cursor)?;
        }
        for gap in &self.gaps {
            tx.put_gap(gap)?;
        }
        if let Some(sources) = &self.sources {
            tx.put_sources(sources)?;
        }
        for (name, value) in &self.notes {
            tx.put_note(name, value)?;
        }
        tx.commit()?;
        for (at, error) in oversized.into_iter().rev() {
            for feed in self.rows.remove(at).map(|row| row.feeds).unwrap_or_default() {
                feed.count_rejected();
                feed.complain(error.to_string());
            }
        }
        Ok(())
    }
}

/// Writes the intervals of containers.
#[derive(Clone, Copy)]
struct History {
    log: IntervalLog,
    columns: &'static [Column<ContainerState>],
}

impl History {
    /// Brings the store from what was written to what follows from the evidence now; returns what is written then.
    fn write(&self, tx: &mut Transaction<'_>, subject: &Subject) -> Result<Vec<(Nanos, u64)>, StoreError> {
        let (key, spans) = (&subject.key, subject.intervals());
        let scope = scope(key);
        let mut written = Vec::with_capacity(spans.len());
        for (from_ns, _) in subject.written.iter().filter(|(from, _)| spans.iter().all(|s| s.from_ns != *from)) {
            tx.remove_interval(self.log, &key.container_id, &scope, *from_ns)?;
        }
        let mut row = RowBuf::default();
        for span in spans {
            let entry = (span.from_ns, digest(&span));
            written.push(entry);
            if subject.written.contains(&entry) {
                continue;
            }
            let interval = Interval {
                key: &key.container_id,
                scope: &scope,
                valid_from_ns: span.from_ns,
                valid_to_ns: span.to_ns,
                ended_reason: span.ended_reason,
                evidence: &span.evidence,
            };
            let state = ContainerState { key: key.clone(), state: span.state, details: span.details };
            row.encode(self.columns, &state);
            put(tx, self.log, &interval, &row)?;
        }
        Ok(written)
    }
}

/// Stores an interval; one that is too long is said and left out.
fn put(tx: &mut Transaction<'_>, log: IntervalLog, interval: &Interval<'_>, row: &RowBuf) -> Result<(), StoreError> {
    match tx.put_interval(log, interval, row) {
        Err(error @ StoreError::RowTooLong { .. }) => {
            tracing::warn!(key = interval.key, scope = interval.scope, %error, "an interval is left out");
            Ok(())
        }
        result => result,
    }
}

fn digest(span: &Span) -> u64 {
    let mut hasher = DefaultHasher::new();
    (span.to_ns, span.state.as_str(), span.ended_reason, &span.evidence, &span.details).hash(&mut hasher);
    hasher.finish()
}

/// What tells containers of one id apart.
fn scope(key: &ContainerKey) -> String {
    format!("{} {}", key.endpoint, key.runtime_namespace)
}

fn subject_key(key: &ContainerKey) -> String {
    format!("{} {} {}", key.endpoint, key.runtime_namespace, key.container_id)
}

fn count_stored(stored: &[(Feed, Nanos)]) {
    let now_ns = now();
    for (feed, time_ns) in stored {
        feed.count_stored(*time_ns, now_ns.saturating_sub(*time_ns).max(0) / 1_000_000);
    }
}
