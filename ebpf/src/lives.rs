//! The lives of containers as the kernel sees them: a cgroup that is made, the first program in it, the end of that, a cgroup
//! that is gone.

use std::{
    collections::{BTreeMap, HashMap},
    fs, mem,
    os::unix::fs::MetadataExt,
    sync::Arc,
};

use mayfly_history::{
    Nanos,
    container::{Action, ContainerEvent, ContainerKey, Details, Run, Runtime, Snapshot, State, Witness},
    process::ProcessEvent,
};

use crate::{attribution::Named, cgroups::Hierarchy};

/// Containers that are followed at once; of more, no life is told.
const MOST: usize = 65_536;

/// How far a container has come in its cgroup; for another run it gets another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// Its runtime prepares it.
    #[default]
    Made,
    /// The process whose end is the container's, where it is known.
    Running(Option<i64>),
    Ended,
}

/// A container that has a cgroup.
#[derive(Debug, Default)]
struct Life {
    runtime: Runtime,
    path: String,
    /// How many it has: those below its own count too.
    cgroups: usize,
    stage: Stage,
    run: Run,
}

/// All containers that have a cgroup, and what is to be told of them.
#[derive(Debug)]
pub(crate) struct Lives {
    hosts_mounts: u32,
    lives: HashMap<ContainerKey, Life>,
    owners: HashMap<(Hierarchy, u64), ContainerKey>,
    told: Vec<ContainerEvent>,
}

impl Default for Lives {
    fn default() -> Self {
        Self { hosts_mounts: hosts_mounts(), lives: HashMap::new(), owners: HashMap::new(), told: Vec::new() }
    }
}

impl Lives {
    /// What is to be told since the last call.
    pub(crate) fn take(&mut self) -> Vec<ContainerEvent> {
        mem::take(&mut self.told)
    }

    /// A container's cgroup came into being: the first one is the container's beginning.
    pub(crate) fn made(&mut self, hierarchy: Hierarchy, id: u64, path: &str, named: &Named<'_>, time_ns: Nanos) {
        if let Some((key, true)) = self.add(hierarchy, id, path, named) {
            self.tell(&key, Action::Create, time_ns);
        }
    }

    /// A container's cgroup was there before anybody looked.
    pub(crate) fn found(&mut self, hierarchy: Hierarchy, id: u64, path: &str, named: &Named<'_>) {
        if let Some((key, _)) = self.add(hierarchy, id, path, named)
            && let Some(life) = self.lives.get_mut(&key)
        {
            life.stage = Stage::Running(None);
        }
    }

    /// Returns whose the cgroup is, and whether it is the container's first.
    fn add(&mut self, hierarchy: Hierarchy, id: u64, path: &str, named: &Named<'_>) -> Option<(ContainerKey, bool)> {
        let key = named.key();
        if self.lives.len() >= MOST && !self.lives.contains_key(&key) {
            return None;
        }
        if self.owners.insert((hierarchy, id), key.clone()).is_some() {
            return None;
        }
        let life = self.lives.entry(key.clone()).or_default();
        life.cgroups += 1;
        let is_first = life.cgroups == 1;
        if is_first {
            life.runtime = named.runtime;
            path.clone_into(&mut life.path);
        }
        // What a container makes below is its own affair.
        if path.len() <= life.path.len() && (hierarchy == Hierarchy::Unified || life.run.cgroup_id.is_none()) {
            life.run.cgroup_id = i64::try_from(id).ok().filter(|_| hierarchy == Hierarchy::Unified);
            life.run.cgroup_path = Some(path.to_owned());
        }
        Some((key, is_first))
    }

    /// A cgroup is gone: the last one is the container's end.
    pub(crate) fn removed(&mut self, hierarchy: Hierarchy, id: u64, time_ns: Nanos) {
        let Some(key) = self.owners.remove(&(hierarchy, id)) else { return };
        let Some(life) = self.lives.get_mut(&key) else { return };
        life.cgroups -= 1;
        if life.cgroups > 0 {
            return;
        }
        // Nobody saw its first process end.
        if matches!(life.stage, Stage::Running(_)) {
            self.tell(&key, Action::Die, time_ns);
        }
        // Other runtimes keep a container that has no cgroup.
        if self.lives.get(&key).is_some_and(|life| life.runtime == Runtime::Unknown) {
            self.tell(&key, Action::Destroy, time_ns);
        }
        self.lives.remove(&key);
    }

    /// Whether that mount namespace is the one in which runtimes run: what a runtime executes on the way into a container (`runc init`) still sees
    /// the host's mounts.
    pub(crate) const fn is_hosts(&self, mnt_ns: u32) -> bool {
        mnt_ns == self.hosts_mounts
    }

    /// A program of the container's own took over a process: the first one is its start.
    pub(crate) fn executed(&mut self, event: &ProcessEvent, net_ns: u32, mnt_ns: u32) {
        let Some(life) = self.lives.get_mut(&event.container) else { return };
        if life.stage != Stage::Made {
            return;
        }
        let inode = |inode: u32| (inode != 0).then(|| inode.to_string());
        life.stage = Stage::Running(event.pid);
        life.run.pid = event.pid;
        life.run.pid_namespace = event.pid_namespace.and_then(inode);
        (life.run.net_namespace, life.run.mnt_namespace) = (inode(net_ns), inode(mnt_ns));
        self.tell(&event.container, Action::Start, event.time_ns);
    }

    /// A process ended: that of the container's first program is its death.
    pub(crate) fn exited(&mut self, event: &ProcessEvent) {
        let Some(life) = self.lives.get_mut(&event.container).filter(|life| life.stage == Stage::Running(event.pid)) else { return };
        life.stage = Stage::Ended;
        life.run.signal = event.signal;
        // As every runtime puts it.
        life.run.exit_code = event.exit_code.or(event.signal.map(|signal| 128 + signal));
        self.tell(&event.container, Action::Die, event.time_ns);
    }

