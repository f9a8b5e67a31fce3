//! What is mounted where, and what was.

use std::{borrow::Cow, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    bound::replace,
    container::ContainerKey,
    device::Hardware,
    fact::Fact,
    record::Record,
    redact::Redaction,
    sink::{Pushed, hash},
    time::Nanos,
};

/// A mount: the record of `mounts_history`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mount {
    /// The kernel's number of the mount; it comes back after an unmount.
    pub id: i64,
    /// Device, or what stands for one: `tmpfs`, `overlay`, `server:/path`.
    pub device: String,
    pub path: String,
    pub fs_type: String,
    /// Those of the mount, then those of the filesystem; comma-separated, with one `ro` or `rw`.
    pub flags: String,
    /// `MAJOR:MINOR`.
    pub device_number: String,
    /// The folder of the filesystem that is mounted; `/` unless it is a bind mount.
    pub root: String,
    /// Inode of the mount namespace.
    pub mnt_namespace: String,
    pub hardware: Hardware,
    pub fs_uuid: String,
    pub fs_label: String,
    /// Whose namespace it is; an empty id is the host's.
    pub container: ContainerKey,
}

impl Mount {
    /// The list that mounts of a container stand in, or those of the host.
    pub fn list_of(container: &ContainerKey) -> Cow<'static, str> {
        if container.container_id.is_empty() {
            return Cow::Borrowed("host");
        }
        Cow::Owned(format!("{} {} {}", container.endpoint, container.runtime_namespace, container.container_id))
    }
}

/// A device may be mounted in many places, and at one place over and over.
impl Fact for Mount {
    fn key(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.device)
    }

    fn scope(&self) -> Cow<'_, str> {
        Cow::Owned(format!("{} {}", self.id, self.group()))
    }

    fn group(&self) -> Cow<'_, str> {
        Self::list_of(&self.container)
    }

    fn clean(&mut self, redaction: &Redaction) {
        // Options of network filesystems may hold a password, and so may a URL that stands for a device.
        replace(&mut self.flags, |flags| redaction.text(flags));
        replace(&mut self.device, |device| redaction.text(device));
    }
}

/// `mount_events.action`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MountChange {
    Mount,
    Unmount,
    Move,
    Remount,
}

impl MountChange {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mount => "mount",
            Self::Unmount => "unmount",
            Self::Move => "move",
            Self::Remount => "remount",
        }
    }
}

/// What happened to a mount: the record of `mount_events`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountEvent {
    pub time_ns: Nanos,
    pub action: MountChange,
    /// After it; of an unmount, before it. Without device and place where it was gone before anybody could look.
    pub mount: Mount,
    /// Who did it, where the kernel tells.
    pub by: Option<Mounter>,
}

/// The process that mounted or unmounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounter {
    pub pid: i64,
    pub path: Arc<str>,
    pub uid: Option<i64>,
}

impl Pushed for MountEvent {
    fn share(&self) -> u64 {
        hash(&(&self.mount.container, &self.mount.path))
    }

    fn weight(&self) -> usize {
        self.mount.device.len() + self.mount.path.len() + self.mount.flags.len() + self.mount.root.len()
    }
}

impl Record for MountEvent {
    fn time_ns(&self) -> Nanos {
        self.time_ns
    }

    fn clean(&mut self, redaction: &Redaction, _now_ns: Nanos) {
        Fact::clean(&mut self.mount, redaction);
    }

    /// Of a container's mounts it is one of the container's own users.
    fn users(&self) -> [Option<i64>; 3] {
        let uid = self.by.as_ref().and_then(|by| by.uid);
        [uid.filter(|_| self.mount.container.container_id.is_empty()), None, None]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_mounts_on_the_host_is_one_of_its_users_and_in_a_container_is_not() {
        let by = |container: &str, uid| {
            let container = ContainerKey { container_id: container.into(), ..ContainerKey::default() };
            let by = Some(Mounter { pid: 7, path: "/bin/mount".into(), uid });
            MountEvent { time_ns: 1, action: MountChange::Mount, mount: Mount { container, ..Mount::default() }, by }
        };
        assert_eq!(by("", Some(1000)).users(), [Some(1000), None, None]);
        assert_eq!(by("c", Some(1000)).users(), [None; 3]);
        assert_eq!(MountEvent { by: None, ..by("", None) }.users(), [None; 3]);
    }
}
