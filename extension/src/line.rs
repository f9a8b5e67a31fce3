//! The line to osquery, as those see it who ask osquery something on their own account: whether it is there, and what may be followed.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use mayfly_history::feed::cause;
use mayfly_tables::Followed;

use crate::manager::Manager;

/// A registration that holds.
#[derive(Clone, Debug, Default)]
pub struct Up {
    /// Counts the registrations: another number means another osquery, or the same one started again.
    pub number: u64,
    /// The tables of osquery's whose histories we serve now.
    pub followed: Vec<&'static Followed>,
    /// Tables that are not followed, and why.
    pub refused: Vec<(String, Refusal)>,
}

/// Why a table is not followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Neither osquery nor an extension has it now.
    #[error("osquery has no table of that name")]
    Absent,
    /// A history that is recorded at event time stands in.
    #[error("{history} stands in: it is recorded at event time")]
    Native { history: String },
    /// It cannot be followed as it is.
    #[error("{0}")]
    Unfit(String),
}

/// Whether we are registered with osquery. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Line(Arc<Inner>);

struct Inner {
    socket: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
    /// Called after each change.
    listeners: Mutex<Vec<Box<dyn Fn() -> bool + Send>>>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("socket", &self.socket).field("state", &self.state).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct State {
    registrations: u64,
    /// Why the last registration ended, as a cause of gaps; `None`: there was none yet.
    lowered_by: Option<&'static str>,
    up: Option<Up>,
    hung_up: bool,
}

impl Line {
    /// The line to the manager at `socket`; down at first.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self(Arc::new(Inner { socket: socket.into(), state: Mutex::default(), changed: Condvar::new(), listeners: Mutex::default() }))
    }

    pub fn socket(&self) -> &Path {
        &self.0.socket
    }

    /// The way to ask; each call may take `patience`.
    pub fn manager(&self, patience: Duration) -> Manager {
        Manager::new(&self.0.socket, patience)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has `listener` called after each change, the end included, until it gives false; for who waits for other things, too. It must
    /// not block.
    pub(crate) fn on_change(&self, listener: impl Fn() -> bool + Send + 'static) {
        self.0.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(listener));
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.0.changed.notify_all();
        self.0.listeners.lock().unwrap_or_else(PoisonError::into_inner).retain(|listener| listener());
    }

    /// We are registered, and follow these tables.
    pub(crate) fn raise(&self, followed: Vec<&'static Followed>, refused: Vec<(String, Refusal)>) {
        self.change(|state| {
            state.registrations += 1;
            state.up = Some(Up { number: state.registrations, followed, refused });
        });
    }

    /// We no longer are; `cause` is that of the gaps until we are again.
    pub(crate) fn lower(&self, cause: &'static str) {
        self.change(|state| (state.up, state.lowered_by) = (None, Some(cause)));
    }

    /// Why we were not registered last, or are not now.
    pub(crate) fn cause(&self) -> &'static str {
        self.state().lowered_by.unwrap_or(cause::OSQUERY_DOWN)
    }

    /// The process ends: nobody waits any longer.
    pub(crate) fn hang_up(&self) {
        self.change(|state| state.hung_up = true);
    }

    /// The registration, if there is one.
    pub fn up(&self) -> Option<Up> {
        self.state().up.clone()
    }

    /// Whether the process ends.
    pub fn is_hung_up(&self) -> bool {
        self.state().hung_up
    }

    /// Waits for a registration other than the one of that number (0: any), at most until `deadline`; `None`: there is none by
    /// then, or the process ends.
    pub fn wait_for_other(&self, number: u64, deadline: Option<Instant>) -> Option<Up> {
        let mut state = self.state();
        loop {
            if state.hung_up {
                return None;
            }
            if let Some(up) = state.up.as_ref().filter(|up| up.number != number) {
                return Some(up.clone());
            }
            state = self.wait(state, deadline)?;
        }
    }

    /// Waits until `deadline` for the process to end; true if it does.
    pub fn wait_for_end(&self, deadline: Instant) -> bool {
        let mut state = self.state();
        while !state.hung_up {
            match self.wait(state, Some(deadline)) {
                Some(still) => state = still,
                None => return false,
            }
        }
        true
    }

    fn wait<'s>(&'s self, state: MutexGuard<'s, State>, deadline: Option<Instant>) -> Option<MutexGuard<'s, State>> {
        let Some(deadline) = deadline else { return Some(self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner)) };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        Some(self.0.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn who_waits_is_told_of_the_next_registration_and_of_the_end() {
        let line = Line::new("/nowhere");
        let other = line.clone();
        let first = thread::spawn(move || other.wait_for_other(0, None).map(|up| up.number));
        line.raise(Vec::new(), Vec::new());
        assert_eq!(first.join().unwrap(), Some(1));
        assert!(line.wait_for_other(1, Some(Instant::now())).is_none(), "it is still the same");
        let other = line.clone();
        let second = thread::spawn(move || other.wait_for_other(1, None).map(|up| up.number));
        assert_eq!(line.cause(), cause::OSQUERY_DOWN, "before the first one");
        line.lower(cause::REGISTERED_AGAIN);
        assert!(line.up().is_none());
        assert_eq!(line.cause(), cause::REGISTERED_AGAIN);
        line.hang_up();
        assert_eq!(second.join().unwrap(), None);
        assert!(line.wait_for_end(Instant::now() + Duration::from_secs(60)));
    }
}
