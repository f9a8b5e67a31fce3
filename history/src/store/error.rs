//! What can go wrong with a store, in words that name the file.

use std::{io, path::PathBuf};

use rusqlite::{ErrorCode, ffi};

/// Why the store could not do what was asked. [`StoreError::is_full`] and [`StoreError::is_corrupt`] tell a recorder
/// what to do about it; everything else is tried again later.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    #[error("cannot open the store in {dir}")]
    Open {
        dir: String,
        #[source]
        reason: rusqlite::Error,
    },
    #[error("cannot {attempt} {path}")]
    File {
        attempt: &'static str,
        path: PathBuf,
        #[source]
        reason: io::Error,
    },
    #[error("{path} has format {found}, this version knows formats up to {known}: upgrade mayfly, or move the file away to start anew")]
    Newer { path: PathBuf, found: i64, known: i64 },
    #[error("cannot {attempt} in the store")]
    Database {
        attempt: &'static str,
        #[source]
        reason: rusqlite::Error,
    },
    #[error("the integrity check of {path} failed: {finding}")]
    Integrity { path: PathBuf, finding: String },
    #[error("a row of {bytes} bytes is longer than the store takes ({most})")]
    RowTooLong { bytes: usize, most: usize },
    /// Stored bytes that no version of this code writes.
    #[error("cannot decode {what}: {why}")]
    Decode { what: String, why: &'static str },
}

impl StoreError {
    pub(super) fn database(attempt: &'static str) -> impl FnOnce(rusqlite::Error) -> Self {
        move |reason| Self::Database { attempt, reason }
    }

    pub(super) fn file(attempt: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |reason| Self::File { attempt, path, reason }
    }

    fn sqlite(&self) -> Option<&ffi::Error> {
        match self {
            Self::Open { reason: rusqlite::Error::SqliteFailure(error, _), .. }
            | Self::Database { reason: rusqlite::Error::SqliteFailure(error, _), .. } => Some(error),
            _ => None,
        }
    }

    /// No space was left. The transaction is undone; the same can be tried again once there is space. The store has
    /// freed its small reserve by then, so that a gap can still be written.
    pub fn is_full(&self) -> bool {
        // The shared memory beside the database is grown by writing to it, which has its own error code.
        let sqlite = self.sqlite().is_some_and(|e| e.code == ErrorCode::DiskFull || e.extended_code == ffi::SQLITE_IOERR_SHMSIZE);
        sqlite || matches!(self, Self::File { reason, .. } if reason.kind() == io::ErrorKind::StorageFull)
    }

    /// The file is damaged: [`Writer::set_aside`](super::Writer::set_aside) makes room for a new one.
    pub fn is_corrupt(&self) -> bool {
        let sqlite = self.sqlite().is_some_and(|e| matches!(e.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase));
        sqlite || matches!(self, Self::Integrity { .. })
    }
}
