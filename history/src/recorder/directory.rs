//! Who is it? The one index from what the kernel calls a container (cgroup, network namespace) and from its id to its key.

use std::{
    collections::{BTreeSet, VecDeque},
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use foldhash::HashMap;

use super::namesakes::Namesakes;
use crate::container::{ContainerKey, Run};

/// Most containers that are indexed; of more, the newest.
const MOST: usize = 65_536;

/// The containers that live, or ended a moment ago. Cheap to clone; kept by the recorder, read by whoever sees the kernel's names.
#[derive(Clone, Debug, Default)]
pub struct Directory(Arc<RwLock<Index>>);

#[derive(Debug, Default)]
struct Index {
    by_cgroup: HashMap<i64, ContainerKey>,
    by_net_namespace: HashMap<String, ContainerKey>,
    by_id: Namesakes,
    names: HashMap<ContainerKey, Names>,
    images: HashMap<ContainerKey, Arc<str>>,
    /// Oldest first; may still hold what was removed.
    order: VecDeque<ContainerKey>,
    watchers: Watchers,
}

/// What the kernel calls a container.
#[derive(Debug, PartialEq, Eq)]
struct Names {
    cgroup_id: Option<i64>,
    net_namespace: Option<String>,
    /// Of its first process, while it runs.
    pid: Option<i64>,
}

impl Names {
    fn of(run: &Run) -> Self {
        let pid = run.pid.filter(|_| run.finished_ns.is_none() && run.exit_code.is_none());
        Self { cgroup_id: run.cgroup_id, net_namespace: run.net_namespace.clone(), pid }
    }
}

/// Called after the containers that run changed.
type Watcher = Arc<dyn Fn() + Send + Sync>;

#[derive(Default)]
struct Watchers(Vec<Watcher>);

impl fmt::Debug for Watchers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} watchers", self.0.len())
    }
}

impl Directory {
    /// The container whose processes are in the cgroup of that id.
    pub fn by_cgroup(&self, cgroup_id: i64) -> Option<ContainerKey> {
        self.read(|index| index.by_cgroup.get(&cgroup_id).cloned())
    }

    /// The container that has the network namespace of that inode. Containers of one pod share theirs: the newest is given.
    pub fn by_net_namespace(&self, inode: &str) -> Option<ContainerKey> {
        self.read(|index| index.by_net_namespace.get(inode).cloned())
    }

    /// The containers of that id: one, unless two endpoints use the same.
    pub fn by_id(&self, container_id: &str) -> Vec<ContainerKey> {
        self.read(|index| index.by_id.of(container_id).to_vec())
    }

    /// The containers that run, each with the pid of its first process, where that is known.
    pub fn running(&self) -> Vec<(ContainerKey, i64)> {
        self.read(|index| index.names.iter().filter_map(|(key, names)| Some((key.clone(), names.pid?))).collect())
    }

    /// Calls `changed` whenever [`Self::running`] became another list, for as long as the recorder lives. On the recorder's own
    /// thread, so that it must only wake somebody.
    pub fn on_change(&self, changed: impl Fn() + Send + Sync + 'static) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).watchers.0.push(Arc::new(changed));
    }

    /// The namespaces of an endpoint in which containers live, or ended a moment ago.
    pub fn namespaces(&self, endpoint: &str) -> BTreeSet<Arc<str>> {
        self.read(|index| {
            index.names.keys().filter(|key| *key.endpoint == *endpoint).map(|key| Arc::clone(&key.runtime_namespace)).collect()
        })
    }

