//! Reading a store, also from other processes while one recorder writes.

use std::{
    cell::{Ref, RefCell},
    collections::BTreeSet,
    fs, io,
    ops::ControlFlow,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OpenFlags};
use zstd::bulk::Decompressor;

use super::{
    alive::last_beat,
    clock::{Mending, Reading},
    damage::{self, Place},
    error::StoreError,
    events,
    frame::inflate,
    generation::Generations,
    intervals,
    layout::Layouts,
    open::{BUSY, FILE, beside, check_version},
    scan::{EventRow, EventScan, Info, IntervalRow, IntervalScan, Scanned},
    status,
};
use crate::{
    captures,
    eid::Eid,
    error::chain,
    feed::{FeedState, FeedStatus, Gap, cause},
    table::TableSchema,
    time::Nanos,
};

/// Reads the store; several may do so while one recorder writes. Not `Sync`: one for each thread. What a visitor asks of the
/// same reader is answered from the same moment.
#[derive(Debug)]
pub struct Reader {
    dir: PathBuf,
    file: RefCell<Option<OpenFile>>,
    /// What the recorder does not know of.
    added: (Vec<Gap>, Vec<FeedStatus>),
    /// The folder of the store of captures, whose gaps and sources are shown too.
    beside: Option<PathBuf>,
}

/// The file that is read now.
pub(super) struct OpenFile {
    pub(super) conn: Connection,
    pub(super) layouts: Layouts,
    /// Device and inode: another file may take the name.
    identity: (u64, u64),
    decompressor: RefCell<Decompressor<'static>>,
    /// Buffers of blocks, used again.
    spare: RefCell<Vec<Vec<u8>>>,
    dir: PathBuf,
    /// The damage of which word was left.
    damage: RefCell<BTreeSet<Place>>,
}

impl std::fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenFile").field("conn", &self.conn).field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl OpenFile {
    /// `None` while the file has no tables: its recorder has just begun to make it.
    fn open(path: &Path, identity: (u64, u64)) -> Result<Option<Self>, StoreError> {
        let failed = |reason| StoreError::Open { dir: path.parent().unwrap_or(path).display().to_string(), reason };
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(path, flags).map_err(failed)?;
        conn.busy_timeout(BUSY).map_err(failed)?;
        if conn.query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get::<_, i64>(0)).map_err(failed)? == 0 {
            return Ok(None);
        }
        check_version(&conn, path, failed)?;
        conn.pragma_update(None, "cache_size", -4096).map_err(failed)?;
        conn.set_prepared_statement_cache_capacity(64);
        let decompressor = RefCell::new(Decompressor::new().map_err(StoreError::file("make a decompressor for", path))?);
        let dir = path.parent().unwrap_or(path).to_owned();
        let (layouts, spare, damage) = Default::default();
        Ok(Some(Self { conn, layouts, identity, decompressor, spare, dir, damage }))
    }

    /// Tells the recorder, once, of events that cannot be read.
    pub(super) fn note_damage(&self, place: Place) {
        if !self.damage.borrow().contains(&place) {
            if let Err(error) = damage::leave_word(&self.dir, &place) {
                tracing::warn!(%error, ?place, "cannot tell the recorder of damaged events");
            }
            self.damage.borrow_mut().insert(place);
        }
    }

    /// Whether the file has that table.
    fn has(&self, table: &TableSchema) -> Result<bool, StoreError> {
        let find = || self.conn.prepare_cached("SELECT 1 FROM logs WHERE name = ?")?.exists([table.name]);
        find().map_err(StoreError::database("look for a table"))
    }

    /// Hands the plain bytes of a frame to `read`; `None` if it is damaged.
    pub(super) fn inflated<T>(&self, data: &[u8], read: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let mut plain = self.spare.borrow_mut().pop().unwrap_or_default();
        let inflated = inflate(data, &mut self.decompressor.borrow_mut(), &mut plain);
        let result = match inflated {
            Ok(()) => Some(read(&plain)),
            Err(why) => {
                tracing::error!(why, "stored events are damaged");
                None
            }
        };
        self.spare.borrow_mut().push(plain);
        result
    }
}

