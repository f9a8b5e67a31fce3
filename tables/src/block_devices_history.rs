//! `block_devices_history`.

use mayfly_history::{HistoryTable, device::BlockDevice};

use crate::{device as d, history::History};

pub(crate) static TABLE: History<BlockDevice> = History::pushed(&BLOCK_DEVICES_HISTORY);

/// Which block devices were there, and what they were.
pub static BLOCK_DEVICES_HISTORY: HistoryTable<BlockDevice> = HistoryTable {
    name: "block_devices_history",
    doc: "Which block devices were there, past and present: osquery's `block_devices`, with the hardware behind each.",
    columns: &[
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
    witnesses: &["devices"],
    examples: &[
        (
            "Which hardware had that name at that time.",
            "SELECT bus, vendor, model, serial, usb_vendor_id, usb_product_id, complete FROM block_devices_history\n\
             WHERE name = '/dev/sdb' AND as_of = '2025-01-31T10:00:00Z';",
        ),
        (
            "Every stick that was ever plugged in, and for how long.",
            "SELECT vendor, model, serial, name, datetime(valid_from, 'unixepoch') AS since, valid_to - valid_from AS seconds\n\
             FROM block_devices_history WHERE bus = 'usb' AND parent = '' ORDER BY valid_from;",
        ),
    ],
};
