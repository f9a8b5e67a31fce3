//! `ip_lease_events`.

use mayfly_history::{EventTable, lease::LeaseEvent, text};

use crate::{events::Events, lease, who};

pub(crate) static TABLE: Events<LeaseEvent> = Events::of(&IP_LEASE_EVENTS);

/// What happened to addresses.
pub static IP_LEASE_EVENTS: EventTable<LeaseEvent> = EventTable {
    name: "ip_lease_events",
    doc: "Addresses as they come and go: of the host, of every network namespace, and of the DHCP clients that this host sees.",
    columns: &[
        text(
            "action",
            |e| Some(e.action.as_str().into()),
            "`added` or `removed` (an interface), `discover`, `offer`, `request`, `assigned`, `renewed`, `nak`, `declined`, `released` \
             or `expired` (a DHCP lease), `conflict` (two holders at once on one link; the row is the later one's).",
        ),
        text("source", |e| Some(e.source.as_str().into()), "Who saw it: `netlink`, `dhcp` (the wire), `lease_file` or `runtime`."),
        lease::ip_address(),
        lease::prefix_length(),
        lease::family(),
        lease::mac_address(),
        lease::interface(),
        lease::scope(),
        lease::net_namespace(),
        lease::hostname(),
        lease::client_id(),
        lease::server_address(),
        lease::lease_seconds(),
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
            "What happened to one address.",
            "SELECT time_ns, action, source, mac_address, interface, container_name, hostname FROM ip_lease_events\n\
             WHERE ip_address = '172.17.0.2' ORDER BY time_ns;",
        ),
        (
            "Addresses with two holders at once.",
            "SELECT time, ip_address, mac_address, interface, container_name FROM ip_lease_events WHERE action = 'conflict';",
        ),
    ],
};
