//! The cgroups of this host and the containers that they belong to, by the ids that records carry.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use mayfly_history::container::ContainerKey;

use crate::{
    attribution::{Named, container_here},
    records::Cgroups,
};

/// Cgroups that are gone and still known: the last exits and closed connections come after them.
const KEEP_GONE: usize = 4096;

/// One of the two hierarchies that are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Hierarchy {
    Unified,
    /// The v1 hierarchy of `pids`.
    Legacy,
}

/// To whom a cgroup belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Host,
    Container(ContainerKey),
}

/// What is known of all cgroups.
#[derive(Debug, Default)]
pub(crate) struct CgroupMap {
    owners: HashMap<(Hierarchy, u64), Owner>,
    gone: VecDeque<(Hierarchy, u64)>,
    /// Pairs that records carried, to be forgotten in the kernel with their cgroups.
    pairs: HashSet<Cgroups>,
}

/// Number of the v1 hierarchy that has the `pids` controller; 0 where that controller is in the unified one, or off.
pub(crate) fn legacy_hierarchy() -> u32 {
    let controllers = fs::read_to_string("/proc/cgroups").unwrap_or_default();
    controllers.lines().find_map(|line| line.strip_prefix("pids\t")?.split('\t').next()?.parse().ok()).unwrap_or(0)
}

impl CgroupMap {
    /// Learns the cgroups that exist now, and tells of those that are containers'.
    pub(crate) fn learn_existing(&mut self, mut tell: impl FnMut(Hierarchy, u64, &str, &Named<'_>)) {
        for (hierarchy, mountpoint) in mounts(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default()) {
            self.learn_below(hierarchy, Path::new(mountpoint), "/", &mut tell);
        }
    }

    fn learn_below(&mut self, hierarchy: Hierarchy, folder: &Path, path: &str, tell: &mut impl FnMut(Hierarchy, u64, &str, &Named<'_>)) {
        // A cgroup may go while it is looked at.
        let Ok(metadata) = fs::metadata(folder) else { return };
        if let Some(named) = self.made(hierarchy, metadata.ino(), path) {
            tell(hierarchy, metadata.ino(), path, &named);
        }
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir())
                && let Some(name) = entry.file_name().to_str()
            {
                self.learn_below(hierarchy, &entry.path(), &format!("{}/{name}", path.trim_end_matches('/')), tell);
            }
        }
    }

    /// A cgroup came into being. Returns the container that it is of.
    pub(crate) fn made<'p>(&mut self, hierarchy: Hierarchy, id: u64, path: &'p str) -> Option<Named<'p>> {
        let named = container_here(path);
        self.owners.insert((hierarchy, id), owner(named.as_ref()));
        named
    }

    /// A process was moved into a cgroup, which may have been made unseen.
    pub(crate) fn joined(&mut self, hierarchy: Hierarchy, id: u64, path: &str) {
        self.owners.entry((hierarchy, id)).or_insert_with(|| owner(container_here(path).as_ref()));
    }

    /// A cgroup is gone. Returns the pairs that need no longer be known in the kernel.
    pub(crate) fn removed(&mut self, hierarchy: Hierarchy, id: u64) -> Vec<Cgroups> {
        self.gone.push_back((hierarchy, id));
        if self.gone.len() > KEEP_GONE
            && let Some(oldest) = self.gone.pop_front()
        {
            self.owners.remove(&oldest);
        }
        let has = |pair: &Cgroups| match hierarchy {
            Hierarchy::Unified => pair.unified == id,
            Hierarchy::Legacy => pair.legacy == id,
        };
        self.pairs.extract_if(has).collect()
    }

    /// Whose these cgroups are, with the id of the one that tells. `None`: both are unknown, and `pid` is gone.
    pub(crate) fn owner(&mut self, cgroups: Cgroups, pid: u32) -> Option<(&Owner, u64)> {
        self.pairs.insert(cgroups);
        let unified = (Hierarchy::Unified, cgroups.unified);
        let legacy = (Hierarchy::Legacy, cgroups.legacy);
        if !self.knows(cgroups) {
            self.learn_of(pid, cgroups);
        }
        // Some runtimes make a cgroup of their own only in the v1 hierarchies.
        let chosen = [unified, legacy].into_iter().find(|key| matches!(self.owners.get(key), Some(Owner::Container(_)))).unwrap_or(unified);
        self.owners.get(&chosen).map(|owner| (owner, chosen.1))
    }

    /// Whether the owner of each of these is known.
    pub(crate) fn knows(&self, cgroups: Cgroups) -> bool {
        self.owners.contains_key(&(Hierarchy::Unified, cgroups.unified))
            && (cgroups.legacy == 0 || self.owners.contains_key(&(Hierarchy::Legacy, cgroups.legacy)))
    }

    /// Its making was missed: asks /proc while the process is still there.
    fn learn_of(&mut self, pid: u32, cgroups: Cgroups) {
        let Ok(lines) = fs::read_to_string(format!("/proc/{pid}/cgroup")) else { return };
        for (hierarchy, path) in cgroup_paths(&lines) {
            let id = if hierarchy == Hierarchy::Unified { cgroups.unified } else { cgroups.legacy };
            self.owners.entry((hierarchy, id)).or_insert_with(|| owner(container_here(path).as_ref()));
        }
    }
}

/// The paths of the two hierarchies in a `/proc/<pid>/cgroup`, the unified one first.
pub(crate) fn cgroup_paths(lines: &str) -> Vec<(Hierarchy, &str)> {
    let mut paths: Vec<_> = lines
        .lines()
        .filter_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            match controllers {
                "" => Some((Hierarchy::Unified, path)),
                _ if controllers.split(',').any(|c| c == "pids") => Some((Hierarchy::Legacy, path)),
                _ => None,
            }
        })
        .collect();
    paths.sort_by_key(|(hierarchy, _)| *hierarchy == Hierarchy::Legacy);
    paths
}

/// Where the two hierarchies are mounted.
pub(crate) fn hierarchy_mounts() -> Vec<(Hierarchy, PathBuf)> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts(&mountinfo).into_iter().map(|(hierarchy, mountpoint)| (hierarchy, mountpoint.into())).collect()
}

fn owner(named: Option<&Named<'_>>) -> Owner {
    named.map_or(Owner::Host, |named| Owner::Container(named.key()))
}

/// Finds the folder of a cgroup's path, in whichever hierarchy has one.
pub(crate) fn folders() -> impl Fn(&str) -> Option<String> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let roots: Vec<String> = mounts(&mountinfo).into_iter().map(|(_, mountpoint)| mountpoint.to_owned()).collect();
    move |path| roots.iter().map(|root| format!("{root}{path}")).find(|folder| Path::new(folder).is_dir())
}

/// The unified hierarchy's and the `pids` hierarchy's mount points, of a mountinfo.
fn mounts(mountinfo: &str) -> Vec<(Hierarchy, &str)> {
    let mut found: Vec<(Hierarchy, &str)> = Vec::new();
    for line in mountinfo.lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let Some(mountpoint) = before.split(' ').nth(4) else { continue };
        let mut fields = after.split(' ');
        let hierarchy = match (fields.next(), fields.nth(1)) {
            (Some("cgroup2"), _) => Hierarchy::Unified,
            (Some("cgroup"), Some(options)) if options.split(',').any(|o| o == "pids") => Hierarchy::Legacy,
            _ => continue,
        };
        // The first is the host's; runtimes mount the same again for their containers.
        if !found.iter().any(|(known, _)| *known == hierarchy) {
            found.push((hierarchy, mountpoint));
        }
    }
    found
}
