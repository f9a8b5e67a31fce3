//! Accounts: what passwd, group and shadow say, of the host and of each container that runs, and when they say something else.
//!
//! inotify watches the directory, because these files are replaced, not written. What it tells makes the file be read again; the
//! difference to the last look is what happened. A container's root is looked into from outside, through its first process.
//! Users and groups of the host that no file names are asked for by the id that an event shows.

mod asked;
mod book;
mod files;
mod getent;
mod id_map;
mod name_service;
mod names;
mod place;
mod root;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use futures_util::StreamExt;
use inotify::{EventMask, EventStream, Inotify, Watches};
use mayfly_history::{Nanos, chain, container::ContainerKey, feed::cause, now};
use serde::Deserialize;
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use self::{
    names::Names,
    place::Place,
    root::{Look, Root, Unread},
};
use crate::{
    error::SourceError,
    process::Process,
    supervise::{Site, Source},
};

/// `[accounts]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccountsConfig {
    /// Whether to record accounts at all. Default true.
    pub enabled: bool,
    /// Whether to look into containers too. Default true.
    pub containers: bool,
    /// The host's root, where the recorder's own is another. Default `/`.
    pub root: PathBuf,
    /// Whether to ask the name service (SSSD, systemd, …) for users and groups that no file names, once an event shows them. Default true.
    pub name_service: bool,
    /// The program that asks it. Default: `getent` of this system, if `root` is its own.
    pub getent: Option<PathBuf>,
}

impl Default for AccountsConfig {
    fn default() -> Self {
        Self { enabled: true, containers: true, root: "/".into(), name_service: true, getent: None }
    }
}

/// How long a look into a root may take: a container's file system may be somebody's program.
const LOOK_WITHIN: Duration = Duration::from_secs(5);
/// Looks into containers at once; one that hangs takes its place until it ends.
const MOST_LOOKS: usize = 8;
/// Least time between two looks into one container.
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);
/// A runtime's first process has the host's root until shortly before its start. So often it is looked at again, each time after
/// twice the pause: 2.5 s in all.
const ATTEMPTS: u32 = 8;
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// Most containers that are looked into.
const MOST_CONTAINERS: usize = 8192;

/// inotify's watch descriptors, as they are shown.
type Watched = Arc<std::sync::Mutex<HashMap<inotify::WatchDescriptor, Vec<ContainerKey>>>>;

/// Follows the accounts of the host and its containers.
#[derive(Debug)]
pub(crate) struct Accounts {
    site: Site,
    config: AccountsConfig,
    places: BTreeMap<ContainerKey, Place>,
    /// When this source began: a container that is younger was seen from its start.
    began_ns: Nanos,
    changed: Arc<Notify>,
    names: Names,
    seen: Arc<Notify>,
    /// The list of containers was read once.
    followed: bool,
}

/// How a look went.
#[derive(Debug)]
struct Looked {
    key: ContainerKey,
    pid: Option<i64>,
    outcome: Result<Look, Unread>,
    /// When it was begun.
    at_ns: Nanos,
}

impl Accounts {
    pub(crate) fn new(site: Site) -> Self {
        let config = site.config.accounts.clone();
        let changed = Arc::new(Notify::new());
        if config.containers {
            let woken = Arc::clone(&changed);
            site.recorder.directory().on_change(move || woken.notify_one());
        }
        let (names, seen) = (Names::new(&site, &config), Arc::new(Notify::new()));
        if names.can_be_asked() {
            for ids in [site.recorder.seen_users(), site.recorder.seen_groups()] {
                let woken = Arc::clone(&seen);
                ids.on_seen(move || woken.notify_one());
            }
        }
        Self { site, config, places: BTreeMap::new(), began_ns: now(), changed, names, seen, followed: false }
    }

    /// Finds out who it is that events showed; not before the files were read, which know most of them.
    fn look_at_seen(&mut self) {
        if let Some(book) = self.places.get(&ContainerKey::default()).and_then(Place::book) {
            self.names.look(book);
        }
    }

    fn broken(&self, request: &str, reason: io::Error) -> SourceError {
        SourceError::Broken { endpoint: self.config.root.join("etc").display().to_string(), request: request.into(), reason: reason.into() }
    }
}

impl Source for Accounts {
    async fn follow(&mut self, stop: CancellationToken) -> Result<(), SourceError> {
        let outcome = match Following::begin(self) {
            Ok(following) => following.run(stop).await,
            Err(error) => Err(error),
        };
        let lost_ns = now();
        self.places.values_mut().for_each(|place| place.lose(lost_ns));
        outcome
    }
}

