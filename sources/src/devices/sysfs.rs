//! From a device's number to the hardware: the ancestry that sysfs shows, while the device is there.
//!
//! Below `root` lie `sys`, `dev` and `run/udev` as on a real host; another root in tests.

use std::{
    fs::{self, File},
    io::Read,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use mayfly_history::device::Hardware;

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, openat};

use super::{
    look::disk,
    superblock::{self, Name},
    turns::turn,
};

/// Layers (partitions, LVM, LUKS, loop devices) that are followed at most.
const DEEPEST: usize = 12;
/// Longest text of an attribute.
const LONGEST: u64 = 4096;

/// A drive without a disk in it does not block.
const FLAGS: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// A host's devices.
#[derive(Clone, Debug)]
pub(crate) struct Sysfs {
    pub(super) root: PathBuf,
}

/// Where a chain of layers goes on, outside of sysfs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Bottom {
    /// Hardware, or nothing that could be followed.
    Hardware(Hardware),
    /// A loop device over this file.
    File(String),
}

impl Sysfs {
    pub(crate) fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder of a block device, by `MAJOR:MINOR`.
    pub(crate) fn folder(&self, number: &str) -> Option<PathBuf> {
        is_number(number).then(|| fs::canonicalize(self.root.join("sys/dev/block").join(number)).ok()).flatten()
    }

    /// The number of a device file, as `/dev/sda1` or `/dev/mapper/x`.
    pub(crate) fn number(&self, device: &str) -> Option<String> {
        use std::os::unix::fs::{FileTypeExt, MetadataExt};
        let below = device.strip_prefix("/dev/").filter(|name| !name.split('/').any(|part| part == ".."))?;
        if let Some(number) = read(&self.root.join("sys/class/block").join(below).join("dev")) {
            return Some(number);
        }
        let meta = fs::metadata(self.root.join("dev").join(below)).ok().filter(|meta| meta.file_type().is_block_device())?;
        Some(format!("{}:{}", rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev())))
    }

    /// What is at the bottom of the device of that folder.
    pub(crate) fn bottom(&self, folder: &Path) -> Bottom {
        let mut folder = folder.to_owned();
        for _ in 0..DEEPEST {
            if folder.join("partition").exists() {
                folder.pop();
            }
            if let Some(file) = read(&folder.join("loop/backing_file")) {
                return Bottom::File(file);
            }
            // Of a device over several, the first by name stands for all.
            let slaves = fs::read_dir(folder.join("slaves")).into_iter().flatten().flatten().map(|entry| entry.path());
            match slaves.min().and_then(|slave| fs::canonicalize(slave).ok()) {
                Some(slave) => folder = slave,
                None => break,
            }
        }
        Bottom::Hardware(self.hardware(&folder))
    }

    /// The hardware of a whole disk, from its folder and those above.
    pub(crate) fn hardware(&self, disk: &Path) -> Hardware {
        let attribute = |name: &str| read(&disk.join(name)).unwrap_or_default();
        let first = |names: &[&str]| names.iter().map(|name| attribute(name)).find(|text| !text.is_empty()).unwrap_or_default();
        let mut hardware = Hardware {
            bus: bus(disk).into(),
            vendor: first(&["device/vendor", "device/manfid"]),
            model: first(&["device/model", "device/name"]),
            serial: first(&["serial", "device/serial"]),
            ..Hardware::default()
        };
        if hardware.bus == "virtio" {
            // There it is the number of the transport's vendor.
            hardware.vendor = String::new();
        }
        // The nearest folder above that has these is the USB device itself, not its port or hub.
        if let Some(usb) = disk.ancestors().find(|folder| folder.join("idVendor").exists()) {
            let attribute = |name: &str| read(&usb.join(name)).unwrap_or_default();
            hardware.bus = "usb".into();
            hardware.usb_vendor_id = attribute("idVendor");
            hardware.usb_product_id = attribute("idProduct");
            let prefer = |field: &mut String, name: &str| {
                let told = attribute(name);
                if !told.is_empty() {
                    *field = told;
                }
            };
            prefer(&mut hardware.serial, "serial");
            prefer(&mut hardware.vendor, "manufacturer");
            prefer(&mut hardware.model, "product");
        }
        if hardware.serial.is_empty() {
            hardware.serial = read(&disk.join("dev")).and_then(|number| self.udev(&number, "ID_SERIAL_SHORT")).unwrap_or_default();
        }
        hardware
    }

    /// What lies on a device calls itself: as udev found, or else as its first bytes say. May block as long as the device does.
    pub(crate) fn filesystem(&self, number: &str, folder: &Path) -> Name {
        self.found_by_udev(number).or_else(|| self.read_name(folder)).unwrap_or_default()
    }

    /// The same of a device that just changed, of which udev may know only what was before.
    pub(crate) fn filesystem_now(&self, number: &str, folder: &Path) -> Name {
        self.read_name(folder).or_else(|| self.found_by_udev(number)).unwrap_or_default()
    }

    fn found_by_udev(&self, number: &str) -> Option<Name> {
        let told = |key| self.udev(number, key);
        let (kind, uuid) = (told("ID_FS_TYPE"), told("ID_FS_UUID"));
        let is_found = kind.is_some() || uuid.is_some();
        is_found.then(|| Name {
            kind: kind.unwrap_or_default(),
            uuid: uuid.unwrap_or_default(),
            label: told("ID_FS_LABEL").unwrap_or_default(),
        })
    }

    fn read_name(&self, folder: &Path) -> Option<Name> {
        let _turn = turn(disk(folder))?;
        // Whoever partitions or formats a disk locks the whole of it first, as systemd asks them to, and fails where others have it open.
        let whole = self.open(disk(folder));
        if whole.as_ref().is_some_and(|whole| flock(whole, FlockOperation::NonBlockingLockShared).is_err()) {
            return None;
        }
        let device = self.open(folder)?;
        let mut bytes = Vec::with_capacity(superblock::LENGTH);
        File::from(device).take(superblock::LENGTH as u64).read_to_end(&mut bytes).ok()?;
        superblock::name(&bytes)
    }

    fn open(&self, folder: &Path) -> Option<OwnedFd> {
        openat(CWD, self.root.join(name(folder)?.strip_prefix('/')?), FLAGS, Mode::empty()).ok()
    }

    /// What udev keeps of a block device.
    fn udev(&self, number: &str, key: &str) -> Option<String> {
        let data = fs::read_to_string(self.root.join("run/udev/data").join(format!("b{}", number.trim()))).ok()?;
        data.lines().find_map(|line| Some(line.strip_prefix("E:")?.strip_prefix(key)?.strip_prefix('=')?.to_owned()))
    }
}

