//! Processes that the kernel killed for want of memory.

use std::sync::Arc;

use crate::{
    container::ContainerKey,
    record::Record,
    sink::{Pushed, hash},
    time::Nanos,
};

/// One kill: the record of `oom_events`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OomEvent {
    pub time_ns: Nanos,
    pub pid: i64,
    /// What the victim executed; its short name where that is not known.
    pub path: Arc<str>,
    pub uid: Option<i64>,
    pub cgroup_id: Option<i64>,
    /// Address space, in bytes.
    pub total_vm: i64,
    /// Memory in use, swap excluded, in bytes.
    pub rss: i64,
    /// As far as the cgroup tells. Empty id: the host.
    pub container: ContainerKey,
}

impl Pushed for OomEvent {
    const RING: usize = 1024;

    fn share(&self) -> u64 {
        hash(&(&self.container, self.cgroup_id))
    }
}

impl Record for OomEvent {
    fn time_ns(&self) -> Nanos {
        self.time_ns
    }
}
