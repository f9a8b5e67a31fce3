//! `container_socket_events`.

use mayfly_history::{EventTable, bigint, container::ContainerKey, integer, socket::SocketEvent, text};

use crate::{
    events::Events,
    who::{self, OfWhom},
};

pub(crate) static TABLE: Events<SocketEvent> = Events::pushed(&CONTAINER_SOCKET_EVENTS);

impl OfWhom for SocketEvent {
    fn whose(&self) -> &ContainerKey {
        &self.container
    }
}

/// Connections that containers made and took.
pub static CONTAINER_SOCKET_EVENTS: EventTable<SocketEvent> = EventTable {
    name: "container_socket_events",
    doc: "Connections that containers made and took, and ports on which they listened: told by the kernel, when it happened.",
    columns: &[
        text(
            "action",
            |e| Some(e.action.as_str().into()),
            "What happened: `connect` (a connection was asked for, established or not), `accept` (one was taken), `listen`, `close`, or \
             `throttled` (one cgroup did too much; `shed` counts what was left out).",
        ),
        bigint(
            "pid",
            |e| e.pid,
            "Process that did it, seen from the host; of an `accept`: the one that listens. NULL where that is not known.",
        ),
        text("path", |e| Some((&*e.path).into()), "Path of what that process executed, inside the container."),
        bigint("uid", |e: &SocketEvent| e.uid, "User id of that process, seen from the host."),
        integer("family", SocketEvent::family, "Address family: 2 (`AF_INET`, also of v4-mapped addresses) or 10 (`AF_INET6`)."),
        integer("protocol", SocketEvent::protocol, "Protocol as in the IP header: 6 is TCP, 17 is UDP."),
        text("local_address", |e| e.local().map(|(address, _)| address.to_string().into()), "Address on this side."),
        integer("local_port", |e| e.local().map(|(_, port)| port.into()), "Port on this side."),
        text(
            "remote_address",
            |e| e.remote().map(|(address, _)| address.to_string().into()),
            "Address of the peer; `0.0.0.0` or `::` of a `listen`.",
        ),
        integer("remote_port", |e| e.remote().map(|(_, port)| port.into()), "Port of the peer; 0 of a `listen`."),
        bigint("cgroup_id", |e| e.cgroup_id, "Id of the process's cgroup: the inode number of its folder."),
        text("net_namespace", |e| e.net_namespace.map(|inode| inode.to_string().into()), "Inode number of the network namespace."),
        who::container_id(),
        who::container_name(),
        who::image(),
        who::pod_name(),
        who::pod_namespace(),
        who::runtime_namespace(),
        who::endpoint(),
        bigint("shed", |e: &SocketEvent| e.shed, "Of `throttled`: how many events were left out.").hidden(),
    ],
    examples: &[
        (
            "Who talked to this address, also if the container is gone.",
            "SELECT time, container_name, image, path, local_address, remote_port FROM container_socket_events\n\
             WHERE action = 'connect' AND remote_address = '203.0.113.7';",
        ),
        (
            "Connections out of containers, with image and labels of that instant.",
            "SELECT e.time, e.remote_address, e.remote_port, e.path, h.image, h.labels FROM container_socket_events e\n\
             LEFT JOIN container_history h ON h.container_id = e.container_id AND h.as_of = e.time_ns\n\
             WHERE e.action = 'connect';",
        ),
    ],
};
