use std::{fs, io, os::fd::AsFd, time::Duration};

use mayfly_history::{
    Change, Nanos,
    device::{BlockDevice, DeviceAction, Hardware},
    recorder::{Handle, Sinks},
    sink::Bell,
};
use mayfly_tests::devices::{FakeHost, Stick};
use rustix::net::{
    AddressFamily, SendFlags, SocketFlags, SocketType,
    netlink::{KOBJECT_UEVENT, SocketAddrNetlink},
    sendto, socket_with,
};
use tokio::time::timeout;

use super::{
    inventory::{Inventory, Told},
    session::KERNEL,
    uevent::parse,
    *,
};
use crate::{
    config::SourcesConfig,
    netlink::{LONGEST, receive},
};

const FIRST: Stick<'_> = Stick { serial: "4C530001", disk: "8:16", partition: "8:17", sequence: 12 };
const SECOND: Stick<'_> = Stick { serial: "4C530002", sequence: 13, ..FIRST };

/// What the kernel says, of the disk or what lies below.
fn message(action: &str, below: &str, number: &str, sequence: u32) -> Vec<u8> {
    let (major, minor) = number.split_once(':').unwrap();
    let path = Stick::PATH;
    let name = below.strip_prefix('/').unwrap_or("sdb");
    format!("{action}@{path}{below}\0SUBSYSTEM=block\0DEVNAME={name}\0MAJOR={major}\0MINOR={minor}\0DISKSEQ={sequence}\0SEQNUM=7\0").into()
}

fn hear(inventory: &mut Inventory, message: &[u8]) -> Told {
    inventory.hear(&parse(message).unwrap()).unwrap()
}

fn ultra_fit(serial: &str) -> Hardware {
    let [bus, vendor, model, usb_vendor_id, usb_product_id] = ["usb", "SanDisk", "Ultra Fit", "0781", "5583"].map(str::to_owned);
    Hardware { bus, vendor, model, serial: serial.into(), usb_vendor_id, usb_product_id }
}

#[test]
fn a_stick_is_known_when_it_comes_and_still_when_it_is_gone() {
    let host = FakeHost::default();
    let mut inventory = Inventory::new(Sysfs::new(host.root()));
    inventory.scan();
    host.plug(FIRST);
    let disk = hear(&mut inventory, &message("add", "", "8:16", 12));
    let expected = BlockDevice {
        name: "/dev/sdb".into(),
        hardware: ultra_fit("4C530001"),
        size: Some(30_031_872),
        block_size: Some(512),
        device_number: "8:16".into(),
        removable: Some(1),
        disk_sequence: Some(12),
        ..BlockDevice::default()
    };
    assert_eq!(disk, Told { action: DeviceAction::Add, device: expected, is_block: true, is_there: true });
    let partition = hear(&mut inventory, &message("add", "/sdb1", "8:17", 12)).device;
    assert_eq!((partition.name.as_str(), partition.parent.as_str(), partition.size), ("/dev/sdb1", "/dev/sdb", Some(30_029_824)));
    assert!(inventory.is_true());

    host.unplug(FIRST);
    assert!(!inventory.is_true(), "a message is missing");
    let removed = hear(&mut inventory, &message("remove", "/sdb1", "8:17", 12));
    assert_eq!(removed, Told { action: DeviceAction::Remove, device: partition, is_block: true, is_there: false });
    assert_eq!(hear(&mut inventory, &message("remove", "", "8:16", 12)).device, disk.device);
    assert!(inventory.is_true());
}

#[test]
fn another_stick_under_the_same_name_is_never_taken_for_the_first() {
    let host = FakeHost::default();
    let mut inventory = Inventory::new(Sysfs::new(host.root()));
    // The messages about the first one are read when the second is there already.
    host.plug(SECOND);
    let told = hear(&mut inventory, &message("add", "", "8:16", 12));
    let first = told.device;
    assert!(!told.is_there, "what lies on the second is not the first's");
    assert_eq!((first.name.as_str(), &first.hardware, first.disk_sequence), ("/dev/sdb", &Hardware::default(), Some(12)));
    assert_eq!(hear(&mut inventory, &message("remove", "", "8:16", 12)).device, first);
    assert_eq!(hear(&mut inventory, &message("add", "", "8:16", 13)).device.hardware, ultra_fit("4C530002"));
}

