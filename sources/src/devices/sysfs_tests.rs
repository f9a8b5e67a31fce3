use std::os::unix::fs::symlink;

use super::*;

/// A host whose devices are folders and files.
struct Host(tempfile::TempDir);

impl Host {
    fn new() -> Self {
        let host = Self(tempfile::tempdir().unwrap());
        fs::create_dir_all(host.path("sys/dev/block")).unwrap();
        host
    }

    fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    fn sysfs(&self) -> Sysfs {
        Sysfs::new(self.0.path())
    }

    fn write(&self, below: &str, text: &str) {
        let path = self.path(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{text}\n")).unwrap();
    }

    /// A block device with the links that the kernel makes.
    fn device(&self, folder: &str, number: &str) {
        self.write(&format!("{folder}/dev"), number);
        symlink(self.path(folder), self.path("sys/dev/block").join(number)).unwrap();
    }

    /// A stick of a real make at a hub's port, with one partition.
    fn stick(&self, serial: &str) {
        const PORT: &str = "sys/devices/pci0000:00/0000:00:14.0/usb2/2-3/2-3.1";
        for (name, text) in
            [("idVendor", "0781"), ("idProduct", "5583"), ("serial", serial), ("manufacturer", "SanDisk"), ("product", "Ultra Fit")]
        {
            self.write(&format!("{PORT}/{name}"), text);
        }
        self.write("sys/devices/pci0000:00/0000:00:14.0/usb2/2-3/idVendor", "05e3");
        let disk = format!("{PORT}/2-3.1:1.0/host6/target6:0:0/6:0:0:0/block/sdb");
        self.device(&disk, "8:16");
        self.write(&format!("{disk}/device/vendor"), "SanDisk ");
        self.write(&format!("{disk}/device/model"), "Ultra Fit       ");
        self.device(&format!("{disk}/sdb1"), "8:17");
        self.write(&format!("{disk}/sdb1/partition"), "1");
    }

    fn bottom(&self, number: &str) -> Bottom {
        let sysfs = self.sysfs();
        sysfs.bottom(&sysfs.folder(number).unwrap())
    }
}

fn stick(serial: &str) -> Bottom {
    let [bus, vendor, model, serial, usb_vendor_id, usb_product_id] =
        ["usb", "SanDisk", "Ultra Fit", serial, "0781", "5583"].map(str::to_owned);
    Bottom::Hardware(Hardware { bus, vendor, model, serial, usb_vendor_id, usb_product_id })
}

#[test]
fn a_partition_is_of_its_stick_and_not_of_the_hub() {
    let host = Host::new();
    host.stick("4C5300018");
    assert_eq!(host.bottom("8:17"), stick("4C5300018"));
}

#[test]
fn volumes_and_encryption_are_followed_to_the_stick() {
    let host = Host::new();
    host.stick("X1");
    for (dm, number, below) in [("dm-0", "253:0", "8:17"), ("dm-1", "253:1", "253:0")] {
        let folder = format!("sys/devices/virtual/block/{dm}");
        host.device(&folder, number);
        let slaves = host.path(&folder).join("slaves");
        fs::create_dir(&slaves).unwrap();
        symlink(host.sysfs().folder(below).unwrap(), slaves.join("below")).unwrap();
    }
    assert_eq!(host.bottom("253:1"), stick("X1"));
    // A ring of slaves, which no kernel makes, ends all the same.
    symlink(host.path("sys/devices/virtual/block/dm-1"), host.path("sys/devices/virtual/block/dm-0/slaves/a")).unwrap();
    assert_eq!(host.bottom("253:1"), Bottom::Hardware(Hardware::default()));
}

#[test]
fn a_loop_device_goes_on_at_its_file() {
    let host = Host::new();
    host.device("sys/devices/virtual/block/loop3", "7:3");
    assert_eq!(host.bottom("7:3"), Bottom::Hardware(Hardware { bus: "loop".into(), ..Hardware::default() }));
    host.write("sys/devices/virtual/block/loop3/loop/backing_file", "/media/stick/image");
    assert_eq!(host.bottom("7:3"), Bottom::File("/media/stick/image".into()));
}

#[test]
fn other_disks_name_themselves() {
    let host = Host::new();
    host.device("sys/devices/pci0000:00/0000:00:04.0/nvme/nvme0/nvme0n1", "259:0");
    host.write("sys/devices/pci0000:00/0000:00:04.0/nvme/nvme0/nvme0n1/device/model", "Amazon Elastic Block Store");
    host.write("sys/devices/pci0000:00/0000:00:04.0/nvme/nvme0/nvme0n1/device/serial", "vol0abc");
    let Bottom::Hardware(nvme) = host.bottom("259:0") else { panic!() };
    assert_eq!((nvme.bus.as_str(), nvme.model.as_str(), nvme.serial.as_str()), ("nvme", "Amazon Elastic Block Store", "vol0abc"));
    host.device("sys/devices/pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/sda", "8:0");
    host.write("run/udev/data/b8:0", "S:disk/by-id/x\nE:ID_SERIAL=Disk_S1\nE:ID_SERIAL_SHORT=S1");
    let Bottom::Hardware(sata) = host.bottom("8:0") else { panic!() };
    assert_eq!((sata.bus.as_str(), sata.serial.as_str()), ("scsi", "S1"));
    host.device("sys/devices/pci0000:00/0000:00:05.0/virtio2/block/vda", "254:0");
    host.write("sys/devices/pci0000:00/0000:00:05.0/virtio2/block/vda/device/vendor", "0x1af4");
    let Bottom::Hardware(virtio) = host.bottom("254:0") else { panic!() };
    assert_eq!((virtio.bus.as_str(), virtio.vendor.as_str()), ("virtio", ""));
}

#[test]
fn a_filesystem_is_named_by_udev_or_by_its_own_bytes() {
    let host = Host::new();
    host.stick("X1");
    let folder = host.sysfs().folder("8:17").unwrap();
    assert_eq!(host.sysfs().filesystem("8:17", &folder), Name::default());
    let mut bytes = vec![0; superblock::LENGTH];
    bytes[..4].copy_from_slice(b"XFSB");
    bytes[108..112].copy_from_slice(b"pool");
    fs::create_dir_all(host.path("dev")).unwrap();
    fs::write(host.path("dev/sdb1"), bytes).unwrap();
    assert_eq!(host.sysfs().filesystem("8:17", &folder).label, "pool");
    host.write("run/udev/data/b8:17", "E:ID_FS_UUID=ABCD-EF01\nE:ID_FS_LABEL=STICK");
    assert_eq!(host.sysfs().filesystem("8:17", &folder), Name { uuid: "ABCD-EF01".into(), label: "STICK".into() });
}

#[test]
fn numbers_and_names_lead_nowhere_else() {
    let host = Host::new();
    host.stick("X1");
    for number in ["8:99", "../../..", "8", "8:17/..", ""] {
        assert_eq!(host.sysfs().folder(number), None, "{number}");
    }
    host.write("sys/class/block/sdb1/dev", "8:17");
    assert_eq!(host.sysfs().number("/dev/sdb1").as_deref(), Some("8:17"));
    for device in ["/dev/../etc/passwd", "tmpfs", "/dev/none"] {
        assert_eq!(host.sysfs().number(device), None, "{device}");
    }
}
