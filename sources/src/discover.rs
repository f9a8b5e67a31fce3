//! Where the endpoints of each kind of runtime may be: the well-known places, or what the operator configured.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::config::RuntimeConfig;

/// The well-known sockets of one kind of runtime.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidates {
    /// Absolute paths. The first is the usual one: it is shown as awaited while none exists.
    pub(crate) fixed: &'static [&'static str],
    /// Paths below each user's runtime directory, `/run/user/UID`.
    pub(crate) per_user: &'static [&'static str],
    /// Environment variable that names one more endpoint.
    pub(crate) variable: Option<&'static str>,
}

pub(crate) const DOCKER: Candidates =
    Candidates { fixed: &["/run/docker.sock"], per_user: &["docker.sock"], variable: Some("DOCKER_HOST") };

pub(crate) const PODMAN: Candidates = Candidates { fixed: &["/run/podman/podman.sock"], per_user: &["podman/podman.sock"], variable: None };

/// containerd itself, the one that a dockerd started for itself, those of k3s and RKE2, of microk8s, and of rootless Docker.
pub(crate) const CONTAINERD: Candidates = Candidates {
    fixed: &[
        "/run/containerd/containerd.sock",
        "/run/docker/containerd/containerd.sock",
        "/run/k3s/containerd/containerd.sock",
        "/var/snap/microk8s/common/run/containerd.sock",
    ],
    per_user: &["docker/containerd/containerd.sock"],
    variable: None,
};

pub(crate) const CRI: Candidates = Candidates {
    fixed: &[
        "/run/crio/crio.sock",
        "/run/containerd/containerd.sock",
        "/run/k3s/containerd/containerd.sock",
        "/var/snap/microk8s/common/run/containerd.sock",
    ],
    per_user: &[],
    variable: None,
};

/// The endpoints that are wanted of one kind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// Named by the operator: each has its own row in `recorder_sources`, whether it exists or not.
    pub(crate) named: Vec<String>,
    fixed: Vec<PathBuf>,
    per_user: Vec<&'static str>,
}

impl Wanted {
    /// What the configuration says, else the well-known places.
    pub(crate) fn new(config: &RuntimeConfig, candidates: Candidates) -> Self {
        if !config.endpoints.is_empty() {
            let named: BTreeSet<_> = config.endpoints.iter().map(|e| normalise(e)).collect();
            return Self { named: named.into_iter().collect(), ..Self::default() };
        }
        let variable = candidates.variable.and_then(|name| std::env::var(name).ok()).filter(|value| !value.trim().is_empty());
        Self {
            named: variable.iter().map(|value| normalise(value.trim())).collect(),
            fixed: candidates.fixed.iter().map(PathBuf::from).collect(),
            per_user: candidates.per_user.to_vec(),
        }
    }

    /// The endpoint that is shown as awaited although nobody named it.
    pub(crate) fn usual(&self) -> Option<String> {
        self.fixed.first().map(|path| endpoint(path))
    }

    /// Every place that was looked at, for the hint of a row that waits.
    pub(crate) fn places(&self) -> String {
        let fixed = self.fixed.iter().map(|p| p.display().to_string());
        let users = self.per_user.iter().map(|tail| format!("/run/user/UID/{tail}"));
        fixed.chain(users).collect::<Vec<_>>().join(", ")
    }

    /// Whether a socket is one of the well-known places of this kind.
    pub(crate) fn covers(&self, socket: &Path, users: &Path) -> bool {
        let of_user = || {
            let mut parts = socket.strip_prefix(users).ok()?.components();
            parts.next()?;
            Some(self.per_user.iter().any(|tail| parts.as_path() == Path::new(tail)))
        };
        self.fixed.iter().any(|p| p == socket) || of_user().unwrap_or(false)
    }
}

/// All places of all kinds at which a socket may be or appear.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// Followed also where they are symbolic links.
    named: BTreeSet<PathBuf>,
    fixed: BTreeSet<PathBuf>,
    per_user: BTreeSet<&'static str>,
    /// `/run/user`, another one in tests.
    pub(crate) users: PathBuf,
}

