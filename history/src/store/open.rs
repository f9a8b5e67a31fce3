//! Opening a store to write: create, check the version, set aside what is damaged.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags, TransactionBehavior, ffi};

use super::{error::StoreError, schema};

/// Name of the store's file in the state directory.
pub(super) const FILE: &str = "history.db";
/// The write-ahead log is folded into the file when it has this many pages (16 MiB): sealed rows are mostly gone by then.
const CHECKPOINT_PAGES: u32 = 4096;

/// Damaged files that are kept: what damages one after the other must not fill the disk with them.
const MOST_ASIDE: usize = 3;

/// How long a lock is waited for, e.g. of a reader that is just opening the file.
pub(super) const BUSY: Duration = Duration::from_secs(1);

/// `path` with more at its end.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Opens `dir/history.db` to write. With the connection comes where a damaged file was put.
pub(super) fn open(dir: &Path) -> Result<(Connection, Option<PathBuf>), StoreError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(StoreError::file("create", dir))?;
    match connect(dir) {
        Err(error) if error.is_corrupt() => {
            tracing::error!(file = %dir.join(FILE).display(), %error, "the store is damaged and is set aside");
            let aside = set_aside(dir)?;
            Ok((connect(dir)?, Some(aside)))
        }
        opened => Ok((opened?, None)),
    }
}

/// Renames the file, and its log with it, to `history.db.corrupt-TIME`; removes the oldest of those that are there.
pub(super) fn set_aside(dir: &Path) -> Result<PathBuf, StoreError> {
    let path = dir.join(FILE);
    let stem = beside(&path, &format!(".corrupt-{}", Timestamp::now().strftime("%Y%m%dT%H%M%SZ")));
    // Two within one second do not overwrite each other.
    let aside = (1..).map(|n| if n == 1 { stem.clone() } else { beside(&stem, &format!("-{n}")) }).find(|p| !p.exists()).unwrap_or(stem);
    for suffix in ["-wal", "-shm", ""] {
        let from = beside(&path, suffix);
        match fs::rename(&from, beside(&aside, suffix)) {
            Err(reason) if reason.kind() != io::ErrorKind::NotFound => return Err(StoreError::file("set aside", from)(reason)),
            _ => {}
        }
    }
    if let Err(error) = remove_oldest(dir) {
        tracing::warn!(dir = %dir.display(), %error, "cannot remove older damaged stores");
    }
    Ok(aside)
}

fn remove_oldest(dir: &Path) -> io::Result<()> {
    let mut aside = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(&format!("{FILE}.corrupt-")) && !name.ends_with("-wal") && !name.ends_with("-shm") {
            // Renaming a file changes this time.
            let metadata = entry.metadata()?;
            aside.push(((metadata.ctime(), metadata.ctime_nsec()), entry.path()));
        }
    }
    aside.sort();
    for (_, path) in aside.iter().rev().skip(MOST_ASIDE) {
        for suffix in ["-wal", "-shm", ""] {
            match fs::remove_file(beside(path, suffix)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

fn connect(dir: &Path) -> Result<Connection, StoreError> {
    let path = dir.join(FILE);
    // SQLite gives the log and the shared memory the mode of the file, so the file must have the right one first.
    OpenOptions::new().append(true).create(true).mode(0o600).open(&path).map_err(StoreError::file("open", &path))?;
    let failed = |reason| StoreError::Open { dir: dir.display().to_string(), reason };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut conn = Connection::open_with_flags(&path, flags).map_err(failed)?;
    prepare(&mut conn, &path, failed)?;
    Ok(conn)
}

fn prepare(conn: &mut Connection, path: &Path, failed: impl Fn(rusqlite::Error) -> StoreError + Copy) -> Result<(), StoreError> {
    conn.busy_timeout(BUSY).map_err(failed)?;
    // The first access: what is not a database, or is cut short, shows here.
    if conn.query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get::<_, i64>(0)).map_err(failed)? == 0 {
        conn.pragma_update(None, "auto_vacuum", "INCREMENTAL").map_err(failed)?;
    } else {
        check_version(conn, path, failed)?;
    }
    // In this mode a commit survives the death of the process; after a power cut the file is whole, its newest commits may be missing.
    conn.pragma_update(None, "synchronous", "NORMAL").map_err(failed)?;
    conn.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())).map_err(failed)?;
    conn.pragma_update_and_check(None, "wal_autocheckpoint", CHECKPOINT_PAGES, |_| Ok(())).map_err(failed)?;
    conn.pragma_update_and_check(None, "journal_size_limit", 16 << 20, |_| Ok(())).map_err(failed)?;
    conn.pragma_update(None, "cache_size", -4096).map_err(failed)?;
    conn.pragma_update(None, "trusted_schema", false).map_err(failed)?;
    conn.set_prepared_statement_cache_capacity(64);
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    if tx.query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get::<_, i64>(0)).map_err(failed)? == 0 {
        schema::create(&tx).map_err(failed)?;
    }
    tx.commit().map_err(failed)
}

/// Refuses a newer format; a database of another application is no store of ours, as good as damaged.
pub(super) fn check_version(conn: &Connection, path: &Path, failed: impl Fn(rusqlite::Error) -> StoreError) -> Result<(), StoreError> {
    let pragma = |name: &str| conn.pragma_query_value(None, name, |r| r.get::<_, i64>(0));
    let (application, found) = (pragma("application_id").map_err(&failed)?, pragma("user_version").map_err(&failed)?);
    if application != schema::APPLICATION {
        let error = ffi::Error::new(ffi::SQLITE_NOTADB);
        return Err(failed(rusqlite::Error::SqliteFailure(error, Some("it is another application's database".into()))));
    }
    if found > schema::FORMAT {
        return Err(StoreError::Newer { path: path.to_owned(), found, known: schema::FORMAT });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn only_the_newest_damaged_stores_are_kept() {
        let dir = TempDir::new().unwrap();
        for n in 0..MOST_ASIDE + 2 {
            fs::write(dir.path().join(FILE), n.to_string()).unwrap();
            fs::write(dir.path().join(format!("{FILE}-wal")), n.to_string()).unwrap();
            set_aside(dir.path()).unwrap();
            // The kernel's clock of files is a coarse one.
            std::thread::sleep(Duration::from_millis(20));
        }
        let files = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut kept: Vec<_> = files.map(|path| fs::read_to_string(path).unwrap()).collect();
        kept.sort();
        assert_eq!(kept, ["2", "2", "3", "3", "4", "4"], "each with its log");
    }
}
