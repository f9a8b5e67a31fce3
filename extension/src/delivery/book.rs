//! `delivery.db`: how far each query and consumer has got. The extension's own; the recorder never sees it.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use mayfly_history::{Eid, Nanos, now};
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, Transaction, TransactionBehavior, params};

use super::decide::{Cursor, Run, Waiting};

/// Name of the file in the state directory.
pub(super) const FILE: &str = "delivery.db";
/// Version of the file's format.
const FORMAT: i64 = 1;
/// Gaps kept; the oldest go first.
const MOST_GAPS: i64 = 1000;
/// A cursor that nobody used for so long is dropped.
const UNUSED: Nanos = 7 * 24 * 3600 * 1_000_000_000;

const SCHEMA: &str = "
    CREATE TABLE cursors (
        instance TEXT NOT NULL, query TEXT NOT NULL, table_name TEXT NOT NULL,
        registration TEXT NOT NULL, timestamp TEXT NOT NULL, counter TEXT NOT NULL,
        after TEXT, upto TEXT, first_upto TEXT, offers INTEGER NOT NULL, given_up INTEGER NOT NULL, cap INTEGER NOT NULL,
        behind TEXT, behind_ns INTEGER, used_ns INTEGER NOT NULL,
        PRIMARY KEY (instance, query, table_name)
    ) WITHOUT ROWID;
    CREATE TABLE consumers (
        name TEXT NOT NULL, table_name TEXT NOT NULL,
        acknowledged TEXT, told_upto TEXT, used_ns INTEGER NOT NULL,
        PRIMARY KEY (name, table_name)
    ) WITHOUT ROWID;
    CREATE TABLE gaps (
        id INTEGER PRIMARY KEY, table_name TEXT NOT NULL, reader TEXT NOT NULL, cause TEXT NOT NULL, from_ns INTEGER NOT NULL, to_ns INTEGER
    );
";

/// Came later, to files that exist. Never dropped for not being used: that would push everything again.
const PUSHED: &str = "
    CREATE TABLE IF NOT EXISTS pushed (
        table_name TEXT PRIMARY KEY, acknowledged TEXT, told_upto TEXT, batches INTEGER NOT NULL, looked_ns INTEGER NOT NULL
    ) WITHOUT ROWID;
";

/// Why the book could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BookError {
    #[error("cannot {attempt} {}", path.display())]
    File { attempt: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot {attempt} in {}", path.display())]
    Database { attempt: &'static str, path: PathBuf, source: rusqlite::Error },
}

impl BookError {
    /// The file is damaged.
    pub(super) fn is_corrupt(&self) -> bool {
        match self {
            Self::Database { source, .. } => {
                matches!(source.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
                    || matches!(source, rusqlite::Error::FromSqlConversionFailure(..) | rusqlite::Error::InvalidColumnType(..))
            }
            Self::File { .. } => false,
        }
    }
}

/// How far a consumer has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Consumer {
    pub(super) acknowledged: Option<Eid>,
    /// Of what retention dropped, the newest event that a gap told of.
    pub(super) told_upto: Option<Eid>,
    /// When it last read.
    pub(super) looked_ns: Nanos,
}

/// How far pushing has got with a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pushed {
    /// The last event that osquery's logger took.
    pub(super) acknowledged: Option<Eid>,
    /// Of what retention dropped, the newest event that a gap told of.
    pub(super) told_upto: Option<Eid>,
    /// Batches that were taken: as the counter of a scheduled query.
    pub(super) batches: i64,
    /// When the store was last looked at.
    pub(super) looked_ns: Nanos,
}

/// Whose cursor: osquery's database, the scheduled query in it, the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key<'a> {
    pub(super) instance: &'a str,
    pub(super) query: &'a str,
    pub(super) table: &'a str,
}

/// The open file.
#[derive(Debug)]
pub(super) struct Book {
    path: PathBuf,
    db: Connection,
}

