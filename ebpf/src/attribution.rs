//! Which container a cgroup belongs to, by its path alone.
//!
//! Runtimes and cgroup drivers each have their way to write a container's id into the path; systemd's driver makes a
//! scope (`docker-<id>.scope`), cgroupfs a folder. The innermost name counts: of a container within a container, and of
//! a node that is a container itself (`kind`), that is the container that the process is in. What a process makes below
//! its own container's cgroup (`/init.scope`, `/container`) does not name another.

use std::{path::Path, sync::Arc};

use mayfly_history::container::{ContainerKey, Runtime};

/// What a path says of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named<'p> {
    /// As the runtime spells it.
    pub id: &'p str,
    /// `Unknown` where the path fits several.
    pub runtime: Runtime,
    /// As containerd calls it, where the path tells: `moby`, `k8s.io`, `default`. Empty elsewhere.
    pub namespace: &'p str,
    /// Kubernetes' id of the pod, with dashes where it has them.
    pub pod_uid: Option<String>,
}

impl Named<'_> {
    /// The container, as far as its cgroup tells.
    pub fn key(&self) -> ContainerKey {
        ContainerKey { container_id: self.id.into(), runtime_namespace: self.namespace.into(), endpoint: Arc::default() }
    }
}

/// Where `runc` and `crun`, called by hand, keep a folder for each of their containers, from before its cgroup is made.
const STATES: [&str; 2] = ["/run/runc", "/run/crun"];

/// Where containerd keeps a folder for each namespace, and in it one for each running container.
const TASKS: &str = "/run/containerd/io.containerd.runtime.v2.task";

/// The container whose cgroup was just made, or found, on this host: by its path, or because a runtime that was called by hand says so.
pub(crate) fn container_here(path: &str) -> Option<Named<'_>> {
    container_of(path)
        .or_else(|| container_of_namespace(path, Path::new(TASKS)))
        .or_else(|| container_by_hand(path, &STATES.map(Path::new)))
}

/// `ctr -n mine run … web` makes `/mine/web`.
fn container_of_namespace<'p>(path: &'p str, tasks: &Path) -> Option<Named<'p>> {
    let (namespace, id) = path.strip_prefix('/')?.split_once('/')?;
    let is_name = |name: &str| name.len() <= MAX_ID && is_plain_id(name) && !matches!(name, "." | "..");
    let is_there = is_name(namespace) && is_name(id) && tasks.join(namespace).join(id).is_dir();
    is_there.then_some(Named { id, runtime: Runtime::Containerd, namespace, pod_uid: None })
}

fn container_by_hand<'p>(path: &'p str, states: &[&Path]) -> Option<Named<'p>> {
    let id = path.rsplit('/').next().filter(|id| id.len() <= MAX_ID && is_plain_id(id) && !matches!(*id, "." | ".."))?;
    let is_theirs = states.iter().any(|state| state.join(id).symlink_metadata().is_ok_and(|m| m.is_dir()));
    is_theirs.then_some(Named { id, runtime: Runtime::Unknown, namespace: "", pod_uid: None })
}

/// The longest id that is taken from a path, in bytes.
const MAX_ID: usize = 128;

/// Names that systemd's driver and CRI-O put in front of an id, with what they say.
const PREFIXES: [(&str, Runtime, &str); 9] = [
    ("docker-", Runtime::Docker, "moby"),
    ("cri-containerd-", Runtime::Containerd, "k8s.io"),
    ("containerd-", Runtime::Containerd, ""),
    ("crio-", Runtime::CriO, ""),
    ("libpod-payload-", Runtime::Podman, ""),
    ("libpod-", Runtime::Podman, ""),
    // Whichever namespace it was told.
    ("nerdctl-", Runtime::Containerd, ""),
    ("runc-", Runtime::Unknown, ""),
    ("crun-", Runtime::Unknown, ""),
];

/// The container that a cgroup path names, if it names one. `path` is that of its hierarchy, from the root: `/docker/<id>`.
pub fn container_of(path: &str) -> Option<Named<'_>> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let (depth, mut named) = (0..parts.len()).rev().find_map(|depth| Some((depth, name_at(&parts, depth)?)))?;
    named.pod_uid = parts[..=depth].iter().rev().find_map(|part| pod_uid(part));
    // Docker and others may have made it for the kubelet just as well.
    if named.pod_uid.is_some() && named.namespace.is_empty() && named.runtime == Runtime::Unknown {
        named.namespace = "k8s.io";
    }
    Some(named)
}

