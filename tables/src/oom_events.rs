//! `oom_events`.

use mayfly_history::{EventTable, bigint, container::ContainerKey, oom::OomEvent, text};

use crate::{
    events::Events,
    who::{self, OfWhom},
};

pub(crate) static TABLE: Events<OomEvent> = Events::pushed(&OOM_EVENTS);

impl OfWhom for OomEvent {
    fn whose(&self) -> &ContainerKey {
        &self.container
    }
}

/// Processes that the kernel killed for want of memory.
pub static OOM_EVENTS: EventTable<OomEvent> = EventTable {
    name: "oom_events",
    doc: "Processes that the kernel killed for want of memory, in containers and on the host.",
    columns: &[
        bigint("pid", |e| Some(e.pid), "Process id of the victim, seen from the host."),
        text("path", |e| Some((&*e.path).into()), "Path of what the victim executed; its short name where the path is not known."),
        bigint("uid", |e| e.uid, "User id of the victim, seen from the host."),
        bigint("cgroup_id", |e| e.cgroup_id, "Id of the victim's cgroup: the inode number of its folder."),
        bigint("total_vm", |e| Some(e.total_vm), "Address space of the victim, in bytes."),
        bigint("rss", |e| Some(e.rss), "Memory that the victim used, swap excluded, in bytes."),
        who::container_id(),
        who::container_name(),
        who::image(),
        who::pod_name(),
        who::pod_namespace(),
        who::runtime_namespace(),
        who::endpoint(),
    ],
    examples: &[
        (
            "What ran out of memory today.",
            "SELECT time, container_name, image, path, rss / 1048576 AS mib FROM oom_events\n\
             WHERE time > unixepoch('now', 'start of day');",
        ),
        (
            "What a container executed in the minute before the kill.",
            "SELECT o.time, o.container_name, p.time_ns, p.cmdline FROM oom_events o\n\
             JOIN container_process_events p ON p.container_id = o.container_id AND p.action = 'exec'\n\
             AND p.time_ns BETWEEN o.time_ns - 60000000000 AND o.time_ns WHERE o.container_id <> '';",
        ),
    ],
};
