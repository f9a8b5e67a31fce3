//! What a container's OCI runtime spec tells: its command, user, mounts, namespaces. Environment variables are never read.

use std::{collections::BTreeMap, sync::Arc};

use mayfly_history::container::Details;
use serde::Deserialize;
use serde_json::{Value, json};

/// The longest spec that is read, in bytes.
pub(crate) const MAX_SPEC: usize = 4 << 20;
/// More mounts than this are cut off.
const MAX_MOUNTS: usize = 256;

/// The part of `config.json` that is of use. A Go program writes `null` for an empty list, hence the options.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Spec {
    hostname: Option<String>,
    process: Option<Process>,
    mounts: Option<Vec<Mount>>,
    linux: Option<Linux>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Process {
    args: Option<Vec<String>>,
    user: User,
    capabilities: Option<Capabilities>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct User {
    uid: u32,
    gid: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Capabilities {
    bounding: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Mount {
    destination: String,
    source: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    options: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Linux {
    namespaces: Option<Vec<Namespace>>,
    seccomp: Option<Value>,
    masked_paths: Option<Vec<String>>,
    readonly_paths: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Namespace {
    #[serde(rename = "type")]
    kind: String,
}

impl Spec {
    /// Reads a spec; `None` if it is too long, or not one.
    pub(crate) fn parse(json: &[u8]) -> Option<Self> {
        (json.len() <= MAX_SPEC).then(|| serde_json::from_slice(json).ok()).flatten()
    }

    /// Adds to `details` what the spec tells.
    pub(crate) fn tell(self, details: &mut Details) {
        let annotation = |name: &str| self.annotations.as_ref()?.get(name).filter(|v| !v.is_empty());
        details.sandbox_id = annotation("io.kubernetes.cri.sandbox-id").cloned();
        for (annotation_name, label) in KUBERNETES {
            if let Some(value) = annotation(annotation_name) {
                Arc::make_mut(&mut details.labels).entry(label.to_owned()).or_insert_with(|| value.clone());
            }
        }
        details.hostname = self.hostname.filter(|name| !name.is_empty());
        if let Some(linux) = &self.linux {
            let bounding = self.process.as_ref().and_then(|p| p.capabilities.as_ref()?.bounding.as_ref());
            details.privileged = Some(linux.is_open() && bounding.is_some_and(|all| all.iter().any(|c| c == "CAP_SYS_ADMIN")));
            details.network_mode = linux.shares_host_network().then(|| "host".into());
        }
        if let Some(process) = self.process {
            details.command = process.args.map(|args| args.join(" ")).filter(|command| !command.is_empty());
            details.user = Some(format!("{}:{}", process.user.uid, process.user.gid));
        }
        details.mounts = self.mounts.and_then(|mounts| list(&mounts));
    }
}

/// Where containerd's CRI server notes what Kubernetes calls a container, and the label by which Kubernetes itself would say so.
const KUBERNETES: [(&str, &str); 4] = [
    ("io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"),
    ("io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace"),
    ("io.kubernetes.cri.sandbox-uid", "io.kubernetes.pod.uid"),
    ("io.kubernetes.cri.container-name", "io.kubernetes.container.name"),
];

impl Linux {
    /// Nothing of the kernel's file systems is hidden, no system call filtered: what every runtime's `--privileged` comes to.
    fn is_open(&self) -> bool {
        let empty = |paths: &Option<Vec<String>>| paths.as_ref().is_none_or(Vec::is_empty);
        self.seccomp.is_none() && empty(&self.masked_paths) && empty(&self.readonly_paths)
    }

    /// Without a network namespace of its own. Of those that have one the spec does not tell what connects it.
    fn shares_host_network(&self) -> bool {
        !self.namespaces.iter().flatten().any(|namespace| namespace.kind == "network")
    }
}

/// The mounts that a user asked for: not the kernel's own file systems, which every container has.
fn list(mounts: &[Mount]) -> Option<String> {
    let asked = |m: &&Mount| {
        let bound = |o: &String| o == "bind" || o == "rbind";
        m.kind.as_deref() == Some("bind") || m.options.iter().flatten().any(bound)
    };
    let entry = |m: &Mount| {
        let read_only = m.options.iter().flatten().any(|o| o == "ro");
        let source = m.source.as_deref().unwrap_or_default();
        json!({"destination": m.destination, "mode": "", "name": "", "rw": !read_only, "source": source, "type": "bind"})
    };
    let listed: Vec<Value> = mounts.iter().filter(asked).take(MAX_MOUNTS).map(entry).collect();
    (!listed.is_empty()).then(|| Value::from(listed).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn details(spec: Value) -> Details {
        let mut details = Details::default();
        Spec::parse(spec.to_string().as_bytes()).unwrap().tell(&mut details);
        details
    }

    #[test]
    fn tells_the_command_but_never_the_environment() {
        let told = details(json!({
            "hostname": "h",
            "process": {"args": ["sh", "-c", "exit 3"], "env": ["SECRET=abc"], "user": {"uid": 7, "gid": 8}},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc", "options": null},
                {"destination": "/data", "type": "bind", "source": "/srv", "options": ["rbind", "ro"]}
            ],
            "linux": {"namespaces": [{"type": "pid"}, {"type": "network"}], "maskedPaths": ["/proc/kcore"]}
        }));
        assert_eq!(told.command.as_deref(), Some("sh -c exit 3"));
        assert_eq!((told.user.as_deref(), told.hostname.as_deref()), (Some("7:8"), Some("h")));
        assert_eq!((told.privileged, told.network_mode.as_deref()), (Some(false), None));
        let mounts = r#"[{"destination":"/data","mode":"","name":"","rw":false,"source":"/srv","type":"bind"}]"#;
        assert_eq!(told.mounts.as_deref(), Some(mounts));
        assert!(!format!("{told:?}").contains("abc"));
    }

    #[test]
    fn knows_an_open_container_and_the_hosts_network() {
        let told = details(json!({
            "process": {"capabilities": {"bounding": ["CAP_CHOWN", "CAP_SYS_ADMIN"]}},
            "linux": {"namespaces": [{"type": "pid"}]}
        }));
        assert_eq!((told.privileged, told.network_mode.as_deref()), (Some(true), Some("host")));
    }

    #[test]
    fn fills_the_labels_of_kubernetes_from_the_annotations() {
        let told = details(json!({"annotations": {
            "io.kubernetes.cri.sandbox-id": "5a", "io.kubernetes.cri.sandbox-name": "web-0", "io.kubernetes.cri.container-name": "nginx"
        }}));
        assert_eq!(told.sandbox_id.as_deref(), Some("5a"));
        assert_eq!(told.labels["io.kubernetes.pod.name"], "web-0");
        assert_eq!(told.labels["io.kubernetes.container.name"], "nginx");
    }

    #[test]
    fn refuses_what_is_no_spec() {
        assert!(Spec::parse(b"[]x").is_none());
        assert!(Spec::parse(br#"{"process": 3}"#).is_none());
        assert!(Spec::parse(&vec![b' '; MAX_SPEC + 1]).is_none());
        assert!(Spec::parse(br#"{"process": null, "mounts": null}"#).is_some());
    }
}
