//! The one writer of a store: what the recorder calls.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::{
    alive::{Alive, Reserve, last_beat},
    chunk::Chunk,
    clock::{Clock, Reading},
    dictionary::{Packer, Training},
    error::StoreError,
    generation::{self, Resumed, sql},
    integrity::Integrity,
    maintain::Chores,
    open::{self, FILE},
    options::StoreOptions,
    schema::Log,
    status,
    transaction::Transaction,
};
use crate::{
    feed::Gap,
    table::TableSchema,
    time::{Nanos, boot_nanos, now},
};

/// A store that was opened to write.
#[derive(Debug)]
pub struct Opened {
    pub writer: Writer,
    /// Where a damaged file was put before a new one was begun.
    pub set_aside: Option<PathBuf>,
    /// Wall time at which the recorder before this one was last known alive; `None` if this is the first.
    pub last_alive: Option<Nanos>,
}

/// An event table of this writer; valid for the writer that gave it.
#[derive(Clone, Copy, Debug)]
pub struct EventLog(pub(super) usize);

/// A history table of this writer; valid for the writer that gave it.
#[derive(Clone, Copy, Debug)]
pub struct IntervalLog(pub(super) usize);

/// Writes the store. The caller holds the state directory's lock: there is one writer per directory.
#[derive(Debug)]
pub struct Writer {
    /// Dropped first: while its check reads, the last connection is not the one that closes, and the WAL stays behind.
    pub(super) chores: Chores,
    pub(super) conn: Connection,
    pub(super) dir: PathBuf,
    pub(super) options: StoreOptions,
    machine: String,
    pub(super) generation: u32,
    /// It began with this writer.
    is_new_generation: bool,
    /// The sequence number last given.
    pub(super) last_sequence: u64,
    pub(super) clock: Clock,
    pub(super) logs: Vec<Tail>,
    pub(super) histories: Vec<History>,
    alive: Alive,
    pub(super) reserve: Reserve,
}

/// An event table and how much of it waits to be sealed.
#[derive(Debug)]
pub(super) struct Tail {
    pub(super) log: Log,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    /// Of the open transaction.
    pub(super) pending: Chunk,
}

/// A history table, and how its rows are compressed.
#[derive(Debug)]
pub(super) struct History {
    pub(super) log: Log,
    pub(super) packer: Packer,
    pub(super) training: Option<Training>,
}

impl Tail {
    /// Counts anew what waits.
    pub(super) fn count(&mut self, conn: &Connection) -> Result<(), rusqlite::Error> {
        let sql = format!(r#"SELECT coalesce(sum(rows), 0), coalesce(sum(bytes), 0) FROM "{}_tail""#, self.log.name);
        let (rows, bytes): (i64, i64) = conn.query_row(&sql, [], |r| Ok((r.get(0)?, r.get(1)?)))?;
        (self.rows, self.bytes) = (rows.cast_unsigned(), bytes.cast_unsigned());
        Ok(())
    }
}

impl Writer {
    /// Opens `dir/history.db`, creating both; within milliseconds, whatever its size. A damaged file is set aside; one of a
    /// newer format is refused ([`StoreError::Newer`]). The integrity check runs behind, see [`Writer::maintain`].
    pub fn open(dir: &Path, options: &StoreOptions) -> Result<Opened, StoreError> {
        Self::open_on(dir, options, &generation::machine())
    }

    /// The same on a machine of that name: a store that was written on another one, e.g. before it was cloned, continues in a
    /// new generation.
    pub fn open_on(dir: &Path, options: &StoreOptions, machine: &str) -> Result<Opened, StoreError> {
        let (mut conn, set_aside) = open::open(dir)?;
        let reading = Reading::take();
        let beat = last_beat(dir, &reading);
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(StoreError::database("begin a transaction"))?;
        let (last_sequence, clock, last_commit) = resume(&tx, &reading).map_err(StoreError::database("read the state"))?;
        let Resumed { generation, is_new } = generation::resume(&tx, dir, machine, last_sequence)?;
        tx.commit().map_err(StoreError::database("commit"))?;
        let integrity = Integrity::begin(&dir.join(FILE)).map_err(StoreError::database("begin the integrity check"))?;
        let mut writer = Self {
            conn,
            dir: dir.to_owned(),
            options: options.clone(),
            machine: machine.to_owned(),
            generation,
            is_new_generation: is_new,
            last_sequence,
            clock,
            logs: Vec::new(),
            histories: Vec::new(),
            alive: Alive::open(dir)?,
            reserve: Reserve::new(dir),
            chores: Chores::new(integrity)?,
        };
        writer.keep_step(reading.boot_ns)?;
        writer.keep_state(writer.clock.age(reading.boot_ns))?;
        Ok(Opened { writer, set_aside, last_alive: beat.max(last_commit) })
    }

