//! The extension at work. One thread, the keeper's, looks after the registration with osquery; the socket is served by [`crate::thrift`], and
//! what is asked there is answered at a desk.

mod appearances;
mod choice;
mod desk;
mod keeper;

use std::{
    fmt, io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use mayfly_history::Feed;
use mayfly_tables::Table;

use self::{appearances::Appearances, keeper::Keeper};
use crate::{
    delivery::{Delivery, DeliveryConfig},
    line::Line,
    watched::Waker,
};

/// The name we register under.
pub const NAME: &str = "mayfly";

/// How long ending may take: an osquery that hangs may hold us in the middle of a call. What was to be asked at last was asked before.
const LONGEST_END: Duration = Duration::from_secs(4);

/// What to serve, and to whom.
#[derive(Clone)]
pub struct ServeOptions {
    /// The line to osquery's manager socket, `--socket`, which need not be there yet. Told when we are registered and when not.
    pub line: Line,
    /// Names of osquery's tables whose histories are to be served.
    pub follow: Vec<String>,
    /// How long to insist on registering before pauses between attempts grow, `--timeout`.
    pub timeout: Duration,
    /// How often to look whether we are still registered, `--interval`.
    pub interval: Duration,
    /// Where `history.db` is, and `delivery.db` will be.
    pub state_dir: PathBuf,
    pub delivery: DeliveryConfig,
    pub tables: &'static [&'static dyn Table],
    /// Tells how the connection is: `running` while registered; tables left out and failures as its last error.
    pub feed: Feed,
    /// Called once, on a thread of ours, when osquery asks us to end. Must not block.
    pub on_shutdown: Arc<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for ServeOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServeOptions").field("line", &self.line).field("state_dir", &self.state_dir).finish_non_exhaustive()
    }
}

/// The extension, serving. Dropping it stops it.
#[derive(Debug)]
pub struct Extension {
    signal: Arc<Signal>,
    /// The keeper's thread, and a channel that is closed when it ends.
    keeper: Option<(JoinHandle<()>, Receiver<()>)>,
}

impl Extension {
    /// Begins to serve; returns at once, whether osquery is there or not.
    pub fn start(options: ServeOptions) -> io::Result<Self> {
        let appearances = Appearances::new(options.line.socket())?;
        let signal = Arc::new(Signal { stopping: AtomicBool::new(false), waker: appearances.waker() });
        let delivery = Arc::new(Delivery::new(&options.state_dir, options.delivery.clone()));
        let keeper = Keeper { options: Arc::new(options), signal: Arc::clone(&signal), delivery };
        let (end, ended) = mpsc::channel();
        let keeper = thread::Builder::new().name("osquery".into()).spawn(move || {
            let _end: Sender<()> = end;
            keeper.keep(appearances);
        })?;
        Ok(Self { signal, keeper: Some((keeper, ended)) })
    }

    /// Takes the registration back, answers what is being asked, removes the socket; within seconds.
    pub fn stop(self) {
        self.stop_within(LONGEST_END);
    }

    /// The same, within `longest`.
    pub fn stop_within(mut self, longest: Duration) {
        self.end(longest);
    }

    fn end(&mut self, longest: Duration) {
        self.signal.stop();
        if let Some((keeper, ended)) = self.keeper.take()
            && ended.recv_timeout(longest) == Err(RecvTimeoutError::Disconnected)
        {
            let _ = keeper.join();
        }
    }
}

impl Drop for Extension {
    fn drop(&mut self) {
        self.end(LONGEST_END);
    }
}

/// Asks the keeper's thread to stop.
#[derive(Debug)]
struct Signal {
    stopping: AtomicBool,
    waker: Waker,
}

impl Signal {
    fn stop(&self) {
        self.stopping.store(true, SeqCst);
        self.waker.wake();
    }
}
