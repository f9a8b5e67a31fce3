//! The records as the probes write them (`bpf/event.h`), read from bytes that are not trusted.
//!
//! A test compares size and offsets of each with those in the object's BTF.

use zerocopy::{FromBytes, Immutable, KnownLayout};

/// `struct cgroups`: kernfs ids of a task's cgroups.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, KnownLayout, Immutable)]
pub struct Cgroups {
    /// In the unified hierarchy; 1 is its root.
    pub unified: u64,
    /// In the v1 hierarchy of `pids`; 0 where there is none.
    pub legacy: u64,
}

/// `struct event_header`: who did it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, KnownLayout, Immutable)]
pub struct Header {
    pub kind: u32,
    /// Bytes of the whole record.
    pub size: u32,
    /// Nanoseconds since boot, suspended time included.
    pub boot_ns: u64,
    pub cgroups: Cgroups,
    pub pid: u32,
    /// As its own pid namespace numbers it.
    pub ns_pid: u32,
    pub parent: u32,
    pub uid: u32,
    pub gid: u32,
    pub euid: u32,
    /// [`UNSET`] where nobody logged in.
    pub auid: u32,
    pub pid_ns: u32,
    pub net_ns: u32,
    pub mnt_ns: u32,
}

/// The audit user id of a process that no login made.
pub const UNSET: u32 = u32::MAX;

/// `struct exec`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, KnownLayout, Immutable)]
pub struct Exec {
    pub header: Header,
    pub cwd_size: u32,
    pub file_size: u32,
    pub path_size: u32,
    pub args_size: u32,
    /// Bytes of the arguments that the process got.
    pub args_whole: u64,
}

/// `struct exit`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, KnownLayout, Immutable)]
pub struct Exit {
    pub header: Header,
    /// 0 where it is not known.
    pub started_boot_ns: u64,
    /// As wait(2) reports it, or [`STATUS_UNKNOWN`].
    pub status: u32,
    pub reserved: u32,
    pub comm: [u8; 16],
}

/// The status of a process that only a plain tracepoint told of.
pub const STATUS_UNKNOWN: u32 = u32::MAX;

/// `struct fork`: the first process of a pid namespace.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, KnownLayout, Immutable)]
pub struct Fork {
    pub header: Header,
}

/// `struct cgroup_change`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, KnownLayout, Immutable)]
pub struct CgroupChange {
    pub header: Header,
    pub id: u64,
    /// 0: the unified hierarchy.
    pub hierarchy: u32,
    pub path_size: u32,
}

/// `struct socket_change`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, KnownLayout, Immutable)]
pub struct SocketChange {
    pub header: Header,
    pub local: [u8; 16],
    pub remote: [u8; 16],
    pub local_port: u16,
    pub remote_port: u16,
    pub family: u16,
    pub protocol: u16,
    /// 1 connect, 2 accept, 3 listen, 4 close.
    pub action: u32,
    pub failed: u32,
}

/// `struct oom_kill`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, KnownLayout, Immutable)]
pub struct OomKill {
    pub header: Header,
    pub total_vm_pages: u64,
    pub rss_pages: u64,
    pub comm: [u8; 16],
}

/// `struct mount_call`: a call that changes a tree of mounts has returned.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, KnownLayout, Immutable)]
pub struct MountCall {
    pub header: Header,
    pub flags: u64,
    pub result: i64,
    /// 1 mount, 2 umount2, 3 `move_mount`, 4 fsmount.
    pub action: u32,
    pub source_size: u32,
    pub source_base_size: u32,
    pub target_size: u32,
    pub target_base_size: u32,
    pub type_size: u32,
}

/// Kinds of record, as in `enum event_kind`; there the lost ones are counted by kind too.
pub(crate) mod kind {
    pub(crate) const EXEC: u32 = 1;
    pub(crate) const EXIT: u32 = 2;
    pub(crate) const FORK: u32 = 3;
    pub(crate) const CGROUP_MKDIR: u32 = 4;
    pub(crate) const CGROUP_RMDIR: u32 = 5;
    pub(crate) const SOCKET: u32 = 6;
    pub(crate) const OOM_KILL: u32 = 7;
    pub(crate) const MOUNT: u32 = 8;
    pub(crate) const CGROUP_ATTACH: u32 = 9;
    pub(crate) const COUNT: u32 = 10;
}