/// Whether the component at `depth` names a container, in its surroundings.
fn name_at<'p>(parts: &[&'p str], depth: usize) -> Option<Named<'p>> {
    let part = parts[depth];
    let parent = depth.checked_sub(1).map_or("", |above| parts[above]);
    let named = |id: &'p str, runtime, namespace| (id.len() <= MAX_ID).then_some(Named { id, runtime, namespace, pod_uid: None });

    if let Some((id, runtime, namespace)) = prefixed(part) {
        return named(id, runtime, namespace);
    }
    // A task on Fargate: `<task>-<number>` below the task.
    if let Some(number) = part.strip_prefix(parent).and_then(|rest| rest.strip_prefix('-'))
        && is_hex(parent, 32)
        && !number.is_empty()
        && number.bytes().all(|b| b.is_ascii_digit())
        && parts[..depth].contains(&"ecs")
    {
        return named(part, Runtime::Unknown, "");
    }
    // BuildKit's steps: inside dockerd, and of a daemon of its own.
    if parent == "buildkit" && is_step(part) {
        let is_dockers = depth >= 2 && parts[depth - 2] == "docker";
        return named(part, if is_dockers { Runtime::Docker } else { Runtime::Unknown }, "");
    }
    if is_hex(part, 64) {
        return match parent {
            "docker" => named(part, Runtime::Docker, "moby"),
            // The pod of `podman pod`, not a container.
            "libpod_parent" => None,
            "moby" => named(part, Runtime::Docker, "moby"),
            "k8s.io" => named(part, Runtime::Containerd, "k8s.io"),
            "default" => named(part, Runtime::Containerd, "default"),
            _ => named(part, if parts[..depth].contains(&"ecs") { Runtime::Docker } else { Runtime::Unknown }, ""),
        };
    }
    // `ctr run` names containers as it is told: `/default/web`.
    (depth == 1 && parent == "default" && is_plain_id(part)).then(|| named(part, Runtime::Containerd, "default"))?
}

/// `docker-<id>.scope`, `crio-<id>`, `slice:cri-containerd:<id>`: the id and what stands before it.
fn prefixed(part: &str) -> Option<(&str, Runtime, &'static str)> {
    let scope = part.strip_suffix(".scope");
    // A cgroupfs driver that was given systemd's notation takes it as a name.
    if let Some((before, id)) = part.rsplit_once(':')
        && let Some((_, prefix)) = before.rsplit_once(':')
        && is_hex(id, 64)
    {
        let known = PREFIXES.iter().find(|(name, ..)| name.strip_suffix('-') == Some(prefix));
        return Some(known.map_or((id, Runtime::Unknown, ""), |&(_, runtime, namespace)| (id, runtime, namespace)));
    }
    let name = scope.unwrap_or(part);
    let (prefix, runtime, namespace) = PREFIXES.into_iter().find(|(prefix, ..)| name.starts_with(prefix))?;
    let id = &name[prefix.len()..];
    // `runc run web` under systemd is `runc-web.scope`; without a scope that could be anything.
    let free = matches!(prefix, "runc-" | "crun-" | "nerdctl-") && scope.is_some() && is_plain_id(id);
    // Inside a dockerd that leaves cgroups to systemd, BuildKit's steps are named like its containers.
    if runtime == Runtime::Docker && is_step(id) {
        return Some((id, runtime, ""));
    }
    // `libpod-conmon-<id>` and `crio-conmon-<id>` hold the monitor, which is the host's.
    (is_hex(id, 64) || free).then_some((id, runtime, namespace))
}

/// `pod<uid>`, `kubepods-burstable-pod<uid>.slice` (with `_` for `-`), or such a slice within another name.
fn pod_uid(part: &str) -> Option<String> {
    let slice = part.split(':').next().unwrap_or(part);
    let name = slice.strip_suffix(".slice").unwrap_or(slice);
    let uid = name
        .rsplit_once("-pod")
        .filter(|(before, _)| before.contains("kubepods"))
        .map(|(_, uid)| uid)
        .or_else(|| name.strip_prefix("pod"))?;
    let uid = uid.replace('_', "-");
    let dashed =
        uid.len() == 36 && uid.split('-').map(str::len).eq([8, 4, 4, 4, 12]) && uid.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit());
    // A static pod's is a hash.
    (dashed || is_hex(&uid, 32)).then_some(uid)
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// An id that BuildKit gives a step: 25 digits to the base of 36.
fn is_step(text: &str) -> bool {
    text.len() == 25 && text.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
}