impl Reader {
    /// Opens `dir/history.db` to read. A directory without one is an empty store, not an error; it is looked for again at
    /// every question, and a file that took the place of the one that was read is noticed.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let reader = Self { dir: dir.to_owned(), file: RefCell::new(None), added: Default::default(), beside: None };
        reader.file()?;
        Ok(reader)
    }

    /// Shows from now on, after what the recorder wrote, gaps and feeds that it does not know of: those of the line to osquery.
    pub fn add(&mut self, gaps: Vec<Gap>, sources: Vec<FeedStatus>) {
        self.added = (gaps, sources);
    }

    /// Shows, after its own, the gaps and the sources of the store of captures in that folder; it is opened when they are asked for.
    #[must_use]
    pub fn beside(mut self, captures: PathBuf) -> Self {
        self.beside = Some(captures);
        self
    }

    /// What `read` gives of the store of captures. One that cannot be read takes nothing from what the recorder knows: its state says so.
    fn of_captures<T>(&self, read: impl FnOnce(&Self) -> Result<Vec<T>, StoreError>) -> Result<Vec<T>, StoreError> {
        self.beside.as_ref().map_or_else(|| Ok(Vec::new()), |captures| read(&Self::open(captures)?))
    }

    fn file(&self) -> Result<Ref<'_, Option<OpenFile>>, StoreError> {
        // While a visitor asks, the file stays the one that is visited.
        if let Ok(mut file) = self.file.try_borrow_mut() {
            let path = self.dir.join(FILE);
            match fs::metadata(&path) {
                Ok(found) => {
                    let identity = (found.dev(), found.ino());
                    if file.as_ref().is_none_or(|open| open.identity != identity) {
                        *file = OpenFile::open(&path, identity)?;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => *file = None,
                Err(error) => return Err(StoreError::file("look at", path)(error)),
            }
        }
        Ok(self.file.borrow())
    }

    /// Runs `work` in one read transaction, that of the caller's caller if there is one; without a file the answer is empty.
    fn read<T: Default>(&self, work: impl FnOnce(&OpenFile) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let file = self.file()?;
        let Some(file) = &*file else { return Ok(T::default()) };
        if !file.conn.is_autocommit() {
            return work(file);
        }
        let tx = file.conn.unchecked_transaction().map_err(StoreError::database("begin to read"))?;
        let result = work(file);
        drop(tx);
        result
    }

    /// The same for a table, which the file may not have.
    fn read_table<T: Default>(&self, table: &TableSchema, work: impl FnOnce(&OpenFile) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.read(|file| if file.has(table)? { work(file) } else { Ok(T::default()) })
    }

    /// Visits the events of a table in the order of their eids, in one short transaction.
    pub fn events(
        &self,
        table: &TableSchema,
        scan: &EventScan,
        visit: &mut dyn FnMut(&EventRow<'_>) -> ControlFlow<()>,
    ) -> Result<Scanned, StoreError> {
        self.read_table(table, |file| events::scan(file, table, scan, visit))
    }

    /// The eid of the `count`th event of a table after `after` (of the last one, if there are fewer); `None`: there is none.
    pub fn nth_after(&self, table: &TableSchema, after: Option<Eid>, count: usize) -> Result<Option<Eid>, StoreError> {
        self.read_table(table, |file| events::nth_after(file, table, after, count))
    }

    /// The newest and the oldest eid of a table.
    pub fn bounds(&self, table: &TableSchema) -> Result<Option<(Eid, Eid)>, StoreError> {
        self.read_table(table, |file| events::bounds(file, table))
    }

    /// The newest event of a table that retention has dropped; `None`: none was.
    pub fn dropped(&self, table: &TableSchema) -> Result<Option<Eid>, StoreError> {
        self.read(|file| {
            let read = || Ok(status::dropped(&file.conn, table.name)?.zip(Some(Generations::load(&file.conn)?)));
            let dropped = read().map_err(StoreError::database("read how far events were dropped"))?;
            Ok(dropped.map(|(sequence, generations)| generations.eid(sequence)))
        })
    }

    /// Visits the intervals of a history, ordered by key and start.
    pub fn intervals(
        &self,
        table: &TableSchema,
        scan: &IntervalScan,
        visit: &mut dyn FnMut(&IntervalRow<'_>) -> ControlFlow<()>,
    ) -> Result<Scanned, StoreError> {
        self.read_table(table, |file| intervals::scan(file, table, scan, visit))
    }

    /// Gaps, the oldest first; with the one before the oldest record.
    pub fn gaps(&self) -> Result<Vec<Gap>, StoreError> {
        let written: Vec<Gap> = self.read(|file| {
            let read = || {
                let mut gaps = status::gaps(&file.conn, false)?;
                if let Some(since) = status::kept_since(&file.conn)? {
                    gaps.insert(0, before_first_record(since));
                }
                Ok(gaps)
            };
            read().map_err(StoreError::database("read the gaps"))
        })?;
        let beside = self.of_captures(Self::gaps).unwrap_or_else(|error| {
            tracing::warn!(error = chain(&error), "the gaps of captures cannot be read");
            Vec::new()
        });
        // What blinds the store of captures blinds the tables that are captured, and nobody else.
        let beside = beside.into_iter().map(|gap| if gap.source.is_empty() { Gap { source: captures::SOURCE.into(), ..gap } } else { gap });
        Ok(written.into_iter().chain(beside).chain(self.added.0.iter().cloned()).collect())
    }

    /// The sources as the recorder last wrote them.
    pub fn sources(&self) -> Result<Vec<FeedStatus>, StoreError> {
        let written: Vec<FeedStatus> = self.read(|file| status::sources(&file.conn).map_err(StoreError::database("read the sources")))?;
        let beside = self.of_captures(Self::sources).unwrap_or_else(|error| vec![unreadable(chain(&error))]);
        let is_own =
            |status: &FeedStatus| self.added.1.iter().any(|own| (&own.source, &own.endpoint) == (&status.source, &status.endpoint));
        let stored = written.into_iter().chain(beside).filter(|status| !is_own(status));
        Ok(stored.chain(self.added.1.iter().cloned()).collect())
    }

    /// What `recorder_info` says of the store.
    pub fn info(&self) -> Result<Info, StoreError> {
        let size = |suffix| fs::metadata(beside(&self.dir.join(FILE), suffix)).map_or(0, |m| i64::try_from(m.len()).unwrap_or(i64::MAX));
        self.read(|file| {
            let read = || {
                Ok(Info {
                    store_uuid: status::meta(&file.conn, "store_uuid")?.unwrap_or_default(),
                    generation: Generations::load(&file.conn)?.newest(),
                    db_size: size("") + size("-wal"),
                    oldest_ns: oldest(&file.conn)?,
                    alive_ns: last_beat(&self.dir, &Reading::take()),
                    notes: status::notes(&file.conn)?,
                })
            };
            read().map_err(StoreError::database("read about the store"))
        })
    }

    /// Where a stream resumes ([`crate::Feed::stream`]).
    pub fn cursor(&self, stream: &str) -> Result<Option<String>, StoreError> {
        self.read(|file| status::cursor(&file.conn, stream).map_err(StoreError::database("read a cursor")))
    }
}

/// Stands for the sources of a store of captures that cannot be read.
fn unreadable(error: String) -> FeedStatus {
    FeedStatus {
        source: captures::SOURCE.into(),
        state: FeedState::Failed.as_str().into(),
        last_error: error,
        hint: "what osquery's tables had, and what triggers gave, cannot be asked; everything else can".into(),
        ..FeedStatus::default()
    }
}

/// Nobody looked before the first record, and what was expired since is not known either.
fn before_first_record(since: Nanos) -> Gap {
    Gap {
        source: String::new(),
        endpoint: String::new(),
        cause: cause::BEFORE_FIRST_RECORD.into(),
        from_ns: 0,
        to_ns: Some(since),
        recovered: 0,
        detail: "nothing is kept from before".into(),
    }
}

fn oldest(conn: &Connection) -> Result<Option<Nanos>, rusqlite::Error> {
    let mending = Mending::load(conn)?;
    let logs: Vec<(String, String)> =
        conn.prepare_cached("SELECT name, kind FROM logs")?.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?.collect::<Result<_, _>>()?;
    let mut oldest = None;
    for (name, kind) in logs {
        let sql = if kind == "history" {
            // One look at the index for each class, not a scan of it.
            format!(
                r#"WITH RECURSIVE classes (class) AS (SELECT 0 UNION ALL SELECT class + 1 FROM classes WHERE class < 64)
                SELECT min((SELECT min(valid_from_ns) FROM "{name}_intervals" WHERE class = classes.class)), 0 FROM classes"#
            )
        } else {
            format!(
                r#"SELECT min(min_time_ns), last_sequence FROM (SELECT min_time_ns, last_sequence FROM "{name}_blocks"
                UNION ALL SELECT min_time_ns, last_sequence FROM "{name}_tail")"#
            )
        };
        let found: Option<Nanos> = conn.query_row(&sql, [], |r| {
            let (time_ns, sequence): (Option<Nanos>, Option<i64>) = (r.get(0)?, r.get(1)?);
            Ok(time_ns.map(|time_ns| mending.mend(sequence.unwrap_or(0), time_ns)))
        })?;
        oldest = [oldest, found].into_iter().flatten().min();
    }
    Ok(oldest)
}