/// The device file of a folder, `/dev/sdb1`; the kernel writes a slash in it as `!`.
pub(crate) fn name(folder: &Path) -> Option<String> {
    Some(format!("/dev/{}", folder.file_name()?.to_str()?.replace('!', "/")))
}

/// An attribute's text, without the blanks that pad it.
pub(crate) fn read(path: &Path) -> Option<String> {
    let mut text = Vec::new();
    File::open(path).ok()?.take(LONGEST).read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text);
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    (!text.is_empty()).then(|| text.to_owned())
}

fn is_number(number: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    number.split_once(':').is_some_and(|(major, minor)| digits(major) && digits(minor))
}

/// The bus that a disk's folder is below; empty where it is none of those that are known.
fn bus(disk: &Path) -> &'static str {
    let parts: Vec<_> = disk.iter().filter_map(|part| part.to_str()).collect();
    let has = |prefix: &str| {
        parts.iter().any(|part| part.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit())))
    };
    const BUSES: [(&str, &str); 8] = [
        ("usb", "usb"),
        ("nvme", "nvme"),
        ("virtio", "virtio"),
        ("mmc", "mmc"),
        ("host", "scsi"),
        ("zram", "zram"),
        ("loop", "loop"),
        ("nbd", "network"),
    ];
    BUSES.iter().find(|(prefix, _)| has(prefix)).map_or("", |(_, bus)| bus)
}

#[cfg(test)]
#[path = "sysfs_tests.rs"]
mod tests;
