//! Columns that the tables of mounts share.

use mayfly_history::{
    Column,
    container::ContainerKey,
    mounted::{Mount, MountEvent},
    text,
};

use crate::who::OfWhom;

/// A record about one mount.
pub(crate) trait OfMount: OfWhom {
    fn mount(&self) -> &Mount;
}

impl OfMount for Mount {
    fn mount(&self) -> &Mount {
        self
    }
}

impl OfMount for MountEvent {
    fn mount(&self) -> &Mount {
        &self.mount
    }
}

impl OfWhom for Mount {
    fn whose(&self) -> &ContainerKey {
        &self.container
    }
}

impl OfWhom for MountEvent {
    fn whose(&self) -> &ContainerKey {
        &self.mount.container
    }
}

pub(crate) const fn device<R: OfMount>() -> Column<R> {
    text("device", |r: &R| Some((&*r.mount().device).into()), "Mounted device, or what stands for one: `tmpfs`, `overlay`, `server:/path`.")
}

pub(crate) const fn path<R: OfMount>() -> Column<R> {
    text("path", |r: &R| Some((&*r.mount().path).into()), "Where it is mounted, as seen in its mount namespace.")
}

pub(crate) const fn fs_type<R: OfMount>() -> Column<R> {
    text("type", |r: &R| Some((&*r.mount().fs_type).into()), "Type of the filesystem.")
}

pub(crate) const fn flags<R: OfMount>() -> Column<R> {
    text("flags", |r: &R| Some((&*r.mount().flags).into()), "Options of the mount, then those of the filesystem, comma-separated.")
}

pub(crate) const fn device_number<R: OfMount>() -> Column<R> {
    text("device_number", |r: &R| Some((&*r.mount().device_number).into()), "`MAJOR:MINOR` of the filesystem's device.")
}

pub(crate) const fn root<R: OfMount>() -> Column<R> {
    text("root", |r: &R| Some((&*r.mount().root).into()), "Folder of the filesystem that is mounted; `/` unless a part of it is.")
}

pub(crate) const fn mnt_namespace<R: OfMount>() -> Column<R> {
    text("mnt_namespace", |r: &R| Some((&*r.mount().mnt_namespace).into()), "Inode number of the mount namespace.")
}

pub(crate) const fn bus<R: OfMount>() -> Column<R> {
    text(
        "bus",
        |r: &R| Some((&*r.mount().hardware.bus).into()),
        "What the hardware behind it is attached by: `usb`, `nvme`, `virtio`, `scsi`, `mmc`, `loop`, `zram`, `network` or `none`; partitions, LVM, LUKS, loop devices and overlays are followed.",
    )
}

pub(crate) const fn device_vendor<R: OfMount>() -> Column<R> {
    text("device_vendor", |r: &R| Some((&*r.mount().hardware.vendor).into()), "Vendor of that hardware.")
}

pub(crate) const fn device_model<R: OfMount>() -> Column<R> {
    text("device_model", |r: &R| Some((&*r.mount().hardware.model).into()), "Model of that hardware.")
}

pub(crate) const fn device_serial<R: OfMount>() -> Column<R> {
    text("device_serial", |r: &R| Some((&*r.mount().hardware.serial).into()), "Serial number of that hardware.")
}

pub(crate) const fn usb_vendor_id<R: OfMount>() -> Column<R> {
    text("usb_vendor_id", |r: &R| Some((&*r.mount().hardware.usb_vendor_id).into()), "USB vendor id, 4 hex digits.")
}

pub(crate) const fn usb_product_id<R: OfMount>() -> Column<R> {
    text("usb_product_id", |r: &R| Some((&*r.mount().hardware.usb_product_id).into()), "USB product id, 4 hex digits.")
}

pub(crate) const fn fs_uuid<R: OfMount>() -> Column<R> {
    text("fs_uuid", |r: &R| Some((&*r.mount().fs_uuid).into()), "Uuid that the filesystem has of itself.")
}

pub(crate) const fn fs_label<R: OfMount>() -> Column<R> {
    text("fs_label", |r: &R| Some((&*r.mount().fs_label).into()), "Label of the filesystem.")
}
