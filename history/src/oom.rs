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

    fn users(&self) -> [Option<i64>; 3] {
        [self.uid.filter(|_| self.container.container_id.is_empty()), None, None]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_victim_on_the_host_is_one_of_its_users_and_in_a_container_is_not() {
        let killed = |container: &str| OomEvent {
            time_ns: 1,
            pid: 7,
            path: "/bin/hog".into(),
            uid: Some(1000),
            cgroup_id: None,
            total_vm: 0,
            rss: 0,
            container: ContainerKey { container_id: container.into(), ..ContainerKey::default() },
        };
        assert_eq!(killed("").users(), [Some(1000), None, None]);
        assert_eq!(killed("c").users(), [None; 3]);
    }
}
