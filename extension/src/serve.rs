//! The extension at work: registered with osquery for as long as both live, and again whenever that ends.
//!
//! osqueryd's worker may restart under us: then there is a new manager, which does not know us and has deleted our socket.
//! One thread looks after that; the socket is served by [`crate::thrift`].

mod desk;

use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use mayfly_history::{Feed, chain, feed::cause, now};
use mayfly_tables::{FollowError, Followed, Table};

use crate::{
    delivery::{Delivery, DeliveryConfig, Registration},
    folders::{Folders, Heard},
    line::{Line, Refusal},
    manager::{Listed, Manager, ManagerError},
    sql::captured,
    thrift::{Limits, Server},
    watched::Waker,
};
use desk::Desk;

/// The name we register under.
pub const NAME: &str = "mayfly";

/// How long a call to osquery may take when it is not in the middle of something.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long saying goodbye may take: osquery may be ending, too.
const GOODBYE: Duration = Duration::from_secs(2);
/// How long ending may take: an osquery that hangs may hold us in the middle of a call. What was to be asked at last was asked before.
const LONGEST_END: Duration = Duration::from_secs(4);
/// Polls in a row that osquery may leave unanswered before it counts as gone.
const UNANSWERED: u32 = 3;
/// The first and the longest pause between two attempts to register.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// The longest one where nothing tells that the socket appeared: its folder is not there either.
const UNTOLD_PAUSE: Duration = Duration::from_secs(1);

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
    pub fn start(options: ServeOptions) -> std::io::Result<Self> {
        let appearances = Appearances { socket: options.line.socket().to_owned(), folders: Folders::new()? };
        let signal = Arc::new(Signal { stopping: AtomicBool::new(false), waker: appearances.folders.waker() });
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

/// Why a pause ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Paused {
    /// It is time to stop.
    Stop,
    /// The manager's socket appeared, or another one in its place.
    Appeared,
    Over,
}

/// Tells when something appears at the manager's socket, as long as its folder is there.
struct Appearances {
    socket: PathBuf,
    folders: Folders,
}

impl Appearances {
    /// Waits until the socket appears, until `signal`, or for `pause`.
    fn pause(&mut self, signal: &Signal, pause: Duration) -> Paused {
        let names: Vec<_> = self.socket.file_name().into_iter().collect();
        let is_watched = self.socket.parent().is_some_and(|dir| self.folders.watch(dir).is_ok());
        let pause = if is_watched { pause } else { pause.min(UNTOLD_PAUSE) };
        let heard = self.folders.wait_for(&names, Some(Instant::now() + pause));
        if signal.stopping.load(SeqCst) {
            return Paused::Stop;
        }
        match heard {
            Ok(Heard::Changed) if self.socket.exists() => Paused::Appeared,
            Ok(_) => Paused::Over,
            Err(error) => {
                tracing::debug!(%error, "nothing tells when osquery's socket appears");
                thread::sleep(FIRST_PAUSE);
                Paused::Over
            }
        }
    }
}

/// Why we are not registered.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error(transparent)]
    Manager(#[from] ManagerError),
    #[error("an extension named {NAME} is registered already; osquery drops it once it no longer answers")]
    Duplicate,
    #[error("cannot listen on {}", path.display())]
    Listen { path: PathBuf, source: std::io::Error },
}

/// A registration that holds.
struct Registered {
    uuid: i64,
    server: Server,
    /// Names the registration to delivery.
    token: String,
    /// The extensions that were there before us.
    beside: Vec<Listed>,
    choice: Choice,
}

/// The tables that are to be followed, as far as they can be.
#[derive(Default)]
struct Choice {
    followed: Vec<&'static Followed>,
    /// Those that cannot, each with the reason.
    refused: Vec<(String, Refusal)>,
}

/// Why a registration no longer holds.
enum Ended {
    /// It is time to stop.
    Stopped,
    /// osquery no longer knows us, or another osquery is there.
    Forgotten,
    /// We took it back, since osquery has other tables now than those that we follow.
    Outdated,
}

/// Why a table is not followed, or not known to be fit for it.
enum Declined {
    Table(Refusal),
    Manager(ManagerError),
}

struct Keeper {
    options: Arc<ServeOptions>,
    signal: Arc<Signal>,
    delivery: Arc<Delivery>,
}

impl Keeper {
    fn manager(&self, patience: Duration) -> Manager {
        self.options.line.manager(patience)
    }

