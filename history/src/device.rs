//! Devices, and the hardware behind them.

use serde::{Deserialize, Serialize};

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
