//! What runtimes say about containers: the reports that sources push, the events and states that tables show.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::time::Nanos;

/// The runtime that manages a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Runtime {
    Docker,
    Podman,
    Containerd,
    CriO,
    #[default]
    Unknown,
}

impl Runtime {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Containerd => "containerd",
            Self::CriO => "cri-o",
            Self::Unknown => "unknown",
        }
    }
}

/// Who saw something: the `source` of an event, and what `evidence` lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Witness {
    #[default]
    Docker,
    Podman,
    Cri,
    Containerd,
    Ebpf,
    Reconcile,
}

impl Witness {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Cri => "cri",
            Self::Containerd => "containerd",
            Self::Ebpf => "ebpf",
            Self::Reconcile => "reconcile",
        }
    }
}

/// Identity of a container. Two witnesses that mean the same container must spell it alike: Docker's `moby` namespace
/// in containerd is reported under Docker's endpoint, with `runtime_namespace` `moby` on both sides.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContainerKey {
    /// As the runtime spells it; at most 128 bytes.
    pub container_id: Arc<str>,
    /// `moby`, `k8s.io`, `default`, …; empty where the runtime has none.
    pub runtime_namespace: Arc<str>,
    /// `unix:///run/docker.sock`, ….
    pub endpoint: Arc<str>,
}

/// What an event says. The text is the table's `action`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Existing,
    Create,
    Start,
    Pause,
    Unpause,
    Oom,
    Kill,
    Die,
    Stop,
    Restart,
    Rename,
    Update,
    HealthStatus,
    ExecCreate,
    ExecStart,
    ExecDie,
    Attach,
    NetworkConnect,
    NetworkDisconnect,
    Destroy,
    Throttled,
}

impl Action {
    pub const ALL: [Self; 21] = [
        Self::Existing,
        Self::Create,
        Self::Start,
        Self::Pause,
        Self::Unpause,
        Self::Oom,
        Self::Kill,
        Self::Die,
        Self::Stop,
        Self::Restart,
        Self::Rename,
        Self::Update,
        Self::HealthStatus,
        Self::ExecCreate,
        Self::ExecStart,
        Self::ExecDie,
        Self::Attach,
        Self::NetworkConnect,
        Self::NetworkDisconnect,
        Self::Destroy,
        Self::Throttled,
    ];

    /// Whether it may be left out, counted, where one container says too much: creation, starts, deaths and OOM kills never are.
    pub const fn is_trifle(self) -> bool {
        !matches!(self, Self::Existing | Self::Create | Self::Start | Self::Oom | Self::Die | Self::Destroy | Self::Throttled)
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Existing => "existing",
            Self::Create => "create",
            Self::Start => "start",
            Self::Pause => "pause",
            Self::Unpause => "unpause",
            Self::Oom => "oom",
            Self::Kill => "kill",
            Self::Die => "die",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Rename => "rename",
            Self::Update => "update",
            Self::HealthStatus => "health_status",
            Self::ExecCreate => "exec_create",
            Self::ExecStart => "exec_start",
            Self::ExecDie => "exec_die",
            Self::Attach => "attach",
            Self::NetworkConnect => "network_connect",
            Self::NetworkDisconnect => "network_disconnect",
            Self::Destroy => "destroy",
            Self::Throttled => "throttled",
        }
    }
}

/// The state of a container, in OCI's and Docker's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    #[default]
    Created,
    Running,
    Paused,
    Exited,
}

impl State {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Exited => "exited",
        }
    }
}

/// What is known of a container, from whichever witness. Every field may still be unknown: `None` or empty.
///
/// Facts of one run (pid, addresses, exit code) belong to the run that began at `started_ns`; the rest to the container.
/// Merging keeps the first known value of each field, the better witness first (see `recorder`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Details {
    pub runtime: Runtime,
    /// Without a leading slash.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// `sha256:…` of the image's configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_id: Option<String>,
    /// `sha256:…` of the manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub privileged: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_mode: Option<String>,
    /// Redacted and bounded when the report is made; shared by all that speak of the container.
    #[serde(skip_serializing_if = "is_empty")]
    pub labels: Arc<BTreeMap<String, String>>,
    /// Compact JSON array: `[{"destination","mode","name","rw","source","type"}…]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mounts: Option<String>,
    /// Compact JSON array: `[{"container_port","host_address","host_port","protocol"}…]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<String>,
    /// Kubernetes: from labels, or from the CRI's own answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_ns: Option<Nanos>,
    /// Facts of the run.
    pub run: Run,
}

