//! One mount, asked of the kernel by the number that no other mount ever gets: cheaper than the whole table, and quicker.
//!
//! Layouts and constants are those of `linux/mount.h` of Linux 6.13; no library knows them yet.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use nix::libc;

use super::mountinfo::{Line, Texts};

/// The namespace's own number, which its descriptor tells.
const NS_GET_MNTNS_ID: libc::Ioctl = 0x8008_B705;
const SYS_STATMOUNT: libc::c_long = 457;
const SYS_LISTMOUNT: libc::c_long = 458;
const FROM_THE_ROOT: u64 = u64::MAX;
/// The filesystem, the mount, its root, its place, the type, the options, the subtype, the device.
const WANTED: u64 = 0x1 | 0x2 | 0x8 | 0x10 | 0x20 | 0x80 | 0x100 | 0x200;
/// The mount alone.
const BASIC: u64 = 0x2;
/// Without these there is no line: the filesystem, the mount, its root and its place.
const NEEDED: u64 = 0x1 | 0x2 | 0x8 | 0x10;
/// Where the texts begin.
const TEXTS: usize = 512;
/// Room for texts: paths have 4 KiB at most, options of an overlay somewhat more.
const ROOM: usize = 32 << 10;

/// `struct mnt_id_req`.
#[derive(Debug)]
#[repr(C)]
struct Request {
    size: u32,
    spare: u32,
    mount: u64,
    parameter: u64,
    namespace: u64,
}

/// A mount namespace, by the number that the kernel gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NamespaceId(u64);

impl NamespaceId {
    /// Of an open `/proc/PID/ns/mnt`.
    pub(super) fn of(namespace: impl AsFd) -> io::Result<Self> {
        let mut id = 0u64;
        // SAFETY: the kernel writes eight bytes there.
        #[expect(unsafe_code, reason = "no library wraps this call")]
        let done = unsafe { libc::ioctl(namespace.as_fd().as_raw_fd(), NS_GET_MNTNS_ID, &raw mut id) };
        if done == 0 { Ok(Self(id)) } else { Err(io::Error::last_os_error()) }
    }

