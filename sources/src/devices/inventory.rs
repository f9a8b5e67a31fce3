//! The devices that are there, and what follows from a message about one of them.

use std::collections::BTreeMap;

use mayfly_history::device::{BlockDevice, DeviceAction};

use super::{look::MOST, sysfs::Sysfs, uevent::Uevent};

/// A device, as it was when it was last looked at: once it is gone, sysfs shows nothing of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    device: BlockDevice,
    is_block: bool,
}

/// All block and USB devices of a host, by their folders.
#[derive(Debug)]
pub(super) struct Inventory {
    sysfs: Sysfs,
    known: BTreeMap<String, Known>,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) action: DeviceAction,
    pub(super) device: BlockDevice,
    pub(super) is_block: bool,
    /// It is still the one that sysfs shows, and so what lies on it can be looked at.
    pub(super) is_there: bool,
}

impl Inventory {
    pub(super) fn new(sysfs: Sysfs) -> Self {
        Self { sysfs, known: BTreeMap::new() }
    }

    /// Looks at everything anew. What lies on the devices is still to be looked at.
    pub(super) fn scan(&mut self) {
        let block = self.sysfs.block_devices().into_iter().filter_map(|(path, _)| {
            let device = self.sysfs.block(&self.sysfs.at(&path))?;
            Some((path, Known { device, is_block: true }))
        });
        let usb = self.sysfs.usb_devices().into_iter().filter_map(|path| {
            let device = self.sysfs.usb(&self.sysfs.at(&path))?;
            Some((path, Known { device, is_block: false }))
        });
        self.known = block.chain(usb).take(MOST).collect();
    }

    /// The block devices.
    pub(super) fn blocks(&mut self) -> impl Iterator<Item = (&str, &mut BlockDevice)> {
        self.known.iter_mut().filter(|(_, known)| known.is_block).map(|(path, known)| (path.as_str(), &mut known.device))
    }

    /// Whether sysfs shows the same block devices as are known, each still the one that it was.
    pub(super) fn is_true(&self) -> bool {
        let shown = self.sysfs.block_devices().into_iter().map(|(path, _)| {
            let sequence = self.sysfs.disk_sequence(&self.sysfs.at(&path));
            (path, sequence)
        });
        let known = self.known.iter().filter(|(_, known)| known.is_block).map(|(path, known)| (path.clone(), known.device.disk_sequence));
        shown.eq(known)
    }

    /// Takes a message. `None`: it is not about a block or USB device, or says nothing of it.
    pub(super) fn hear(&mut self, event: &Uevent<'_>) -> Option<Told> {
        let is_block = event.subsystem == "block" && event.number.is_some();
        if !is_block && (event.subsystem, event.kind) != ("usb", "usb_device") {
            return None;
        }
        let action = match event.action {
            "add" => DeviceAction::Add,
            "remove" => DeviceAction::Remove,
            "change" => DeviceAction::Change,
            "bind" => DeviceAction::Bind,
            _ => return None,
        };
        if action == DeviceAction::Remove {
            let device = self.known.remove(event.path).map_or_else(|| nameless(event), |known| known.device);
            return Some(Told { action, device, is_block, is_there: false });
        }
        let folder = self.sysfs.at(event.path);
        let shown = if is_block { self.sysfs.block(&folder) } else { self.sysfs.usb(&folder) };
        // By now another one may be there under the same name.
        let is_it = |device: &BlockDevice| event.disk_sequence.is_none() || device.disk_sequence == event.disk_sequence;
        let shown = shown.filter(is_it);
        let is_there = shown.is_some();
        let known = || self.known.get(event.path).map(|known| known.device.clone()).filter(is_it);
        let device = shown.or_else(known).unwrap_or_else(|| nameless(event));
        if self.known.len() < MOST || self.known.contains_key(event.path) {
            self.known.insert(event.path.to_owned(), Known { device: device.clone(), is_block });
        }
        Some(Told { action, device, is_block, is_there })
    }

    /// What lies on a device was looked at.
    pub(super) fn learn(&mut self, path: &str, device: &BlockDevice) {
        if let Some(known) = self.known.get_mut(path) {
            known.device = device.clone();
        }
    }
}

/// A device of which there is nothing but the message.
fn nameless(event: &Uevent<'_>) -> BlockDevice {
    BlockDevice {
        name: format!("/dev/{}", event.name.replace('!', "/")),
        device_number: event.number.clone().unwrap_or_default(),
        disk_sequence: event.disk_sequence,
        ..BlockDevice::default()
    }
}
