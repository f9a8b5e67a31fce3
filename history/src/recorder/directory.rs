//! Who is it? The one index from what the kernel calls a container (cgroup, network namespace) and from its id to its key.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{Arc, PoisonError, RwLock},
};

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
    by_id: HashMap<Arc<str>, BTreeSet<ContainerKey>>,
    names: HashMap<ContainerKey, (Option<i64>, Option<String>)>,
    /// Oldest first; may still hold what was removed.
    order: VecDeque<ContainerKey>,
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
        self.read(|index| index.by_id.get(container_id).map(|keys| keys.iter().cloned().collect()).unwrap_or_default())
    }

    fn read<T>(&self, look: impl FnOnce(&Index) -> T) -> T {
        look(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps what is known of a container's present run.
    pub(super) fn put(&self, key: &ContainerKey, run: &Run) {
        let mut index = self.0.write().unwrap_or_else(PoisonError::into_inner);
        index.put(key, run);
        while index.names.len() > MOST
            && let Some(oldest) = index.order.pop_front()
        {
            index.remove(&oldest);
        }
    }

    pub(super) fn remove(&self, key: &ContainerKey) {
        let mut index = self.0.write().unwrap_or_else(PoisonError::into_inner);
        index.remove(key);
        index.tidy();
    }
}

impl Index {
    fn put(&mut self, key: &ContainerKey, run: &Run) {
        if let Some((cgroup, net)) = self.names.get(key) {
            if (*cgroup, net) == (run.cgroup_id, &run.net_namespace) {
                return;
            }
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
        self.by_id.entry(key.container_id.clone()).or_default().insert(key.clone());
        self.names.insert(key.clone(), (run.cgroup_id, run.net_namespace.clone()));
    }

    /// Drops from the order what was removed, once that is most of it.
    fn tidy(&mut self) {
        if self.order.len() > 2 * self.names.len() + 1024 {
            let Self { order, names, .. } = self;
            order.retain(|key| names.contains_key(key));
        }
    }

    fn remove(&mut self, key: &ContainerKey) {
        let Some((cgroup, net)) = self.names.remove(key) else { return };
        if let Some(cgroup) = cgroup.filter(|c| self.by_cgroup.get(c) == Some(key)) {
            self.by_cgroup.remove(&cgroup);
        }
        if let Some(net) = net.filter(|n| self.by_net_namespace.get(n) == Some(key)) {
            self.by_net_namespace.remove(&net);
        }
        if let Some(keys) = self.by_id.get_mut(&key.container_id) {
            keys.remove(key);
            if keys.is_empty() {
                self.by_id.remove(&key.container_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
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
    }
}
