//! Changes that become visible together.

use std::collections::HashSet;

use rusqlite::params;

use super::{
    StoreError,
    clock::Clock,
    generation::sql,
    intervals::{OPEN, class},
    open::FILE,
    row::RowBuf,
    status,
    writer::{EventLog, IntervalLog, Writer},
};
use crate::{
    eid::Eid,
    feed::{FeedStatus, Gap},
    time::{Nanos, boot_nanos, now},
};

/// Longest row that is taken: a block of them can still be read back within bounds.
const MAX_ROW: usize = 16 << 20;

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

/// What names an interval in its table: key, scope and start.
pub type IntervalName = (String, String, Nanos);

/// Changes that become visible together, or not at all: dropped without [`Transaction::commit`], they are undone.
#[derive(Debug)]
pub struct Transaction<'w> {
    writer: &'w mut Writer,
    /// The sequence number last given when it began.
    began_at: u64,
    age_ns: i64,
    /// The clock before it stepped, where this transaction keeps a step.
    clock: Option<Clock>,
    committed: bool,
}

impl<'w> Transaction<'w> {
    pub(super) fn begin(writer: &'w mut Writer) -> Result<Self, StoreError> {
        let began_at = writer.last_sequence;
        writer.run("begin a transaction", |conn| conn.prepare_cached("BEGIN IMMEDIATE")?.execute([]))?;
        let (boot_ns, wall_ns) = (boot_nanos(), now());
        let age_ns = writer.clock.age(boot_ns);
        let mut tx = Self { writer, began_at, age_ns, clock: None, committed: false };
        let before = tx.writer.clock.clone();
        if tx.writer.clock.stepped(boot_ns, wall_ns) {
            tx.clock = Some(before);
            tx.writer.keep_step(boot_ns)?;
        }
        Ok(tx)
    }

    /// Appends an event that happened at `time_ns`; returns its id, which is the next one of all tables.
    pub fn append(&mut self, log: EventLog, time_ns: Nanos, row: &RowBuf) -> Result<Eid, StoreError> {
        let bytes = check_length(row.bytes())?;
        let sequence = self.writer.last_sequence + 1;
        let time_ns = self.writer.clock.mend(time_ns);
        let pending = &mut self.writer.logs[log.0].pending;
        pending.push(sql(sequence), time_ns, bytes);
        let full = pending.is_full();
        self.writer.last_sequence = sequence;
        if full {
            self.writer.append_pending(log.0, self.age_ns)?;
        }
        Ok(Eid { generation: self.writer.generation, sequence })
    }

    /// Stores an interval, in place of the one with the same key, scope and start.
    pub fn put_interval(&mut self, log: IntervalLog, interval: &Interval<'_>, row: &RowBuf) -> Result<(), StoreError> {
        let bytes = check_length(row.after_key())?;
        let from = self.writer.clock.mend(interval.valid_from_ns);
        let to = interval.valid_to_ns.map(|to| self.writer.clock.mend(to).max(from));
        let history = &mut self.writer.histories[log.0];
        let packed = history.packer.pack(bytes).map_err(StoreError::file("compress a row of", FILE))?;
        let log = &history.log;
        let put = log.insert_into(
            &self.writer.conn,
            params![
                interval.key,
                from,
                interval.scope,
                to,
                class(from, to),
                self.age_ns,
                interval.ended_reason,
                interval.evidence,
                log.layout,
                packed
            ],
        );
        self.writer.checked("store an interval", put)
    }

