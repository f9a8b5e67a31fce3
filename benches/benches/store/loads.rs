//! What the tables of intervals are filled with.

use mayfly_benches::fleet::{leases, states};
use mayfly_history::{container::ContainerState, lease::Lease};
use mayfly_tables::{CONTAINER_HISTORY, IP_LEASE_HISTORY};

use crate::{
    BEGIN,
    intervals::{Claims, Load},
};

/// Four states of each of so many containers.
pub(crate) fn containers(containers: usize) -> Load<ContainerState> {
    Load {
        table: &CONTAINER_HISTORY,
        key: "container_id",
        name: |state| (state.key.container_id.to_string(), state.key.endpoint.to_string()),
        count: containers * 4,
        alive: 500,
        all: Box::new(move || Box::new(states(2, BEGIN, containers as u64, 500).flatten())),
        claims: Claims {
            stored: "intervals stored a second",
            bytes: "bytes of an interval, whole file",
            of_one: "as_of of one container, median (longest)",
            of_all: "full state as of T, median (longest)",
            opened: "opening it to write, median (longest)",
        },
    }
}

/// So many leases, ten of each address.
pub(crate) fn addresses(count: u32) -> Load<Lease> {
    const ALIVE: u32 = 1000;
    Load {
        table: &IP_LEASE_HISTORY,
        key: "ip_address",
        name: |lease| {
            let ip = lease.ip_address.map(|ip| ip.to_string()).unwrap_or_default();
            let scope = format!("{} {}", lease.mac_address.as_deref().unwrap_or("-"), lease.container.container_id);
            (ip, scope)
        },
        count: count as usize,
        alive: ALIVE as usize,
        all: Box::new(move || Box::new(leases(3, BEGIN, count, (count / 10).max(2 * ALIVE), ALIVE))),
        claims: Claims {
            stored: "leases stored a second",
            bytes: "bytes of a lease, whole file",
            of_one: "as_of of one address, median (longest)",
            of_all: "all 1,000 addresses as of T, median (longest)",
            opened: "opening them to write, median (longest)",
        },
    }
}
