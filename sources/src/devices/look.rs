//! One look at a device in sysfs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use mayfly_history::device::{BlockDevice, Hardware};

use super::sysfs::{Bottom, Sysfs, name, read};

/// Most devices of a host.
pub(super) const MOST: usize = 16_384;

impl Sysfs {
    /// The folder that a message of the kernel names.
    pub(super) fn at(&self, path: &str) -> PathBuf {
        self.root.join("sys").join(path.trim_start_matches('/'))
    }

    /// The folders of all block devices, as messages name them, and their numbers.
    pub(super) fn block_devices(&self) -> Vec<(String, String)> {
        let numbers = fs::read_dir(self.root.join("sys/dev/block")).into_iter().flatten().flatten();
        let numbers = numbers.filter_map(|entry| entry.file_name().into_string().ok());
        let mut found: Vec<_> = numbers.filter_map(|number| Some((self.path_of(&self.folder(&number)?)?, number))).take(MOST).collect();
        found.sort();
        found
    }

    /// The folders of all USB devices.
    pub(super) fn usb_devices(&self) -> Vec<String> {
        let entries = fs::read_dir(self.root.join("sys/bus/usb/devices")).into_iter().flatten().flatten();
        let folders = entries.filter_map(|entry| fs::canonicalize(entry.path()).ok()).filter(|folder| folder.join("idVendor").exists());
        folders.filter_map(|folder| self.path_of(&folder)).take(MOST).collect()
    }

    fn path_of(&self, folder: &Path) -> Option<String> {
        let sys = fs::canonicalize(self.root.join("sys")).ok()?;
        Some(format!("/{}", folder.strip_prefix(sys).ok()?.to_str()?))
    }

    /// The number that the kernel gave to the disk of that folder.
    pub(super) fn disk_sequence(&self, folder: &Path) -> Option<i64> {
        read(&disk(folder).join("diskseq"))?.parse().ok()
    }

    /// A block device, but for what lies on it. `None`: it is gone.
    pub(super) fn block(&self, folder: &Path) -> Option<BlockDevice> {
        let number = |path: PathBuf| read(&path)?.parse().ok();
        let disk = disk(folder);
        let device = BlockDevice {
            name: name(folder)?,
            parent: if disk == folder { String::new() } else { name(disk)? },
            hardware: match self.bottom(folder) {
                Bottom::Hardware(hardware) => hardware,
                Bottom::File(_) => Hardware { bus: "loop".into(), ..Hardware::default() },
            },
            size: number(folder.join("size")),
            block_size: number(disk.join("queue/logical_block_size")),
            device_number: read(&folder.join("dev"))?,
            removable: number(disk.join("removable")),
            disk_sequence: self.disk_sequence(folder),
            ..BlockDevice::default()
        };
        Some(device)
    }

    /// A USB device, of whatever kind. `None`: it is gone.
    pub(super) fn usb(&self, folder: &Path) -> Option<BlockDevice> {
        let attribute = |name: &str| read(&folder.join(name));
        let (bus, device) = (attribute("busnum")?.parse::<u16>().ok()?, attribute("devnum")?.parse::<u16>().ok()?);
        Some(BlockDevice {
            name: format!("/dev/bus/usb/{bus:03}/{device:03}"),
            hardware: self.hardware(folder),
            device_number: attribute("dev").unwrap_or_default(),
            ..BlockDevice::default()
        })
    }
}

/// The folder of the disk that a partition's folder lies in, or the disk's own.
pub(super) fn disk(folder: &Path) -> &Path {
    folder.parent().filter(|_| folder.join("partition").exists()).unwrap_or(folder)
}