    /// Ends what holds of a key, where how it went on is not known any more.
    pub fn end_intervals(&mut self, log: IntervalLog, key: &str, scope: &str, ended_ns: Nanos) -> Result<(), StoreError> {
        let to = self.writer.clock.mend(ended_ns);
        let name = self.writer.histories[log.0].log.name.clone();
        let end = self.writer.histories[log.0].log.end.clone();
        let age_ns = self.age_ns;
        self.writer.run("end intervals", |conn| {
            let sql = format!(r#"SELECT valid_from_ns FROM "{name}_intervals" WHERE key = ? AND scope = ? AND valid_to_ns IS NULL"#);
            let starts: Vec<Nanos> = conn.prepare_cached(&sql)?.query_map([key, scope], |r| r.get(0))?.collect::<Result<_, _>>()?;
            let mut end = conn.prepare_cached(&end)?;
            for from in starts {
                let to = to.max(from);
                end.execute(params![to, class(from, Some(to)), age_ns, "unknown", key, from, scope])?;
            }
            Ok(())
        })
    }

    /// Ends what holds in a table but for what is known to go on: where the next interval of the same key and scope begins, else at
    /// `noticed_ns`. Nobody knows better any more. Returns how many there were.
    pub fn end_others(&mut self, log: IntervalLog, going_on: &HashSet<IntervalName>, noticed_ns: Nanos) -> Result<usize, StoreError> {
        let clock = &self.writer.clock;
        let noticed_ns = clock.mend(noticed_ns);
        let going_on: HashSet<_> = going_on.iter().map(|(key, scope, from)| (&**key, &**scope, clock.mend(*from))).collect();
        let name = self.writer.histories[log.0].log.name.clone();
        let end = self.writer.histories[log.0].log.end.clone();
        let age_ns = self.age_ns;
        self.writer.run("end intervals", |conn| {
            let sql = format!(r#"SELECT key, scope, valid_from_ns FROM "{name}_intervals" WHERE class = ?"#);
            let mut held = conn.prepare_cached(&sql)?;
            let held = held.query_map([OPEN], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?.collect::<Result<Vec<IntervalName>, _>>()?;
            let others = held.iter().filter(|(key, scope, from)| !going_on.contains(&(&**key, &**scope, *from)));
            let sql = format!(r#"SELECT min(valid_from_ns) FROM "{name}_intervals" WHERE key = ? AND scope = ? AND valid_from_ns > ?"#);
            let (mut next, mut end) = (conn.prepare_cached(&sql)?, conn.prepare_cached(&end)?);
            let mut ended = 0;
            for (key, scope, from) in others {
                let next: Option<Nanos> = next.query_row(params![key, scope, from], |r| r.get(0))?;
                let to = next.unwrap_or(noticed_ns).max(*from);
                ended += end.execute(params![to, class(*from, Some(to)), age_ns, "unknown", key, from, scope])?;
            }
            Ok(ended)
        })
    }

    /// Ends an interval that holds, as it is stored; nothing happens if there is none.
    pub fn end_interval(&mut self, log: IntervalLog, interval: &Interval<'_>) -> Result<(), StoreError> {
        let from = self.writer.clock.mend(interval.valid_from_ns);
        let to = interval.valid_to_ns.map(|to| self.writer.clock.mend(to).max(from));
        let Interval { key, scope, ended_reason, .. } = *interval;
        let log = &self.writer.histories[log.0].log;
        let ended = self
            .writer
            .conn
            .prepare_cached(&log.end)
            .and_then(|mut s| s.execute(params![to, class(from, to), self.age_ns, ended_reason, key, from, scope]))
            .map(drop);
        self.writer.checked("end an interval", ended)
    }

    /// Removes an interval, e.g. because late evidence moved its start; nothing happens if there is none.
    pub fn remove_interval(&mut self, log: IntervalLog, key: &str, scope: &str, valid_from_ns: Nanos) -> Result<(), StoreError> {
        let from = self.writer.clock.mend(valid_from_ns);
        let log = &self.writer.histories[log.0].log;
        let removed = self.writer.conn.prepare_cached(&log.remove).and_then(|mut s| s.execute(params![key, from, scope])).map(drop);
        self.writer.checked("remove an interval", removed)
    }

    /// Stores a gap, in place of the one with the same source, endpoint, cause and start: that is how an open one is ended.
    pub fn put_gap(&mut self, gap: &Gap) -> Result<(), StoreError> {
        let age_ns = self.age_ns;
        self.writer.run("store a gap", |conn| status::put_gap(conn, gap, age_ns))
    }

    /// Stores where a stream resumes, together with the events that came before.
    pub fn set_cursor(&mut self, stream: &str, value: &str) -> Result<(), StoreError> {
        self.writer.run("store a cursor", |conn| status::set_cursor(conn, stream, value))
    }

    /// Keeps what the reducer knows of a subject, so that it survives a restart.
    pub fn put_subject(&mut self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        self.writer.run("keep a subject", |conn| status::put_subject(conn, key, value))
    }

    /// Forgets a subject.
    pub fn remove_subject(&mut self, key: &str) -> Result<(), StoreError> {
        self.writer.run("forget a subject", |conn| status::remove_subject(conn, key))
    }

    /// Forgets all subjects whose keys begin so.
    pub fn remove_subjects(&mut self, prefix: &str) -> Result<(), StoreError> {
        self.writer.run("forget subjects", |conn| status::remove_subjects(conn, prefix))
    }

    /// Replaces the sources that readers see.
    pub fn put_sources(&mut self, sources: &[FeedStatus]) -> Result<(), StoreError> {
        self.writer.run("store the sources", |conn| status::put_sources(conn, sources))
    }

    /// Keeps a fact about the recorder for `recorder_info`.
    pub fn put_note(&mut self, name: &str, value: &str) -> Result<(), StoreError> {
        self.writer.run("store a note", |conn| status::put_note(conn, name, value))
    }

    /// Makes the changes visible; they survive the death of this process from here on.
    pub fn commit(mut self) -> Result<(), StoreError> {
        if self.writer.last_sequence != self.began_at {
            for log in 0..self.writer.logs.len() {
                self.writer.append_pending(log, self.age_ns)?;
            }
            self.writer.keep_state(self.age_ns)?;
        }
        self.writer.run("commit", |conn| conn.prepare_cached("COMMIT")?.execute([]))?;
        self.committed = true;
        Ok(())
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if !self.committed {
            self.writer.undo(self.began_at, self.clock.take());
        }
    }
}

fn check_length(bytes: &[u8]) -> Result<&[u8], StoreError> {
    if bytes.len() > MAX_ROW {
        return Err(StoreError::RowTooLong { bytes: bytes.len(), most: MAX_ROW });
    }
    Ok(bytes)
}
