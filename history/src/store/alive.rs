//! Two small files beside the database: when the recorder was last alive, and space for when the disk is full.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FallocateFlags, fallocate};

use super::{clock::Reading, error::StoreError};
use crate::time::Nanos;

const FILE: &str = "history.alive";

/// Keeps the time of the last sign of life, without a transaction: `wall boot boot_id`, in one write of fixed length.
#[derive(Debug)]
pub(super) struct Alive {
    file: File,
    path: PathBuf,
}

impl Alive {
    pub(super) fn open(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(FILE);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&path).map_err(StoreError::file("open", &path))?;
        Ok(Self { file, path })
    }

    pub(super) fn beat(&self) -> Result<(), StoreError> {
        let Reading { boot_id, boot_ns, wall_ns } = Reading::take();
        let line = format!("{wall_ns:>20} {boot_ns:>20} {boot_id:<36}\n");
        self.file.write_all_at(line.as_bytes(), 0).map_err(StoreError::file("write", &self.path))
    }
}

/// When a recorder was last alive, on the wall clock of now: a step since then, in the same boot, is taken out.
pub(super) fn last_beat(dir: &Path, now: &Reading) -> Option<Nanos> {
    let text = fs::read_to_string(dir.join(FILE)).ok()?;
    let mut words = text.split_ascii_whitespace();
    let (wall_ns, boot_ns) = (words.next()?.parse::<Nanos>().ok()?, words.next()?.parse::<i64>().ok()?);
    let same_boot = words.next().is_some_and(|id| id == now.boot_id);
    Some(if same_boot { now.wall_ns - now.boot_ns.saturating_sub(boot_ns).max(0) } else { wall_ns })
}

/// A file that only takes space. It is removed when the disk is full, so that the gap can be recorded, and made again later.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    held: bool,
}

/// Enough for a transaction and the growth of the log that it needs.
const RESERVE: u64 = 1 << 20;

impl Reserve {
    pub(super) fn new(dir: &Path) -> Self {
        let mut reserve = Self { path: dir.join("history.reserve"), held: false };
        reserve.hold();
        reserve
    }

    /// Takes the space, if it is not held and there is some.
    pub(super) fn hold(&mut self) {
        if self.held {
            return;
        }
        let take = || {
            let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&self.path)?;
            fallocate(&file, FallocateFlags::empty(), 0, RESERVE)?;
            Ok::<_, io::Error>(())
        };
        match take() {
            Ok(()) => self.held = true,
            Err(error) => {
                tracing::debug!(file = %self.path.display(), %error, "no space is reserved");
                let _ = fs::remove_file(&self.path);
            }
        }
    }

    pub(super) fn free(&mut self) {
        self.held = false;
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(file = %self.path.display(), %error, "cannot free the reserved space");
        }
    }
}
