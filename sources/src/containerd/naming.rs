//! Under which endpoint, namespace and runtime a container of containerd is recorded.

use std::{path::Path, sync::Arc};

use mayfly_history::container::{ContainerKey, Runtime};

use crate::{
    config::RuntimeConfig,
    discover::{self, Wanted},
};

/// The longest container id that is recorded, in bytes.
pub(crate) const MAX_ID: usize = 128;
/// Where Docker keeps its containers in containerd.
pub(crate) const MOBY: &str = "moby";

/// How one containerd's namespaces are recorded.
#[derive(Clone, Debug)]
pub struct Naming {
    endpoint: Arc<str>,
    /// The Docker that keeps its containers in this containerd: they are recorded as its own, so that they merge with what it says.
    docker: Option<Arc<str>>,
}

impl Naming {
    /// `endpoint` is this containerd's URL, `docker` that of the Docker which works with it.
    pub fn new(endpoint: impl Into<Arc<str>>, docker: Option<Arc<str>>) -> Self {
        Self { endpoint: endpoint.into(), docker }
    }

    /// The key of a container; `None` if its id is empty or too long to be one.
    pub(crate) fn key(&self, namespace: &str, id: &str) -> Option<ContainerKey> {
        let known = !id.is_empty() && id.len() <= MAX_ID && namespace.len() <= MAX_ID;
        known.then(|| ContainerKey { container_id: id.into(), runtime_namespace: namespace.into(), endpoint: self.endpoint(namespace) })
    }

    pub(crate) fn endpoint(&self, namespace: &str) -> Arc<str> {
        match &self.docker {
            Some(docker) if namespace == MOBY => Arc::clone(docker),
            _ => Arc::clone(&self.endpoint),
        }
    }

    pub(crate) fn runtime(namespace: &str) -> Runtime {
        if namespace == MOBY { Runtime::Docker } else { Runtime::Containerd }
    }
}

/// The Docker endpoint whose containers are in namespace `moby` of the containerd at `socket`.
///
/// Docker keeps the socket of its own containerd below its exec-root, which is beside or below its own socket's directory
/// (`/run/docker.sock` and `/run/docker/containerd/containerd.sock`); so the nearest Docker on the path is it. Where there is none, the only one
/// that is configured. A user's containerd belongs to a Docker of that user alone: else whoever serves its socket could speak for root's.
pub(crate) fn docker_beside(socket: &Path, docker: &RuntimeConfig) -> Option<String> {
    let user = discover::user_dir(socket);
    let mut candidates = Wanted::new(docker, discover::DOCKER).named;
    if docker.endpoints.is_empty() {
        candidates.push(discover::endpoint(Path::new("/run/docker.sock")));
        if let Some(user) = user {
            candidates.push(discover::endpoint(&user.join("docker.sock")));
        }
    }
    candidates.retain(|c| discover::socket_path(c).as_deref().and_then(discover::user_dir) == user);
    let depth = |endpoint: &String| {
        let dir = discover::socket_path(endpoint)?.parent()?.to_path_buf();
        socket.starts_with(&dir).then(|| dir.components().count())
    };
    let nearest = candidates.iter().filter_map(depth).max();
    let mut beside = candidates.iter().filter(|c| nearest.is_some() && depth(c) == nearest);
    match (beside.next(), beside.next()) {
        (Some(one), None) => Some(one.clone()),
        (None, _) if user.is_none() && candidates.len() == 1 => candidates.pop(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beside(socket: &str, configured: &[&str]) -> Option<String> {
        let config = RuntimeConfig { endpoints: configured.iter().map(ToString::to_string).collect(), ..RuntimeConfig::default() };
        docker_beside(Path::new(socket), &config)
    }

    #[test]
    fn a_containerd_belongs_to_the_nearest_docker() {
        let usual = Some("unix:///run/docker.sock".to_owned());
        assert_eq!(beside("/run/containerd/containerd.sock", &[]), usual);
        assert_eq!(beside("/run/docker/containerd/containerd.sock", &[]), usual);
        assert_eq!(beside("/run/docker/containerd/containerd.sock", &["/var/run/docker.sock"]), usual);
        let rootless = Some("unix:///run/user/1000/docker.sock".to_owned());
        assert_eq!(beside("/run/user/1000/docker/containerd/containerd.sock", &[]), rootless);
        let both = ["unix:///run/docker.sock", "unix:///srv/d/docker.sock"];
        assert_eq!(beside("/srv/d/exec/containerd/containerd.sock", &both), Some("unix:///srv/d/docker.sock".into()));
        assert_eq!(beside("/run/containerd/containerd.sock", &both), usual);
        assert_eq!(beside("/srv/d/exec/containerd/containerd.sock", &["tcp://127.0.0.1:2375"]), Some("tcp://127.0.0.1:2375".into()));
        assert_eq!(beside("/srv/x/containerd.sock", &both), None, "two, and neither is beside it");
        assert_eq!(beside("/srv/x/c.sock", &["/srv/x/a.sock", "/srv/x/b.sock"]), None, "two that are as near");
    }

    #[test]
    fn a_users_containerd_never_speaks_for_another_docker() {
        let socket = "/run/user/1000/docker/containerd/containerd.sock";
        for other in
            ["unix:///run/docker.sock", "unix:///run/user/1001/docker.sock", "tcp://127.0.0.1:2375", "unix:///run/user/docker.sock"]
        {
            assert_eq!(beside(socket, &[other]), None, "{other}");
        }
        let own = "unix:///run/user/1000/docker.sock";
        assert_eq!(beside(socket, &["unix:///run/docker.sock", own]).as_deref(), Some(own));
        assert_eq!(beside("/run/user/1000/c.sock", &["unix:///run/user/1000/d/docker.sock"]), None, "the only one, and not beside it");
        assert_eq!(beside("/run/containerd/containerd.sock", &[own]), None);
    }

    #[test]
    fn moby_is_recorded_as_dockers_own() {
        let naming = Naming::new("unix:///run/containerd/containerd.sock", Some("unix:///run/docker.sock".into()));
        assert_eq!(&*naming.key("moby", "ab").unwrap().endpoint, "unix:///run/docker.sock");
        assert_eq!(&*naming.key("default", "ab").unwrap().endpoint, "unix:///run/containerd/containerd.sock");
        assert_eq!(naming.key("default", &"x".repeat(129)), None);
        assert_eq!(naming.key("default", ""), None);
    }
}