    /// Puts a damaged file aside and begins a new one, in a newer generation. Logs must be asked for again.
    pub fn set_aside(self) -> Result<Opened, StoreError> {
        let Self { chores, conn, dir, options, machine, .. } = self;
        // Nothing can be done about a damaged file that does not even close.
        drop((chores, conn));
        let aside = open::set_aside(&dir)?;
        let opened = Self::open_on(&dir, &options, &machine)?;
        Ok(Opened { set_aside: opened.set_aside.or(Some(aside)), ..opened })
    }

    /// Prepares an event table: its columns' names are kept, so that its rows stay readable when it gains a column.
    pub fn events(&mut self, table: &TableSchema) -> Result<EventLog, StoreError> {
        let mut tail = Tail { log: self.create(table)?, rows: 0, bytes: 0, pending: Chunk::default() };
        tail.count(&self.conn).map_err(StoreError::database("count the tail"))?;
        self.logs.push(tail);
        Ok(EventLog(self.logs.len() - 1))
    }

    /// Prepares a history table.
    pub fn history(&mut self, table: &TableSchema) -> Result<IntervalLog, StoreError> {
        let log = self.create(table)?;
        let packer = Packer::new(log.dictionary.as_deref()).map_err(StoreError::file("prepare to compress rows of", FILE))?;
        self.histories.push(History { log, packer, training: None });
        Ok(IntervalLog(self.histories.len() - 1))
    }

    fn create(&mut self, table: &TableSchema) -> Result<Log, StoreError> {
        let tx =
            self.conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(StoreError::database("begin a transaction"))?;
        let log = Log::create(&tx, table).map_err(StoreError::database("create a table"))?;
        tx.commit().map_err(StoreError::database("commit"))?;
        Ok(log)
    }

    /// Begins a transaction.
    pub fn begin(&mut self) -> Result<Transaction<'_>, StoreError> {
        Transaction::begin(self)
    }

    /// The machine turned out to be another than the one that wrote here before: what follows is of a new generation, unless one began
    /// with this writer.
    pub fn begin_generation(&mut self) -> Result<(), StoreError> {
        if self.is_new_generation {
            return Ok(());
        }
        let tx =
            self.conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(StoreError::database("begin a transaction"))?;
        let begun = generation::begin(&tx, &self.dir, &self.machine, self.last_sequence)
            .and_then(|generation| tx.commit().map(|()| generation).map_err(StoreError::database("commit")));
        self.generation = self.freeing(begun)?;
        self.is_new_generation = true;
        Ok(())
    }

    /// Generation of the events that are written now.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Where a stream resumes ([`crate::Feed::stream`]).
    pub fn cursor(&self, stream: &str) -> Result<Option<String>, StoreError> {
        status::cursor(&self.conn, stream).map_err(StoreError::database("read a cursor"))
    }

    /// What the reducer kept of one subject.
    pub fn subject(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        status::subject(&self.conn, key).map_err(StoreError::database("read a subject"))
    }

    /// All that the reducer kept, ordered by key.
    pub fn subjects(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        status::subjects(&self.conn).map_err(StoreError::database("read the subjects"))
    }

    /// The gaps that have no end yet, e.g. of a recorder that was killed.
    pub fn open_gaps(&self) -> Result<Vec<Gap>, StoreError> {
        status::gaps(&self.conn, true).map_err(StoreError::database("read the gaps"))
    }

    /// Says, durably and cheaply, that the recorder is alive now. Once a second is often enough.
    pub fn heartbeat(&mut self) -> Result<(), StoreError> {
        self.alive.beat()
    }

    /// Does one short step (some milliseconds) of what waits: seals, expires, gives space back, takes over the result of the
    /// integrity check ([`StoreError::Integrity`], once, if it failed). Returns when it wants to be called next: at
    /// once, if there is more to do.
    pub fn maintain(&mut self) -> Result<Instant, StoreError> {
        super::maintain::step(self)
    }