#[test]
fn sticks_are_told_as_usb_devices_too_and_other_devices_not_at_all() {
    let host = FakeHost::default();
    host.plug(FIRST);
    let mut inventory = Inventory::new(Sysfs::new(host.root()));
    inventory.scan();
    assert_eq!(inventory.blocks().map(|(_, device)| device.name.clone()).collect::<Vec<_>>(), ["/dev/sdb", "/dev/sdb1"]);
    let usb = format!("bind@{}\0SUBSYSTEM=usb\0DEVTYPE=usb_device\0DEVNAME=bus/usb/002/005\0MAJOR=189\0MINOR=132\0", Stick::USB_PATH);
    let bound = hear(&mut inventory, usb.as_bytes());
    assert_eq!((bound.action, bound.device.name.as_str(), bound.is_block), (DeviceAction::Bind, "/dev/bus/usb/002/005", false));
    assert_eq!(bound.device.hardware, ultra_fit("4C530001"));
    for other in ["add@/devices/virtual/bdi/8:16\0SUBSYSTEM=bdi\0", "bind@/devices/x\0SUBSYSTEM=usb\0DEVTYPE=usb_interface\0"] {
        assert_eq!(inventory.hear(&parse(other.as_bytes()).unwrap()), None, "{other:?}");
    }
}

/// A source over a fake host, with what it pushed.
fn session(host: &FakeHost) -> Session {
    let config = DevicesConfig { root: host.root().to_owned(), ..DevicesConfig::default() };
    let config = SourcesConfig { devices: config, ..SourcesConfig::default() };
    let recorder = Handle::detached(Sinks::new(Bell::default()));
    let feed = recorder.feed("devices", "");
    Session::open(Site { endpoint: "".into(), feed, recorder, config: config.into() }).unwrap()
}

fn changes(session: &Session) -> Vec<Change<BlockDevice>> {
    session.site.recorder.sinks().of().drain(usize::MAX).into_iter().map(|received| received.item).collect()
}

fn present(changes: Vec<Change<BlockDevice>>) -> (Vec<String>, Option<Nanos>, &'static str) {
    let [Change::Present { facts, blind_since, evidence, .. }] = &changes[..] else { panic!("{changes:?}") };
    (facts.iter().map(|device| format!("{} {}", device.name, device.hardware.serial)).collect(), *blind_since, evidence)
}

#[tokio::test]
async fn what_messages_did_not_tell_is_found_and_the_gap_is_told() {
    let host = FakeHost::default();
    host.plug(FIRST);
    let mut session = session(&host);
    session.list(None, "startup").await;
    assert_eq!(present(changes(&session)), (vec!["/dev/sdb 4C530001".into(), "/dev/sdb1 4C530001".into()], None, "startup"));

    // The kernel sends some messages to other network namespaces: their numbers are missing, and nothing else.
    session.hear(&message("change", "", "8:16", 12)).await;
    let seen_ns = session.last_ns;
    session.hear(b"add@/devices/virtual/bdi/1:2\0SUBSYSTEM=bdi\0SEQNUM=11\0").await;
    session.check().await;
    assert!(session.check.is_none() && session.site.feed.take_gaps().is_empty());
    changes(&session);

    host.unplug(FIRST);
    host.plug(SECOND);
    session.hear(b"add@/devices/virtual/bdi/1:2\0SUBSYSTEM=bdi\0SEQNUM=20\0").await;
    session.check().await;
    assert!(session.check.is_some_and(|check| check.is_second) && changes(&session).is_empty(), "the messages may be on their way");
    session.check().await;
    let (devices, blind_since, evidence) = present(changes(&session));
    assert_eq!((devices, evidence), (vec!["/dev/sdb 4C530002".to_owned(), "/dev/sdb1 4C530002".into()], "devices"));
    let gaps = session.site.feed.take_gaps();
    assert_eq!((gaps.len(), gaps[0].cause.as_str(), Some(gaps[0].from_ns)), (1, "stream_lagged", blind_since));
    assert!(gaps[0].from_ns > seen_ns && gaps[0].to_ns == Some(session.last_ns));
    assert_eq!(session.site.feed.status().lost_in_kernel, 1);
}

#[tokio::test]
async fn what_a_process_says_in_the_kernels_place_is_not_believed() {
    let host = FakeHost::default();
    let mut session = session(&host);
    let stop = CancellationToken::new();
    let group = SocketAddrNetlink::new(0, KERNEL);
    let liar = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(KOBJECT_UEVENT)).unwrap();
    let lie = message("add", "", "8:16", 12);
    assert_eq!(sendto(&liar, &lie, SendFlags::empty(), &group).unwrap(), lie.len());
    let told = async {
        // A true message, from the kernel.
        fs::write("/sys/class/mem/null/uevent", "change").unwrap();
        while session.sequence.is_none() {
            let mut buffer = Box::new([0; LONGEST]);
            let ready = session.socket.readable().await.unwrap();
            match receive(ready.get_inner().as_fd(), &mut buffer).map(|datagram| datagram.bytes.to_vec()) {
                Ok(bytes) => {
                    drop(ready);
                    session.hear(&bytes).await;
                }
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
    };
    stop.run_until_cancelled(timeout(Duration::from_secs(20), told)).await.unwrap().unwrap();
    assert!(changes(&session).is_empty(), "there is no such stick");
}
