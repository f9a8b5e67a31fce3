//! `container_lifecycle_events`.

use mayfly_history::{
    EventTable, bigint,
    container::{Action, ContainerEvent},
    integer, text,
};

use crate::{container as c, events::Events, json, orchestration as k};

pub(crate) static TABLE: Events<ContainerEvent> = Events::of(&CONTAINER_LIFECYCLE_EVENTS);

/// What happened to containers, when their runtime says it happened.
pub static CONTAINER_LIFECYCLE_EVENTS: EventTable<ContainerEvent> = EventTable {
    name: "container_lifecycle_events",
    doc: "What happened to containers, when their runtime says it happened. Each event has a row however short the container lived.",
    columns: &[
        text(
            "action",
            |e| Some(e.action.as_str().into()),
            "What happened: `existing` (found when recording began), `create`, `start`, `pause`, `unpause`, `oom`, `kill`, `die`, `stop`, \
             `restart`, `rename`, `update`, `health_status`, `exec_create`, `exec_start`, `exec_die`, `attach`, `network_connect`, \
             `network_disconnect`, `destroy`, or `throttled` (one container said too much; `attributes` counts what was left out).",
        ),
        c::runtime(),
        text(
            "source",
            |e| Some(e.source.as_str().into()),
            "Who told it first: `docker`, `podman`, `containerd`, `cri`, `ebpf`, or `reconcile` (found by comparing after a gap).",
        ),
        integer("recovered", |e| Some(e.recovered.into()), "1 if the event was not seen live but replayed or found after a gap, else 0."),
        c::container_id(),
        c::name(),
        c::image(),
        c::image_id(),
        c::image_digest(),
        text("command", |e| e.details.command.as_deref().map(Into::into), "Command line of the first process; secrets are redacted."),
        c::pid(),
        integer("exit_code", exit_code, "Exit code of a `die`, an `exec_die` or an `existing` that has ended; NULL for the rest."),
        integer("signal", signal, "Signal that a `kill` sent, or that ended the container at `die`; NULL for the rest."),
        integer(
            "oom_killed",
            |e| ended(e).then_some(e.details.run.oom_killed).flatten().map(Into::into),
            "1 if the kernel killed the container for lack of memory, 0 if not; NULL unless it has ended.",
        ),
        bigint("lifetime_ms", |e| e.lifetime_ms, "Milliseconds from the start to this `die`; NULL for the rest."),
        c::ip_addresses(),
        c::mac_addresses(),
        text(
            "network_mode",
            |e| e.details.network_mode.as_deref().map(Into::into),
            "Network that was asked for: `bridge`, `host`, `none`, ….",
        ),
        text("cgroup_path", |e| e.details.run.cgroup_path.as_deref().map(Into::into), "Path of the cgroup below the hierarchy's root."),
        c::cgroup_id(),
        text("pid_namespace", |e| e.details.run.pid_namespace.as_deref().map(Into::into), "Inode number of the pid namespace."),
        c::net_namespace(),
        text("mnt_namespace", |e| e.details.run.mnt_namespace.as_deref().map(Into::into), "Inode number of the mount namespace."),
        text("user", |e| e.details.user.as_deref().map(Into::into), "User that the first process was to run as, as it was asked for."),
        integer("privileged", |e| e.details.privileged.map(Into::into), "1 if the container has all privileges, 0 if not."),
        text("hostname", |e| e.details.hostname.as_deref().map(Into::into), "Host name inside the container."),
        c::labels(),
        text(
            "mounts",
            |e| Some(e.details.mounts.as_deref().unwrap_or("[]").into()),
            "JSON array of the mounts: `destination`, `mode`, `name`, `rw`, `source`, `type` of each.",
        ),
        text(
            "ports",
            |e| Some(e.details.ports.as_deref().unwrap_or("[]").into()),
            "JSON array of the published ports: `container_port`, `host_address`, `host_port`, `protocol` of each.",
        ),
        k::pod_name(),
        k::pod_namespace(),
        k::pod_uid(),
        k::pod_container(),
        k::sandbox_id(),
        k::ecs_cluster(),
        k::ecs_task_arn(),
        k::ecs_task_family(),
        k::ecs_container(),
        k::compose_project(),
        k::compose_service(),
        c::runtime_namespace(),
        c::endpoint(),
        text(
            "attributes",
            |e: &ContainerEvent| Some(json::object(&e.attributes)),
            "JSON object of what the runtime said beside, without the labels.",
        )
        .hidden(),
    ],
    examples: &[
        (
            "Containers that lived for less than a second in the last hour, and how they ended.",
            "SELECT time, name, image, exit_code, lifetime_ms FROM container_lifecycle_events\n\
             WHERE action = 'die' AND lifetime_ms < 1000 AND time > unixepoch() - 3600;",
        ),
        (
            "Who had this address at ten o'clock, though the container is long gone.",
            "SELECT e.time, e.action, e.container_id, e.name, e.image FROM container_lifecycle_events e, json_each(e.ip_addresses) a\n\
             WHERE a.value = '172.17.0.2' AND e.time BETWEEN unixepoch('2025-01-31 10:00') - 60 AND unixepoch('2025-01-31 10:00') + 60;",
        ),
        (
            "Commands that were run inside of containers, with the state of the container at that instant.",
            "SELECT e.time, e.attributes, h.name, h.image, h.state FROM container_lifecycle_events e\n\
             LEFT JOIN container_history h ON h.container_id = e.container_id AND h.as_of = e.time_ns\n\
             WHERE e.action = 'exec_start';",
        ),
    ],
};

/// Whether the event tells how a container ended.
fn ended(event: &ContainerEvent) -> bool {
    matches!(event.action, Action::Die | Action::Existing)
}

fn exit_code(event: &ContainerEvent) -> Option<i64> {
    match event.action {
        Action::ExecDie => event.attributes.get("exitCode")?.parse().ok(),
        _ if ended(event) => event.details.run.exit_code,
        _ => None,
    }
}

fn signal(event: &ContainerEvent) -> Option<i64> {
    if ended(event) || event.action == Action::Kill { event.details.run.signal } else { None }
}
