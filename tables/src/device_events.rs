//! `device_events`.

use mayfly_history::{EventTable, device::DeviceEvent, text};

use crate::{device as d, events::Events};

pub(crate) static TABLE: Events<DeviceEvent> = Events::pushed(&DEVICE_EVENTS);

/// What the kernel said of block and USB devices.
pub static DEVICE_EVENTS: EventTable<DeviceEvent> = EventTable {
    name: "device_events",
    doc: "Which block and USB devices came, went and changed, when the kernel says so, with the hardware that they are.",
    columns: &[
        text("action", |e| Some(e.action.as_str().into()), "`add`, `remove`, `change`, or `bind`: a driver took it."),
        d::name().index(),
        d::parent(),
        d::vendor(),
        d::model(),
        d::size(),
        d::block_size(),
        d::uuid(),
        d::kind(),
        d::label(),
        d::device_number(),
        d::bus(),
        d::serial(),
        d::usb_vendor_id(),
        d::usb_product_id(),
        d::removable(),
    ],
    examples: &[
        (
            "USB devices that were plugged in today, sticks and others.",
            "SELECT datetime(time, 'unixepoch') AS at, name, vendor, model, serial, usb_vendor_id, usb_product_id FROM device_events\n\
             WHERE action = 'add' AND bus = 'usb' AND time > unixepoch('now', 'start of day');",
        ),
        (
            "Disks that went away.",
            "SELECT time, name, bus, model, serial, label FROM device_events WHERE action = 'remove' AND parent = '';",
        ),
    ],
};
