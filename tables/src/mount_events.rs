//! `mount_events`.

use mayfly_history::{EventTable, bigint, mounted::MountEvent, text};

use crate::{events::Events, mount as m, who};

pub(crate) static TABLE: Events<MountEvent> = Events::pushed(&MOUNT_EVENTS);

/// What was mounted, unmounted, moved and remounted.
pub static MOUNT_EVENTS: EventTable<MountEvent> = EventTable {
    name: "mount_events",
    doc: "What was mounted, unmounted, moved and remounted, on the host and in containers that run, with the hardware behind it and who did it.",
    columns: &[
        text("action", |e| Some(e.action.as_str().into()), "`mount`, `unmount`, `move` or `remount`."),
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
        bigint(
            "pid",
            |e| e.by.as_ref().map(|by| by.pid),
            "Process that did it; NULL where the kernel does not tell: of remounts it tells only by probes.",
        ),
        text(
            "process_path",
            |e| e.by.as_ref().map(|by| (&*by.path).into()),
            "What that process executed; its name alone where it had ended already.",
        ),
        bigint("uid", |e| e.by.as_ref().and_then(|by| by.uid), "User id of that process, seen from the host."),
        who::container_id(),
        who::container_name(),
        who::image(),
        who::pod_name(),
        who::pod_namespace(),
        who::runtime_namespace(),
        who::endpoint(),
    ],
    examples: &[
        (
            "Who mounted, by the name that the user had then.",
            "SELECT e.time, e.action, e.device, e.path, e.pid, e.process_path, u.username FROM mount_events e\n\
             LEFT JOIN users_history u ON u.uid = e.uid AND u.container_id = '' AND u.as_of = e.time_ns WHERE e.container_id = '';",
        ),
        (
            "Sticks that were plugged in and mounted today.",
            "SELECT datetime(time, 'unixepoch') AS at, action, path, usb_vendor_id, usb_product_id, device_serial FROM mount_events\n\
             WHERE bus = 'usb' AND time > unixepoch('now', 'start of day');",
        ),
        (
            "What was mounted within containers after they began, and by whom.",
            "SELECT time, container_name, device, path, pid, process_path, uid FROM mount_events WHERE container_id <> '' AND action = 'mount';",
        ),
    ],
};
