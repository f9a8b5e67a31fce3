//! Whose turn it is to record: an extension's, for as long as no `mayfly record` wants to.

use std::{
    error::Error,
    path::{Path, PathBuf},
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::Duration,
};

use mayfly_history::{
    chain,
    recorder::{Lock, LockError, Role},
};

/// How long before a directory that could not be used is tried again.
const PAUSE: Duration = Duration::from_secs(30);

/// What the recording side of the extension is told.
pub(crate) enum Turn {
    /// Nobody records: it is our turn.
    Ours(Lock),
    /// `mayfly record` wants to.
    HandOver,
    /// What recorded has ended, and the lock is free.
    HandedOver,
    /// The directory cannot be locked; tried again.
    Refused(LockError),
    Stop,
}

/// Records whenever nobody else does, until told to stop; `start` gives what records until it is dropped. Neither what is recorded last nor a
/// hand-over under way is waited for at the stop: the channel is closed once nothing records any more.
pub(crate) fn record_in_turn<R: Send + 'static>(
    state_dir: &Path,
    start: impl Fn() -> Result<R, Box<dyn Error>>,
    tell: &Sender<Turn>,
    told: &Receiver<Turn>,
) -> Receiver<()> {
    let mut recording: Option<(R, Lock)> = None;
    let mut handing_over = None;
    queue_up(state_dir, tell.clone(), Duration::ZERO);
    for turn in told {
        match turn {
            Turn::Ours(lock) => match take_over(&start, &lock, tell) {
                Ok(started) => {
                    tracing::info!(state_dir = %state_dir.display(), "recording, since no `mayfly record` does");
                    recording = Some((started, lock));
                }
                Err(error) => {
                    tracing::error!(error = chain(&*error), "cannot record; trying again");
                    drop(lock);
                    queue_up(state_dir, tell.clone(), PAUSE);
                }
            },
            Turn::HandOver => {
                tracing::info!("handing over to `mayfly record`");
                let over = tell.clone();
                handing_over = Some(end_beside(recording.take(), move || drop(over.send(Turn::HandedOver))));
            }
            Turn::HandedOver => {
                handing_over = None;
                queue_up(state_dir, tell.clone(), Duration::ZERO);
            }
            Turn::Refused(error) => {
                tracing::error!(error = chain(&error), "cannot record; trying again");
                queue_up(state_dir, tell.clone(), PAUSE);
            }
            Turn::Stop => break,
        }
    }
    handing_over.unwrap_or_else(|| end_beside(recording, || ()))
}

/// Waits on a thread of its own for the lock: the wait cannot be cut short, and ends with the process.
fn queue_up(state_dir: &Path, tell: Sender<Turn>, pause: Duration) {
    let dir: PathBuf = state_dir.to_owned();
    thread::spawn(move || {
        thread::sleep(pause);
        let turn = match Lock::acquire(&dir, Role::Extension) {
            Ok(lock) => Turn::Ours(lock),
            Err(error) => Turn::Refused(error),
        };
        let _ = tell.send(turn);
    });
}

fn take_over<R>(start: impl Fn() -> Result<R, Box<dyn Error>>, lock: &Lock, tell: &Sender<Turn>) -> Result<R, Box<dyn Error>> {
    let recording = start()?;
    let claimed = tell.clone();
    lock.on_claim(move || drop(claimed.send(Turn::HandOver)))?;
    Ok(recording)
}

/// Stops recording, then gives up the lock, on a thread of its own: a source may take long to end. The channel is closed once it has.
fn end_beside<R: Send + 'static>(recording: Option<(R, Lock)>, then: impl FnOnce() + Send + 'static) -> Receiver<()> {
    let (end, ended) = mpsc::channel();
    thread::spawn(move || {
        let _end: Sender<()> = end;
        if let Some((recording, lock)) = recording {
            drop(recording);
            drop(lock);
        }
        then();
    });
    ended
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{RecvTimeoutError, TryRecvError};

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    /// Something that records, and ends when it is let to.
    struct Recording {
        ending: Sender<()>,
        may_end: Receiver<()>,
    }

    impl Drop for Recording {
        fn drop(&mut self) {
            let _ = self.ending.send(());
            let _ = self.may_end.recv();
        }
    }

    /// An extension that records in turn.
    struct Extension {
        dir: tempfile::TempDir,
        tell: Sender<Turn>,
        begins: Receiver<()>,
        ending: Receiver<()>,
        let_end: Sender<()>,
        stopped: Receiver<Receiver<()>>,
    }

    impl Extension {
        fn start() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let (tell, told) = mpsc::channel();
            let (began, begins) = mpsc::channel();
            let (end, ending) = mpsc::channel();
            let (let_end, may_end) = mpsc::channel();
            let (done, stopped) = mpsc::channel();
            let (place, telling) = (dir.path().to_owned(), tell.clone());
            thread::spawn(move || {
                let ends = std::cell::Cell::new(Some(may_end));
                let start = || -> Result<Recording, Box<dyn Error>> {
                    began.send(())?;
                    // Only the first one takes its time.
                    let may_end = ends.take().unwrap_or_else(|| mpsc::channel().1);
                    Ok(Recording { ending: end.clone(), may_end })
                };
                let _ = done.send(record_in_turn(&place, start, &telling, &told));
            });
            begins.recv_timeout(SOON).expect("it records where nobody else does");
            Self { dir, tell, begins, ending, let_end, stopped }
        }

        /// `mayfly record`, which waits for the lock; the channel gives it.
        fn claim(&self) -> Receiver<Lock> {
            let (got, lock) = mpsc::channel();
            let dir = self.dir.path().to_owned();
            thread::spawn(move || got.send(Lock::acquire(&dir, Role::Record).unwrap()));
            self.ending.recv_timeout(SOON).expect("it begins to hand over");
            lock
        }
    }

    #[test]
    fn it_hands_over_and_takes_over_again() {
        let extension = Extension::start();
        let record = extension.claim();
        assert!(matches!(record.try_recv(), Err(TryRecvError::Empty)), "not before what recorded has ended");
        extension.let_end.send(()).unwrap();
        let lock = record.recv_timeout(SOON).expect("`record` has its turn");
        assert_eq!(extension.begins.try_recv(), Err(TryRecvError::Empty), "not while `record` lives");
        drop(lock);
        extension.begins.recv_timeout(SOON).expect("the extension has its turn again");
        extension.tell.send(Turn::Stop).unwrap();
        let ended = extension.stopped.recv_timeout(SOON).expect("it stops");
        assert_eq!(ended.recv_timeout(SOON), Err(RecvTimeoutError::Disconnected), "what records ended");
    }

    #[test]
    fn a_stop_breaks_off_a_hand_over_that_hangs() {
        let extension = Extension::start();
        let record = extension.claim();
        extension.tell.send(Turn::Stop).unwrap();
        let ended = extension.stopped.recv_timeout(SOON).expect("it stops, though what records has not ended");
        assert_eq!(ended.try_recv(), Err(TryRecvError::Empty));
        assert!(matches!(record.try_recv(), Err(TryRecvError::Empty)), "the lock is kept for as long as something records");
        extension.let_end.send(()).unwrap();
        assert_eq!(ended.recv_timeout(SOON), Err(RecvTimeoutError::Disconnected));
        record.recv_timeout(SOON).expect("`record` has its turn");
    }
}
