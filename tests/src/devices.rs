//! A host whose devices are folders and files, as sysfs shows them.

#![expect(clippy::unwrap_used, reason = "a part of tests, which clippy knows by their attribute alone")]

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

/// Below its root lie `sys`, `dev` and `run/udev`, as far as a test made them. Whatever fails, fails the test.
#[derive(Debug)]
pub struct FakeHost(tempfile::TempDir);

/// A stick of a real make, plugged into a hub's port, with one partition.
#[derive(Clone, Copy, Debug)]
pub struct Stick<'s> {
    pub serial: &'s str,
    /// `MAJOR:MINOR` of `sdb` and `sdb1`.
    pub disk: &'s str,
    pub partition: &'s str,
    /// Which of all disks that the kernel ever saw it is.
    pub sequence: u32,
}

/// The port of the hub.
const PORT: &str = "sys/devices/pci0000:00/0000:00:14.0/usb2/2-3/2-3.1";

impl Stick<'_> {
    /// As messages of the kernel name the disk.
    pub const PATH: &'static str = "/devices/pci0000:00/0000:00:14.0/usb2/2-3/2-3.1/2-3.1:1.0/host6/target6:0:0/6:0:0:0/block/sdb";
    /// And the stick itself.
    pub const USB_PATH: &'static str = "/devices/pci0000:00/0000:00:14.0/usb2/2-3/2-3.1";
}

impl Default for FakeHost {
    fn default() -> Self {
        let host = Self(tempfile::tempdir().unwrap());
        fs::create_dir_all(host.path("sys/dev/block")).unwrap();
        host
    }
}

impl FakeHost {
    pub fn root(&self) -> &Path {
        self.0.path()
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    /// Writes an attribute, and the end of line that sysfs has behind each.
    pub fn write(&self, below: &str, text: &str) {
        let path = self.path(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{text}\n")).unwrap();
    }

    /// Makes a block device in a folder, with the link that the kernel makes.
    pub fn device(&self, folder: &str, number: &str) {
        self.write(&format!("{folder}/dev"), number);
        self.link(&format!("sys/dev/block/{number}"), folder);
    }

    /// Makes a link from one place below to another.
    pub fn link(&self, at: &str, to: &str) {
        let at = self.path(at);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        symlink(self.path(to), at).unwrap();
    }

    pub fn plug(&self, stick: Stick<'_>) {
        let about = [("idVendor", "0781"), ("idProduct", "5583"), ("serial", stick.serial), ("manufacturer", "SanDisk")];
        for (name, text) in about.into_iter().chain([("product", "Ultra Fit"), ("busnum", "2"), ("devnum", "5"), ("dev", "189:132")]) {
            self.write(&format!("{PORT}/{name}"), text);
        }
        self.write("sys/devices/pci0000:00/0000:00:14.0/usb2/2-3/idVendor", "05e3");
        self.link("sys/bus/usb/devices/2-3.1", PORT);
        let disk = format!("sys{}", Stick::PATH);
        self.device(&disk, stick.disk);
        let sequence = stick.sequence.to_string();
        let about = [("device/vendor", "SanDisk "), ("device/model", "Ultra Fit       "), ("size", "30031872"), ("removable", "1")];
        for (name, text) in about.into_iter().chain([("queue/logical_block_size", "512"), ("diskseq", &sequence)]) {
            self.write(&format!("{disk}/{name}"), text);
        }
        self.device(&format!("{disk}/sdb1"), stick.partition);
        self.write(&format!("{disk}/sdb1/partition"), "1");
        self.write(&format!("{disk}/sdb1/size"), "30029824");
    }

    pub fn unplug(&self, stick: Stick<'_>) {
        for number in [stick.disk, stick.partition] {
            fs::remove_file(self.path("sys/dev/block").join(number)).unwrap();
        }
        fs::remove_file(self.path("sys/bus/usb/devices/2-3.1")).unwrap();
        fs::remove_dir_all(self.path(PORT)).unwrap();
    }
}