impl Book {
    /// Opens the book in `dir`, made if missing. A damaged file, or one of another format, is set aside.
    pub(super) fn open(dir: &Path) -> Result<Self, BookError> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|source| BookError::File {
            attempt: "make",
            path: dir.into(),
            source,
        })?;
        let path = dir.join(FILE);
        match Self::open_file(&path) {
            Err(error) if error.is_corrupt() => {
                set_aside(&path)?;
                Self::open_file(&path)
            }
            opened => opened,
        }
    }

    fn open_file(path: &Path) -> Result<Self, BookError> {
        OpenOptions::new().append(true).create(true).mode(0o600).open(path).map_err(|source| BookError::File {
            attempt: "open",
            path: path.into(),
            source,
        })?;
        let fail = |attempt| move |source| BookError::Database { attempt, path: path.into(), source };
        let mut db = Connection::open(path).map_err(fail("open the database"))?;
        let prepare = |db: &mut Connection| -> rusqlite::Result<i64> {
            db.busy_timeout(Duration::from_secs(5))?;
            db.pragma_update(None, "journal_mode", "wal")?;
            // What a crash of the machine undoes is offered again: never lost.
            db.pragma_update(None, "synchronous", "normal")?;
            let found: String = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
            if found != "ok" {
                return Ok(-1);
            }
            let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut format = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
            if format == 0 {
                transaction.execute_batch(SCHEMA)?;
                transaction.pragma_update(None, "user_version", FORMAT)?;
                format = FORMAT;
            }
            transaction.execute_batch(PUSHED)?;
            transaction.execute("DELETE FROM cursors WHERE used_ns < ?1", [now() - UNUSED])?;
            transaction.execute("DELETE FROM consumers WHERE used_ns < ?1", [now() - UNUSED])?;
            transaction.commit()?;
            Ok(format)
        };
        if prepare(&mut db).map_err(fail("prepare the tables"))? == FORMAT {
            return Ok(Self { path: path.into(), db });
        }
        drop(db);
        set_aside(path)?;
        Self::open_file(path)
    }

    /// Runs `work` in one transaction that other processes wait for.
    pub(super) fn write<T, E: From<BookError>>(&mut self, work: impl FnOnce(&Page<'_>) -> Result<T, E>) -> Result<T, E> {
        let Self { path, db } = self;
        let fail = |attempt| BookFailure { attempt, path };
        let transaction =
            db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(|source| fail("begin to write").of(source))?;
        let page = Page { path, transaction };
        let done = work(&page)?;
        page.transaction.commit().map_err(|source| fail("write").of(source))?;
        Ok(done)
    }
}

struct BookFailure<'a> {
    attempt: &'static str,
    path: &'a Path,
}

impl BookFailure<'_> {
    fn of(self, source: rusqlite::Error) -> BookError {
        BookError::Database { attempt: self.attempt, path: self.path.into(), source }
    }
}

/// The book while it is being written.
#[derive(Debug)]
pub(super) struct Page<'b> {
    path: &'b Path,
    transaction: Transaction<'b>,
}

