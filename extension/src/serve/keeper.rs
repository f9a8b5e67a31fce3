//! Registered with osquery for as long as both live, and again whenever that ends.
//!
//! osqueryd's worker may restart under us: then there is a new manager, which does not know us and has deleted our socket.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use mayfly_history::{chain, feed::cause, now};

use super::{
    NAME, ServeOptions, Signal,
    appearances::{Appearances, Paused},
    choice::{Choice, free_tables},
    desk::{self, Desk},
};
use crate::{
    delivery::{Delivery, Registration},
    manager::{Listed, Manager, ManagerError},
    thrift::{Limits, Server},
};

/// How long a call to osquery may take when it is not in the middle of something.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long saying goodbye may take: osquery may be ending, too.
const GOODBYE: Duration = Duration::from_secs(2);
/// Polls in a row that osquery may leave unanswered before it counts as gone.
const UNANSWERED: u32 = 3;
/// The first and the longest pause between two attempts to register.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

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

/// Why a registration no longer holds.
enum Ended {
    /// It is time to stop.
    Stopped,
    /// osquery no longer knows us, or another osquery is there.
    Forgotten,
    /// We took it back, since osquery has other tables now than those that we follow.
    Outdated,
}

/// Looks after the registration, on a thread of its own.
pub(super) struct Keeper {
    pub(super) options: Arc<ServeOptions>,
    pub(super) signal: Arc<Signal>,
    pub(super) delivery: Arc<Delivery>,
}

impl Keeper {
    fn manager(&self, patience: Duration) -> Manager {
        self.options.line.manager(patience)
    }

    /// Registers, and looks after the registration, until it is time to stop.
    pub(super) fn keep(&self, mut appearances: Appearances) {
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
        let choice = Choice::of(&self.options, &manager, &taken)?;
        let tables = free_tables(&self.options, &taken, &choice.followed);
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

    /// Whether what could be followed now differs from what is.
    fn is_outdated(&self, manager: &Manager, registered: &Registered) -> Result<bool, ManagerError> {
        let now = Choice::of(&self.options, manager, &manager.table_names()?)?;
        Ok(!now.is_as(&registered.choice))
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