impl Places {
    pub(crate) fn new<'a>(wanted: impl Iterator<Item = &'a Wanted>) -> Self {
        let mut places = Self { named: BTreeSet::new(), fixed: BTreeSet::new(), per_user: BTreeSet::new(), users: "/run/user".into() };
        for kind in wanted {
            places.named.extend(kind.named.iter().filter_map(|e| socket_path(e)));
            places.fixed.extend(kind.fixed.iter().cloned());
            places.per_user.extend(&kind.per_user);
        }
        places
    }

    /// Places of a test.
    #[cfg(test)]
    pub(crate) fn at<const N: usize>(root: &Path, fixed: [PathBuf; N], per_user: &[&'static str]) -> Self {
        Self { named: BTreeSet::new(), fixed: fixed.into(), per_user: per_user.iter().copied().collect(), users: root.join("user") }
    }

    /// Whether users come and go below these places.
    pub(crate) fn has_users(&self) -> bool {
        !self.per_user.is_empty()
    }

    /// The paths now; those of users change as users log in and out.
    pub(crate) fn paths(&self) -> BTreeSet<PathBuf> {
        let mut paths: BTreeSet<_> = self.named.union(&self.fixed).cloned().collect();
        if self.has_users() {
            for user in fs::read_dir(&self.users).into_iter().flatten().flatten() {
                if user.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
                    paths.extend(self.per_user.iter().map(|tail| user.path().join(tail)));
                }
            }
        }
        paths
    }

    /// Whether a path leads to a socket that this very path stands for. A link from one well-known place to another
    /// (podman-docker makes one) is that other's; a link in a user's directory could lead root astray.
    pub(crate) fn stands_for_itself(&self, path: &Path) -> bool {
        if self.named.contains(path) {
            return true;
        }
        let Ok(real) = fs::canonicalize(path) else { return false };
        real == path || !(path.starts_with(&self.users) || self.fixed.contains(&real) || real.starts_with(&self.users))
    }
}

/// `unix:///…` of a socket.
pub(crate) fn endpoint(socket: &Path) -> String {
    format!("unix://{}", socket.display())
}

/// The socket of a `unix://…` endpoint.
pub(crate) fn socket_path(endpoint: &str) -> Option<PathBuf> {
    endpoint.strip_prefix("unix://").map(PathBuf::from)
}

/// The runtime directory, `/run/user/UID`, that a socket is in.
pub(crate) fn user_dir(socket: &Path) -> Option<&Path> {
    socket.ancestors().find(|dir| dir.parent() == Some(Path::new("/run/user")))
}

/// One spelling for one endpoint: a bare path is a socket, `/var/run` is `/run`, no doubled or trailing slashes.
pub(crate) fn normalise(endpoint: &str) -> String {
    let Some(path) = endpoint.strip_prefix("unix://").or_else(|| endpoint.starts_with('/').then_some(endpoint)) else {
        return endpoint.trim_end_matches('/').to_owned();
    };
    let path: PathBuf = Path::new("/").join(path).components().collect();
    match path.strip_prefix("/var/run") {
        Ok(tail) => format!("unix://{}", Path::new("/run").join(tail).display()),
        Err(_) => format!("unix://{}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_endpoint_has_one_spelling() {
        for spelling in ["unix:///var/run/docker.sock", "/var/run/docker.sock", "unix:///run//docker.sock", "/run/docker.sock"] {
            assert_eq!(normalise(spelling), "unix:///run/docker.sock");
        }
        assert_eq!(normalise("tcp://127.0.0.1:2375/"), "tcp://127.0.0.1:2375");
        assert_eq!(socket_path("unix:///run/docker.sock"), Some("/run/docker.sock".into()));
        assert_eq!(socket_path("tcp://127.0.0.1:2375"), None);
    }

    #[test]
    fn configured_endpoints_replace_the_well_known_ones() {
        let config = RuntimeConfig { endpoints: vec!["/var/run/a.sock".into(), "unix:///run/a.sock".into()], ..RuntimeConfig::default() };
        let wanted = Wanted::new(&config, PODMAN);
        assert_eq!(wanted.named, ["unix:///run/a.sock"]);
        assert_eq!(wanted.usual(), None);
    }

    #[test]
    fn each_users_socket_is_covered() {
        let wanted = Wanted::new(&RuntimeConfig::default(), PODMAN);
        let users = Path::new("/run/user");
        assert!(wanted.covers(Path::new("/run/user/1000/podman/podman.sock"), users));
        assert!(!wanted.covers(Path::new("/run/user/1000/docker.sock"), users));
        assert!(wanted.covers(Path::new("/run/podman/podman.sock"), users));
    }

    #[test]
    fn a_link_to_another_place_is_not_a_socket_of_its_own() {
        let root = tempfile::tempdir().unwrap();
        let real = root.path().join("podman.sock");
        let link = root.path().join("docker.sock");
        fs::write(&real, "").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let mut places = Places::at(root.path(), [real.clone(), link.clone()], &[]);
        assert!(places.stands_for_itself(&real) && !places.stands_for_itself(&link));
        places.named.insert(link.clone());
        assert!(places.stands_for_itself(&link), "unless the operator named it");
    }
}
