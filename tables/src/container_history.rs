//! `container_history`.

use mayfly_history::{HistoryTable, bigint, container::ContainerState, integer, text};

use crate::{container as c, history::History, orchestration as k};

pub(crate) static TABLE: History<ContainerState> = History::of(&CONTAINER_HISTORY);

/// The states of containers, past and present.
pub static CONTAINER_HISTORY: HistoryTable<ContainerState> = HistoryTable {
    name: "container_history",
    doc: "The states of containers, past and present: one interval for each state of a container.",
    columns: &[
        c::container_id(),
        c::name(),
        c::image(),
        c::image_id(),
        c::image_digest(),
        c::runtime(),
        text("state", |s| Some(s.state.as_str().into()), "State over the interval: `created`, `running`, `paused` or `exited`."),
        c::pid(),
        integer("exit_code", |s| s.details.run.exit_code, "Exit code, once the container has exited; NULL before."),
        integer(
            "oom_killed",
            |s| s.details.run.oom_killed.map(Into::into),
            "1 if the kernel killed the container for lack of memory, 0 if not; NULL where that is not known.",
        ),
        bigint("created_ns", |s| s.details.created_ns, "When the container was created, UNIX nanoseconds."),
        bigint("started_ns", |s| s.details.run.started_ns, "When this run started, UNIX nanoseconds; NULL before the first start."),
        bigint("finished_ns", |s| s.details.run.finished_ns, "When this run ended, UNIX nanoseconds; NULL while it runs."),
        c::ip_addresses(),
        c::mac_addresses(),
        c::cgroup_id(),
        c::net_namespace(),
        c::labels(),
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
    ],
    witnesses: &["docker", "podman", "containerd", "cri"],
    examples: &[
        (
            "What ran at the time of the incident, with its addresses.",
            "SELECT container_id, name, image, ip_addresses, complete FROM container_history\n\
             WHERE as_of = '2025-01-31T10:00:00Z' AND state = 'running';",
        ),
        (
            "The life of one container, state by state.",
            "SELECT state, valid_from, valid_to, exit_code, ended_reason FROM container_history\n\
             WHERE container_id = '4f5c…' ORDER BY valid_from_ns;",
        ),
        (
            "The container behind each event, as it was at that instant. The history goes on the inner side of the join.",
            "SELECT e.time, e.action, h.name, h.state FROM container_lifecycle_events e\n\
             LEFT JOIN container_history h ON h.container_id = e.container_id AND h.as_of = e.time_ns;",
        ),
    ],
};
