//! What a containerd has at the moment of connecting.

use std::collections::HashMap;

use containerd_client::types::v1::{Process as Task, Status as TaskStatus};
use mayfly_history::{
    container::{Action, ContainerEvent, ContainerKey, Details, Report, Run, Snapshot, State, Witness},
    now,
};
use tonic::Status;

use super::{
    Session,
    decode::nanos,
    naming::{MOBY, Naming},
};
use crate::process::Process;

impl Session<'_> {
    /// Reports the containers of one namespace.
    pub(super) async fn look(&mut self, namespace: &str) -> Result<(), Status> {
        let taken_ns = now();
        let mut tasks: HashMap<String, Task> =
            self.inventory.tasks(namespace).await?.into_iter().map(|task| (task.id.clone(), task)).collect();
        if namespace == MOBY {
            for (id, task) in tasks {
                self.look_at_dockers(&id, task).await;
            }
            return Ok(());
        }
        let mut containers = Vec::new();
        for (id, mut details) in self.inventory.containers(namespace).await? {
            let Some(key) = self.source.naming.key(namespace, &id) else { continue };
            let mut state = State::Created;
            if let Some(task) = tasks.remove(&id) {
                state = state_of(&task);
                details.run = run_of(&task, state).await;
            }
            containers.push((key, state, details));
        }
        let site = &self.source.site;
        let snapshot = Snapshot {
            endpoint: self.source.naming.endpoint(namespace),
            runtime_namespace: namespace.into(),
            witness: Witness::Containerd,
            taken_ns,
            blind_since: self.source.blind_since,
            containers,
        };
        site.recorder.sinks().containers.push(&site.feed, Report::Snapshot(Box::new(snapshot)));
        self.inventory.learn_images(namespace).await
    }

    /// A task of Docker's. containerd has those of Docker's containers that run, not all of them, so that only Docker's own list is a snapshot;
    /// but what ended while Docker was away is told here alone.
    async fn look_at_dockers(&mut self, id: &str, task: Task) {
        let Some(key) = self.source.naming.key(MOBY, id) else { return };
        let state = state_of(&task);
        let details = Details { runtime: Naming::runtime(MOBY), run: run_of(&task, state).await, ..Details::default() };
        match (state, details.run.finished_ns) {
            (State::Exited, Some(time_ns)) if self.source.blind_since.is_some_and(|since| time_ns >= since) => {
                self.teller.tell(Box::new(ended(key, time_ns, details)));
            }
            (State::Running | State::Paused, _) => self.teller.add(key, details),
            _ => {}
        }
    }
}

/// The end of a container, found afterwards.
fn ended(key: ContainerKey, time_ns: i64, details: Details) -> ContainerEvent {
    ContainerEvent {
        time_ns,
        action: Action::Die,
        source: Witness::Containerd,
        recovered: true,
        key,
        exec_id: None,
        lifetime_ms: None,
        details,
        attributes: Default::default(),
        settled: false,
    }
}

fn state_of(task: &Task) -> State {
    match task.status() {
        TaskStatus::Created | TaskStatus::Unknown => State::Created,
        TaskStatus::Running => State::Running,
        TaskStatus::Paused | TaskStatus::Pausing => State::Paused,
        TaskStatus::Stopped => State::Exited,
    }
}

/// What is known of a task's run; of one that goes on, its kernel's view too.
async fn run_of(task: &Task, state: State) -> Run {
    if state == State::Exited {
        let exit_code = Some(task.exit_status.into());
        return Run { pid: pid_of(task), exit_code, finished_ns: task.exited_at.and_then(nanos), ..Run::default() };
    }
    let Some(Ok(process)) = pid_of(task).map(Process::open) else { return Run::default() };
    let mut run = process.run();
    if let Ok(addresses) = process.addresses().await {
        run.ip_addresses = addresses.ip;
        run.mac_addresses = addresses.mac;
    }
    if state != State::Created {
        run.started_ns = process.began();
    }
    run
}

fn pid_of(task: &Task) -> Option<i64> {
    (task.pid != 0).then(|| task.pid.into())
}
