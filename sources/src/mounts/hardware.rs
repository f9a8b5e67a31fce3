//! The hardware behind a mount, through loop devices and overlays.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
};

use mayfly_history::device::Hardware;

use super::mountinfo::Line;
use crate::devices::{Bottom, Sysfs};

/// Files and overlays upon each other that are followed at most.
const DEEPEST: usize = 8;

/// What lies behind a mount.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Behind {
    pub(crate) hardware: Hardware,
    pub(crate) fs_uuid: String,
    pub(crate) fs_label: String,
}

/// The host's mounts and devices; where the layers of containers lie too. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Lower {
    pub(crate) sysfs: Sysfs,
    mounts: Arc<RwLock<BTreeMap<i64, Line>>>,
}

impl Lower {
    pub(crate) fn new(sysfs: Sysfs) -> Self {
        Self { sysfs, mounts: Arc::default() }
    }

    /// Takes the host's mounts as they are now.
    pub(crate) fn set(&self, mounts: BTreeMap<i64, Line>) {
        *self.mounts.write().unwrap_or_else(PoisonError::into_inner) = mounts;
    }

    /// Whether the host's mounts are known.
    pub(crate) fn is_known(&self) -> bool {
        !self.mounts.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// What is behind a mount. May block as long as a device does.
    pub(crate) fn behind(&self, line: &Line) -> Behind {
        let mut behind = Behind { hardware: self.hardware(line, 0), ..Behind::default() };
        if let Some(number) = self.number(line)
            && let Some(folder) = self.sysfs.folder(&number)
        {
            let name = self.sysfs.filesystem(&number, &folder);
            (behind.fs_uuid, behind.fs_label) = (name.uuid, name.label);
        }
        behind
    }

    fn hardware(&self, line: &Line, depth: usize) -> Hardware {
        let only = |bus: &str| Hardware { bus: bus.into(), ..Hardware::default() };
        if depth > DEEPEST {
            return only("none");
        }
        if is_network(&line.fs_type) {
            return only("network");
        }
        if let Some(folder) = self.number(line).and_then(|number| self.sysfs.folder(&number)) {
            return match self.sysfs.bottom(&folder) {
                Bottom::Hardware(hardware) => hardware,
                Bottom::File(path) => self.under(&path).map_or_else(|| only("loop"), |under| self.hardware(&under, depth + 1)),
            };
        }
        match line.layer.as_deref().and_then(|layer| self.under(layer)) {
            // An overlay's folder may only seem to be on the overlay itself.
            Some(under) if under.id != line.id => self.hardware(&under, depth + 1),
            _ => only("none"),
        }
    }

    /// The device's number. Some filesystems (Btrfs) have one of their own; then that of their device file.
    fn number(&self, line: &Line) -> Option<String> {
        if line.number.starts_with("0:") { self.sysfs.number(&line.device) } else { Some(line.number.clone()) }
    }

    /// The mount of the host that a path is on: of those that are above it, the nearest; of several at one place, the last.
    fn under(&self, path: &str) -> Option<Line> {
        let mounts = self.mounts.read().unwrap_or_else(PoisonError::into_inner);
        let above = mounts.values().filter(|mount| Path::new(path).starts_with(&mount.path));
        above.max_by_key(|mount| (mount.path.len(), mount.id)).cloned()
    }
}

fn is_network(fs_type: &str) -> bool {
    matches!(fs_type, "nfs" | "nfs4" | "cifs" | "smb3" | "ceph" | "9p" | "afs" | "gfs2" | "ocfs2" | "glusterfs" | "lustre" | "fuse.sshfs")
        || matches!(fs_type, "fuse.glusterfs" | "fuse.ceph" | "fuse.s3fs" | "fuse.rclone" | "ncpfs" | "coda")
}

#[cfg(test)]
mod tests {
    use mayfly_tests::devices::{FakeHost, Stick};

    use super::*;
    use crate::mounts::mountinfo::parse;