/// One life of the source: an inotify instance and the looks under way.
struct Following<'a> {
    accounts: &'a mut Accounts,
    events: EventStream<[u8; 4096]>,
    watches: Watches,
    watched: Watched,
    looks: JoinSet<Looked>,
    turns: Arc<Semaphore>,
}

impl<'a> Following<'a> {
    fn begin(accounts: &'a mut Accounts) -> Result<Self, SourceError> {
        let events = Inotify::init().and_then(|inotify| inotify.into_event_stream([0; 4096]));
        let events = events.map_err(|reason| accounts.broken("inotify", reason))?;
        let watches = events.watches();
        let turns = Arc::new(Semaphore::new(MOST_LOOKS));
        let host = ContainerKey::default();
        accounts.places.entry(host).or_insert_with(|| Place::new(Root::Host(accounts.config.root.clone()), None));
        Ok(Self { accounts, events, watches, watched: Watched::default(), looks: JoinSet::new(), turns })
    }

    async fn run(mut self, stop: CancellationToken) -> Result<(), SourceError> {
        self.follow_containers();
        let keys: Vec<_> = self.accounts.places.keys().cloned().collect();
        keys.iter().for_each(|key| self.visit(key));
        let (changed, seen) = (Arc::clone(&self.accounts.changed), Arc::clone(&self.accounts.seen));
        self.accounts.names.begin();
        loop {
            let due = self.accounts.names.due();
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                event = self.events.next() => self.hear(event)?,
                Some(Ok(looked)) = self.looks.join_next() => self.take(looked)?,
                () = changed.notified() => self.follow_containers(),
                () = seen.notified() => self.accounts.look_at_seen(),
                answer = self.accounts.names.answer() => self.accounts.names.take(answer),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.accounts.names.look_again(Instant::now()),
            }
        }
    }

    /// Makes the list of places that of the containers that run.
    fn follow_containers(&mut self) {
        if !self.accounts.config.containers {
            return;
        }
        let is_first = !std::mem::replace(&mut self.accounts.followed, true);
        let running: HashMap<_, _> = self.accounts.site.recorder.directory().running().into_iter().collect();
        let gone = |(key, place): (&ContainerKey, &Place)| {
            let lives = key.container_id.is_empty() || running.get(key).copied() == place.pid;
            (!lives).then(|| key.clone())
        };
        let gone: Vec<_> = self.accounts.places.iter().filter_map(gone).collect();
        for key in gone {
            self.leave(&key);
        }
        for (key, pid) in running {
            if self.accounts.places.contains_key(&key) || self.accounts.places.len() > MOST_CONTAINERS {
                continue;
            }
            // What the recorder before this one knew of may be gone, and its pid another's.
            let is_its = |process: &Process| !is_first || process.run().cgroup_path.is_some_and(|path| path.contains(&*key.container_id));
            let Some(process) = Process::open(pid).ok().filter(is_its) else {
                if is_first {
                    place::lost(&self.accounts.site, key);
                }
                continue;
            };
            let root = Root::Container { key: key.clone(), process, host: self.accounts.config.root.clone() };
            self.accounts.places.insert(key.clone(), Place::new(root, Some(pid)));
            self.visit(&key);
        }
    }

    /// A container ended: its accounts end with it.
    fn leave(&mut self, key: &ContainerKey) {
        let Some(place) = self.accounts.places.remove(key) else { return };
        self.forget_watch(key);
        place.end(&self.accounts.site);
    }

    fn forget_watch(&self, key: &ContainerKey) {
        let mut watched = lock(&self.watched);
        let mut watches = self.watches.clone();
        watched.retain(|descriptor, keys| {
            keys.retain(|k| k != key);
            if keys.is_empty() {
                // The kernel drops the watch itself when the directory is gone.
                let _ = watches.remove(descriptor.clone());
            }
            !keys.is_empty()
        });
    }

    /// Looks at a place, unless somebody does: then once more after that.
    fn visit(&mut self, key: &ContainerKey) {
        let Some(place) = self.accounts.places.get_mut(key) else { return };
        let Some(pause) = place.begin_look() else { return };
        let (root, pid, key) = (Arc::clone(&place.root), place.pid, key.clone());
        let (watches, watched, turns) = (self.watches.clone(), Arc::clone(&self.watched), Arc::clone(&self.turns));
        let is_host = key.container_id.is_empty();
        self.looks.spawn(async move {
            sleep(pause).await;
            // The host does not wait for containers.
            let turn = if is_host { None } else { turns.acquire_owned().await.ok() };
            let at_ns = now();
            let theirs = key.clone();
            let look = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                look(&root, &theirs, watches, &watched)
            });
            let outcome = match timeout(LOOK_WITHIN, look).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(panicked)) => Err(Unread::of("a root")(io::Error::other(panicked))),
                Err(_) => Err(Unread::of("a root")(io::ErrorKind::TimedOut.into())),
            };
            Looked { key, pid, outcome, at_ns }
        });
    }

    /// Something happened in a watched directory.
    fn hear(&mut self, event: Option<io::Result<inotify::Event<std::ffi::OsString>>>) -> Result<(), SourceError> {
        let event = match event {
            Some(Ok(event)) => event,
            Some(Err(reason)) => return Err(self.accounts.broken("inotify", reason)),
            None => return Err(self.accounts.broken("inotify", io::ErrorKind::UnexpectedEof.into())),
        };
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            return Err(self.accounts.broken("inotify", io::Error::other("the kernel dropped events")));
        }
        let keys = lock(&self.watched).get(&event.wd).cloned().unwrap_or_default();
        let is_gone = event.mask.intersects(EventMask::IGNORED | EventMask::UNMOUNT | EventMask::DELETE_SELF | EventMask::MOVE_SELF);
        // A file that is made has nothing in it until it is closed.
        let concerns = event
            .name
            .as_deref()
            .and_then(|name| name.to_str())
            .is_some_and(|name| FILES.contains(&name) && event.mask != EventMask::CREATE || name == "etc");
        if is_gone && keys.iter().any(|key| key.container_id.is_empty()) {
            return Err(self.accounts.broken("inotify", io::Error::other("the directory was replaced")));
        }
        if concerns || is_gone {
            for key in &keys {
                if let Some(place) = self.accounts.places.get_mut(key) {
                    place.stir(now());
                }
                self.visit(key);
            }
        }
        Ok(())
    }

    /// Takes what a look found.
    fn take(&mut self, looked: Looked) -> Result<(), SourceError> {
        let Looked { key, pid, outcome, at_ns } = looked;
        let is_host = key.container_id.is_empty();
        let Some(place) = self.accounts.places.get_mut(&key).filter(|place| place.pid == pid) else {
            if !self.accounts.places.contains_key(&key) {
                self.forget_watch(&key);
            }
            return Ok(());
        };
        match outcome {
            Ok(look) => {
                let lost_ns = place.tell(&self.accounts.site, look, at_ns, self.accounts.began_ns);
                if is_host {
                    self.accounts.site.feed.running();
                    if let Some(from_ns) = lost_ns {
                        self.accounts.site.feed.blind(cause::STREAM_LAGGED, from_ns, Some(at_ns), 0, "the directory was not watched");
                    }
                }
            }
            Err(Unread::OnHostRoot) if place.may_try_again() => {}
            Err(Unread::OnHostRoot) => place.give_up(),
            Err(unread) if is_host => {
                place.end_look();
                return Err(self.accounts.broken("the accounts", io::Error::other(unread)));
            }
            Err(unread) => {
                place.give_up();
                tracing::debug!(container = &*key.container_id, error = &unread as &dyn std::error::Error, "no accounts could be read");
                self.accounts.site.feed.complain(format!("container {}: {}", key.container_id, chain(&unread)));
            }
        }
        if place.end_look() {
            self.visit(&key);
        }
        if is_host {
            self.accounts.look_at_seen();
        }
        Ok(())
    }
}

