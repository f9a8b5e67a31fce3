//! `mounts_history`.

use mayfly_history::{HistoryTable, mounted::Mount};

use crate::{history::History, mount as m, who};

pub(crate) static TABLE: History<Mount> = History::pushed(&MOUNTS_HISTORY);

/// What is mounted where, past and present.
pub static MOUNTS_HISTORY: HistoryTable<Mount> = HistoryTable {
    name: "mounts_history",
    doc: "What is mounted where, past and present, on the host and in containers that run, with the hardware behind it.",
    columns: &[
        m::device().index(),
        m::path(),
        m::fs_type(),
        m::flags(),
        m::device_number(),
        m::root(),
        m::mnt_namespace(),
        m::bus(),
        m::device_vendor(),
        m::device_model(),
        m::device_serial(),
        m::usb_vendor_id(),
        m::usb_product_id(),
        m::fs_uuid(),
        m::fs_label(),
        who::container_id().plain(),
        who::container_name(),
        who::image(),
        who::pod_name(),
        who::pod_namespace(),
        who::runtime_namespace(),
        who::endpoint(),
    ],
    witnesses: &["mounts"],
    examples: &[
        (
            "Which device was behind this path at that time.",
            "SELECT device, bus, usb_vendor_id, usb_product_id, device_serial, fs_uuid, complete FROM mounts_history\n\
             WHERE path = '/media/backup' AND container_id = '' AND as_of = '2025-01-31T10:00:00Z';",
        ),
        (
            "USB sticks that were mounted, and for how long.",
            "SELECT device_vendor, device_model, device_serial, path, datetime(valid_from, 'unixepoch') AS since, valid_to - valid_from AS seconds\n\
             FROM mounts_history WHERE bus = 'usb' ORDER BY valid_from;",
        ),
    ],
};
