//! Whether a pid that a daemon tells is its container's.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use mayfly_history::container::Run;

use crate::{discover, process::Process};

/// The shortest id that cannot be a word which happens to be in a path.
const SHORTEST_ID: usize = 32;

/// Who runs a daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeper {
    /// Or the user whom the recorder runs as. Its pids are believed, and its files are read.
    Root,
    /// A user: it may tell the pid of another's container.
    User(u32),
    /// Nobody here knows: it listens on the network.
    Unknown,
}

impl Keeper {
    /// The keeper of the daemon at a socket. Below a user's runtime directory it is that user, who could put a link to root's socket there
    /// while it is looked at, and another one when it is connected to.
    pub(crate) fn of(socket: Option<&Path>) -> Self {
        let Some(socket) = socket else { return Self::Unknown };
        match fs::metadata(discover::user_dir(socket).unwrap_or(socket)).map(|meta| meta.uid()) {
            Ok(uid) if uid == 0 || uid == rustix::process::geteuid().as_raw() => Self::Root,
            Ok(uid) => Self::User(uid),
            // It went just now: no user's slice has this number.
            Err(_) => Self::User(u32::MAX),
        }
    }

    /// Whether a pid that it tells may be looked at as the container's first process.
    pub(crate) fn may_tell(self, run: &Run, id: &str) -> bool {
        self == Self::Root || run.cgroup_path.as_deref().is_some_and(|path| self.proves(path, id))
    }

    /// Whether a process in this cgroup is one of the container's. A user can give cgroups any name, but only within the user's own slice.
    fn proves(self, cgroup: &str, id: &str) -> bool {
        let is_id = id.len() >= SHORTEST_ID && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        let is_its = || cgroup.split('/').any(|part| container_of(part) == id);
        let is_the_users = || match self {
            Self::Root | Self::Unknown => true,
            Self::User(uid) => cgroup.starts_with(&format!("/user.slice/user-{uid}.slice/")),
        };
        is_id && is_its() && is_the_users()
    }
}

/// The id in the name of a container's cgroup: `ID`, `docker-ID.scope`, `libpod-ID.scope`, `libpod-payload-ID`.
fn container_of(part: &str) -> &str {
    let name = part.strip_suffix(".scope").unwrap_or(part);
    name.rsplit_once('-').filter(|(kind, _)| matches!(*kind, "docker" | "libpod" | "libpod-payload" | "nerdctl")).map_or(name, |(_, id)| id)
}

/// Adds what the kernel knows of the container's first process, and answers the process, while it lives. It must be in a cgroup that bears the
/// container's id, or nothing of it is believed; then the pid too is root's alone to tell.
pub(super) fn ask_kernel(run: &mut Run, id: &str, keeper: Keeper) -> Option<Process> {
    let process = Process::open(run.pid?).ok();
    let seen = process.as_ref().map(Process::run);
    let Some(seen) = seen.filter(|seen| seen.cgroup_path.as_deref().is_some_and(|path| keeper.proves(path, id))) else {
        // Gone already, or not its process.
        run.pid = run.pid.filter(|_| keeper == Keeper::Root);
        return None;
    };
    run.cgroup_path = seen.cgroup_path;
    run.cgroup_id = seen.cgroup_id;
    run.pid_namespace = seen.pid_namespace;
    run.net_namespace = seen.net_namespace;
    run.mnt_namespace = seen.mnt_namespace;
    process
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "49e58c3427aa00112233445566778899aabbccddeeff49e58c3427aa00112233";

    #[test]
    fn a_cgroup_proves_by_the_whole_id() {
        for part in [ID.to_owned(), format!("docker-{ID}.scope"), format!("libpod-{ID}.scope/container"), format!("libpod-payload-{ID}")] {
            assert!(Keeper::Root.proves(&format!("/system.slice/{part}"), ID), "{part}");
        }
        assert!(!Keeper::Root.proves(&format!("/docker/{ID}"), &ID[..12]), "it is not whole");
        assert!(!Keeper::Root.proves(&format!("/docker/{ID}"), &ID[..40]));
        assert!(!Keeper::Root.proves(&format!("/x/evil-{ID}.scope"), ID));
        for word in ["s", "", "system.slice", "user@1000.service", "a-very-long-slice-of-somebody-else.slice"] {
            assert!(!Keeper::Unknown.proves(&format!("/system.slice/{word}/docker-{ID}.scope"), word), "{word}");
        }
    }

    #[test]
    fn a_users_daemon_has_proof_only_of_the_users_own_processes() {
        let own = format!("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope");
        assert!(Keeper::User(1000).proves(&own, ID));
        assert!(!Keeper::User(1001).proves(&own, ID), "another user's");
        assert!(!Keeper::User(100).proves(&own, ID));
        assert!(!Keeper::User(1000).proves(&format!("/system.slice/docker-{ID}.scope"), ID), "root's, whose id it knows");
    }

    #[test]
    fn a_sockets_owner_keeps_its_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("x.sock");
        fs::write(&socket, "").unwrap();
        assert_eq!(Keeper::of(Some(&socket)), Keeper::Root);
        if std::os::unix::fs::chown(&socket, Some(1000), None).is_ok() {
            assert_eq!(Keeper::of(Some(&socket)), Keeper::User(1000));
        }
        assert_eq!(Keeper::of(None), Keeper::Unknown);
    }

    #[test]
    fn a_pid_without_proof_is_believed_of_root_alone() {
        let told = Run { pid: Some(std::process::id().into()), ..Run::default() };
        for (keeper, pid) in [(Keeper::User(1000), None), (Keeper::Unknown, None), (Keeper::Root, told.pid)] {
            let mut run = told.clone();
            assert!(ask_kernel(&mut run, "s", keeper).is_none());
            assert_eq!(run, Run { pid, ..Run::default() }, "{keeper:?}");
        }
    }
}
