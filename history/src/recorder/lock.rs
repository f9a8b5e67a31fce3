//! Who may record in a state directory: one process, and `mayfly record` before an autoloaded extension.
//!
//! Two files, locked with `flock`, so that a killed holder is gone at once: `recorder.lock` belongs to who records,
//! `recorder.claim` to `mayfly record` for as long as it lives, also while it waits for an extension to hand over. The extension waits
//! for both to be free before it records, and is told by inotify when a claim arrives. Nobody polls.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, OFlags, flock, inotify},
    io::Errno,
};

const HOLDER: &str = "recorder.lock";
const CLAIM: &str = "recorder.claim";
/// How long a claim may look taken by a mere probe of an extension before it counts as another `record`.
const PROBE: Duration = Duration::from_millis(500);

/// What a recording process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `mayfly record`: has priority.
    Record,
    /// An autoloaded extension: records while no `record` runs.
    Extension,
}

impl Role {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::Extension => "extension",
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    #[error("cannot make the state directory {}", dir.display())]
    Directory {
        dir: PathBuf,
        #[source]
        reason: io::Error,
    },
    /// Somebody else could plant files there.
    #[error("{} is writable for others than its owner, or not ours; chown it to this user and chmod it 0700", dir.display())]
    Unsafe { dir: PathBuf },
    #[error("cannot lock {}", path.display())]
    Lock {
        path: PathBuf,
        #[source]
        reason: io::Error,
    },
    #[error("another `mayfly record` (pid {pid}) records in {} already; stop it, or set another --state-dir", dir.display())]
    Taken { dir: PathBuf, pid: String },
}

/// The process that records in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// `record` or `extension`.
    pub role: String,
    pub pid: u32,
}

/// The right to record in a directory, until dropped.
#[derive(Debug)]
pub struct Lock {
    dir: PathBuf,
    _holder: File,
    _claim: Option<File>,
}

impl Lock {
    /// Takes the lock; blocks while another process has it that will hand over or die. Makes the directory (0700).
    ///
    /// # Errors
    /// [`LockError::Taken`] if a second `record` is asked for; the others if the directory cannot be used.
    pub fn acquire(dir: &Path, role: Role) -> Result<Self, LockError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|reason| LockError::Directory { dir: dir.into(), reason })?;
        check_owner(dir)?;
        let claim = match role {
            Role::Record => Some(claim(dir)?),
            Role::Extension => {
                // A running `record` has this one; waiting here, not for the holder's, leaves the next `record` in front of us.
                let path = dir.join(CLAIM);
                wait(&open(&path)?, &path, FlockOperation::LockShared)?;
                None
            }
        };
        let path = dir.join(HOLDER);
        let mut file = open(&path)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            tracing::info!(dir = %dir.display(), holder = read(&mut file).trim(), "waiting for the present recorder to hand over");
            wait(&file, &path, FlockOperation::LockExclusive)?;
        }
        write(&mut file, &path, &format!("{} {}\n", role.as_str(), std::process::id()))?;
        Ok(Self { dir: dir.into(), _holder: file, _claim: claim })
    }

    /// Calls `hand_over` once, on a thread of its own, when a `mayfly record` wants to take over.
    ///
    /// # Errors
    /// When the directory cannot be watched: then this process would not hand over.
    pub fn on_claim(&self, hand_over: impl FnOnce() + Send + 'static) -> Result<(), LockError> {
        let path = self.dir.join(CLAIM);
        let fail = |reason: io::Error| LockError::Lock { path: path.clone(), reason };
        let file = open(&path)?;
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC).map_err(|e| fail(e.into()))?;
        inotify::add_watch(&watch, &path, inotify::WatchFlags::MODIFY).map_err(|e| fail(e.into()))?;
        let wait = move || {
            let mut buffer = [std::mem::MaybeUninit::uninit(); 512];
            let mut events = inotify::Reader::new(watch, &mut buffer);
            // A claim made before the watch was set is seen by the first look.
            while flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
                let _ = flock(&file, FlockOperation::Unlock);
                if events.next().is_err_and(|error| error != Errno::INTR) {
                    return;
                }
            }
            hand_over();
        };
        thread::Builder::new().name("claims".into()).spawn(wait).map_err(fail)?;
        Ok(())
    }
}

/// Who records in `dir` now; `None`: nobody.
pub fn holder(dir: &Path) -> Option<Holder> {
    let mut file = File::open(dir.join(HOLDER)).ok()?;
    if flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
        return None;
    }
    let text = read(&mut file);
    let (role, pid) = text.trim().split_once(' ')?;
    Some(Holder { role: role.to_owned(), pid: pid.parse().ok()? })
}

