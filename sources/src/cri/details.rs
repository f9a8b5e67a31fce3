//! What the statuses of containers and pods tell.

use std::{collections::HashMap, sync::Arc};

use mayfly_history::{
    Nanos,
    container::{Details, Runtime, State},
};
use serde::Deserialize;

use super::messages::{Container, ContainerStatus, PodSandbox, PodSandboxStatus};
use crate::{
    containerd::{MAX_SPEC, Spec},
    labels,
};

/// The node's network, in `NamespaceMode`.
const NODE: i32 = 2;
/// More addresses than this are not a pod's.
const MAX_ADDRESSES: usize = 64;

/// The runtime's own JSON in a verbose answer; its spec is read as any other, without the environment.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Info {
    #[serde(rename = "sandboxID")]
    sandbox_id: String,
    pid: i64,
    runtime_spec: Option<Spec>,
}

/// Tells of a container. `info` is the verbose answer's, `pod` its pod where that is known.
pub(super) fn of_container(
    runtime: Runtime,
    status: ContainerStatus,
    info: &HashMap<String, String>,
    pod: Option<&PodSandboxStatus>,
) -> (State, Details) {
    let state = match status.state {
        1 => State::Running,
        2 => State::Exited,
        _ => State::Created,
    };
    let mut details = Details { runtime, labels: labels::bounded(status.labels).into(), ..Details::default() };
    tell_info(info, &mut details);
    if let Some(pod) = pod {
        tell_pod(pod, &mut details);
    }
    details.name = status.metadata.and_then(|metadata| known(&metadata.name));
    if let Some(name) = details.name.clone() {
        Arc::make_mut(&mut details.labels).entry("io.kubernetes.container.name".into()).or_insert(name);
    }
    let reference = Reference::parse(&status.image_ref);
    details.image = status.image.and_then(|image| known(&image.user_specified_image).or_else(|| known(&image.image)));
    details.image_id = reference.id.or_else(|| Reference::parse(&status.image_id).id);
    details.image_digest = reference.digest;
    details.created_ns = happened(status.created_at);
    details.run.started_ns = happened(status.started_at);
    if state == State::Exited {
        details.run.finished_ns = happened(status.finished_at);
        details.run.exit_code = Some(status.exit_code.into());
        details.run.oom_killed = Some(status.reason == "OOMKilled");
    }
    (state, details)
}

/// Tells of a pod's sandbox, which is a container too.
pub(super) fn of_sandbox(runtime: Runtime, status: &PodSandboxStatus, info: &HashMap<String, String>) -> (State, Details) {
    let mut details = Details { runtime, labels: labels::bounded(status.labels.clone()).into(), ..Details::default() };
    tell_info(info, &mut details);
    tell_pod(status, &mut details);
    details.created_ns = happened(status.created_at);
    (if status.state == 0 { State::Running } else { State::Exited }, details)
}

/// What the list tells of a container whose status cannot be had: nothing of how its run ended.
pub(super) fn of_listed(runtime: Runtime, listed: Container, pod: Option<&PodSandboxStatus>) -> (State, Details) {
    let Container { id, metadata, image, image_ref, state, created_at, labels, .. } = listed;
    let status = ContainerStatus { id, metadata, image, image_ref, state, created_at, labels, ..ContainerStatus::default() };
    let (state, mut details) = of_container(runtime, status, &HashMap::new(), pod);
    details.run.exit_code = None;
    details.run.oom_killed = None;
    (state, details)
}

/// What the list tells of a pod.
pub(super) fn listed_sandbox(listed: PodSandbox) -> PodSandboxStatus {
    let PodSandbox { id, metadata, state, created_at, labels } = listed;
    PodSandboxStatus { id, metadata, state, created_at, labels, ..PodSandboxStatus::default() }
}

fn tell_info(info: &HashMap<String, String>, details: &mut Details) {
    let Some(json) = info.get("info").filter(|json| json.len() <= MAX_SPEC) else { return };
    let Ok(info) = serde_json::from_str::<Info>(json) else { return };
    if let Some(spec) = info.runtime_spec {
        spec.tell(details);
    }
    details.sandbox_id = known(&info.sandbox_id).or(details.sandbox_id.take());
    details.run.pid = (info.pid > 0).then_some(info.pid);
}

/// Adds the pod's name and addresses. Its names go into the labels that kubelet sets, for a client that does not.
fn tell_pod(pod: &PodSandboxStatus, details: &mut Details) {
    details.sandbox_id = details.sandbox_id.take().or_else(|| known(&pod.id));
    if let Some(of) = &pod.metadata {
        let named = [("pod.name", &of.name), ("pod.namespace", &of.namespace), ("pod.uid", &of.uid)];
        for (label, value) in named.into_iter().filter_map(|(label, value)| Some((label, known(value)?))) {
            Arc::make_mut(&mut details.labels).entry(format!("io.kubernetes.{label}")).or_insert(value);
        }
    }
    let options = pod.linux.as_ref().and_then(|linux| linux.namespaces.as_ref()?.options.as_ref());
    if options.is_some_and(|options| options.network == NODE) {
        details.network_mode = Some("host".into());
    } else if let Some(network) = &pod.network {
        let addresses = std::iter::once(&network.ip).chain(network.additional_ips.iter().map(|more| &more.ip));
        details.run.ip_addresses = addresses.filter_map(|ip| known(ip)).take(MAX_ADDRESSES).collect();
    }
}