/// The files that are read.
const FILES: [&str; 3] = ["passwd", "group", "shadow"];

/// Watches first, then reads: what happens in between is told.
fn look(root: &Root, key: &ContainerKey, mut watches: Watches, watched: &Watched) -> Result<Look, Unread> {
    use inotify::WatchMask as Mask;
    let etc = root.open()?;
    {
        let mask = Mask::CREATE
            | Mask::MOVED_TO
            | Mask::MOVED_FROM
            | Mask::CLOSE_WRITE
            | Mask::DELETE
            | Mask::DELETE_SELF
            | Mask::MOVE_SELF
            | Mask::ONLYDIR;
        // Nobody hears of an event before the list names its watch.
        let mut watched = lock(watched);
        let descriptor = watches.add(etc.path(), mask).map_err(Unread::of("etc, to be watched"))?;
        let keys = watched.entry(descriptor).or_default();
        if !keys.contains(key) {
            keys.push(key.clone());
        }
    }
    root.read(&etc)
}

fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// What fuzzers call.
pub mod fuzzing {
    /// The files of a hostile root.
    pub fn decode(bytes: &[u8]) {
        let lines = super::files::passwd(bytes, 4096).entries.len()
            + super::files::group(bytes, 4096).entries.len()
            + super::files::shadow(bytes, 4096).entries.len();
        assert!(lines <= 3 * 4096);
        if let Ok(text) = std::str::from_utf8(bytes)
            && let Some(map) = super::id_map::IdMap::parse(text)
        {
            let _ = map.outside(0);
        }
    }
}