    fn keep(&self, mut appearances: Appearances) {
        let mut token = None;
        while let Some(registered) = self.register(token.as_deref(), &mut appearances) {
            tracing::info!(uuid = registered.uuid, socket = %self.options.line.socket().display(), "registered with osquery");
            self.options.feed.running();
            self.options.line.raise(registered.choice.followed.clone(), registered.choice.refused.clone());
            let ended = self.watch(&registered, &mut appearances);
            let is_outdated = matches!(ended, Ended::Outdated);
            self.options.line.lower(if is_outdated { cause::REGISTERED_AGAIN } else { cause::OSQUERY_DOWN });
            token = None;
            match ended {
                Ended::Stopped => {
                    if let Err(error) = self.manager(GOODBYE).deregister(registered.uuid) {
                        tracing::debug!(error = chain(&error), "osquery did not hear the goodbye");
                    }
                    return;
                }
                Ended::Forgotten => tracing::warn!("osquery no longer knows us; registering again"),
                Ended::Outdated => {
                    tracing::info!("osquery's tables changed; registering again");
                    // To delivery nothing ended: nothing is offered again.
                    token = Some(registered.token);
                }
            }
        }
    }

    /// Registers, however long that takes; `None`: it is time to stop. `token`: of the registration that this one goes on for.
    fn register(&self, token: Option<&str>, appearances: &mut Appearances) -> Option<Registered> {
        let mut insist_until = Instant::now() + self.options.timeout;
        let mut pause = FIRST_PAUSE;
        let mut said = String::new();
        loop {
            match self.try_register(token) {
                Ok(registered) => return Some(registered),
                Err(error) => {
                    let why = chain(&error);
                    match &error {
                        ServeError::Manager(ManagerError::Unreachable { .. }) => {
                            self.options.feed.waiting(format!("{why}: is osqueryd running, with extensions enabled?"));
                        }
                        _ => self.options.feed.failed(&why, "tried again until osquery takes us"),
                    }
                    if why != said {
                        tracing::warn!(error = why, "not registered with osquery yet");
                        said = why;
                    }
                }
            }
            match appearances.pause(&self.signal, pause) {
                Paused::Stop => return None,
                Paused::Appeared => {
                    pause = FIRST_PAUSE;
                    insist_until = Instant::now() + self.options.timeout;
                }
                Paused::Over if Instant::now() > insist_until => pause = (pause * 2).min(LONGEST_PAUSE),
                Paused::Over => {}
            }
        }
    }

    fn try_register(&self, token: Option<&str>) -> Result<Registered, ServeError> {
        let manager = self.manager(PATIENCE);
        let beside = manager.extensions()?;
        if beside.iter().any(|listed| listed.name == NAME) {
            return Err(ServeError::Duplicate);
        }
        let taken = manager.table_names()?;
        let token = token.map_or_else(|| format!("{}-{}", now(), std::process::id()), str::to_owned);
        let registration = Registration { instance: manager.instance_id()?, token: token.clone() };
        let choice = self.follow(&manager, &taken)?;
        let tables = self.free_tables(&taken, &choice.followed);
        let uuid = manager.register(NAME, env!("CARGO_PKG_VERSION"), desk::routes(&tables))?;
        let path = socket_of(self.options.line.socket(), uuid);
        let desk = Desk {
            uuid,
            tables,
            state_dir: self.options.state_dir.clone(),
            manager: self.manager(PATIENCE),
            registration,
            delivery: Arc::clone(&self.delivery),
            options: Arc::clone(&self.options),
            ended: AtomicBool::new(false),
        };
        match Server::start(&path, Arc::new(desk), Limits::default()) {
            Ok(server) => Ok(Registered { uuid, server, token, beside, choice }),
            Err(source) => {
                let _ = manager.deregister(uuid);
                Err(ServeError::Listen { path, source })
            }
        }
    }

    /// The tables that can be followed now, as osquery describes them, and those that cannot, with the reason.
    fn follow(&self, manager: &Manager, there: &BTreeSet<String>) -> Result<Choice, ManagerError> {
        let mut choice = Choice::default();
        for name in &self.options.follow {
            match self.follow_one(manager, there, name) {
                Ok(table) => choice.followed.push(table),
                Err(Declined::Table(why)) => choice.refused.push((name.clone(), why)),
                Err(Declined::Manager(ManagerError::Refused { message, .. })) => {
                    choice.refused.push((name.clone(), Refusal::Unfit(format!("osquery does not describe it: {message}"))));
                }
                Err(Declined::Manager(error)) => return Err(error),
            }
        }
        Ok(choice)
    }

