//! Columns that the tables of devices share. Their first nine are those of osquery's `block_devices`, and mean the same.

use mayfly_history::{
    Column, bigint,
    device::{BlockDevice, DeviceEvent},
    integer, text,
};

/// A record about one device.
pub(crate) trait OfDevice: 'static {
    fn device(&self) -> &BlockDevice;
}

impl OfDevice for BlockDevice {
    fn device(&self) -> &BlockDevice {
        self
    }
}

impl OfDevice for DeviceEvent {
    fn device(&self) -> &BlockDevice {
        &self.device
    }
}

pub(crate) const fn name<R: OfDevice>() -> Column<R> {
    text("name", |r: &R| Some((&*r.device().name).into()), "File of the device, e.g. `/dev/sdb1`.")
}

pub(crate) const fn parent<R: OfDevice>() -> Column<R> {
    text("parent", |r: &R| Some((&*r.device().parent).into()), "File of the disk that it is a partition of.")
}

pub(crate) const fn vendor<R: OfDevice>() -> Column<R> {
    text("vendor", |r: &R| Some((&*r.device().hardware.vendor).into()), "Vendor of the hardware behind it.")
}

pub(crate) const fn model<R: OfDevice>() -> Column<R> {
    text("model", |r: &R| Some((&*r.device().hardware.model).into()), "Model of that hardware.")
}

pub(crate) const fn size<R: OfDevice>() -> Column<R> {
    bigint("size", |r: &R| r.device().size, "Size in blocks of 512 bytes.")
}

pub(crate) const fn block_size<R: OfDevice>() -> Column<R> {
    bigint("block_size", |r: &R| r.device().block_size, "Bytes that the device reads and writes at once.")
}

pub(crate) const fn uuid<R: OfDevice>() -> Column<R> {
    text("uuid", |r: &R| Some((&*r.device().uuid).into()), "Uuid of the filesystem, encryption or volume that lies on it.")
}

pub(crate) const fn kind<R: OfDevice>() -> Column<R> {
    text("type", |r: &R| Some((&*r.device().kind).into()), "Type of what lies on it, e.g. `ext4`, `vfat`, `crypto_LUKS`, `LVM2_member`.")
}

pub(crate) const fn label<R: OfDevice>() -> Column<R> {
    text("label", |r: &R| Some((&*r.device().label).into()), "Label of what lies on it.")
}

pub(crate) const fn device_number<R: OfDevice>() -> Column<R> {
    text("device_number", |r: &R| Some((&*r.device().device_number).into()), "`MAJOR:MINOR` of the device.")
}

pub(crate) const fn bus<R: OfDevice>() -> Column<R> {
    text(
        "bus",
        |r: &R| Some((&*r.device().hardware.bus).into()),
        "What the hardware behind it is attached by: `usb`, `nvme`, `virtio`, `scsi`, `mmc`, `loop`, `zram` or `network`; partitions, LVM and LUKS are followed.",
    )
}

pub(crate) const fn serial<R: OfDevice>() -> Column<R> {
    text("serial", |r: &R| Some((&*r.device().hardware.serial).into()), "Serial number of that hardware.")
}

pub(crate) const fn usb_vendor_id<R: OfDevice>() -> Column<R> {
    text("usb_vendor_id", |r: &R| Some((&*r.device().hardware.usb_vendor_id).into()), "USB vendor id, 4 hex digits.")
}

pub(crate) const fn usb_product_id<R: OfDevice>() -> Column<R> {
    text("usb_product_id", |r: &R| Some((&*r.device().hardware.usb_product_id).into()), "USB product id, 4 hex digits.")
}

pub(crate) const fn removable<R: OfDevice>() -> Column<R> {
    integer("removable", |r: &R| r.device().removable, "1 if its medium can be taken out, as the device says of itself.")
}
