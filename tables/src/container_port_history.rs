//! `container_port_history`.

use mayfly_history::{HistoryTable, container::ContainerKey, integer, port::PortBinding, recorder::Declarations, text};

use crate::{
    history::History,
    who::{self, OfWhom},
};

pub(crate) static TABLE: History<PortBinding> = History::reduced(&CONTAINER_PORT_HISTORY, Declarations::add_ports);

impl OfWhom for PortBinding {
    fn whose(&self) -> &ContainerKey {
        &self.container
    }
}

/// Which container a port of the host led to.
pub static CONTAINER_PORT_HISTORY: HistoryTable<PortBinding> = HistoryTable {
    name: "container_port_history",
    doc: "Which container a port of the host led to, and when. A container on the host's network has one row without a port: it may \
          have listened on any that no other row names.",
    columns: &[
        text(
            "host_address",
            |p: &PortBinding| Some(p.host_address.as_str().into()),
            "Address of the host: `0.0.0.0` or `::` for all of the kind; empty on the host's network.",
        )
        .index(),
        integer("host_port", |p| p.host_port.map(Into::into), "Port of the host; NULL on the host's network."),
        integer("protocol", |p| p.protocol.map(Into::into), "Number of the protocol: 6 TCP, 17 UDP, 132 SCTP."),
        integer("container_port", |p| p.container_port.map(Into::into), "Port inside the container."),
        who::container_id().plain(),
        who::container_name(),
        who::image(),
        who::pod_name(),
        who::pod_namespace(),
        who::runtime_namespace(),
        who::endpoint(),
    ],
    witnesses: &["docker", "podman", "containerd", "cri"],
    examples: &[
        (
            "Which container may have answered on port 8080 at that time.",
            "SELECT host_address, host_port, container_id, container_name, image FROM container_port_history\n\
             WHERE (host_port = 8080 OR host_port IS NULL) AND as_of = '2026-03-01T12:00:00Z';",
        ),
        (
            "Ports that are published to the whole network now.",
            "SELECT host_port, protocol, container_name, image FROM container_port_history\n\
             WHERE host_address IN ('0.0.0.0', '::') AND valid_to IS NULL;",
        ),
    ],
};