/// One record; text still as bytes, without its final NUL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    Exec {
        exec: Exec,
        /// Names from the working folder up to the root.
        cwd: Names<'a>,
        /// The same of the executable, where its path does not tell.
        file: Names<'a>,
        path: &'a [u8],
        args: &'a [u8],
    },
    Exit(Exit),
    Fork(Fork),
    CgroupMade {
        change: CgroupChange,
        path: &'a [u8],
    },
    CgroupGone {
        change: CgroupChange,
        path: &'a [u8],
    },
    /// The process of the header was moved there.
    CgroupJoined {
        change: CgroupChange,
        path: &'a [u8],
    },
    Socket(SocketChange),
    OomKill(OomKill),
    Mount {
        call: MountCall,
        source: Location<'a>,
        target: Location<'a>,
        fs_type: &'a [u8],
    },
}

/// A path as a process spelt it, with the names of the folder that it starts from or of the file that it stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Location<'a> {
    pub path: &'a [u8],
    pub base: Names<'a>,
}

impl Location<'_> {
    /// The path from the process's root on.
    pub fn resolved(self) -> String {
        let path = String::from_utf8_lossy(self.path);
        if path.starts_with('/') {
            // `/proc/self/fd/7`: what the descriptor leads to.
            return if self.base.0.is_empty() { path.into() } else { self.base.path() };
        }
        let base = self.base.path();
        match path.trim_start_matches("./") {
            "" | "." => base,
            relative => format!("{}/{relative}", base.trim_end_matches('/')),
        }
    }
}

/// Names of a file and of the folders that it is in, the innermost first; each ends with NUL. An empty one stands for
/// those that were left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Names<'a>(pub &'a [u8]);

impl Names<'_> {
    /// The path from the root on: `/` if there are no names, `…/name` if some were left out.
    pub fn path(self) -> String {
        let mut path = String::new();
        for name in self.0.strip_suffix(b"\0").map(|names| names.rsplit(|&b| b == 0)).into_iter().flatten() {
            if name.is_empty() {
                path.push('…');
            } else {
                path.push('/');
                path.push_str(&String::from_utf8_lossy(name));
            }
        }
        if path.is_empty() { "/".into() } else { path }
    }
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    #[error("a record of {have} bytes ends before its fields do")]
    Short { have: usize },
    #[error("a record says that it has {said} bytes and has {have}")]
    Size { said: u32, have: usize },
    #[error("a record is of the unknown kind {kind}")]
    Kind { kind: u32 },
}

impl<'a> Record<'a> {
    /// Reads one record.
    ///
    /// # Errors
    /// The bytes are fewer than the record's fields and text take, or of no known kind.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (header, _) = fixed::<Header>(bytes)?;
        if usize::try_from(header.size) != Ok(bytes.len()) {
            return Err(Malformed::Size { said: header.size, have: bytes.len() });
        }
        match header.kind {
            kind::EXEC => {
                let (exec, text) = fixed::<Exec>(bytes)?;
                let (cwd, rest) = split(text, exec.cwd_size, bytes)?;
                let (file, rest) = split(rest, exec.file_size, bytes)?;
                let (path, rest) = split(rest, exec.path_size, bytes)?;
                let (args, _) = split(rest, exec.args_size, bytes)?;
                Ok(Self::Exec { exec, cwd: Names(cwd), file: Names(file), path: without_nul(path), args: without_nul(args) })
            }
            kind::EXIT => Ok(Self::Exit(fixed(bytes)?.0)),
            kind::FORK => Ok(Self::Fork(fixed(bytes)?.0)),
            kind @ (kind::CGROUP_MKDIR | kind::CGROUP_RMDIR | kind::CGROUP_ATTACH) => {
                let (change, text) = fixed::<CgroupChange>(bytes)?;
                let (path, _) = split(text, change.path_size, bytes)?;
                let path = without_nul(path);
                Ok(match kind {
                    kind::CGROUP_MKDIR => Self::CgroupMade { change, path },
                    kind::CGROUP_RMDIR => Self::CgroupGone { change, path },
                    _ => Self::CgroupJoined { change, path },
                })
            }
            kind::SOCKET => Ok(Self::Socket(fixed(bytes)?.0)),
            kind::OOM_KILL => Ok(Self::OomKill(fixed(bytes)?.0)),
            kind::MOUNT => {
                let (call, text) = fixed::<MountCall>(bytes)?;
                let (source, rest) = split(text, call.source_size, bytes)?;
                let (source_base, rest) = split(rest, call.source_base_size, bytes)?;
                let (target, rest) = split(rest, call.target_size, bytes)?;
                let (target_base, rest) = split(rest, call.target_base_size, bytes)?;
                let (fs_type, _) = split(rest, call.type_size, bytes)?;
                let location = |path, base| Location { path: without_nul(path), base: Names(base) };
                let (source, target) = (location(source, source_base), location(target, target_base));
                Ok(Self::Mount { call, source, target, fs_type: without_nul(fs_type) })
            }
            kind => Err(Malformed::Kind { kind }),
        }
    }
}