/// Bytes of what a map takes on the heap beside its text, an entry.
const ENTRY: usize = 2 * size_of::<String>() + 16;

impl Details {
    /// Bytes that it takes with all that it holds, roughly.
    pub(crate) fn weight(&self) -> usize {
        let texts = [
            &self.name,
            &self.image,
            &self.image_id,
            &self.image_digest,
            &self.command,
            &self.user,
            &self.hostname,
            &self.network_mode,
            &self.mounts,
            &self.ports,
            &self.sandbox_id,
            &self.run.cgroup_path,
        ];
        let addresses = self.run.ip_addresses.iter().chain(&self.run.mac_addresses);
        size_of::<Self>() + texts.into_iter().flatten().chain(addresses).map(String::len).sum::<usize>() + weight_of(&self.labels)
    }
}

impl ContainerEvent {
    /// The same.
    pub(crate) fn weight(&self) -> usize {
        size_of::<Self>() - size_of::<Details>() + self.details.weight() + weight_of(&self.attributes)
    }
}

fn is_empty(labels: &Arc<BTreeMap<String, String>>) -> bool {
    labels.is_empty()
}

fn weight_of(map: &BTreeMap<String, String>) -> usize {
    map.iter().map(|(key, value)| ENTRY + key.len() + value.len()).sum()
}

/// Facts of one run of a container: between a start and the die that ends it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Run {
    /// The runtime's own StartedAt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_ns: Option<Nanos>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_ns: Option<Nanos>,
    /// Host pid of the init process; never 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_killed: Option<bool>,
    /// Without prefix length, IPv4 first, each once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ip_addresses: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mac_addresses: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup_path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup_id: Option<i64>,
    /// Inode numbers as text, as in core's `process_namespaces`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid_namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub net_namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mnt_namespace: Option<String>,
}

/// What a source pushes: one thing that a runtime said of one container, or all that it has.
#[derive(Clone, Debug)]
pub enum Report {
    /// Something happened. Becomes an event row unless a witness told it before.
    Event(Box<ContainerEvent>),
    /// More is known of a container (an inspect returned): fills events that wait for details, and the history.
    Details { key: ContainerKey, witness: Witness, details: Box<Details> },
    /// All containers that an endpoint has now; sent at first connection and after every gap.
    Snapshot(Box<Snapshot>),
}

impl Report {
    /// The endpoint that it speaks of.
    pub(crate) fn endpoint(&self) -> &Arc<str> {
        match self {
            Self::Event(event) => &event.key.endpoint,
            Self::Details { key, .. } => &key.endpoint,
            Self::Snapshot(snapshot) => &snapshot.endpoint,
        }
    }
}

/// One event of a container, complete or still waiting for details; also the record of `container_lifecycle_events`.
#[derive(Clone, Debug)]
pub struct ContainerEvent {
    /// The runtime's own time.
    pub time_ns: Nanos,
    pub action: Action,
    pub source: Witness,
    /// Not seen live: replayed, or found by reconciling, after a gap.
    pub recovered: bool,
    pub key: ContainerKey,
    /// Of `exec_*`: identity of the exec.
    pub exec_id: Option<String>,
    /// Milliseconds from start to die; set by the recorder.
    pub lifetime_ms: Option<i64>,
    pub details: Details,
    /// What the runtime said beside: `execID`, `signal`, `health`, …. Without the container's labels.
    pub attributes: BTreeMap<String, String>,
    /// False: the source expects more details for this event soon ([`Report::Details`]); it may wait up to 250 ms.
    pub settled: bool,
}

/// The present containers of one endpoint and namespace.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub endpoint: Arc<str>,
    /// The namespace that was listed.
    pub runtime_namespace: Arc<str>,
    pub witness: Witness,
    /// When the list was asked for; younger containers may be missing in it.
    pub taken_ns: Nanos,
    /// The blind time before it, where there was one: what is new since is `recovered`. `None` at the very first look:
    /// what is found is `existing`.
    pub blind_since: Option<Nanos>,
    /// Of each container: key, state, details.
    pub containers: Vec<(ContainerKey, State, Details)>,
}

/// A state of a container over an interval: the record of `container_history`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerState {
    pub key: ContainerKey,
    pub state: State,
    pub details: Details,
}
