//! The tables: one file and one registry line each.
//!
//! A declaration says what a table's columns are; [`Events`], [`History`] and [`Live`] answer for all tables of a kind,
//! so that a new table brings no query code of its own.

mod account;
mod account_events;
mod as_of;
mod block_devices_history;
mod bounds;
mod complete;
mod container;
mod container_history;
mod container_image_events;
mod container_lifecycle_events;
mod container_port_history;
mod container_process_events;
mod container_socket_events;
mod current;
mod device;
mod device_events;
mod events;
mod groups_history;
mod history;
mod host_identity;
mod host_identity_history;
mod ip_lease_events;
mod ip_lease_history;
mod json;
mod lease;
mod live;
mod mount;
mod mount_events;
mod mounts_history;
mod oom_events;
mod orchestration;
mod parameter;
mod query;
mod recorder_gaps;
mod recorder_info;
mod recorder_sources;
mod registry;
mod users_history;
mod who;

pub use account_events::ACCOUNT_EVENTS;
pub use block_devices_history::BLOCK_DEVICES_HISTORY;
pub use container_history::CONTAINER_HISTORY;
pub use container_image_events::CONTAINER_IMAGE_EVENTS;
pub use container_lifecycle_events::CONTAINER_LIFECYCLE_EVENTS;
pub use container_port_history::CONTAINER_PORT_HISTORY;
pub use container_process_events::CONTAINER_PROCESS_EVENTS;
pub use container_socket_events::CONTAINER_SOCKET_EVENTS;
pub use device_events::DEVICE_EVENTS;
pub use events::Events;
pub use groups_history::GROUPS_HISTORY;
pub use history::History;
pub use host_identity_history::HOST_IDENTITY_HISTORY;
pub use ip_lease_events::IP_LEASE_EVENTS;
pub use ip_lease_history::IP_LEASE_HISTORY;
pub use live::Live;
pub use mount_events::MOUNT_EVENTS;
pub use mounts_history::MOUNTS_HISTORY;
pub use oom_events::OOM_EVENTS;
pub use query::{Answered, Constraint, Op, Query, Rows, Table, TableError};
pub use registry::{TABLES, declarations, find};
pub use users_history::USERS_HISTORY;