    /// The mount of that number, as its line in the table is. `NotFound`: it is in the namespace no more.
    pub(super) fn mount(self, unique: u64) -> io::Result<Line> {
        let mut answer = vec![0; TEXTS + ROOM];
        self.ask(unique, WANTED, &mut answer)?;
        line(&answer).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// The number that the table has for it.
    pub(super) fn number(self, unique: u64) -> io::Result<i64> {
        let mut answer = [0; TEXTS];
        self.ask(unique, BASIC, &mut answer)?;
        let number = answer[56..60].first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes));
        Ok(number.into())
    }

    fn ask(self, unique: u64, wanted: u64, answer: &mut [u8]) -> io::Result<()> {
        let request = Request { size: 32, spare: 0, mount: unique, parameter: wanted, namespace: self.0 };
        // SAFETY: the request is of the size that it says; the kernel writes into the answer at most as many bytes as it has.
        #[expect(unsafe_code, reason = "no library wraps this call")]
        let done = unsafe { libc::syscall(SYS_STATMOUNT, &raw const request, answer.as_mut_ptr(), answer.len(), 0) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// The numbers of the mounts that there are, `most` at most.
    pub(super) fn mounts(self, most: usize) -> io::Result<Vec<u64>> {
        let mut all = Vec::new();
        let mut chunk = [0u64; 512];
        while all.len() < most {
            let last = all.last().copied().unwrap_or(0);
            let request = Request { size: 32, spare: 0, mount: FROM_THE_ROOT, parameter: last, namespace: self.0 };
            // SAFETY: the request is of the size that it says; the kernel writes as many numbers as there is room for.
            #[expect(unsafe_code, reason = "no library wraps this call")]
            let found = unsafe { libc::syscall(SYS_LISTMOUNT, &raw const request, chunk.as_mut_ptr(), chunk.len(), 0) };
            match usize::try_from(found) {
                Err(_) => return Err(io::Error::last_os_error()),
                Ok(0) => break,
                Ok(found) => all.extend(&chunk[..found.min(chunk.len())]),
            }
        }
        Ok(all)
    }
}

/// From `struct statmount`.
fn line(answer: &[u8]) -> Option<Line> {
    let u32_at = |at: usize| answer.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
    let u64_at = |at: usize| answer.get(at..at + 8)?.try_into().ok().map(u64::from_ne_bytes);
    let told = u64_at(8)?;
    if told & NEEDED != NEEDED {
        return None;
    }
    let text = |bit: u64, at: usize| {
        let from = TEXTS.checked_add(usize::try_from(u32_at(at)?).ok()?)?;
        let bytes = answer.get(from..).filter(|_| told & bit != 0)?.split(|byte| *byte == 0).next()?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    };
    let (kind, subtype) = (text(0x20, 36)?, text(0x100, 120).unwrap_or_default());
    let own = own_options(u64_at(64)?);
    let mut shared = filesystem_options(u32_at(32)?);
    if let Some(options) = text(0x80, 4).filter(|options| !options.is_empty()) {
        shared = format!("{shared},{options}");
    }
    Some(Line::of(Texts {
        id: i64::from(u32_at(56)?),
        parent: i64::from(u32_at(60)?),
        number: format!("{}:{}", u32_at(16)?, u32_at(20)?),
        root: text(0x8, 104)?,
        path: text(0x10, 108)?,
        fs_type: if subtype.is_empty() { kind } else { format!("{kind}.{subtype}") },
        device: text(0x200, 124).unwrap_or_else(|| "none".into()),
        own: &own,
        shared: &shared,
    }))
}

/// `MOUNT_ATTR_*`, as mountinfo spells and orders them.
fn own_options(attributes: u64) -> String {
    let has = |bits: u64| attributes & bits != 0;
    // Neither of the two: strictatime, which is not spelt.
    let (noatime, relatime) = (attributes & 0x70 == 0x10, attributes & 0x70 == 0);
    let options = [
        (has(0x2), "nosuid"),
        (has(0x4), "nodev"),
        (has(0x8), "noexec"),
        (noatime, "noatime"),
        (has(0x80), "nodiratime"),
        (relatime, "relatime"),
        (has(0x20_0000), "nosymfollow"),
        (has(0x10_0000), "idmapped"),
    ];
    spelt(if has(0x1) { "ro" } else { "rw" }, &options)
}

/// `SB_*`, likewise.
fn filesystem_options(flags: u32) -> String {
    let has = |bits: u32| flags & bits != 0;
    spelt(if has(0x1) { "ro" } else { "rw" }, &[(has(0x10), "sync"), (has(0x80), "dirsync"), (has(1 << 25), "lazytime")])
}

fn spelt(mode: &str, options: &[(bool, &str)]) -> String {
    let set = options.iter().filter(|(is_set, _)| *is_set).map(|(_, option)| *option);
    std::iter::once(mode).chain(set).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::mounts::mountinfo::parse;

    /// Needs a kernel that has these calls; says so where it has not.
    #[test]
    fn says_of_every_mount_of_this_machine_what_the_table_says() {
        let namespace = NamespaceId::of(File::open("/proc/self/ns/mnt").unwrap());
        let all = match namespace.and_then(|namespace| Ok((namespace, namespace.mounts(usize::MAX)?))) {
            Ok((namespace, all)) => all.into_iter().filter_map(|unique| namespace.mount(unique).ok()).collect::<Vec<_>>(),
            Err(error) => {
                assert!(matches!(error.raw_os_error(), Some(libc::ENOTTY | libc::ENOSYS)), "{error}");
                return eprintln!("not shown: this kernel has no listmount ({error})");
            }
        };
        let (table, _) = parse(&std::fs::read_to_string("/proc/self/mountinfo").unwrap(), usize::MAX);
        // Other tests mount and unmount meanwhile.
        let both = all.iter().filter_map(|line| Some((line, table.get(&line.id)?)));
        let compared = both.inspect(|(asked, read)| assert_eq!(asked, read)).count();
        assert!(compared > 4 && compared + 3 >= table.len(), "{compared} of {}", table.len());
    }

    #[test]
    fn options_are_spelt_as_in_the_table() {
        assert_eq!(own_options(0x1 | 0x2 | 0x4 | 0x8), "ro,nosuid,nodev,noexec,relatime");
        assert_eq!(own_options(0x10 | 0x80 | 0x20_0000 | 0x10_0000), "rw,noatime,nodiratime,nosymfollow,idmapped");
        assert_eq!(own_options(0x20), "rw");
        assert_eq!(filesystem_options(0x1 | 0x10 | 0x80 | 1 << 25), "ro,sync,dirsync,lazytime");
    }

    #[test]
    fn an_answer_that_is_cut_is_none() {
        assert_eq!(line(&[]), None);
        let mut answer = vec![0u8; TEXTS + 8];
        assert_eq!(line(&answer), None, "nothing is told");
        answer[8..16].copy_from_slice(&u64::MAX.to_ne_bytes());
        answer[104..108].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert_eq!(line(&answer), None, "a text lies outside");
    }
}
