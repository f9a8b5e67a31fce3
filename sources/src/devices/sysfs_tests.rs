use std::os::unix::fs::symlink;

use super::*;
use mayfly_tests::devices::{FakeHost, Stick};

fn sysfs(host: &FakeHost) -> Sysfs {
    Sysfs::new(host.root())
}

fn plugged(serial: &str) -> Stick<'_> {
    Stick { serial, disk: "8:16", partition: "8:17", sequence: 9 }
}

fn bottom(host: &FakeHost, number: &str) -> Bottom {
    let sysfs = sysfs(host);
    sysfs.bottom(&sysfs.folder(number).unwrap())
}

fn stick(serial: &str) -> Bottom {
    let [bus, vendor, model, serial, usb_vendor_id, usb_product_id] =
        ["usb", "SanDisk", "Ultra Fit", serial, "0781", "5583"].map(str::to_owned);
    Bottom::Hardware(Hardware { bus, vendor, model, serial, usb_vendor_id, usb_product_id })
}

#[test]
fn a_partition_is_of_its_stick_and_not_of_the_hub() {
    let host = FakeHost::default();
    host.plug(plugged("4C5300018"));
    assert_eq!(bottom(&host, "8:17"), stick("4C5300018"));
}

#[test]
fn volumes_and_encryption_are_followed_to_the_stick() {
    let host = FakeHost::default();
    host.plug(plugged("X1"));
    for (dm, number, below) in [("dm-0", "253:0", "8:17"), ("dm-1", "253:1", "253:0")] {
        let folder = format!("sys/devices/virtual/block/{dm}");
        host.device(&folder, number);
        let slaves = host.path(&folder).join("slaves");
        fs::create_dir(&slaves).unwrap();
        symlink(sysfs(&host).folder(below).unwrap(), slaves.join("below")).unwrap();
    }
    assert_eq!(bottom(&host, "253:1"), stick("X1"));
    // A ring of slaves, which no kernel makes, ends all the same.
    symlink(host.path("sys/devices/virtual/block/dm-1"), host.path("sys/devices/virtual/block/dm-0/slaves/a")).unwrap();
    assert_eq!(bottom(&host, "253:1"), Bottom::Hardware(Hardware::default()));
}

#[test]
fn a_loop_device_goes_on_at_its_file() {
    let host = FakeHost::default();
    host.device("sys/devices/virtual/block/loop3", "7:3");
    assert_eq!(bottom(&host, "7:3"), Bottom::Hardware(Hardware { bus: "loop".into(), ..Hardware::default() }));
    host.write("sys/devices/virtual/block/loop3/loop/backing_file", "/media/stick/image");
    assert_eq!(bottom(&host, "7:3"), Bottom::File("/media/stick/image".into()));
}

#[test]
fn other_disks_name_themselves() {
    let host = FakeHost::default();
    host.device("sys/devices/pci0000:00/0000:00:04.0/nvme/nvme0/nvme0n1", "259:0");
    host.write("sys/devices/pci0000:00/0000:00:04.0/nvme/nvme0/nvme0n1/device/model", "Amazon Elastic Block Store");
    host.write("sys/devices/pci0000:00/0000:00:04.0/nvme/nvme0/nvme0n1/device/serial", "vol0abc");
    let Bottom::Hardware(nvme) = bottom(&host, "259:0") else { panic!() };
    assert_eq!((nvme.bus.as_str(), nvme.model.as_str(), nvme.serial.as_str()), ("nvme", "Amazon Elastic Block Store", "vol0abc"));
    host.device("sys/devices/pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/sda", "8:0");
    host.write("run/udev/data/b8:0", "S:disk/by-id/x\nE:ID_SERIAL=Disk_S1\nE:ID_SERIAL_SHORT=S1");
    let Bottom::Hardware(sata) = bottom(&host, "8:0") else { panic!() };
    assert_eq!((sata.bus.as_str(), sata.serial.as_str()), ("scsi", "S1"));
    host.device("sys/devices/pci0000:00/0000:00:05.0/virtio2/block/vda", "254:0");
    host.write("sys/devices/pci0000:00/0000:00:05.0/virtio2/block/vda/device/vendor", "0x1af4");
    let Bottom::Hardware(virtio) = bottom(&host, "254:0") else { panic!() };
    assert_eq!((virtio.bus.as_str(), virtio.vendor.as_str()), ("virtio", ""));
}

#[test]
fn a_filesystem_is_named_by_udev_or_by_its_own_bytes() {
    let host = FakeHost::default();
    host.plug(plugged("X1"));
    let folder = sysfs(&host).folder("8:17").unwrap();
    assert_eq!(sysfs(&host).filesystem("8:17", &folder), Name::default());
    let mut bytes = vec![0; superblock::LENGTH];
    bytes[..4].copy_from_slice(b"XFSB");
    bytes[108..112].copy_from_slice(b"pool");
    fs::create_dir_all(host.path("dev")).unwrap();
    fs::write(host.path("dev/sdb1"), bytes).unwrap();
    assert_eq!(sysfs(&host).filesystem("8:17", &folder).label, "pool");
    let disk = File::create(host.path("dev/sdb")).unwrap();
    flock(&disk, FlockOperation::LockExclusive).unwrap();
    assert_eq!(sysfs(&host).filesystem("8:17", &folder), Name::default(), "somebody works at the disk");
    drop(disk);
    host.write("run/udev/data/b8:17", "E:ID_FS_UUID=ABCD-EF01\nE:ID_FS_LABEL=STICK\nE:ID_FS_TYPE=vfat");
    let found = Name { kind: "vfat".into(), uuid: "ABCD-EF01".into(), label: "STICK".into() };
    assert_eq!(sysfs(&host).filesystem("8:17", &folder), found);
    assert_eq!(sysfs(&host).filesystem_now("8:17", &folder).kind, "xfs", "what udev says may be of before");
}

#[test]
fn numbers_and_names_lead_nowhere_else() {
    let host = FakeHost::default();
    host.plug(plugged("X1"));
    for number in ["8:99", "../../..", "8", "8:17/..", ""] {
        assert_eq!(sysfs(&host).folder(number), None, "{number}");
    }
    host.write("sys/class/block/sdb1/dev", "8:17");
    assert_eq!(sysfs(&host).number("/dev/sdb1").as_deref(), Some("8:17"));
    for device in ["/dev/../etc/passwd", "tmpfs", "/dev/none"] {
        assert_eq!(sysfs(&host).number(device), None, "{device}");
    }
}