/// What containerd accepts as an id.
fn is_plain_id(text: &str) -> bool {
    !text.is_empty()
        && !text.ends_with(".service")
        && !text.ends_with(".slice")
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_made_by_hand_is_known_by_its_runtimes_folder() {
        let state = std::env::temp_dir().join(format!("mayfly-runc-{}", std::process::id()));
        std::fs::create_dir_all(state.join("web")).unwrap();
        let named = |path| container_by_hand(path, &[&state]).map(|named| named.id.to_owned());
        let found = [named("/user.slice/web"), named("/web"), named("/db"), named("/"), named("/web/.."), named("/a/.")];
        std::fs::remove_dir_all(&state).unwrap();
        assert_eq!(found, [Some("web".to_owned()), Some("web".to_owned()), None, None, None, None]);
    }

    #[test]
    fn a_container_of_any_namespace_is_known_by_containerds_folder() {
        let tasks = std::env::temp_dir().join(format!("mayfly-tasks-{}", std::process::id()));
        std::fs::create_dir_all(tasks.join("mine/web")).unwrap();
        let named = |path| container_of_namespace(path, &tasks).map(|named| (named.namespace.to_owned(), named.id.to_owned()));
        let found = ["/mine/web", "/mine/db", "/mine", "/mine/web/inner", "/mine/..", "/./web", "web"].map(named);
        std::fs::remove_dir_all(&tasks).unwrap();
        let mut expected = [const { None }; 7];
        expected[0] = Some(("mine".to_owned(), "web".to_owned()));
        assert_eq!(found, expected);
    }

    const ID: &str = "3f4dc1a0b5e2968774d0c3b2a1f09e8d7c6b5a49382716f5e4d3c2b1a0918273";
    const OUTER: &str = "aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbccccccccccccccccdddddddddddddddd";
    const POD: &str = "0f2e6c3a-1b2c-4d5e-8f90-123456789abc";

    /// Path with `I` for the id, `O` for another, `P` for a pod's uid and `U` for that with underscores.
    fn path(template: &str) -> String {
        template.replace("{I}", ID).replace("{O}", OUTER).replace("{P}", POD).replace("{U}", &POD.replace('-', "_"))
    }

    #[test]
    fn finds_the_container_in_every_runtimes_paths() {
        use Runtime::{Containerd, CriO, Docker, Podman, Unknown};
        let cases: &[(&str, &str, Runtime, &str, bool)] = &[
            // Docker: cgroupfs and systemd, its own parent, rootless, inside a container.
            ("/docker/{I}", "{I}", Docker, "moby", false),
            ("/system.slice/docker-{I}.scope", "{I}", Docker, "moby", false),
            ("/custom.slice/docker-{I}.scope", "{I}", Docker, "moby", false),
            ("/custom/{I}", "{I}", Unknown, "", false),
            ("/system.slice:docker:{I}", "{I}", Docker, "moby", false),
            ("/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{I}.scope", "{I}", Docker, "moby", false),
            ("/docker/{O}/docker/{I}", "{I}", Docker, "moby", false),
            ("/system.slice/docker-{O}.scope/docker/{I}", "{I}", Docker, "moby", false),
            ("/docker/{I}/init.scope", "{I}", Docker, "moby", false),
            ("/docker/{I}/system.slice/ssh.service", "{I}", Docker, "moby", false),
            ("/user.slice/user-1000.slice/user@1000.service/docker/{I}", "{I}", Docker, "moby", false),
            ("/docker.slice/docker-{I}.scope", "{I}", Docker, "moby", false),
            ("/lxc.payload.web/system.slice/docker-{I}.scope", "{I}", Docker, "moby", false),
            ("/docker/{O}/system.slice/docker-{I}.scope", "{I}", Docker, "moby", false),
            ("/actions_job/{I}", "{I}", Unknown, "", false),
            ("/{I}", "{I}", Unknown, "", false),
            ("/../../docker/{I}", "{I}", Docker, "moby", false),
            // BuildKit's steps: of both drivers, and of a daemon of its own, also within a container.
            ("/docker/buildkit/rk1a2b3c4d5e6f7g8h9i0j1k2", "rk1a2b3c4d5e6f7g8h9i0j1k2", Docker, "", false),
            ("/system.slice/docker-rk1a2b3c4d5e6f7g8h9i0j1k2.scope", "rk1a2b3c4d5e6f7g8h9i0j1k2", Docker, "", false),
            ("/buildkit/rk1a2b3c4d5e6f7g8h9i0j1k2", "rk1a2b3c4d5e6f7g8h9i0j1k2", Unknown, "", false),
            ("/docker/{O}/buildkit/rk1a2b3c4d5e6f7g8h9i0j1k2", "rk1a2b3c4d5e6f7g8h9i0j1k2", Unknown, "", false),
            // containerd.
            ("/default/web", "web", Containerd, "default", false),
            ("/default/{I}", "{I}", Containerd, "default", false),
            ("/moby/{I}", "{I}", Docker, "moby", false),
            ("/k8s.io/{I}", "{I}", Containerd, "k8s.io", false),
            ("/system.slice/nerdctl-{I}.scope", "{I}", Containerd, "", false),
            ("/user.slice/user-1000.slice/user@1000.service/user.slice/nerdctl-{I}.scope", "{I}", Containerd, "", false),
            ("/system.slice/containerd-{I}.scope", "{I}", Containerd, "", false),
            // Kubernetes: all classes, both drivers, both runtimes.
            ("/kubepods/pod{P}/{I}", "{I}", Unknown, "k8s.io", true),
            ("/kubepods/burstable/pod{P}/{I}", "{I}", Unknown, "k8s.io", true),
            ("/kubepods/burstable/pod{P}/{I}/init.scope", "{I}", Unknown, "k8s.io", true),
            ("/kubepods/pod{P}/crio-{I}", "{I}", CriO, "", true),
            ("/kubepods/burstable/pod{P}/docker-{I}.scope", "{I}", Docker, "moby", true),
            ("/kubepods.slice/kubepods-pod{U}.slice/crio-{I}.scope", "{I}", CriO, "", true),
            ("/kubepods.slice/kubepods-pod{U}.slice/docker-{I}.scope", "{I}", Docker, "moby", true),
            ("/kubepods-besteffort-pod{U}.slice:cri-containerd:{I}", "{I}", Containerd, "k8s.io", true),
            ("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{U}.slice/{I}", "{I}", Unknown, "k8s.io", true),
            (
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{U}.slice/cri-containerd-{I}.scope/system.slice/ssh.service",
                "{I}",
                Containerd,
                "k8s.io",
                true,
            ),
            (
                "/system.slice/docker-{O}.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod{U}.slice/cri-containerd-{I}.scope",
                "{I}",
                Containerd,
                "k8s.io",
                true,
            ),
            ("/kubepods/besteffort/pod{P}/{I}", "{I}", Unknown, "k8s.io", true),
            ("/kubepods/besteffort/pod{P}/crio-{I}", "{I}", CriO, "", true),
            ("/kubepods.slice/kubepods-pod{U}.slice/cri-containerd-{I}.scope", "{I}", Containerd, "k8s.io", true),
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{U}.slice/cri-containerd-{I}.scope",
                "{I}",
                Containerd,
                "k8s.io",
                true,
            ),
            ("/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{U}.slice/crio-{I}.scope", "{I}", CriO, "", true),
            ("/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{U}.slice/crio-{I}.scope/container", "{I}", CriO, "", true),
            ("/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{U}.slice/docker-{I}.scope", "{I}", Docker, "moby", true),
            ("/system.slice/containerd.service/kubepods-burstable-pod{U}.slice:cri-containerd:{I}", "{I}", Containerd, "k8s.io", true),
            (
                "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{U}.slice/cri-containerd-{I}.scope",
                "{I}",
                Containerd,
                "k8s.io",
                true,
            ),
            // A node that is a container.
            ("/docker/{O}/kubelet/kubepods/burstable/pod{P}/{I}", "{I}", Unknown, "k8s.io", true),
            // Podman: root and rootless, cgroupfs and systemd, pods, crun's inner group, split groups of a unit.
            ("/libpod_parent/libpod-{I}", "{I}", Podman, "", false),
            ("/machine.slice/libpod-{I}.scope", "{I}", Podman, "", false),
            ("/machine.slice/libpod-{I}.scope/container", "{I}", Podman, "", false),
            ("/machine.slice/machine-libpod_pod_{O}.slice/libpod-{I}.scope", "{I}", Podman, "", false),
            ("/libpod_parent/{O}/libpod-{I}", "{I}", Podman, "", false),
            ("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{I}.scope/container", "{I}", Podman, "", false),
            ("/system.slice/web.service/libpod-payload-{I}", "{I}", Podman, "", false),
            ("/user.slice/user-1000.slice/user@1000.service/app.slice/web.service/libpod-payload-{I}", "{I}", Podman, "", false),
            ("/user.slice/user-1000.slice/user@1000.service/libpod_parent/libpod-{I}", "{I}", Podman, "", false),
            (
                "/user.slice/user-1000.slice/user@1000.service/user.slice/user-libpod_pod_{O}.slice/libpod-{I}.scope",
                "{I}",
                Podman,
                "",
                false,
            ),
            // ECS on instances and on Fargate.
            ("/ecs/0123456789abcdef0123456789abcdef/{I}", "{I}", Docker, "", false),
            ("/ecs/cluster/0123456789abcdef0123456789abcdef/{I}", "{I}", Docker, "", false),
            ("/ecstasks.slice/ecstasks-0123456789abcdef0123456789abcdef.slice/docker-{I}.scope", "{I}", Docker, "moby", false),
            (
                "/ecs/0123456789abcdef0123456789abcdef/0123456789abcdef0123456789abcdef-1234567890",
                "0123456789abcdef0123456789abcdef-1234567890",
                Unknown,
                "",
                false,
            ),
            // runc and crun alone.
            ("/user.slice/runc-web.scope", "web", Unknown, "", false),
            ("/system.slice/crun-{I}.scope", "{I}", Unknown, "", false),
            (
                "/user.slice/user-1000.slice/user@1000.service/user.slice/crun-buildah-buildah3.scope",
                "buildah-buildah3",
                Unknown,
                "",
                false,
            ),
        ];
        for (template, id, runtime, namespace, in_pod) in cases {
            let (path, id) = (path(template), path(id));
            let expected = Named { id: &id, runtime: *runtime, namespace, pod_uid: in_pod.then(|| POD.into()) };
            assert_eq!(container_of(&path), Some(expected), "{template}");
        }
    }

    #[test]
    fn takes_nothing_of_the_host_for_a_container() {
        for template in [
            "",
            "/",
            "/init.scope",
            "/system.slice/ssh.service",
            "/system.slice/docker.service",
            "/system.slice/containerd.service",
            "/user.slice/user-1000.slice/session-3.scope",
            "/user.slice/user-1000.slice/user@1000.service/app.slice/run-r3f4d.scope",
            "/docker",
            "/docker/buildkit",
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{U}.slice",
            "/kubepods/burstable/pod{P}",
            "/libpod_parent/conmon",
            "/libpod_parent/{O}",
            "/machine.slice/machine-libpod_pod_{O}.slice",
            "/machine.slice/libpod-conmon-{I}.scope",
            "/system.slice/crio-conmon-{I}.scope",
            "/system.slice/crio.service",
            "/ecs/0123456789abcdef0123456789abcdef",
            "/default/web.service",
            "/docker/short",
            "/buildkit/short",
            "/system.slice/docker-short.scope",
            "/system.slice/web.service/runtime",
            "/kubepods.slice/kubepods-burstable.slice",
            "/ecstasks.slice/ecstasks-0123456789abcdef0123456789abcdef.slice",
            "/runc-web",
            "/a/b:c",
            "//",
        ] {
            assert_eq!(container_of(&path(template)), None, "{template}");
        }
    }

    #[test]
    fn knows_a_static_pods_hash() {
        let path = format!("/kubepods/burstable/pod0123456789abcdef0123456789abcdef/{ID}");
        assert_eq!(container_of(&path).and_then(|n| n.pod_uid).as_deref(), Some("0123456789abcdef0123456789abcdef"));
    }

    proptest::proptest! {
        #[test]
        fn names_only_what_stands_in_the_path(path in "(/([a-z0-9_.:-]{0,12}|docker|default|[0-9a-f]{64}|docker-[0-9a-f]{64}\\.scope)){0,6}") {
            if let Some(named) = container_of(&path) {
                proptest::prop_assert!(path.contains(named.id) && named.id.len() <= MAX_ID);
            }
        }
    }
}
