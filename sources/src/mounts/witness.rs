//! A thread that hears the kernel's notices of mounts and looks at once at what was mounted and by whom: both may be gone a moment later.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
};

use mayfly_history::{Nanos, mounted::Mounter, now};
use nix::libc;
use rustix::event::{EventfdFlags, epoll, eventfd};
use tokio::sync::Notify;

use super::{
    book::Notice,
    fanotify::{self, Attachment, Heard},
    mountinfo::Line,
    statmount::NamespaceId,
};
use crate::process::Process;

/// Notices of one namespace that wait here; more wait in the kernel, which has room for 16,384.
const MOST: usize = 1024;
/// Bytes of notices that are read at once.
const AT_ONCE: usize = 4096;
/// The priority that comes before all others that are shared out.
const FIRST: i32 = -20;
/// Of root's groups of fanotify, which it shares with whoever else runs as root: this part, as one of.
const SHARE: usize = 2;
/// What the kernel allows unless it is told otherwise.
const GROUPS: usize = 128;
/// The thread is to end.
const STOP: u64 = 0;

/// Hears of mount namespaces. Its thread ends with it.
#[derive(Debug)]
pub(super) struct Witness {
    shared: Arc<Shared>,
    next: AtomicU64,
    stop: OwnedFd,
    /// Queues that there may be.
    most: usize,
    /// Held by each namespace that is followed without.
    left_out: LeftOut,
}

/// A namespace that is not heard of, until this is dropped.
pub(super) type LeftOut = Arc<()>;

#[derive(Debug)]
struct Shared {
    epoll: OwnedFd,
    queues: Mutex<HashMap<u64, Arc<Queue>>>,
}

/// What was heard of one namespace.
#[derive(Debug)]
struct Queue {
    fd: OwnedFd,
    namespace: NamespaceId,
    notices: Mutex<Vec<Notice>>,
    lost: AtomicBool,
    heard: Notify,
}

/// A namespace that is heard of, until this is dropped.
#[derive(Debug)]
pub(super) struct Watched {
    key: u64,
    queue: Arc<Queue>,
    shared: Arc<Shared>,
}

impl Witness {
    /// `root`: the host's.
    ///
    /// # Errors
    /// Where the kernel has no such notices, or not for this process.
    pub(super) fn start(root: &Path) -> io::Result<Self> {
        // Asked here, so that nothing is begun in vain.
        fanotify::queue()?;
        let shared = Arc::new(Shared { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?, queues: Mutex::default() });
        let stop = eventfd(0, EventfdFlags::CLOEXEC)?;
        epoll::add(&shared.epoll, &stop, epoll::EventData::new_u64(STOP), epoll::EventFlags::IN)?;
        let its = Arc::clone(&shared);
        thread::Builder::new().name("mounts".into()).stack_size(256 << 10).spawn(move || its.run())?;
        Ok(Self { shared, next: AtomicU64::new(STOP + 1), stop, most: share(root), left_out: LeftOut::default() })
    }

    /// Counts a namespace that is followed without being heard of.
    pub(super) fn leave_out(&self) -> LeftOut {
        Arc::clone(&self.left_out)
    }

    /// Tells an operator what is not heard, if anything.
    pub(super) fn hint(&self) -> String {
        match Arc::strong_count(&self.left_out) - 1 {
            0 => String::new(),
            n => format!(
                "raise fs.fanotify.max_user_groups to hear who mounts in {n} more mount namespaces, of which only the table of mounts is \
                 followed: of these groups {} are used at most, one for each namespace",
                self.most
            ),
        }
    }

    /// Hears of a namespace from now on: an open `/proc/PID/ns/mnt`, which is not kept.
    ///
    /// # Errors
    /// `EMFILE`: there are as many as there may be.
    pub(super) fn watch(&self, namespace: &OwnedFd) -> io::Result<Watched> {
        if self.shared.queues().len() >= self.most {
            return Err(rustix::io::Errno::MFILE.into());
        }
        let fd = fanotify::queue()?;
        let id = NamespaceId::of(namespace)?;
        fanotify::watch(&fd, namespace)?;
        let queue = Arc::new(Queue { fd, namespace: id, notices: Mutex::default(), lost: AtomicBool::new(false), heard: Notify::new() });
        let key = self.next.fetch_add(1, Relaxed);
        self.shared.queues().insert(key, Arc::clone(&queue));
        let watched = Watched { key, queue, shared: Arc::clone(&self.shared) };
        epoll::add(&self.shared.epoll, &watched.queue.fd, epoll::EventData::new_u64(key), ONCE)?;
        Ok(watched)
    }
}

/// Groups that may be taken, by what the kernel allows.
fn share(root: &Path) -> usize {
    let allowed = std::fs::read_to_string(root.join("proc/sys/fs/fanotify/max_user_groups"));
    allowed.ok().and_then(|allowed| allowed.trim().parse().ok()).unwrap_or(GROUPS) / SHARE
}

impl Drop for Witness {
    fn drop(&mut self) {
        // An eventfd takes it always.
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
    }
}

/// Heard of once, until it is asked for again: whoever mounts faster than is told waits in the kernel.
const ONCE: epoll::EventFlags = epoll::EventFlags::IN.union(epoll::EventFlags::ONESHOT);

