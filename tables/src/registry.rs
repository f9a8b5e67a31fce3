//! Every table that Mayfly serves.

use mayfly_history::recorder::Declarations;

use crate::{
    account_events, block_devices_history, container_history, container_image_events, container_lifecycle_events, container_port_history,
    container_process_events, container_socket_events, device_events, groups_history, host_identity, host_identity_history,
    ip_lease_events, ip_lease_history, mount_events, mounts_history, oom_events, query::Table, recorder_gaps, recorder_info,
    recorder_sources, triggered_results, users_history,
};

pub static TABLES: &[&dyn Table] = &[
    &container_lifecycle_events::TABLE,
    &container_history::TABLE,
    &container_image_events::TABLE,
    &container_process_events::TABLE,
    &container_socket_events::TABLE,
    &oom_events::TABLE,
    &account_events::TABLE,
    &users_history::TABLE,
    &groups_history::TABLE,
    &mount_events::TABLE,
    &mounts_history::TABLE,
    &device_events::TABLE,
    &block_devices_history::TABLE,
    &host_identity::TABLE,
    &host_identity_history::TABLE,
    &ip_lease_events::TABLE,
    &ip_lease_history::TABLE,
    &container_port_history::TABLE,
    &triggered_results::TABLE,
    &recorder_sources::TABLE,
    &recorder_gaps::TABLE,
    &recorder_info::TABLE,
];

/// The table of that name.
pub fn find(name: &str) -> Option<&'static dyn Table> {
    TABLES.iter().copied().find(|t| t.schema().name == name)
}

/// What the recorder writes so that these tables have answers.
pub fn declarations() -> Declarations {
    let mut declarations =
        Declarations::new(&container_lifecycle_events::CONTAINER_LIFECYCLE_EVENTS, &container_history::CONTAINER_HISTORY);
    for table in TABLES {
        table.declare(&mut declarations);
    }
    declarations
}
