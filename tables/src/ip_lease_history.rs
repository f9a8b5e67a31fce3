//! `ip_lease_history`.

use mayfly_history::{HistoryTable, lease::Lease};

use crate::{history::History, ip_lease_events::IP_LEASE_EVENTS, lease, who};

pub(crate) static TABLE: History<Lease> =
    History::reduced(&IP_LEASE_HISTORY, |declarations, history| declarations.add_leases(&IP_LEASE_EVENTS, history));

/// Who had which address, and when.
pub static IP_LEASE_HISTORY: HistoryTable<Lease> = HistoryTable {
    name: "ip_lease_history",
    doc: "Who had which address, and when: one timeline for each address, from all who saw it. Where containers share a network \
          namespace, each has an interval of its own; the host's addresses are the host's, whichever containers use its network.",
    columns: &[
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
        who::container_id().plain(),
        who::container_name(),
        who::image(),
        who::pod_name(),
        who::pod_namespace(),
        who::runtime_namespace(),
        who::endpoint(),
    ],
    witnesses: &["netlink", "dhcp", "lease_file", "docker", "podman", "containerd", "cri"],
    examples: &[
        (
            "Who had an address at that time.",
            "SELECT scope, mac_address, interface, hostname, container_id, container_name, evidence FROM ip_lease_history\n\
             WHERE ip_address = '172.17.0.2' AND as_of = '2026-03-01T12:00:00Z';",
        ),
        (
            "The container behind the remote end of each connection.",
            "SELECT e.time, e.path, e.remote_address, h.container_name, h.image FROM container_socket_events e\n\
             LEFT JOIN ip_lease_history h ON h.ip_address = e.remote_address AND h.as_of = e.time_ns;",
        ),
    ],
};