impl Shared {
    fn queues(&self) -> MutexGuard<'_, HashMap<u64, Arc<Queue>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        // Whoever mounts may have ended a moment later: on a busy host it is too late by then. It works little.
        if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), FIRST) {
            tracing::debug!(%error, "notices of mounts wait for their turn");
        }
        let mut ready = Vec::with_capacity(64);
        let mut buffer = [0; AT_ONCE];
        loop {
            ready.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut ready), None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return tracing::error!(%error, "notices of mounts are heard no more"),
            }
            for event in &ready {
                let key = event.data.u64();
                if key == STOP {
                    return;
                }
                let Some(queue) = self.queues().get(&key).cloned() else { continue };
                if let Ok(read) = rustix::io::read(&queue.fd, &mut buffer[..]) {
                    queue.hear(&buffer[..read]);
                }
                if queue.notices().len() < MOST {
                    self.go_on(key, &queue);
                }
            }
        }
    }

    fn go_on(&self, key: u64, queue: &Queue) {
        if let Err(error) = epoll::modify(&self.epoll, &queue.fd, epoll::EventData::new_u64(key), ONCE) {
            tracing::error!(%error, "notices of a namespace's mounts are heard no more");
        }
    }
}

impl Queue {
    fn notices(&self) -> MutexGuard<'_, Vec<Notice>> {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, bytes: &[u8]) {
        // A process that mounts ends soon after; a mount stays, mostly. So the processes are looked at first, of all notices.
        let all: Vec<_> = fanotify::heard(bytes).into_iter().map(|heard| (now(), heard)).map(who).collect();
        for (at_ns, heard, by) in all {
            let Heard::Mount { unique, became, .. } = heard else {
                self.lost.store(true, Relaxed);
                continue;
            };
            let line = if became == Attachment::Detached { Ok(None) } else { self.look(unique) };
            if let Ok(line) = line {
                self.notices().push(Notice { at_ns, unique, became, line, by });
            }
        }
        self.heard.notify_one();
    }

    /// `None`: it is gone. An error: it is not what the table would show.
    fn look(&self, unique: u64) -> io::Result<Option<Line>> {
        match self.namespace.mount(unique) {
            Ok(line) => Ok(Some(line)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Looks at who did it.
fn who((at_ns, heard): (Nanos, Heard)) -> (Nanos, Heard, Option<Mounter>) {
    let by = match &heard {
        Heard::Mount { pid, process, .. } if *pid != 0 => {
            let seen = process.as_ref().and_then(|process| seen(*pid, process));
            let path = seen.as_ref().and_then(Process::program).unwrap_or_default().into();
            Some(Mounter { pid: *pid, path, uid: seen.as_ref().and_then(Process::uid) })
        }
        _ => None,
    };
    (at_ns, heard, by)
}

/// The process, held so that no other can be taken for it.
fn seen(pid: i64, process: &OwnedFd) -> Option<Process> {
    let held = Process::open(pid).ok()?;
    // As long as it is there, be it as a zombie, the number was its own when it was opened. Signal 0 only asks.
    // SAFETY: takes an open descriptor and numbers.
    #[expect(unsafe_code, reason = "no library sends signal 0 to a pidfd")]
    let asked = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process.as_fd().as_raw_fd(), 0, std::ptr::null::<u8>(), 0) };
    (asked == 0 || io::Error::last_os_error().raw_os_error() == Some(libc::EPERM)).then_some(held)
}

impl Watched {
    /// Waits until there is something to take; may be given up at any time.
    pub(super) async fn heard(&self) {
        self.queue.heard.notified().await;
    }

    /// What was heard since the last call, and whether something was lost.
    pub(super) fn take(&self) -> (Vec<Notice>, bool) {
        let taken = std::mem::take(&mut *self.queue.notices());
        self.shared.go_on(self.key, &self.queue);
        (taken, self.queue.lost.swap(false, Relaxed))
    }

    /// Which number of the table belongs to which that no other mount gets. Blocks for some microseconds a mount.
    pub(super) fn numbers(&self, most: usize) -> impl FnOnce() -> Vec<(i64, u64)> + Send + 'static {
        let namespace = self.queue.namespace;
        move || {
            let all = namespace.mounts(most).unwrap_or_default();
            all.into_iter().filter_map(|unique| Some((namespace.number(unique).ok()?, unique))).collect()
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.shared.queues().remove(&self.key);
    }
}

/// Whether this kernel tells of mounts and of who mounts.
///
/// # Errors
/// Why it does not.
pub(super) fn probe() -> io::Result<()> {
    let namespace = OwnedFd::from(std::fs::File::open("/proc/self/ns/mnt")?);
    NamespaceId::of(&namespace)?;
    fanotify::watch(fanotify::queue()?.as_fd(), &namespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Needs a kernel that gives notice of mounts; says so where it does not.
    #[test]
    fn half_of_the_groups_is_left_to_others_and_whoever_gets_none_is_counted() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(share(root.path()), GROUPS / 2);
        let file = root.path().join("proc/sys/fs/fanotify/max_user_groups");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, "3\n").unwrap();
        let witness = match Witness::start(root.path()) {
            Ok(witness) => witness,
            Err(error) => return eprintln!("not shown: this kernel does not tell who mounts ({error})"),
        };
        let namespace = OwnedFd::from(std::fs::File::open("/proc/self/ns/mnt").unwrap());
        let first = witness.watch(&namespace).unwrap();
        assert_eq!(witness.watch(&namespace).unwrap_err().raw_os_error(), Some(libc::EMFILE));
        let left_out = witness.leave_out();
        assert!(witness.hint().contains("in 1 more"), "{}", witness.hint());
        drop((first, left_out));
        assert_eq!(witness.hint(), "");
        witness.watch(&namespace).unwrap();
    }
}
