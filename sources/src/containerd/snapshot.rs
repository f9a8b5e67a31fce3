//! What a containerd has at the moment of connecting.

use std::{collections::HashMap, sync::Arc};

use containerd_client::types::v1::{Process as Task, Status as TaskStatus};
use mayfly_history::{
    Nanos,
    container::{ContainerKey, Details, Report, Run, Snapshot, State, Witness},
    now,
};
use tonic::Status;

use super::{
    Session,
    decode::nanos,
    naming::{MOBY, Naming},
};
use crate::{docker::Keeper, process::Process};

impl Session<'_> {
    /// Reports the containers of one namespace.
    pub(super) async fn look(&mut self, namespace: &str, blind_since: Option<Nanos>) -> Result<(), Status> {
        let taken_ns = now();
        let mut tasks: HashMap<String, Task> =
            self.inventory.tasks(namespace).await?.into_iter().map(|task| (task.id.clone(), task)).collect();
        // containerd has those of Docker's containers that run, and knows nothing else of them.
        let listed = if namespace == MOBY {
            let docker = || Details { runtime: Naming::runtime(MOBY), ..Details::default() };
            tasks.keys().map(|id| (id.clone(), docker())).collect()
        } else {
            self.inventory.containers(namespace).await?
        };
        let mut containers = Vec::new();
        for (id, mut details) in listed {
            let Some(key) = self.source.naming.key(namespace, &id) else { continue };
            let mut state = State::Created;
            if let Some(task) = tasks.remove(&id) {
                state = state_of(&task);
                details.run = run_of(&task, state, self.keeper).await;
            }
            containers.push((key, state, details));
        }
        self.report(namespace.into(), taken_ns, blind_since, containers);
        self.inventory.learn_images(namespace).await
    }

    pub(super) fn report(
        &self,
        runtime_namespace: Arc<str>,
        taken_ns: Nanos,
        blind_since: Option<Nanos>,
        containers: Vec<(ContainerKey, State, Details)>,
    ) {
        let endpoint = self.source.naming.endpoint(&runtime_namespace);
        let snapshot = Snapshot { endpoint, runtime_namespace, witness: Witness::Containerd, taken_ns, blind_since, containers };
        let site = &self.source.site;
        site.recorder.sinks().containers.push(&site.feed, Report::Snapshot(Box::new(snapshot)));
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

/// What is known of a task's run; of one that goes on, its kernel's view too, if its pid can be believed.
async fn run_of(task: &Task, state: State, keeper: Keeper) -> Run {
    if state == State::Exited {
        let exit_code = Some(task.exit_status.into());
        return Run {
            pid: pid_of(task).filter(|_| keeper == Keeper::Root),
            exit_code,
            finished_ns: task.exited_at.and_then(nanos),
            ..Run::default()
        };
    }
    let Some(Ok(process)) = pid_of(task).map(Process::open) else { return Run::default() };
    let mut run = process.run();
    if !keeper.may_tell(&run, &task.id) {
        return Run::default();
    }
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
