//! A root that has accounts of its own: the host's, or that of a container's first process.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use super::{
    book::{Book, Owner},
    files,
    id_map::IdMap,
};
use crate::{
    disk::{directory_below, read_dated},
    process::Process,
};
use mayfly_history::{Nanos, container::ContainerKey};

/// What the host's files may have, which root alone writes.
const HOST: Bounds = Bounds { bytes: 32 << 20, entries: 32_768 };
/// What a container's may have; of more, the first.
const CONTAINER: Bounds = Bounds { bytes: 1 << 20, entries: 512 };

#[derive(Clone, Copy, Debug)]
struct Bounds {
    bytes: u64,
    entries: usize,
}

/// Where accounts are read.
#[derive(Debug)]
pub(crate) enum Root {
    Host(PathBuf),
    Container {
        key: ContainerKey,
        process: Process,
        /// The host's root, from which a runtime's first process has yet to go.
        host: PathBuf,
    },
}

/// Why there are no accounts to be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unread {
    #[error("the process has the host's root")]
    OnHostRoot,
    #[error("cannot read {what}")]
    Io {
        what: &'static str,
        #[source]
        reason: io::Error,
    },
}

impl Unread {
    pub(crate) fn of(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |reason| Self::Io { what, reason }
    }
}

/// The accounts of one moment.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) book: Book,
    /// Lines that were none.
    pub(crate) rejected: u64,
    pub(crate) written: Written,
}

/// When each file was put there; `None`: it is not there.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Written {
    pub(crate) passwd: Option<Nanos>,
    pub(crate) group: Option<Nanos>,
    pub(crate) shadow: Option<Nanos>,
}

/// Its `etc`, found and held, so that it can be watched before it is read.
#[derive(Debug)]
pub(crate) struct Etc {
    root: OwnedFd,
    etc: Option<OwnedFd>,
}

impl Etc {
    /// A path by which this very directory can be watched; where the root has none, the root, in which it may appear.
    pub(crate) fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.etc.as_ref().unwrap_or(&self.root).as_raw_fd()).into()
    }
}

impl Root {
    /// Whose it is; an empty id is the host's.
    pub(crate) fn key(&self) -> ContainerKey {
        match self {
            Self::Host(_) => ContainerKey::default(),
            Self::Container { key, .. } => key.clone(),
        }
    }

    /// When its first process began; `None` for the host.
    pub(crate) fn began(&self) -> Option<Nanos> {
        match self {
            Self::Host(_) => None,
            Self::Container { process, .. } => process.began(),
        }
    }

    /// Finds the directory. Blocks.
    pub(crate) fn open(&self) -> Result<Etc, Unread> {
        let root = match self {
            Self::Host(path) => open_path(path).map_err(Unread::of("the root"))?,
            Self::Container { process, host, .. } => {
                let root = process.root().map_err(Unread::of("/proc/PID/root"))?;
                if process.on_host_root(host).map_err(Unread::of("/proc/PID/root"))? {
                    return Err(Unread::OnHostRoot);
                }
                root
            }
        };
        let etc = match directory_below(&root, "etc") {
            Ok(etc) => Some(etc),
            Err(error) if is_missing(&error) => None,
            Err(reason) => return Err(Unread::Io { what: "etc", reason }),
        };
        Ok(Etc { root, etc })
    }

    /// Reads its accounts. Blocks.
    pub(crate) fn read(&self, etc: &Etc) -> Result<Look, Unread> {
        let bounds = if matches!(self, Self::Host(_)) { HOST } else { CONTAINER };
        let owner = self.owner()?;
        let file = |path: &'static str| match read_dated(&etc.root, path, bounds.bytes) {
            Err(error) if is_missing(&error) => Ok((Vec::new(), None)),
            read => read.map(|(content, written)| (content, Some(written))).map_err(Unread::of(path)),
        };
        let ((users, passwd), (groups, group)) = (file("etc/passwd")?, file("etc/group")?);
        // Whoever may not read shadow still sees everything else.
        let (days, shadow) = file("etc/shadow").unwrap_or_default();
        let users = files::passwd(&users, bounds.entries);
        let groups = files::group(&groups, bounds.entries);
        let days = files::shadow(&days, bounds.entries);
        let rejected = users.rejected + groups.rejected;
        let book = Book { users: owner.users(users), groups: owner.groups(groups), passwords: days.entries };
        Ok(Look { book, rejected, written: Written { passwd, group, shadow } })
    }

    fn owner(&self) -> Result<Owner, Unread> {
        let Self::Container { key, process, .. } = self else { return Ok(Owner::host()) };
        let map = |file: &'static str| {
            let map = process.read(file).as_deref().and_then(IdMap::parse);
            map.ok_or_else(|| Unread::Io { what: file, reason: io::ErrorKind::InvalidData.into() })
        };
        Ok(Owner { container: key.clone(), uids: map("uid_map")?, gids: map("gid_map")? })
    }
}

fn open_path(path: &Path) -> io::Result<OwnedFd> {
    Ok(File::open(path)?.into())
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_host_that_lacks_a_file_and_one_that_lacks_all() {
        let root = tempfile::tempdir().unwrap();
        let host = Root::Host(root.path().to_owned());
        let etc = host.open().unwrap();
        assert_eq!(host.read(&etc).unwrap().book, Book::default());
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("etc/passwd"), "joe:x:1:2:::\nbroken\n").unwrap();
        let etc = host.open().unwrap();
        let look = host.read(&etc).unwrap();
        assert_eq!((look.book.users["joe"].uid, look.rejected), (Some(1), 1));
    }

    #[test]
    fn a_process_that_has_the_hosts_root_has_no_accounts_of_its_own() {
        let process = || Process::open(std::process::id().into()).unwrap();
        let of = |host: &Path| Root::Container { key: ContainerKey::default(), process: process(), host: host.to_owned() };
        assert!(matches!(of(Path::new("/")).open(), Err(Unread::OnHostRoot)));
        let elsewhere = tempfile::tempdir().unwrap();
        assert!(matches!(of(elsewhere.path()).open(), Err(Unread::OnHostRoot)), "wherever the host's accounts are read");
    }
}
