//! What a runtime's own files on disk tell where its daemon no longer can.
//!
//! Their paths come from a daemon. Only one that root runs is followed to them; and even then nothing is opened that could block or mislead.

use std::{
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::Path,
};

use mayfly_history::{Nanos, container::Details};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};

use crate::containerd::{MAX_SPEC, Spec};

/// The details in an OCI bundle's `config.json`, where there is one. Blocks.
pub(crate) fn read_bundle(bundle: &Path) -> io::Result<Details> {
    let json = read_regular(&bundle.join("config.json"), MAX_SPEC as u64)?;
    let spec = Spec::parse(&json).ok_or(io::ErrorKind::InvalidData)?;
    let mut details = Details::default();
    spec.tell(&mut details);
    Ok(details)
}

/// Reads a regular file of at most `most` bytes; refuses a symbolic link, a pipe, a device, and a longer file.
pub(crate) fn read_regular(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = openat(CWD, path, UNBLOCKED | OFlags::NOFOLLOW, Mode::empty())?;
    read_bounded(file.into(), most)
}

/// The same of a file below `root`, as a process whose root that is would find it: no link leads out. Blocks for as long as the
/// file system below likes, if that is somebody's.
pub(crate) fn read_below(root: impl AsFd, path: &str, most: u64) -> io::Result<Vec<u8>> {
    read_bounded(openat2(root, path, UNBLOCKED, Mode::empty(), WITHIN)?.into(), most)
}

/// The same, with when the file was written last, or put where it is, as its file system says: UNIX nanoseconds.
pub(crate) fn read_dated(root: impl AsFd, path: &str, most: u64) -> io::Result<(Vec<u8>, Nanos)> {
    let file = File::from(openat2(root, path, UNBLOCKED, Mode::empty(), WITHIN)?);
    let changed = file.metadata().map(|meta| meta.ctime().saturating_mul(1_000_000_000).saturating_add(meta.ctime_nsec()))?;
    Ok((read_bounded(file, most)?, changed))
}

/// A directory below `root`, found likewise; held without being opened.
pub(crate) fn directory_below(root: impl AsFd, path: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat2(root, path, flags, Mode::empty(), WITHIN)?)
}

const UNBLOCKED: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);
const WITHIN: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

fn read_bounded(file: File, most: u64) -> io::Result<Vec<u8>> {
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut content = Vec::new();
    // It may grow while it is read.
    file.take(most + 1).read_to_end(&mut content)?;
    if content.len() as u64 > most { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(content) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_command_of_a_bundle() {
        let bundle = tempfile::tempdir().unwrap();
        assert_eq!(read_bundle(bundle.path()).unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::write(bundle.path().join("config.json"), r#"{"process": {"args": ["true"]}}"#).unwrap();
        assert_eq!(read_bundle(bundle.path()).unwrap().command.as_deref(), Some("true"));
        std::fs::write(bundle.path().join("config.json"), "{").unwrap();
        assert_eq!(read_bundle(bundle.path()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn no_link_leads_out_of_a_root() {
        let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("etc/real"), "in").unwrap();
        std::fs::write(outside.path().join("real"), "out").unwrap();
        let link = |target: &Path, name: &str| std::os::unix::fs::symlink(target, root.path().join("etc").join(name)).unwrap();
        link(Path::new("/etc/real"), "absolute");
        link(Path::new("../../../../etc/real"), "upwards");
        link(&outside.path().join("real"), "outwards");
        link(Path::new("/proc/self/root/etc/passwd"), "magic");
        let top = File::open(root.path()).unwrap();
        for name in ["etc/real", "etc/absolute", "etc/upwards"] {
            assert_eq!(read_below(&top, name, 9).unwrap(), b"in", "{name}");
        }
        for name in ["etc/outwards", "etc/magic", "etc/missing"] {
            assert!(read_below(&top, name, 1 << 20).is_err(), "{name}");
        }
        assert!(directory_below(&top, "etc").is_ok() && directory_below(&top, "etc/real").is_err());
    }

    #[test]
    fn only_a_short_regular_file_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let [file, link, pipe] = ["file", "link", "pipe"].map(|name| dir.path().join(name));
        std::fs::write(&file, "1234").unwrap();
        assert_eq!(read_regular(&file, 4).unwrap(), b"1234");
        assert_eq!(read_regular(&file, 3).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(read_regular(&link, 4).unwrap_err().raw_os_error(), Some(rustix::io::Errno::LOOP.raw_os_error()));
        rustix::fs::mknodat(CWD, &pipe, rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert_eq!(read_regular(&pipe, 4).unwrap_err().kind(), io::ErrorKind::InvalidInput, "and is not waited for");
    }
}