    fn follow_one(&self, manager: &Manager, there: &BTreeSet<String>, name: &str) -> Result<&'static Followed, Declined> {
        if self.options.tables.iter().any(|own| own.schema().name == name) {
            return Err(Declined::Table(Refusal::Unfit("it is a table of Mayfly's own".into())));
        }
        if !there.contains(name) {
            return Err(Declined::Table(Refusal::Absent));
        }
        let core = manager.describe(name).map_err(Declined::Manager)?;
        Followed::of(&core).map_err(|error| {
            Declined::Table(match error {
                FollowError::Native { history } => Refusal::Native { history },
                other => Refusal::Unfit(chain(&other)),
            })
        })
    }

    /// Whether what could be followed now differs from what is.
    fn is_outdated(&self, manager: &Manager, registered: &Registered) -> Result<bool, ManagerError> {
        let Choice { followed, .. } = self.follow(manager, &manager.table_names()?)?;
        let same = followed.len() == registered.choice.followed.len()
            && followed.iter().zip(&registered.choice.followed).all(|(a, b)| std::ptr::eq(*a, *b));
        Ok(!same)
    }

    /// The tables that we serve. One whose name is taken would refuse us all: those are left out.
    fn free_tables(&self, taken: &BTreeSet<String>, followed: &[&'static Followed]) -> Vec<&'static dyn Table> {
        let mut all: Vec<&'static dyn Table> = self.options.tables.to_vec();
        // What was captured of tables that are gone is still there to be asked.
        for &table in followed.iter().chain(&captured(&self.options.state_dir)) {
            if all.iter().all(|other| other.schema().name != table.schema().name) {
                all.push(table);
            }
        }
        let (free, clashing): (Vec<&'static dyn Table>, Vec<_>) = all.into_iter().partition(|table| !taken.contains(table.schema().name));
        if !clashing.is_empty() {
            let names: Vec<_> = clashing.iter().map(|table| table.schema().name).collect();
            let names = names.join(", ");
            tracing::error!(tables = names, "osquery has tables of these names already; left ours out");
            self.options.feed.complain(format!("left out, since osquery has tables of these names already: {names}"));
        }
        free
    }

    /// Looks after the registration until it no longer holds.
    fn watch(&self, registered: &Registered, appearances: &mut Appearances) -> Ended {
        let manager = self.manager(PATIENCE);
        let mut unanswered = 0;
        // The other extensions with which what can be followed was last looked at.
        let mut looked_at = registered.beside.clone();
        loop {
            let interval = self.options.interval.max(Duration::from_millis(200));
            if appearances.pause(&self.signal, interval) == Paused::Stop {
                return Ended::Stopped;
            }
            match manager.extensions() {
                Ok(listed) if listed.iter().any(|e| e.uuid == registered.uuid && e.name == NAME) => {
                    unanswered = 0;
                    if !registered.server.is_reachable() {
                        // Listed, but nobody can reach us: take that registration back and begin anew.
                        let _ = manager.deregister(registered.uuid);
                        return Ended::Forgotten;
                    }
                    // osquery's own tables change with its version, and so with its process; those of extensions come and go with them.
                    let beside: Vec<_> = listed.into_iter().filter(|other| other.uuid != registered.uuid).collect();
                    if beside == looked_at {
                        continue;
                    }
                    match self.is_outdated(&manager, registered) {
                        Ok(true) => {
                            let _ = manager.deregister(registered.uuid);
                            return Ended::Outdated;
                        }
                        Ok(false) => looked_at = beside,
                        Err(error) => tracing::debug!(error = chain(&error), "cannot look whether osquery has other tables now"),
                    }
                }
                Ok(_) | Err(ManagerError::Unreachable { .. }) => return Ended::Forgotten,
                Err(error) => {
                    unanswered += 1;
                    tracing::debug!(error = chain(&error), unanswered, "osquery does not answer");
                    if unanswered == UNANSWERED {
                        return Ended::Forgotten;
                    }
                }
            }
        }
    }
}

/// Where osquery looks for an extension.
fn socket_of(manager: &Path, uuid: i64) -> PathBuf {
    let mut path = manager.as_os_str().to_owned();
    path.push(format!(".{uuid}"));
    path.into()
}