    fn read<T>(&self, look: impl FnOnce(&Index) -> T) -> T {
        look(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps what is known of a container's present run.
    pub(super) fn put(&self, key: &ContainerKey, run: &Run) {
        self.change(|index| {
            let mut changed = index.put(key, run);
            while index.names.len() > MOST
                && let Some(oldest) = index.order.pop_front()
            {
                changed |= index.remove(&oldest);
                index.images.remove(&oldest);
            }
            changed
        });
    }

    /// Keeps no room for what a storm brought.
    pub(super) fn shrink(&self) {
        let mut index = self.0.write().unwrap_or_else(PoisonError::into_inner);
        index.by_id.shrink();
        index.names.shrink_to_fit();
        index.order.shrink_to_fit();
    }

    pub(super) fn remove(&self, key: &ContainerKey) {
        self.change(|index| {
            let changed = index.remove(key);
            index.images.remove(key);
            index.tidy();
            changed
        });
    }

    /// Keeps the image of a container that is indexed.
    pub(super) fn note_image(&self, key: &ContainerKey, image: &str) {
        let is_known = self.read(|index| index.images.get(key).is_some_and(|known| **known == *image) || !index.names.contains_key(key));
        if !is_known {
            self.0.write().unwrap_or_else(PoisonError::into_inner).images.insert(key.clone(), image.into());
        }
    }

    /// The image of the container of that id, as it was asked for; `None`: not known, or several containers have the id.
    pub fn image(&self, container_id: &str) -> Option<Arc<str>> {
        self.read(|index| {
            let only = index.by_id.only(container_id)?;
            index.images.get(only).cloned()
        })
    }

    /// Calls the watchers, where `change` says that what runs is another.
    fn change(&self, change: impl FnOnce(&mut Index) -> bool) {
        let mut index = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let watchers = if change(&mut index) { index.watchers.0.clone() } else { Vec::new() };
        drop(index);
        watchers.iter().for_each(|changed| changed());
    }
}

impl Index {
    /// True: what runs is another.
    fn put(&mut self, key: &ContainerKey, run: &Run) -> bool {
        let names = Names::of(run);
        let mut ran = None;
        if let Some(known) = self.names.get(key) {
            if *known == names {
                return false;
            }
            ran = known.pid;
            self.remove(key);
        } else {
            self.order.push_back(key.clone());
        }
        if let Some(cgroup) = run.cgroup_id {
            self.by_cgroup.insert(cgroup, key.clone());
        }
        if let Some(net) = &run.net_namespace {
            self.by_net_namespace.insert(net.clone(), key.clone());
        }
        self.by_id.insert(key);
        let runs = names.pid;
        self.names.insert(key.clone(), names);
        runs != ran
    }

    /// Drops from the order what was removed, once that is most of it.
    fn tidy(&mut self) {
        if self.order.len() > 2 * self.names.len() + 1024 {
            let Self { order, names, .. } = self;
            order.retain(|key| names.contains_key(key));
        }
    }

    /// True: what runs is another.
    fn remove(&mut self, key: &ContainerKey) -> bool {
        let Some(Names { cgroup_id, net_namespace, pid }) = self.names.remove(key) else { return false };
        if let Some(cgroup) = cgroup_id.filter(|c| self.by_cgroup.get(c) == Some(key)) {
            self.by_cgroup.remove(&cgroup);
        }
        if let Some(net) = net_namespace.filter(|n| self.by_net_namespace.get(n) == Some(key)) {
            self.by_net_namespace.remove(&net);
        }
        self.by_id.remove(key);
        pid.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;

    fn key(id: &str) -> ContainerKey {
        ContainerKey { container_id: id.into(), ..ContainerKey::default() }
    }

    fn run(cgroup_id: i64, net: &str) -> Run {
        Run { cgroup_id: Some(cgroup_id), net_namespace: Some(net.into()), ..Run::default() }
    }

    #[test]
    fn a_name_that_moved_on_is_the_newest_owners() {
        let directory = Directory::default();
        directory.put(&key("a"), &run(1, "100"));
        directory.put(&key("b"), &run(1, "100"));
        directory.remove(&key("a"));
        assert_eq!((directory.by_cgroup(1), directory.by_net_namespace("100")), (Some(key("b")), Some(key("b"))));
        directory.put(&key("b"), &run(2, "100"));
        assert_eq!((directory.by_cgroup(1), directory.by_cgroup(2)), (None, Some(key("b"))));
        assert_eq!((directory.by_id("a"), directory.by_id("b")), (vec![], vec![key("b")]));
        assert_eq!(directory.namespaces(""), BTreeSet::from(["".into()]));
        assert_eq!(directory.namespaces("unix:///other"), BTreeSet::new());
    }

    #[test]
    fn tells_when_a_container_begins_and_ends_to_run() {
        let (directory, woken) = (Directory::default(), Arc::new(AtomicUsize::new(0)));
        let counter = woken.clone();
        directory.on_change(move || {
            counter.fetch_add(1, Relaxed);
        });
        let running = |expected: &[(&str, i64)], times| {
            assert_eq!(directory.running(), expected.iter().map(|(id, pid)| (key(id), *pid)).collect::<Vec<_>>());
            assert_eq!(woken.load(Relaxed), times);
        };
        directory.put(&key("a"), &run(1, "100"));
        running(&[], 0);
        let runs = Run { pid: Some(7), ..run(1, "100") };
        directory.put(&key("a"), &runs);
        directory.put(&key("a"), &runs);
        running(&[("a", 7)], 1);
        directory.put(&key("a"), &Run { pid: Some(8), ..run(1, "100") });
        running(&[("a", 8)], 2);
        directory.put(&key("a"), &Run { finished_ns: Some(9), pid: Some(8), ..run(1, "100") });
        running(&[], 3);
        directory.put(&key("a"), &runs);
        directory.remove(&key("a"));
        running(&[], 5);
    }

    #[test]
    fn an_image_is_known_as_long_as_its_container_and_of_one_container_alone() {
        let (directory, other) = (Directory::default(), ContainerKey { endpoint: "unix:///other".into(), ..key("a") });
        directory.note_image(&key("a"), "nobody's");
        assert_eq!(directory.image("a"), None);
        directory.put(&key("a"), &run(1, "100"));
        directory.note_image(&key("a"), "web:1");
        directory.put(&key("a"), &run(2, "100"));
        assert_eq!(directory.image("a").as_deref(), Some("web:1"));
        directory.put(&other, &run(3, "101"));
        assert_eq!(directory.image("a"), None);
        directory.remove(&other);
        directory.remove(&key("a"));
        assert_eq!(directory.image("a"), None);
    }
}
