//! Files that are watched, in a way that another thread can end the wait for them.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::{Arc, Weak},
    time::Instant,
};

use inotify::{Events, Inotify, WatchDescriptor, WatchMask};
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io::Errno,
};

/// Watches of files, and a bell beside them.
#[derive(Debug)]
pub(crate) struct Watched {
    /// Begun with the first watch, and tried anew at each: the system may have none to spare for now, and the bell needs none.
    inotify: Option<Inotify>,
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
    /// Something of the files can be read with [`Watched::read`].
    pub(crate) files: bool,
    /// A [`Waker`] was used since the last wait.
    pub(crate) called: bool,
}

impl Watched {
    /// Watches nothing at first.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { inotify: None, bell: Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?) })
    }

    /// Watches `path` for what `mask` says.
    pub(crate) fn add(&mut self, path: &Path, mask: WatchMask) -> io::Result<WatchDescriptor> {
        let inotify = match &mut self.inotify {
            Some(inotify) => inotify,
            none => none.insert(Inotify::init()?),
        };
        inotify.watches().add(path, mask)
    }

    /// Ends a watch; nothing happens if it has ended by itself.
    pub(crate) fn remove(&self, watch: WatchDescriptor) {
        if let Some(inotify) = &self.inotify {
            let _ = inotify.watches().remove(watch);
        }
    }

    /// What the kernel told of the files.
    pub(crate) fn read<'b>(&mut self, buffer: &'b mut [u8]) -> io::Result<Events<'b>> {
        self.inotify.as_mut().ok_or(io::ErrorKind::WouldBlock)?.read_events(buffer)
    }

    pub(crate) fn waker(&self) -> Waker {
        Waker(Arc::downgrade(&self.bell))
    }

    /// Waits until there is something, or `until` has come; a signal may end it earlier.
    pub(crate) fn wait(&self, until: Option<Instant>) -> io::Result<Seen> {
        let patience = until.map(|until| until.saturating_duration_since(Instant::now()));
        let patience = patience.map(Timespec::try_from).transpose().map_err(|_| io::ErrorKind::InvalidInput)?;
        let bell = PollFd::from_borrowed_fd(self.bell.as_fd(), PollFlags::IN);
        let mut waiting: Vec<_> =
            [bell].into_iter().chain(self.inotify.iter().map(|inotify| PollFd::new(inotify, PollFlags::IN))).collect();
        match poll(&mut waiting, patience.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let is_ready = |at: usize| waiting.get(at).is_some_and(|waiting| !waiting.revents().is_empty());
        let (called, files) = (is_ready(0), is_ready(1));
        if called {
            let mut count = [0; 8];
            let _ = rustix::io::read(&*self.bell, &mut count);
        }
        Ok(Seen { files, called })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_bell_rings_where_nothing_is_watched() {
        let watched = Watched::new().unwrap();
        assert!(watched.inotify.is_none(), "no instance is taken before it is needed");
        let soon = Some(Instant::now() + Duration::from_millis(5));
        assert_eq!(watched.wait(soon).unwrap(), Seen { files: false, called: false });
        watched.waker().wake();
        assert_eq!(watched.wait(None).unwrap(), Seen { files: false, called: true });
    }
}
