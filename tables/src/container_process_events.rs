//! `container_process_events`.

use mayfly_history::{EventTable, bigint, container::ContainerKey, integer, process::ProcessEvent, text};

use crate::{
    events::Events,
    who::{self, OfWhom},
};

pub(crate) static TABLE: Events<ProcessEvent> = Events::pushed(&CONTAINER_PROCESS_EVENTS);

impl OfWhom for ProcessEvent {
    fn whose(&self) -> &ContainerKey {
        &self.container
    }
}

/// What was executed in containers, and how it ended.
pub static CONTAINER_PROCESS_EVENTS: EventTable<ProcessEvent> = EventTable {
    name: "container_process_events",
    doc: "What was executed in containers, and how it ended: told by the kernel, from the first program of a container on. Processes of the \
          host too where `[ebpf] host_processes` is set.",
    columns: &[
        text(
            "action",
            |e| Some(e.action.as_str().into()),
            "What happened: `exec` (a program took over the process), `exit` (its last thread ended), or `throttled` (a cgroup did more than \
             it may; `shed` counts what was left out).",
        ),
        text(
            "source",
            |e| Some(e.source.as_str().into()),
            "Who told it: `ebpf`, or `connector` (the kernel's process connector, where eBPF cannot be had; short-lived processes may lack \
             columns).",
        ),
        bigint("pid", |e| e.pid, "Process id, seen from the host."),
        bigint("ns_pid", |e| e.ns_pid, "Process id in the process's own pid namespace."),
        bigint("parent", |e| e.parent, "Process id of the parent, seen from the host."),
        bigint("uid", |e| e.uid, "User id, seen from the host."),
        bigint("gid", |e| e.gid, "Group id, seen from the host."),
        bigint("euid", |e| e.euid, "Effective user id, seen from the host."),
        bigint(
            "auid",
            |e| e.auid,
            "Id of the user who logged in (the audit login uid), also in containers one of the host; NULL where nobody did.",
        ),
        text(
            "path",
            |e| Some((&*e.path).into()),
            "Path of what was executed, inside the container; of an exit: of the program that ended. A path that was cut has a `…`.",
        ),
        text(
            "cmdline",
            |e| Some(e.cmdline.as_str().into()),
            "Arguments, joined by spaces; secrets are redacted, a cut line ends with `…`.",
        ),
        text("cwd", |e| Some(e.cwd.as_str().into()), "Working directory of an `exec`."),
        integer("exit_code", |e| e.exit_code, "Exit code of an `exit`; NULL if a signal ended it."),
        integer("signal", |e| e.signal, "Signal that ended the process; NULL if none did."),
        bigint("duration_ms", |e| e.duration_ms, "Of an `exit`: milliseconds since the process was made."),
        bigint("cgroup_id", |e| e.cgroup_id, "Id of the process's cgroup: the inode number of its folder."),
        text("pid_namespace", |e| e.pid_namespace.map(|inode| inode.to_string().into()), "Inode number of the pid namespace."),
        who::container_id(),
        who::container_name(),
        who::image(),
        who::pod_name(),
        who::pod_namespace(),
        who::runtime_namespace(),
        who::endpoint(),
        bigint("shed", |e: &ProcessEvent| e.shed, "Of `throttled`: how many events were left out.").hidden(),
    ],
    examples: &[
        (
            "What containers executed from folders that anybody may write to, in the last ten minutes.",
            "SELECT time, container_name, image, path, cmdline, uid FROM container_process_events\n\
             WHERE action = 'exec' AND time > unixepoch() - 600 AND (path LIKE '/tmp/%' OR path LIKE '/dev/shm/%');",
        ),
        (
            "Everything that ran in one container, with how it ended.",
            "SELECT time_ns, action, pid, parent, path, cmdline, exit_code, signal FROM container_process_events\n\
             WHERE container_id = '4f5c…' ORDER BY time_ns;",
        ),
        (
            "Programs with the labels that their container had at that instant.",
            "SELECT e.time, e.path, h.name, h.labels FROM container_process_events e\n\
             LEFT JOIN container_history h ON h.container_id = e.container_id AND h.as_of = e.time_ns\n\
             WHERE e.action = 'exec';",
        ),
    ],
};
