//! Files that are watched, in a way that another thread can end the wait for them.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Weak},
    time::Instant,
};

use inotify::Inotify;
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io::Errno,
};

/// Watches of files, and a bell beside them.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) inotify: Inotify,
    bell: Arc<OwnedFd>,
}

/// Ends a wait from another thread. Cheap to clone; does not keep the watches.
#[derive(Clone, Debug)]
pub(crate) struct Waker(Weak<OwnedFd>);

impl Waker {
    /// Ends a wait, the present one or the next; false if nobody can wait any longer.
    pub(crate) fn wake(&self) -> bool {
        let Some(bell) = self.0.upgrade() else { return false };
        // A counter that is full is rung already.
        let _ = rustix::io::write(&*bell, &1u64.to_ne_bytes());
        true
    }
}

/// What there is after a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Something of the files can be read from `inotify`.
    pub(crate) files: bool,
    /// A [`Waker`] was used since the last wait.
    pub(crate) called: bool,
}

impl Watched {
    /// Watches nothing at first.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { inotify: Inotify::init()?, bell: Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?) })
    }

    pub(crate) fn waker(&self) -> Waker {
        Waker(Arc::downgrade(&self.bell))
    }

    /// Waits until there is something, or `until` has come; a signal may end it earlier.
    pub(crate) fn wait(&self, until: Option<Instant>) -> io::Result<Seen> {
        let patience = until.map(|until| until.saturating_duration_since(Instant::now()));
        let patience = patience.map(Timespec::try_from).transpose().map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut waiting = [PollFd::new(&self.inotify, PollFlags::IN), PollFd::from_borrowed_fd(self.bell.as_fd(), PollFlags::IN)];
        match poll(&mut waiting, patience.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [files, called] = waiting.map(|waiting| !waiting.revents().is_empty());
        if called {
            let mut count = [0; 8];
            let _ = rustix::io::read(&*self.bell, &mut count);
        }
        Ok(Seen { files, called })
    }
}