    /// Keeps no room for what a storm brought: neither pages of the file nor buffers.
    pub(crate) fn shrink(&mut self) {
        if let Err(error) = self.conn.execute_batch("PRAGMA shrink_memory") {
            tracing::debug!(%error, "the database keeps its memory");
        }
        for tail in self.logs.iter_mut().filter(|tail| tail.pending.rows == 0) {
            tail.pending = Chunk::default();
        }
    }

    /// Runs `work` on the database and says what was attempted if it fails.
    pub(super) fn run<T>(
        &mut self,
        attempt: &'static str,
        work: impl FnOnce(&Connection) -> Result<T, rusqlite::Error>,
    ) -> Result<T, StoreError> {
        let result = work(&self.conn);
        self.checked(attempt, result)
    }

    /// Says what was attempted if it failed. A full disk frees the reserve, so that the next transaction has a chance.
    pub(super) fn checked<T>(&mut self, attempt: &'static str, result: Result<T, rusqlite::Error>) -> Result<T, StoreError> {
        self.freeing(result.map_err(StoreError::database(attempt)))
    }

    pub(super) fn freeing<T>(&mut self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if result.as_ref().is_err_and(StoreError::is_full) {
            self.reserve.free();
        }
        result
    }

    /// Appends what is pending in one table, in the open transaction.
    pub(super) fn append_pending(&mut self, log: usize, age_ns: i64) -> Result<(), StoreError> {
        let tail = &mut self.logs[log];
        if tail.pending.rows == 0 {
            return Ok(());
        }
        let appended = self.chores.sealer.append(&self.conn, &tail.log, &tail.pending, age_ns);
        tail.rows += tail.pending.rows as u64;
        tail.bytes += tail.pending.plain.len() as u64;
        tail.pending.clear();
        self.freeing(appended)
    }

    /// Undoes the open transaction.
    pub(super) fn undo(&mut self, last_sequence: u64, clock: Option<Clock>) {
        // SQLite has already undone a transaction that a full disk broke; then there is nothing to roll back.
        if !self.conn.is_autocommit()
            && let Err(error) = self.conn.execute_batch("ROLLBACK")
        {
            tracing::warn!(%error, "cannot undo a transaction");
        }
        self.last_sequence = last_sequence;
        if let Some(clock) = clock {
            self.clock = clock;
        }
        for tail in &mut self.logs {
            tail.pending.clear();
            if let Err(error) = tail.count(&self.conn) {
                tracing::warn!(%error, table = tail.log.name, "cannot count the tail");
            }
        }
    }

    /// Keeps the last sequence number and the clocks.
    pub(super) fn keep_state(&mut self, age_ns: i64) -> Result<(), StoreError> {
        let result = self
            .conn
            .prepare_cached("INSERT OR REPLACE INTO state VALUES (1, ?, ?, ?, ?, ?)")
            .and_then(|mut statement| statement.execute(params![sql(self.last_sequence), age_ns, self.clock.boot_id, boot_nanos(), now()]));
        self.checked("store the state", result).map(drop)
    }

    /// Keeps how the wall clock stands to the boot clock from the next event on; if it was just set, maps what is kept.
    pub(super) fn keep_step(&mut self, boot_ns: i64) -> Result<(), StoreError> {
        let first = sql(self.last_sequence + 1);
        let kept = self.clock.keep(&self.conn, first, boot_ns);
        self.checked("store a step of the clock", kept)?;
        let mended = self.clock.mend_kept(&self.conn, self.histories.iter().map(|history| history.log.name.clone()));
        self.checked("map the times before the clock was set", mended)
    }
}

/// The last sequence number, the clock, and the wall time of the last commit if there was one.
fn resume(conn: &Connection, reading: &Reading) -> Result<(u64, Clock, Option<Nanos>), rusqlite::Error> {
    let state = conn
        .query_row("SELECT last_sequence, age_ns, boot_id, boot_ns, wall_ns FROM state", [], |r| {
            let then = Reading { boot_id: r.get(2)?, boot_ns: r.get(3)?, wall_ns: r.get(4)? };
            Ok((r.get::<_, i64>(0)?.cast_unsigned(), r.get::<_, i64>(1)?, then))
        })
        .optional()?;
    let Some((last_sequence, age_ns, then)) = state else {
        status::advance_kept_since(conn, reading.wall_ns)?;
        return Ok((0, Clock::resume(0, reading, reading), None));
    };
    Ok((last_sequence, Clock::resume(age_ns, &then, reading), Some(then.wall_ns)))
}