impl Page<'_> {
    fn fail(&self, attempt: &'static str) -> impl FnOnce(rusqlite::Error) -> BookError {
        move |source| BookFailure { attempt, path: self.path }.of(source)
    }

    pub(super) fn cursor(&self, key: Key<'_>) -> Result<Option<Cursor>, BookError> {
        let sql = "SELECT registration, timestamp, counter, after, upto, first_upto, offers, given_up, cap, behind, behind_ns, used_ns
                   FROM cursors WHERE instance = ?1 AND query = ?2 AND table_name = ?3";
        let read = |row: &Row<'_>| {
            Ok(Cursor {
                run: Run { registration: row.get(0)?, timestamp: row.get(1)?, counter: row.get(2)? },
                after: eid(row, 3)?,
                upto: eid(row, 4)?,
                first_upto: eid(row, 5)?,
                offers: row.get(6)?,
                given_up: row.get(7)?,
                cap: row.get(8)?,
                behind: waiting(row, 9)?,
                looked_ns: row.get(11)?,
            })
        };
        let cursor = self.transaction.query_row(sql, params![key.instance, key.query, key.table], read).optional();
        cursor.map_err(self.fail("read a cursor"))
    }

    pub(super) fn keep_cursor(&self, key: Key<'_>, cursor: &Cursor) -> Result<(), BookError> {
        let sql = "INSERT OR REPLACE INTO cursors VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)";
        let kept = self.transaction.execute(
            sql,
            params![
                key.instance,
                key.query,
                key.table,
                cursor.run.registration,
                cursor.run.timestamp,
                cursor.run.counter,
                cursor.after.map(|e| e.to_string()),
                cursor.upto.map(|e| e.to_string()),
                cursor.first_upto.map(|e| e.to_string()),
                cursor.offers,
                cursor.given_up,
                cursor.cap,
                cursor.behind.map(|w| w.eid.to_string()),
                cursor.behind.map(|w| w.time_ns),
                cursor.looked_ns,
            ],
        );
        kept.map(drop).map_err(self.fail("write a cursor"))
    }

    pub(super) fn consumer(&self, name: &str, table: &str) -> Result<Option<Consumer>, BookError> {
        let sql = "SELECT acknowledged, told_upto, used_ns FROM consumers WHERE name = ?1 AND table_name = ?2";
        let read = |row: &Row<'_>| Ok(Consumer { acknowledged: eid(row, 0)?, told_upto: eid(row, 1)?, looked_ns: row.get(2)? });
        self.transaction.query_row(sql, [name, table], read).optional().map_err(self.fail("read a consumer"))
    }

    pub(super) fn keep_consumer(&self, name: &str, table: &str, consumer: Consumer) -> Result<(), BookError> {
        let kept = self.transaction.execute(
            "INSERT OR REPLACE INTO consumers VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                name,
                table,
                consumer.acknowledged.map(|e| e.to_string()),
                consumer.told_upto.map(|e| e.to_string()),
                consumer.looked_ns,
            ],
        );
        kept.map(drop).map_err(self.fail("write a consumer"))
    }

    pub(super) fn pushed(&self, table: &str) -> Result<Option<Pushed>, BookError> {
        let sql = "SELECT acknowledged, told_upto, batches, looked_ns FROM pushed WHERE table_name = ?1";
        let read = |row: &Row<'_>| {
            Ok(Pushed { acknowledged: eid(row, 0)?, told_upto: eid(row, 1)?, batches: row.get(2)?, looked_ns: row.get(3)? })
        };
        self.transaction.query_row(sql, [table], read).optional().map_err(self.fail("read how far a table was pushed"))
    }

    pub(super) fn keep_pushed(&self, table: &str, pushed: &Pushed) -> Result<(), BookError> {
        let kept = self.transaction.execute(
            "INSERT OR REPLACE INTO pushed VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                table,
                pushed.acknowledged.map(|e| e.to_string()),
                pushed.told_upto.map(|e| e.to_string()),
                pushed.batches,
                pushed.looked_ns,
            ],
        );
        kept.map(drop).map_err(self.fail("write how far a table was pushed"))
    }

    pub(super) fn add_gap(&self, table: &str, reader: &str, from_ns: Nanos, to_ns: Option<Nanos>) -> Result<(), BookError> {
        let add = || -> rusqlite::Result<()> {
            let sql = "INSERT INTO gaps (table_name, reader, cause, from_ns, to_ns) VALUES (?1, ?2, 'expired_undelivered', ?3, ?4)";
            self.transaction.execute(sql, params![table, reader, from_ns, to_ns])?;
            self.transaction.execute("DELETE FROM gaps WHERE id <= (SELECT max(id) FROM gaps) - ?1", [MOST_GAPS])?;
            Ok(())
        };
        add().map_err(self.fail("write a gap"))
    }
}

fn eid(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Eid>> {
    let text: Option<String> = row.get(column)?;
    text.map(|text| text.parse())
        .transpose()
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error)))
}

fn waiting(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Waiting>> {
    let time_ns: Option<Nanos> = row.get(column + 1)?;
    Ok(eid(row, column)?.zip(time_ns).map(|(eid, time_ns)| Waiting { eid, time_ns }))
}

/// Moves a file that is of no use out of the way, with its journal; a new book is begun, and every query starts anew.
pub(super) fn set_aside(path: &Path) -> Result<(), BookError> {
    let aside = path.with_extension(format!("db.set-aside-{}", now() / 1_000_000_000));
    tracing::error!(path = %path.display(), aside = %aside.display(), "the delivery book is damaged or of another version: beginning a new one");
    fs::rename(path, &aside).map_err(|source| BookError::File { attempt: "set aside", path: path.into(), source })?;
    for journal in ["db-wal", "db-shm"] {
        let journal = path.with_extension(journal);
        match fs::remove_file(&journal) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(BookError::File { attempt: "remove", path: journal, source });
            }
            _ => {}
        }
    }
    Ok(())
}
