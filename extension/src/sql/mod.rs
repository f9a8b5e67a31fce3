//! The tables in embedded SQLite: virtual tables over the same code that answers osquery.

mod gathered;
mod guard;
mod module;
mod plan;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use mayfly_history::{
    chain,
    store::{Reader, StoreError},
};
use mayfly_tables::{Followed, Home, TABLES, Table};
use rusqlite::{Connection, OpenFlags};

pub(crate) use self::guard::reads;
use self::module::Source;

/// Bytecode steps of SQLite between two looks at whether to stop.
const STEPS: i32 = 10_000;

/// Why there is nothing to query.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    #[error(
        "nothing is recorded in {}: there is no {} in it. Start the recorder (`mayfly record`), or name its folder with --state-dir; \
         `mayfly doctor` says what can be recorded here",
        dir.display(),
        STORE_FILE
    )]
    NothingRecorded { dir: PathBuf },
    #[error("cannot look into {}; the recorder's folder is open to its own user only (try as root)", dir.display())]
    NoAccess {
        dir: PathBuf,
        #[source]
        reason: std::io::Error,
    },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot set up SQLite")]
    Sqlite(#[from] rusqlite::Error),
}

const STORE_FILE: &str = "history.db";

/// The histories of osquery's tables that were captured in `dir`, whether osquery is there or not.
pub fn captured(dir: &Path) -> Vec<&'static Followed> {
    Home::Captures.open(dir).and_then(|captures| Followed::known(&captures)).unwrap_or_else(|error| {
        tracing::warn!(error = chain(&error), "the histories of osquery's tables cannot be read");
        Vec::new()
    })
}

/// A connection that knows every table and can only read.
#[derive(Debug)]
pub struct Database {
    connection: Connection,
    stop: Arc<AtomicBool>,
}

impl Database {
    /// Opens the store in `dir`, which a recorder has made.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        match dir.join(STORE_FILE).try_exists() {
            Ok(true) => {}
            Ok(false) => return Err(OpenError::NothingRecorded { dir: dir.to_owned() }),
            Err(reason) => return Err(OpenError::NoAccess { dir: dir.to_owned(), reason }),
        }
        // Opened once here, so that a store that cannot be read is told before any statement.
        Reader::open(dir)?;
        Self::over(dir).map_err(Into::into)
    }

    /// The tables over whatever is, or will be, in `dir`.
    pub fn over(dir: &Path) -> rusqlite::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_MEMORY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(":memory:", flags)?;
        // Sorting must not spill rows into files.
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        let dir: Arc<Path> = dir.into();
        for table in TABLES.iter().copied().chain(captured(&dir).into_iter().map(|table| table as &dyn Table)) {
            module::register(&connection, Source { table, dir: Arc::clone(&dir), stop: Arc::clone(&stop) })?;
        }
        let stopped = Arc::clone(&stop);
        connection.progress_handler(STEPS, Some(move || stopped.load(Relaxed)))?;
        guard::only_reads(&mut connection)?;
        Ok(Self { connection, stop })
    }

    /// Runs SQL; see [`Connection`].
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Set to true, it breaks off the statement that runs. Whoever sets it resets it.
    pub fn stop(&self) -> &Arc<AtomicBool> {
        &self.stop
    }
}
