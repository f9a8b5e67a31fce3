//! What osquery told: captures of its tables as intervals, and what queries gave that were run at event time.
//!
//! A [`Captures`] is a store of its own in a folder of the state directory ([`folder`]): it belongs to the extension's connection with
//! osquery, not to the recorder of the host, which may be another process. Its format, retention and integrity are those of every
//! store. One process writes it, the one that holds the lock of the folder.
//!
//! A capture is all that a table has at one moment. Of the rows that hold only their digests are kept in memory; a capture that finds
//! nothing changed writes nothing.

mod present;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use self::present::Present;
use crate::{
    cell::Cell,
    feed::{FeedStatus, Gap},
    record::Record,
    redact::Redaction,
    store::{EventLog, Interval, IntervalLog, IntervalScan, Reader, RowBuf, StoreError, StoreOptions, Writer},
    table::{EventTable, TableSchema},
    time::{Nanos, now},
};

/// The folder of the state directory that holds the store of captures.
pub fn folder(state_dir: &Path) -> PathBuf {
    state_dir.join("osquery")
}

/// Whose gaps those of captured tables are (`recorder_gaps.source`); their endpoint is the table, or empty for all of them.
pub const SOURCE: &str = "tables";

/// At least this long is between two replacements of a damaged store.
const REPLACE_PAUSE: Duration = Duration::from_secs(5);

/// A row as osquery gave it: the text of each stored column of the table, in order.
pub type Row = Vec<String>;

/// All rows of a table at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Capture<'c> {
    pub rows: &'c [Row],
    /// When osquery had answered.
    pub taken_ns: Nanos,
    /// Why it was asked: `startup`, `interval`, or the name of what told that the table may have changed.
    pub evidence: &'c str,
    /// Nobody looked since the last capture (the extension or osquery was down): what differs ended at an unknown time before.
    pub was_blind: bool,
}

/// What a capture found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    pub began: usize,
    pub ended: usize,
}

/// A followed table: how its rows are told apart, and which hold.
#[derive(Debug)]
struct Table {
    schema: &'static TableSchema,
    log: IntervalLog,
    present: Present,
}

/// The store of captures, opened to write.
#[derive(Debug)]
pub struct Captures {
    dir: PathBuf,
    options: StoreOptions,
    redaction: Redaction,
    /// Gone only while a damaged store could not be replaced.
    writer: Option<Writer>,
    tables: BTreeMap<&'static str, Table>,
    events: BTreeMap<&'static str, EventLog>,
    statuses: Vec<FeedStatus>,
    /// When a damaged store was last replaced.
    replaced_at: Option<Instant>,
    /// The notes that the store has.
    notes: BTreeMap<String, String>,
}

impl Captures {
    /// Opens the store in `dir`, see [`folder`]; the caller holds its lock. With it comes when its last writer was last alive.
    ///
    /// # Errors
    /// When the folder or the file cannot be used; a damaged file is set aside, and a new one begun.
    pub fn open(dir: &Path, options: &StoreOptions, redaction: Redaction) -> Result<(Self, Option<Nanos>), StoreError> {
        let opened = Writer::open(dir, options)?;
        let mut captures = Self {
            dir: dir.to_owned(),
            options: options.clone(),
            redaction,
            writer: Some(opened.writer),
            tables: BTreeMap::new(),
            events: BTreeMap::new(),
            statuses: Vec::new(),
            replaced_at: None,
            notes: Reader::open(dir)?.info()?.notes.into_iter().collect(),
        };
        // What was blind when the last writer ended, was blind until then.
        let open = captures.write(|writer, _, _| writer.open_gaps())?;
        for gap in open {
            captures.put_gap(&Gap { to_ns: Some(opened.last_alive.unwrap_or_else(now).max(gap.from_ns)), ..gap })?;
        }
        Ok((captures, opened.last_alive))
    }

