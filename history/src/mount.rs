//! Calls that changed a tree of mounts, as the kernel tells it.

use std::sync::Arc;

use crate::{
    container::ContainerKey,
    record::Record,
    sink::{Pushed, hash},
    time::Nanos,
};

/// What a call was to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MountAction {
    /// A filesystem, or with `MS_BIND` in the flags a part of one, got a place. With `move_mount`, where it had none before.
    Mount,
    Unmount,
    /// A mount got another place.
    Move,
    /// Options changed.
    Remount,
    /// Only who shares later mounts changed: `MS_SHARED`, `MS_PRIVATE`, `MS_SLAVE`, `MS_UNBINDABLE`.
    Propagation,
    /// fsmount: a mount was made that has no place yet, so [`MountCall::target`] is empty.
    Make,
}

impl MountAction {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mount => "mount",
            Self::Unmount => "unmount",
            Self::Move => "move",
            Self::Remount => "remount",
            Self::Propagation => "propagation",
            Self::Make => "make",
        }
    }
}

/// One call that returned: who did it, in which namespace, and whether it worked. What is mounted is for mountinfo to say: the
/// texts are what the process's memory held when the call returned, and it may have changed them meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountCall {
    /// When the call began.
    pub time_ns: Nanos,
    pub action: MountAction,
    pub pid: i64,
    /// What the process executed, where it is known.
    pub path: Arc<str>,
    pub uid: Option<i64>,
    pub cgroup_id: Option<i64>,
    /// Inode of the process's mount namespace.
    pub mnt_namespace: Option<u32>,
    /// Device, folder or name of what is mounted, as it was asked for; a folder from the process's root on. Empty where the call has none.
    pub source: String,
    /// From the process's root on.
    pub target: String,
    /// As it was asked for; empty where the call does not tell.
    pub fs_type: String,
    /// As the call got them: `MS_*` of mount, `MNT_*` of umount2, `MOVE_MOUNT_*`, `MOUNT_ATTR_*` of fsmount.
    pub flags: i64,
    /// 0, or the negative errno.
    pub result: i64,
    /// As far as the cgroup tells. Empty id: the host.
    pub container: ContainerKey,
}

impl Pushed for MountCall {
    const RING: usize = 4096;

    fn share(&self) -> u64 {
        hash(&(&self.container, self.cgroup_id))
    }

    fn weight(&self) -> usize {
        self.source.len() + self.target.len()
    }
}

impl Record for MountCall {
    fn time_ns(&self) -> Nanos {
        self.time_ns
    }
}
