//! The transaction that writes a batch.

use std::{
    collections::{BTreeMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
};

use super::{Batch, Content, count_stored, scope};
use crate::{
    container::{ContainerKey, ContainerState},
    recorder::{
        course::Span,
        lane::kept_name,
        ledger::Ledger,
        logs::{self, Logs, TableId},
        subject::Subject,
    },
    store::{Interval, IntervalLog, IntervalName, RowBuf, StoreError, Transaction, Writer},
    table::{Column, HistoryTable},
    time::Nanos,
};

impl Batch {
    /// Writes everything in one transaction. On success the batch is empty; on failure all of it is still there.
    pub(in crate::recorder) fn commit(
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
        *self = Self { evicted: self.evicted, is_short: self.is_short, ..Self::default() };
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
        for lane in self.complete.iter().flat_map(|complete| &complete.lanes) {
            tx.remove_subjects(&kept_name(lane, ""))?;
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
        if let Some(complete) = &self.complete {
            self.end_the_rest(&mut tx, logs, ledger, complete.noticed_ns)?;
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

    /// Ends what the store has as going on and this batch does not: what told its end was evicted.
    fn end_the_rest(&self, tx: &mut Transaction<'_>, logs: &Logs, ledger: &Ledger, noticed_ns: Nanos) -> Result<(), StoreError> {
        let mut going_on: BTreeMap<TableId, HashSet<IntervalName>> = logs.histories().map(|table| (table, HashSet::new())).collect();
        for ((table, from_ns, key, scope), content) in &self.intervals {
            if content.as_ref().is_some_and(|content| content.to_ns.is_none()) {
                going_on.entry(*table).or_default().insert((key.clone(), scope.clone(), *from_ns));
            }
        }
        for subject in self.dirty.iter().filter_map(|key| ledger.subject(key)).filter(|subject| subject.sealed_ns.is_none()) {
            let key = &subject.key;
            let open = subject.intervals().into_iter().filter(|span| span.to_ns.is_none());
            let names = open.map(|span| (key.container_id.to_string(), scope(key), span.from_ns));
            going_on.entry(logs::CONTAINER_HISTORY).or_default().extend(names);
        }
        for (table, going_on) in &going_on {
            let ended = tx.end_others(logs.history(*table), going_on, noticed_ns)?;
            if ended > 0 {
                tracing::info!(table = logs.name(*table), ended, "closed what ended while the store failed, as unknown");
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

fn subject_key(key: &ContainerKey) -> String {
    format!("{} {} {}", key.endpoint, key.runtime_namespace, key.container_id)
}