    /// Follows the table whose history `schema` is. `identity`: positions among its stored columns of those that tell its rows apart; none:
    /// whole rows do. `passing`: positions of those whose changes do not count (they keep the value with which a row began). What held
    /// when the store was closed holds on, until a capture says otherwise.
    pub fn follow(&mut self, schema: &'static TableSchema, identity: &[usize], passing: &[usize]) -> Result<(), StoreError> {
        let log = self.write(|writer, _, _| writer.history(schema))?;
        let mut present = Present::new(identity, passing);
        let scan = IntervalScan { as_of: Some(Nanos::MAX), ..IntervalScan::default() };
        Reader::open(&self.dir)?.intervals(schema, &scan, &mut |row| {
            present.restore(row);
            std::ops::ControlFlow::Continue(())
        })?;
        self.tables.insert(schema.name, Table { schema, log, present });
        Ok(())
    }

    /// Takes a capture of a table that is followed: rows that are gone end, new ones begin, all at the time of the capture.
    ///
    /// # Errors
    /// When the store did not take it: then nothing of it is kept, and the next capture finds the same difference.
    pub fn capture(&mut self, history: &str, capture: &Capture<'_>) -> Result<Difference, StoreError> {
        let redaction = self.redaction.clone();
        self.write(|writer, tables, _| {
            let Some(table) = tables.get_mut(history) else { return Ok(Difference::default()) };
            let rows: Vec<_> = capture.rows.iter().map(|row| cells(table.schema, row, &redaction)).collect();
            let change = table.present.compare(&rows, capture.taken_ns);
            let found = Difference { began: change.begins.len(), ended: change.ends.len() };
            if found == Difference::default() {
                return Ok(found);
            }
            let mut tx = writer.begin()?;
            for ended in &change.ends {
                let interval = Interval {
                    key: &ended.key,
                    scope: &ended.scope,
                    valid_from_ns: ended.from_ns,
                    valid_to_ns: Some(capture.taken_ns.max(ended.from_ns)),
                    ended_reason: if capture.was_blind { "unknown" } else { ended.reason },
                    evidence: "",
                };
                tx.end_interval(table.log, &interval)?;
            }
            let mut bytes = RowBuf::default();
            for begun in &change.begins {
                bytes.clear();
                rows[begun.row].iter().for_each(|cell| bytes.push(cell.cell()));
                let interval = Interval {
                    key: &begun.held.key,
                    scope: &begun.held.scope,
                    valid_from_ns: begun.held.from_ns,
                    valid_to_ns: None,
                    ended_reason: "",
                    evidence: capture.evidence,
                };
                tx.put_interval(table.log, &interval, &bytes)?;
            }
            tx.commit()?;
            table.present.apply(change);
            Ok(found)
        })
    }

    /// Appends events, all or none of them.
    pub fn append<E: Record>(&mut self, table: &'static EventTable<E>, mut events: Vec<E>) -> Result<(), StoreError> {
        events.iter_mut().for_each(|event| event.clean(&self.redaction, now()));
        self.write(|writer, _, logs| {
            let log = match logs.get(table.name) {
                Some(log) => *log,
                None => *logs.entry(table.name).or_insert(writer.events(&table.schema())?),
            };
            let mut bytes = RowBuf::default();
            let mut tx = writer.begin()?;
            for event in &events {
                bytes.encode(table.columns, event);
                tx.append(log, event.time_ns(), &bytes)?;
            }
            tx.commit()
        })
    }

    /// Stores a gap, in place of the one with the same source, endpoint, cause and start.
    pub fn put_gap(&mut self, gap: &Gap) -> Result<(), StoreError> {
        self.write(|writer, _, _| {
            let mut tx = writer.begin()?;
            tx.put_gap(gap)?;
            tx.commit()
        })
    }

    /// Shows readers how the feeds fare; writes nothing where nothing changed.
    pub fn put_statuses(&mut self, statuses: Vec<FeedStatus>) -> Result<(), StoreError> {
        if statuses == self.statuses {
            return Ok(());
        }
        self.write(|writer, _, _| {
            let mut tx = writer.begin()?;
            tx.put_sources(&statuses)?;
            tx.commit()
        })?;
        self.statuses = statuses;
        Ok(())
    }

