//! Devices, and the hardware behind them.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::{
    fact::Fact,
    record::Record,
    sink::{Pushed, hash},
    time::Nanos,
};

/// The hardware that holds the bytes of a device or filesystem, with all that lies in between (partitions, LVM, LUKS, loop devices,
/// overlays) left out. Texts are empty where nothing tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Hardware {
    /// `usb`, `nvme`, `virtio`, `scsi`, `mmc`, `loop`, `zram`, `network`, `none`; empty where it is another.
    pub bus: String,
    pub vendor: String,
    pub model: String,
    pub serial: String,
    /// Four hex digits each, as `lsusb` shows them.
    pub usb_vendor_id: String,
    pub usb_product_id: String,
}

/// A block device while it is there: the record of `block_devices_history`. Texts are empty where nothing tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct BlockDevice {
    /// Its file, `/dev/sdb1`.
    pub name: String,
    /// Of a partition: the file of its disk.
    pub parent: String,
    /// Behind it, through partitions, LVM and LUKS.
    pub hardware: Hardware,
    /// In blocks of 512 bytes, whatever [`Self::block_size`] is.
    pub size: Option<i64>,
    /// Bytes that it reads and writes at once.
    pub block_size: Option<i64>,
    /// What lies on it calls itself so, and is of that type: `ext4`, `vfat`, `crypto_LUKS`.
    pub uuid: String,
    pub kind: String,
    pub label: String,
    /// `MAJOR:MINOR`.
    pub device_number: String,
    /// Whether its medium can be taken out; a stick is one with it.
    pub removable: Option<i64>,
    /// The kernel gives one to each disk that it finds, and a new one for each medium: what has another is another.
    pub disk_sequence: Option<i64>,
}

impl Fact for BlockDevice {
    fn key(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.name)
    }
}

/// `device_events.action`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceAction {
    Add,
    Remove,
    Change,
    /// A driver took it.
    Bind,
}

impl DeviceAction {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Remove => "remove",
            Self::Change => "change",
            Self::Bind => "bind",
        }
    }
}

/// What the kernel said of a block or USB device: the record of `device_events`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceEvent {
    pub time_ns: Nanos,
    pub action: DeviceAction,
    /// After it; of a removal, before it.
    pub device: BlockDevice,
}

impl Pushed for DeviceEvent {
    const RING: usize = 4096;

    fn share(&self) -> u64 {
        hash(&self.device.name)
    }
}

impl Record for DeviceEvent {
    fn time_ns(&self) -> Nanos {
        self.time_ns
    }
}