    fn tell(&mut self, key: &ContainerKey, action: Action, time_ns: Nanos) {
        let Some(life) = self.lives.get(key) else { return };
        self.told.push(ContainerEvent {
            time_ns,
            action,
            source: Witness::Ebpf,
            recovered: false,
            key: key.clone(),
            exec_id: None,
            lifetime_ms: None,
            details: Details { runtime: life.runtime, run: life.run.clone(), ..Details::default() },
            attributes: BTreeMap::new(),
            settled: false,
        });
    }

    /// All containers, of those that run the ones that have a process now, for whoever did not follow before; learns their first processes.
    pub(crate) fn list(&mut self, taken_ns: Nanos, blind_since: Option<Nanos>, folders: impl Fn(&str) -> Option<String>) -> Snapshot {
        let mut containers = Vec::new();
        for (key, life) in &mut self.lives {
            let seen = match life.stage {
                Stage::Made => Some(State::Created),
                Stage::Ended => Some(State::Exited),
                Stage::Running(_) => None,
            };
            if let Some(state) = seen {
                let details = Details { runtime: life.runtime, run: life.run.clone(), ..Details::default() };
                containers.push((key.clone(), state, details));
                continue;
            }
            let processes = folders(&life.path).and_then(|folder| fs::read_to_string(format!("{folder}/cgroup.procs")).ok());
            let Some(first) = processes.as_deref().and_then(|pids| pids.lines().filter_map(|pid| pid.parse::<i64>().ok()).min()) else {
                continue;
            };
            life.stage = Stage::Running(Some(first));
            life.run.pid = Some(first);
            let details = Details { runtime: life.runtime, run: life.run.clone(), ..Details::default() };
            containers.push((key.clone(), State::Running, details));
        }
        let (endpoint, runtime_namespace) = (Arc::default(), Arc::default());
        Snapshot { endpoint, runtime_namespace, witness: Witness::Ebpf, taken_ns, blind_since, containers }
    }
}

/// Inode of the mount namespace in which runtimes run.
fn hosts_mounts() -> u32 {
    let inode = |process| fs::metadata(format!("/proc/{process}/ns/mnt")).map(|namespace| namespace.ino());
    inode("1").or_else(|_| inode("self")).ok().and_then(|inode| u32::try_from(inode).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use mayfly_history::process::{KernelStream, ProcessAction};

    use super::*;
    use crate::attribution::container_of;

    const PATH: &str = "/some/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn process(action: ProcessAction, pid: i64, path: &str, cmdline: &str) -> ProcessEvent {
        let key = ContainerKey { container_id: PATH[6..].into(), ..ContainerKey::default() };
        let event = ProcessEvent::shed(5, KernelStream::Ebpf, key, None, 0);
        ProcessEvent { action, pid: Some(pid), path: path.into(), cmdline: cmdline.into(), exit_code: Some(3), ..event }
    }

    fn actions(lives: &mut Lives) -> Vec<Action> {
        lives.take().iter().map(|event| event.action).collect()
    }

    fn made(lives: &mut Lives, hierarchy: Hierarchy, id: u64, path: &str) {
        lives.made(hierarchy, id, path, &container_of(path).unwrap(), 1);
    }

    #[test]
    fn a_life_is_told_once_whatever_number_of_cgroups_it_has() {
        let mut lives = Lives::default();
        made(&mut lives, Hierarchy::Legacy, 1, PATH);
        made(&mut lives, Hierarchy::Unified, 2, PATH);
        made(&mut lives, Hierarchy::Unified, 3, &format!("{PATH}/inner"));
        lives.executed(&process(ProcessAction::Exec, 7, "/bin/sh", "sh"), 1, 1);
        lives.executed(&process(ProcessAction::Exec, 8, "/bin/true", "true"), 1, 1);
        lives.exited(&process(ProcessAction::Exit, 8, "/bin/true", ""));
        lives.exited(&process(ProcessAction::Exit, 7, "/bin/sh", ""));
        lives.executed(&process(ProcessAction::Exec, 9, "/bin/left", "left behind"), 1, 1);
        lives.removed(Hierarchy::Unified, 3, 9);
        lives.removed(Hierarchy::Unified, 2, 9);
        let told = lives.take();
        assert_eq!(told.iter().map(|e| e.action).collect::<Vec<_>>(), [Action::Create, Action::Start, Action::Die]);
        assert_eq!((told[1].details.run.pid, told[1].details.run.cgroup_id), (Some(7), Some(2)));
        assert_eq!(told[2].details.run.exit_code, Some(3));
        lives.removed(Hierarchy::Legacy, 1, 9);
        assert_eq!(actions(&mut lives), [Action::Destroy]);
        assert!(lives.lives.is_empty() && lives.owners.is_empty());
    }

    #[test]
    fn a_container_that_its_runtime_keeps_is_not_removed_with_its_cgroup() {
        let mut lives = Lives::default();
        made(&mut lives, Hierarchy::Unified, 2, &PATH.replace("some", "docker"));
        lives.removed(Hierarchy::Unified, 2, 9);
        assert_eq!(actions(&mut lives), [Action::Create]);
    }

    #[test]
    fn what_was_there_before_dies_with_its_cgroup() {
        let mut lives = Lives::default();
        lives.found(Hierarchy::Unified, 2, PATH, &container_of(PATH).unwrap());
        lives.removed(Hierarchy::Unified, 2, 9);
        assert_eq!(actions(&mut lives), [Action::Die, Action::Destroy]);
    }
}