fn without_nul(text: &[u8]) -> &[u8] {
    text.strip_suffix(b"\0").unwrap_or(text)
}

fn fixed<T: FromBytes>(bytes: &[u8]) -> Result<(T, &[u8]), Malformed> {
    T::read_from_prefix(bytes).map_err(|_| Malformed::Short { have: bytes.len() })
}

fn split<'a>(text: &'a [u8], size: u32, whole: &[u8]) -> Result<(&'a [u8], &'a [u8]), Malformed> {
    usize::try_from(size).ok().and_then(|size| text.split_at_checked(size)).ok_or(Malformed::Short { have: whole.len() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spells_a_path_from_its_names() {
        let cases = [(&b""[..], "/"), (b"etc\0", "/etc"), (b"c\0b\0a\0", "/a/b/c"), (b"c\0b\0\0", "…/b/c"), (b"torn", "/")];
        for (names, path) in cases {
            assert_eq!(Names(names).path(), path);
        }
    }

    #[test]
    fn finds_out_where_a_path_leads() {
        let cases = [
            (&b"/mnt"[..], &b""[..], "/mnt"),
            (b"mnt", b"b\0a\0", "/a/b/mnt"),
            (b"./mnt", b"", "/mnt"),
            (b".", b"a\0", "/a"),
            (b"", b"a\0", "/a"),
            (b"/proc/self/fd/7", b"rootfs\0run\0", "/run/rootfs"),
        ];
        for (path, base, resolved) in cases {
            assert_eq!(Location { path, base: Names(base) }.resolved(), resolved);
        }
    }

    proptest! {
        #[test]
        fn reads_any_bytes_or_refuses_them(kind in 0u32..=kind::COUNT, honest: bool, mut bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            if bytes.len() >= 8 {
                bytes[..4].copy_from_slice(&kind.to_ne_bytes());
                if honest {
                    let size = u32::try_from(bytes.len()).unwrap();
                    bytes[4..8].copy_from_slice(&size.to_ne_bytes());
                }
            }
            let _ = Record::parse(&bytes);
        }

        #[test]
        fn gives_back_the_texts_of_an_exec(texts in prop::array::uniform4(prop::collection::vec(1u8.., 0..40))) {
            let mut bytes = vec![0; size_of::<Exec>()];
            bytes[..4].copy_from_slice(&kind::EXEC.to_ne_bytes());
            for (text, at) in texts.iter().zip([72, 76, 80, 84]) {
                bytes[at..at + 4].copy_from_slice(&u32::try_from(text.len() + 1).unwrap().to_ne_bytes());
                bytes.extend(text);
                bytes.push(0);
            }
            let size = u32::try_from(bytes.len()).unwrap();
            bytes[4..8].copy_from_slice(&size.to_ne_bytes());
            let Ok(Record::Exec { cwd, file, path, args, .. }) = Record::parse(&bytes) else { panic!("no exec") };
            prop_assert_eq!([cwd.0.strip_suffix(b"\0").unwrap(), file.0.strip_suffix(b"\0").unwrap(), path, args], texts.each_ref().map(Vec::as_slice));
            bytes.pop();
            let size = u32::try_from(bytes.len()).unwrap();
            bytes[4..8].copy_from_slice(&size.to_ne_bytes());
            prop_assert_eq!(Record::parse(&bytes), Err(Malformed::Short { have: bytes.len() }));
        }
    }
}
