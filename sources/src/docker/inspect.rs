//! What an inspect tells of a container and of an image, in the runtime's answer or in Docker's own files.
//!
//! Every field may be missing or null: Docker, Podman and their versions differ, and Docker's `config.v2.json` has nearly the
//! same shape as the answer of its API.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use mayfly_history::{
    Nanos,
    container::{Details, Run, Runtime, State},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{api::Api, decode::cut};
use crate::{disk, error::SourceError, labels::bounded};

/// An inspect waits while the container starts.
const INSPECT_WITHIN: Duration = Duration::from_secs(20);
/// Most mounts, ports and addresses of one container that are recorded.
const MOST: usize = 64;
/// The largest of Docker's files that is read.
const MAX_FILE: u64 = 4 << 20;

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Inspect {
    created: Option<String>,
    path: Option<String>,
    args: Option<Vec<String>>,
    state: Option<Status>,
    image: Option<String>,
    name: Option<String>,
    host_config: Option<HostConfig>,
    config: Option<Config>,
    mounts: Option<Vec<Mount>>,
    /// The mounts by their destination, in Docker's file.
    mount_points: Option<BTreeMap<String, Mount>>,
    network_settings: Option<NetworkSettings>,
    image_manifest_descriptor: Option<Descriptor>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Status {
    status: Option<String>,
    running: bool,
    paused: bool,
    restarting: bool,
    #[serde(rename = "OOMKilled")]
    oom_killed: bool,
    pid: i64,
    exit_code: i64,
    started_at: Option<String>,
    finished_at: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct HostConfig {
    network_mode: Option<String>,
    privileged: Option<bool>,
    port_bindings: Option<BTreeMap<String, Option<Vec<Binding>>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Config {
    hostname: Option<String>,
    user: Option<String>,
    image: Option<String>,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Mount {
    #[serde(rename = "Type")]
    kind: Option<String>,
    #[serde(rename = "Name")]
    name: Option<String>,
    #[serde(rename = "Source")]
    source: Option<String>,
    #[serde(rename = "Destination")]
    destination: Option<String>,
    #[serde(rename = "Mode", alias = "Relabel")]
    mode: Option<String>,
    #[serde(rename = "RW")]
    rw: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct NetworkSettings {
    ports: Option<BTreeMap<String, Option<Vec<Binding>>>>,
    networks: Option<BTreeMap<String, Option<Endpoint>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Binding {
    #[serde(rename = "HostIp")]
    host_ip: Option<String>,
    #[serde(rename = "HostPort")]
    host_port: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Endpoint {
    #[serde(rename = "IPAddress")]
    ip_address: Option<String>,
    #[serde(rename = "GlobalIPv6Address")]
    global_ipv6_address: Option<String>,
    #[serde(rename = "MacAddress")]
    mac_address: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Descriptor {
    digest: Option<String>,
}

/// An element of `Details::mounts`; the fields in the order of their names.
#[derive(Debug, Serialize)]
struct MountShown<'a> {
    destination: &'a str,
    mode: &'a str,
    name: &'a str,
    rw: bool,
    source: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
}

/// An element of `Details::ports`.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct PortShown<'a> {
    container_port: u16,
    host_address: &'a str,
    host_port: Option<u16>,
    protocol: &'a str,
}

/// Asks the daemon for a container.
pub(super) async fn container(api: &Api, id: &str) -> Result<Inspect, SourceError> {
    api.get(&format!("/containers/{}/json", escape(id)), INSPECT_WITHIN).await
}

/// Where Docker keeps a container's file, below its root directory; `None` for an id that is not one.
pub(super) fn file_of(root: &Path, id: &str) -> Option<PathBuf> {
    let plain = !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric());
    plain.then(|| root.join("containers").join(id).join("config.v2.json"))
}

/// Reads Docker's own files of a container. They are there when its `create` is told, and hold its pid and addresses when its `start` is, before an
/// inspect can be answered. Blocks.
pub(super) fn from_files(path: &Path) -> Option<Inspect> {
    let mut inspect: Inspect = read(path)?;
    inspect.host_config = Some(read(&path.with_file_name("hostconfig.json"))?);
    inspect.mounts = inspect.mount_points.take().map(|mounts| mounts.into_values().collect());
    Some(inspect)
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let text = disk::read_regular(path, MAX_FILE).ok()?;
    serde_json::from_slice(&text).ok()
}

impl Inspect {
    /// All that it tells of the container and its run.
    pub(super) fn details(&self, runtime: Runtime) -> Details {
        let config = self.config.as_ref();
        let host = self.host_config.as_ref();
        let labels = bounded(config.and_then(|c| c.labels.clone()).unwrap_or_default());
        Details {
            runtime,
            name: known(self.name.as_deref().map(|name| name.trim_start_matches('/'))),
            image: known(config.and_then(|c| c.image.as_deref())),
            image_id: self.image_id(),
            image_digest: self.image_manifest_descriptor.as_ref().and_then(|d| known(d.digest.as_deref())),
            command: self.command(),
            user: known(config.and_then(|c| c.user.as_deref())),
            hostname: known(config.and_then(|c| c.hostname.as_deref())),
            privileged: host.and_then(|h| h.privileged),
            network_mode: known(host.and_then(|h| h.network_mode.as_deref())),
            sandbox_id: labels.get("io.kubernetes.sandbox.id").cloned(),
            labels: labels.into(),
            mounts: self.mounts(),
            ports: self.ports(),
            created_ns: self.created.as_deref().and_then(nanos),
            run: self.run(),
        }
    }

    /// `sha256:…` of the image's configuration.
    pub(super) fn image_id(&self) -> Option<String> {
        let id = self.image.as_deref()?;
        known(Some(id)).map(|id| if id.starts_with("sha256:") { id } else { format!("sha256:{id}") })
    }

    /// The name by which the image was asked for.
    pub(super) fn image_name(&self) -> &str {
        self.config.as_ref().and_then(|c| c.image.as_deref()).unwrap_or_default()
    }

    /// Names of the labels, the unbounded ones too.
    pub(super) fn label_names(&self) -> impl Iterator<Item = &String> {
        self.config.iter().filter_map(|c| c.labels.as_ref()).flat_map(BTreeMap::keys)
    }

    /// The state; a container between two restarts has exited.
    pub(super) fn state(&self) -> State {
        let Some(status) = &self.state else { return State::Created };
        match status.status.as_deref() {
            Some("created" | "initialized" | "configured") => State::Created,
            Some("running") => State::Running,
            Some("paused") => State::Paused,
            Some(_) => State::Exited,
            None if status.paused => State::Paused,
            None if status.running && !status.restarting => State::Running,
            None if status.started_at.as_deref().and_then(nanos).is_none() => State::Created,
            None => State::Exited,
        }
    }

    fn run(&self) -> Run {
        let Some(status) = &self.state else { return Run::default() };
        let started_ns = status.started_at.as_deref().and_then(nanos);
        if started_ns.is_none() {
            return Run::default();
        }
        let over = self.state() == State::Exited;
        let finished_ns = status.finished_at.as_deref().and_then(nanos).filter(|_| over);
        let (ip_addresses, mac_addresses) = self.addresses();
        Run {
            started_ns,
            finished_ns,
            pid: Some(status.pid).filter(|pid| *pid > 0),
            exit_code: Some(status.exit_code).filter(|_| over && finished_ns >= started_ns),
            oom_killed: Some(status.oom_killed).filter(|killed| *killed || over),
            ip_addresses,
            mac_addresses,
            ..Run::default()
        }
    }

    fn addresses(&self) -> (Vec<String>, Vec<String>) {
        let networks = self.network_settings.as_ref().and_then(|n| n.networks.as_ref());
        let endpoints: Vec<_> = networks.into_iter().flat_map(BTreeMap::values).flatten().take(MOST).collect();
        let mut ip = Vec::new();
        let mut mac = Vec::new();
        let v4 = endpoints.iter().map(|e| &e.ip_address);
        let v6 = endpoints.iter().map(|e| &e.global_ipv6_address);
        for address in v4.chain(v6).flatten().filter(|a| a.parse::<std::net::IpAddr>().is_ok()) {
            if !ip.contains(address) {
                ip.push(address.clone());
            }
        }
        for address in endpoints.iter().filter_map(|e| known(e.mac_address.as_deref())) {
            if !mac.contains(&address) {
                mac.push(address);
            }
        }
        (ip, mac)
    }

    fn command(&self) -> Option<String> {
        let mut command = self.path.clone().unwrap_or_default();
        for argument in self.args.iter().flatten() {
            if command.len() > 64 << 10 {
                break;
            }
            command.push(' ');
            command.push_str(argument);
        }
        known(Some(command.trim()))
    }

    fn mounts(&self) -> Option<String> {
        let text = |value: &'_ Option<String>| value.as_deref().map(cut).unwrap_or_default();
        let mounts = self.mounts.as_ref()?;
        let owned: Vec<_> = mounts
            .iter()
            .take(MOST)
            .map(|m| (text(&m.destination), text(&m.mode), text(&m.name), m.rw, text(&m.source), text(&m.kind)))
            .collect();
        let mut shown: Vec<_> = owned
            .iter()
            .map(|(destination, mode, name, rw, source, kind)| MountShown { destination, mode, name, rw: *rw, source, kind })
            .collect();
        shown.sort_by_key(|m| m.destination);
        json(&shown)
    }

    /// The ports that are published; before the start those that are asked for.
    fn ports(&self) -> Option<String> {
        let published = self.network_settings.as_ref().and_then(|n| n.ports.as_ref());
        let asked = self.host_config.as_ref().and_then(|h| h.port_bindings.as_ref());
        [published, asked].into_iter().flatten().find_map(|ports| json(&shown(ports)))
    }
}

fn shown(ports: &BTreeMap<String, Option<Vec<Binding>>>) -> Vec<PortShown<'_>> {
    let mut shown = Vec::new();
    for (port, bindings) in ports {
        let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
        let Ok(container_port) = number.parse() else { continue };
        for binding in bindings.iter().flatten().take(MOST) {
            shown.push(PortShown {
                container_port,
                host_address: binding.host_ip.as_deref().unwrap_or_default(),
                host_port: binding.host_port.as_deref().and_then(|p| p.parse().ok()).filter(|p| *p != 0),
                protocol,
            });
        }
    }
    shown.sort();
    shown.truncate(MOST);
    shown
}

/// Compact JSON; nothing for an empty list.
fn json<T: Serialize>(list: &[T]) -> Option<String> {
    if list.is_empty() { None } else { serde_json::to_string(list).ok() }
}

/// A text that says something, cut to what is recorded of one value.
fn known(text: Option<&str>) -> Option<String> {
    text.filter(|text| !text.is_empty()).map(cut)
}

/// Go's zero time, year 1, is no time.
fn nanos(time: &str) -> Option<Nanos> {
    let time: Timestamp = time.parse().ok()?;
    Nanos::try_from(time.as_nanosecond()).ok().filter(|t| *t > 0)
}

/// An id or name as a segment of a path.
pub(super) fn escape(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~' | b':' | b'/' | b'@');
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
#[path = "inspect_tests.rs"]
mod tests;
