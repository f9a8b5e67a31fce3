//! The kernel's notices that something was mounted or unmounted in a namespace, and by which process: fanotify's `FAN_REPORT_MNT`.
//!
//! Constants and layouts are those of `linux/fanotify.h` of Linux 6.14; no library knows them yet.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
    ptr,
};

use nix::libc;

const FAN_REPORT_MNT: libc::c_uint = 0x4000;
const FAN_MARK_MNTNS: libc::c_uint = 0x110;
const FAN_MNT_ATTACH: u64 = 0x0100_0000;
const FAN_MNT_DETACH: u64 = 0x0200_0000;
const INFO_PIDFD: u8 = 4;
const INFO_MNT: u8 = 7;
const VERSION: u8 = 3;

/// What became of a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attachment {
    Attached,
    Detached,
    /// It has another place.
    Moved,
}

/// One notice.
#[derive(Debug)]
pub(super) enum Heard {
    Mount {
        /// The number that no other mount ever gets.
        unique: u64,
        became: Attachment,
        /// 0: a process outside of the recorder's namespace of processes.
        pid: i64,
        /// Of that very process; none if it is gone.
        process: Option<OwnedFd>,
    },
    /// The queue overran; what it had no room for is not known.
    Lost,
}

/// A queue of notices about namespaces that are yet to be named. It does not block.
///
/// # Errors
/// `EINVAL`: the kernel has no such notices; `EPERM`: CAP_SYS_ADMIN is lacking; `EMFILE`: there are as many queues as
/// `fs.fanotify.max_user_groups` allows.
pub(super) fn queue() -> io::Result<OwnedFd> {
    let flags = FAN_REPORT_MNT | libc::FAN_REPORT_PIDFD | libc::FAN_CLASS_NOTIF | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK;
    // SAFETY: takes two numbers, and gives a descriptor that nobody else has.
    #[expect(unsafe_code, reason = "no library wraps this flag")]
    unsafe {
        match libc::fanotify_init(flags, libc::O_CLOEXEC.cast_unsigned()) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}

/// Has the queue told of a mount namespace: an open `/proc/PID/ns/mnt`, which need not stay open.
pub(super) fn watch(queue: impl AsFd, namespace: impl AsFd) -> io::Result<()> {
    let (queue, namespace) = (queue.as_fd().as_raw_fd(), namespace.as_fd().as_raw_fd());
    let flags = libc::FAN_MARK_ADD | FAN_MARK_MNTNS;
    // SAFETY: both descriptors are open, and no path is given.
    #[expect(unsafe_code, reason = "no library wraps this flag")]
    let done = unsafe { libc::fanotify_mark(queue, flags, FAN_MNT_ATTACH | FAN_MNT_DETACH, namespace, ptr::null()) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The notices in what was read from a queue. What is not of the form that is known is left out.
pub(super) fn heard(bytes: &[u8]) -> Vec<Heard> {
    let mut all = Vec::new();
    let mut rest = bytes;
    while let Some(event) = number(rest, 0).and_then(|length| rest.get(..usize::try_from(u32::from_ne_bytes(length)).ok()?)) {
        let Some(next) = rest.get(event.len()..).filter(|_| !event.is_empty()) else { break };
        rest = next;
        all.extend(one(event));
    }
    all
}

fn one(event: &[u8]) -> Option<Heard> {
    let (version, head) = (*event.get(4)?, u16::from_ne_bytes(number(event, 6)?));
    let (mask, pid) = (u64::from_ne_bytes(number(event, 8)?), i32::from_ne_bytes(number(event, 20)?));
    let (mut unique, mut process) = (None, None);
    let mut rest = event.get(usize::from(head)..)?;
    while let Some(info) = number(rest, 2).and_then(|length| rest.get(..usize::from(u16::from_ne_bytes(length)))) {
        match info.first() {
            Some(&INFO_MNT) => unique = number(info, 8).map(u64::from_ne_bytes),
            // Taken at once, so that it is closed whatever else is in there.
            Some(&INFO_PIDFD) => process = number(info, 4).map(i32::from_ne_bytes).and_then(adopt),
            _ => {}
        }
        rest = rest.get(info.len()..).filter(|_| !info.is_empty())?;
    }
    if version != VERSION {
        return None;
    }
    if mask & libc::FAN_Q_OVERFLOW != 0 {
        return Some(Heard::Lost);
    }
    let became = match (mask & FAN_MNT_ATTACH != 0, mask & FAN_MNT_DETACH != 0) {
        (true, true) => Attachment::Moved,
        (true, false) => Attachment::Attached,
        (false, true) => Attachment::Detached,
        (false, false) => return None,
    };
    Some(Heard::Mount { unique: unique?, became, pid: pid.into(), process })
}

/// The descriptor in a notice; below zero there is none.
fn adopt(fd: RawFd) -> Option<OwnedFd> {
    // SAFETY: the kernel made it for whoever read the notice, which is read once.
    #[expect(unsafe_code, reason = "the kernel tells of a descriptor by its number")]
    (fd > 2).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the kernel of a test machine wrote it, but for the descriptor.
    fn notice(mask: u64, unique: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(48u32.to_ne_bytes());
        bytes.extend([3, 0, 24, 0]);
        bytes.extend(mask.to_ne_bytes());
        bytes.extend((-1i32).to_ne_bytes());
        bytes.extend(16_069i32.to_ne_bytes());
        bytes.extend([4, 0, 8, 0]);
        bytes.extend((-1i32).to_ne_bytes());
        bytes.extend([7, 0, 16, 0, 0, 0, 0, 0]);
        bytes.extend(unique.to_ne_bytes());
        bytes
    }

    #[test]
    fn reads_notices_one_after_the_other_and_stops_where_they_are_cut() {
        let bytes = [notice(FAN_MNT_ATTACH, 7), notice(FAN_MNT_DETACH, 8), notice(0x4000, 0), notice(FAN_MNT_ATTACH | FAN_MNT_DETACH, 9)];
        let all = bytes.concat();
        let told: Vec<_> = heard(&all)
            .into_iter()
            .map(|heard| match heard {
                Heard::Mount { unique, became, pid: 16_069, process: None } => Some((unique, became)),
                _ => None,
            })
            .collect();
        use Attachment::{Attached, Detached, Moved};
        assert_eq!(told, [Some((7, Attached)), Some((8, Detached)), None, Some((9, Moved))]);
        for length in 0..all.len() {
            assert_eq!(heard(&all[..length]).len(), length / bytes[0].len(), "cut at {length}");
        }
        assert!(heard(&[0; 64]).is_empty(), "no endless loop");
    }
}