    /// Keeps a fact for readers ([`crate::store::Info::notes`]); writes nothing where it is kept already. Gives whether the name is new.
    pub fn put_note(&mut self, name: &str, value: &str) -> Result<bool, StoreError> {
        let kept = self.notes.get(name);
        let is_new = kept.is_none();
        if kept.is_none_or(|kept| kept != value) {
            self.write(|writer, _, _| {
                let mut tx = writer.begin()?;
                tx.put_note(name, value)?;
                tx.commit()
            })?;
            self.notes.insert(name.to_owned(), value.to_owned());
        }
        Ok(is_new)
    }

    /// Where a stream resumes.
    pub fn cursor(&mut self, stream: &str) -> Result<Option<String>, StoreError> {
        self.write(|writer, _, _| writer.cursor(stream))
    }

    /// Stores where a stream resumes.
    pub fn set_cursor(&mut self, stream: &str, value: &str) -> Result<(), StoreError> {
        self.write(|writer, _, _| {
            let mut tx = writer.begin()?;
            tx.set_cursor(stream, value)?;
            tx.commit()
        })
    }

    /// Says that its writer lives, and does a short step of the store's housework; returns when it wants to be called next.
    pub fn maintain(&mut self) -> Result<Instant, StoreError> {
        self.write(|writer, _, _| {
            writer.heartbeat()?;
            writer.maintain()
        })
    }

    /// Runs `work` with the writer. A store that is damaged is set aside and begun anew: the next captures find everything to be new.
    fn write<T>(
        &mut self,
        work: impl FnOnce(&mut Writer, &mut BTreeMap<&'static str, Table>, &mut BTreeMap<&'static str, EventLog>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => self.begin_anew(Writer::open(&self.dir, &self.options)?.writer)?,
        };
        let done = work(&mut writer, &mut self.tables, &mut self.events);
        // What damages one file after the other must not keep the disk busy with them.
        if let Err(error) = &done
            && error.is_corrupt()
            && self.replaced_at.is_none_or(|at| at.elapsed() >= REPLACE_PAUSE)
        {
            self.replaced_at = Some(Instant::now());
            tracing::error!(%error, "the store of captures is damaged: beginning a new one");
            writer = self.begin_anew(writer.set_aside()?.writer)?;
        }
        self.writer = Some(writer);
        done
    }

    fn begin_anew(&mut self, mut writer: Writer) -> Result<Writer, StoreError> {
        self.events.clear();
        self.statuses.clear();
        for table in self.tables.values_mut() {
            table.log = writer.history(table.schema)?;
            table.present.clear();
        }
        self.notes.clear();
        Ok(writer)
    }
}

/// A value of a captured row.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Value {
    Null,
    Int(i64),
    Text(String),
}

impl Value {
    fn cell(&self) -> Cell<'_> {
        match self {
            Self::Null => Cell::Null,
            Self::Int(int) => Cell::Int(*int),
            Self::Text(text) => Cell::Text(text),
        }
    }
}

impl From<Cell<'_>> for Value {
    fn from(cell: Cell<'_>) -> Self {
        match cell {
            Cell::Null => Self::Null,
            Cell::Int(int) => Self::Int(int),
            Cell::Text(text) => Self::Text(text.to_owned()),
        }
    }
}

/// A row's values by the types of its columns, without secrets. A number that is none is NULL, as in osquery.
fn cells(schema: &TableSchema, row: &[String], redaction: &Redaction) -> Vec<Value> {
    let texts = || row.iter().map(String::as_str).chain(std::iter::repeat(""));
    // Tables of pairs (variables, labels, settings) say in another column what a value is.
    let named = schema.stored().zip(texts()).find(|(column, _)| NAMES.contains(&column.name)).map_or("", |(_, name)| name);
    let value = |(column, text): (&crate::ColumnSpec, &str)| match column.kind {
        kind if kind.is_int() => text.parse().map_or(Value::Null, Value::Int),
        _ => {
            let label = if column.name == "value" { named } else { column.name };
            Value::Text(crate::table::cut(&redaction.value(label, text)).into_owned())
        }
    };
    schema.stored().zip(texts()).map(value).collect()
}

/// Columns that say what the column `value` beside them is.
const NAMES: [&str; 3] = ["key", "name", "variable"];