/// What `image_ref` and `image_id` say: each runtime puts another thing there.
#[derive(Debug, Default, PartialEq, Eq)]
struct Reference {
    digest: Option<String>,
    id: Option<String>,
}

impl Reference {
    fn parse(text: &str) -> Self {
        if let Some((_, digest)) = text.split_once('@') {
            return Self { digest: known(digest), id: None };
        }
        let bare = text.strip_prefix("sha256:").unwrap_or(text);
        let is_hash = bare.len() == 64 && bare.bytes().all(|byte| byte.is_ascii_hexdigit());
        Self { digest: None, id: is_hash.then(|| format!("sha256:{bare}")) }
    }
}

/// A time in nanoseconds; 0 is "not yet".
pub(super) fn happened(time_ns: i64) -> Option<Nanos> {
    (time_ns > 0).then_some(time_ns)
}

fn known(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cri::messages::{ContainerMetadata, ImageSpec, PodIp, PodSandboxMetadata, PodSandboxNetworkStatus};

    fn pod() -> PodSandboxStatus {
        PodSandboxStatus {
            id: "5a".into(),
            metadata: Some(PodSandboxMetadata { name: "web-0".into(), uid: "u".into(), namespace: "shop".into() }),
            network: Some(PodSandboxNetworkStatus { ip: "10.1.0.2".into(), additional_ips: vec![PodIp { ip: "fd00::2".into() }] }),
            ..PodSandboxStatus::default()
        }
    }

    #[test]
    fn a_container_is_told_with_its_pod() {
        let status = ContainerStatus {
            id: "c1".into(),
            metadata: Some(ContainerMetadata { name: "nginx".into() }),
            state: 2,
            exit_code: 137,
            created_at: 1,
            started_at: 2,
            finished_at: 3,
            reason: "OOMKilled".into(),
            image: Some(ImageSpec { image: format!("sha256:{}", "a".repeat(64)), user_specified_image: "nginx:1".into() }),
            image_ref: "docker.io/library/nginx@sha256:dd".into(),
            image_id: "a".repeat(64),
            ..ContainerStatus::default()
        };
        let info =
            HashMap::from([("info".into(), r#"{"sandboxID": "5a", "pid": 7, "runtimeSpec": {"process": {"args": ["nginx"]}}}"#.into())]);
        let (state, details) = of_container(Runtime::CriO, status, &info, Some(&pod()));
        assert_eq!((state, details.runtime, details.name.as_deref()), (State::Exited, Runtime::CriO, Some("nginx")));
        assert_eq!((details.image.as_deref(), details.image_digest.as_deref()), (Some("nginx:1"), Some("sha256:dd")));
        assert_eq!(details.image_id, Some(format!("sha256:{}", "a".repeat(64))));
        assert_eq!((details.sandbox_id.as_deref(), details.command.as_deref()), (Some("5a"), Some("nginx")));
        assert_eq!(details.labels["io.kubernetes.pod.name"], "web-0");
        assert_eq!(details.labels["io.kubernetes.container.name"], "nginx");
        let run = details.run;
        assert_eq!((run.pid, run.exit_code, run.oom_killed, run.finished_ns), (Some(7), Some(137), Some(true), Some(3)));
        assert_eq!(run.ip_addresses, ["10.1.0.2", "fd00::2"]);
    }

    #[test]
    fn labels_that_kubelet_set_are_not_replaced() {
        let mut sandbox = pod();
        sandbox.labels.insert("io.kubernetes.pod.name".into(), "kubelets".into());
        let (state, details) = of_sandbox(Runtime::Containerd, &sandbox, &HashMap::from([("info".into(), "no JSON".into())]));
        assert_eq!((state, details.labels["io.kubernetes.pod.name"].as_str()), (State::Running, "kubelets"));
        assert_eq!(details.sandbox_id.as_deref(), Some("5a"));
    }

    #[test]
    fn an_image_reference_is_a_digest_or_an_id_or_neither() {
        let id = format!("sha256:{}", "0".repeat(64));
        assert_eq!(Reference::parse(&id), Reference { digest: None, id: Some(id.clone()) });
        assert_eq!(Reference::parse("r/i@sha256:11").digest.as_deref(), Some("sha256:11"));
        assert_eq!(Reference::parse("busybox:latest"), Reference::default());
    }
}