/// Makes the claim of a `record`, and writes to its file, which wakes an extension that records.
fn claim(dir: &Path) -> Result<File, LockError> {
    let path = dir.join(CLAIM);
    let mut file = open(&path)?;
    let patience = Instant::now() + PROBE;
    while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        if Instant::now() >= patience {
            return Err(LockError::Taken { dir: dir.into(), pid: read(&mut file).trim().to_owned() });
        }
        thread::sleep(Duration::from_millis(10));
    }
    write(&mut file, &path, &format!("{}\n", std::process::id()))?;
    Ok(file)
}

fn check_owner(dir: &Path) -> Result<(), LockError> {
    let found = fs::metadata(dir).map_err(|reason| LockError::Directory { dir: dir.into(), reason })?;
    let ours = found.uid() == rustix::process::geteuid().as_raw();
    if ours && found.mode() & 0o022 == 0 { Ok(()) } else { Err(LockError::Unsafe { dir: dir.into() }) }
}

fn open(path: &Path) -> Result<File, LockError> {
    let fail = |reason| LockError::Lock { path: path.into(), reason };
    let mut how = OpenOptions::new();
    how.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    how.open(path).map_err(fail)
}

fn wait(file: &File, path: &Path, operation: FlockOperation) -> Result<(), LockError> {
    loop {
        match flock(file, operation) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(LockError::Lock { path: path.into(), reason: error.into() }),
        }
    }
}

fn read(file: &mut File) -> String {
    let mut text = String::new();
    let _ = file.rewind();
    let _ = file.take(64).read_to_string(&mut text);
    text
}

fn write(file: &mut File, path: &Path, text: &str) -> Result<(), LockError> {
    let replace = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(text.as_bytes())
    };
    replace(file).map_err(|reason| LockError::Lock { path: path.into(), reason })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    const DEADLINE: Duration = Duration::from_secs(20);

    #[test]
    fn a_second_record_is_refused_by_pid() {
        let dir = tempfile::tempdir().unwrap();
        let lock = Lock::acquire(dir.path(), Role::Record).unwrap();
        let refused = Lock::acquire(dir.path(), Role::Record).unwrap_err().to_string();
        assert!(refused.contains(&std::process::id().to_string()), "{refused}");
        assert_eq!(holder(dir.path()), Some(Holder { role: "record".into(), pid: std::process::id() }));
        drop(lock);
        assert_eq!(holder(dir.path()), None);
    }

    #[test]
    fn an_extension_hands_over_to_record_and_takes_over_when_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let extension = Lock::acquire(dir.path(), Role::Extension).unwrap();
        let (claimed, claims) = mpsc::channel();
        extension.on_claim(move || claimed.send(()).unwrap()).unwrap();
        let (send, recorded) = mpsc::channel();
        let path = dir.path().to_owned();
        thread::spawn(move || send.send(Lock::acquire(&path, Role::Record).unwrap()));
        claims.recv_timeout(DEADLINE).expect("the extension is told of the claim");
        drop(extension);
        let record = recorded.recv_timeout(DEADLINE).expect("record takes over");
        let (send, again) = mpsc::channel();
        let path = dir.path().to_owned();
        thread::spawn(move || send.send(Lock::acquire(&path, Role::Extension).unwrap()));
        assert!(again.recv_timeout(Duration::from_millis(50)).is_err(), "not while record lives");
        drop(record);
        again.recv_timeout(DEADLINE).expect("the extension takes over");
    }

    #[test]
    fn a_directory_that_others_can_write_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(Lock::acquire(dir.path(), Role::Record), Err(LockError::Unsafe { .. })));
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::symlink("/dev/null", dir.path().join(CLAIM)).unwrap();
        assert!(matches!(Lock::acquire(dir.path(), Role::Record), Err(LockError::Lock { .. })), "a link is not followed");
    }

    #[test]
    fn a_killed_holder_leaves_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(HOLDER);
        File::create(&path).unwrap();
        let mut child = std::process::Command::new("flock").arg(&path).args(["sleep", "600"]).spawn().expect("flock(1) of util-linux");
        let patience = Instant::now() + DEADLINE;
        let taken = || flock(File::open(&path).unwrap(), FlockOperation::NonBlockingLockShared).is_err();
        while !taken() {
            assert!(Instant::now() < patience, "the child never took the lock");
            thread::yield_now();
        }
        let (send, got) = mpsc::channel();
        let dir = dir.path().to_owned();
        thread::spawn(move || send.send(Lock::acquire(&dir, Role::Extension).unwrap()));
        // `flock` forks: its child inherits the lock, so that both have to go.
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id())).unwrap_or_default();
        for pid in children.split_whitespace().filter_map(|p| p.parse().ok()).filter_map(rustix::process::Pid::from_raw) {
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        }
        let _ = child.kill();
        child.wait().unwrap();
        got.recv_timeout(DEADLINE).expect("the lock of a killed process is free");
    }
}