    fn lower(root: &Path, mountinfo: &str) -> Lower {
        let lower = Lower::new(Sysfs::new(root));
        lower.set(parse(mountinfo, 100).0);
        lower
    }

    fn bus(lower: &Lower, line: &str) -> String {
        lower.behind(parse(line, 1).0.values().next().unwrap()).hardware.bus
    }

    #[test]
    fn overlays_and_loops_lie_where_their_files_lie() {
        let host = FakeHost::default();
        host.device("sys/devices/pci0/virtio1/block/vda", "254:0");
        host.device("sys/devices/virtual/block/loop0", "7:0");
        let backing = "sys/devices/virtual/block/loop0/loop/backing_file";
        host.write(backing, "/var/lib/image");
        let table = "1 0 254:0 / / rw - ext4 /dev/vda rw\n2 1 0:5 / /tmp rw - tmpfs tmpfs rw\n3 1 7:0 / /srv rw - ext4 /dev/loop0 rw\n";
        let lower = lower(host.root(), table);
        for (line, expected) in [
            ("9 1 254:0 / /x rw - ext4 /dev/vda rw", "virtio"),
            ("9 1 7:0 / /x rw - ext4 /dev/loop0 rw", "virtio"),
            ("9 1 0:9 / /x rw - overlay overlay rw,lowerdir=/l,upperdir=/srv/up,workdir=/w", "virtio"),
            ("9 1 0:9 / /x rw - overlay overlay rw,lowerdir=/tmp/l", "none"),
            ("9 1 0:9 / /x rw - tmpfs tmpfs rw", "none"),
            ("9 1 0:9 / /x rw - nfs4 server:/export rw", "network"),
        ] {
            assert_eq!(bus(&lower, line), expected, "{line}");
        }
        host.write(backing, "/srv/itself");
        assert_eq!(bus(&lower, "9 1 7:0 / /x rw - ext4 /dev/loop0 rw"), "none", "a ring ends");
    }

    /// An overlay on an image in a file on a Btrfs on a logical volume in an encrypted partition of a stick.
    #[test]
    fn the_longest_chain_ends_at_the_stick() {
        let host = FakeHost::default();
        host.device("sys/devices/pci0/virtio1/block/vda", "254:0");
        host.plug(Stick { serial: "4C530001", disk: "8:16", partition: "8:17", sequence: 9 });
        for (dm, number, below) in [("dm-0", "253:0", "8:17"), ("dm-1", "253:1", "253:0")] {
            host.device(&format!("sys/devices/virtual/block/{dm}"), number);
            host.link(&format!("sys/devices/virtual/block/{dm}/slaves/below"), &format!("sys/dev/block/{below}"));
        }
        // Btrfs has a number of its own; its device file leads on.
        host.write("sys/class/block/mapper/vg-data/dev", "253:1");
        host.device("sys/devices/virtual/block/loop0", "7:0");
        host.write("sys/devices/virtual/block/loop0/loop/backing_file", "/media/images/root.img");
        let table = "1 0 254:0 / / rw - ext4 /dev/vda rw\n2 1 0:31 / /media rw - btrfs /dev/mapper/vg-data rw\n\
            3 1 7:0 / /srv rw - ext4 /dev/loop0 rw\n4 1 0:40 / /merged rw - overlay overlay rw,lowerdir=/srv/l,upperdir=/srv/u,workdir=/srv/w\n";
        let lower = lower(host.root(), table);
        let within = "9 1 0:41 / / rw - overlay overlay rw,lowerdir=/usr/share,upperdir=/merged/u,workdir=/merged/w";
        for line in table.lines().skip(1).chain([within]) {
            let hardware = lower.behind(parse(line, 1).0.values().next().unwrap()).hardware;
            let told = [hardware.bus, hardware.usb_vendor_id, hardware.usb_product_id, hardware.serial].join(" ");
            assert_eq!(told, "usb 0781 5583 4C530001", "{line}");
        }
    }
}
