//! Messages of the event stream, Docker's and Podman's.
//!
//! A message mixes its own attributes with the container's labels, and the label wins: a container labelled `exitCode=0` dies with `exitCode`
//! 0 whatever it returned. A `create` has no attributes of its own but `name` and `image`, so it shows which names are labels; [`Labels`] remembers them.

use std::collections::{BTreeMap, HashMap};

use mayfly_history::{
    Nanos,
    container::{Action, Runtime},
};
use serde::Deserialize;
use serde_json::Value;

use crate::labels::bounded;

/// The longest id that is recorded, in bytes.
const MAX_ID: usize = 128;
/// The longest value of an attribute, in bytes.
const MAX_VALUE: usize = 4 << 10;
/// Containers whose labels may be mistaken for attributes: past this, the oldest knowledge goes.
const MAX_LABELLED: usize = 4096;
/// The attributes that are kept; everything else in a message is a label, or repeats what inspect tells better.
const OWN: [&str; 8] = ["execID", "exitCode", "signal", "oldName", "execDuration", "health_status", "containerExitCode", "imageID"];

/// One message of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Container(ContainerTold),
    Image(ImageTold),
    /// Says nothing that is recorded.
    Other,
}

/// What was said of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ContainerTold {
    pub(super) id: String,
    /// `None` for an action that is not recorded: Podman's `init` only hints that there is a process now.
    pub(super) action: Option<Action>,
    pub(super) time_ns: Nanos,
    pub(super) name: Option<String>,
    pub(super) image: Option<String>,
    /// Of a `die`; `None` where a label hides it.
    pub(super) exit_code: Option<i64>,
    /// Of a `kill`.
    pub(super) signal: Option<i64>,
    pub(super) exec_id: Option<String>,
    /// Of a `create`: all it says beside name and image.
    pub(super) labels: BTreeMap<String, String>,
    pub(super) attributes: BTreeMap<String, String>,
}

/// What was said of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ImageTold {
    pub(super) action: &'static str,
    pub(super) time_ns: Nanos,
    pub(super) name: Option<String>,
    pub(super) id: Option<String>,
}

/// Why a message could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum DecodeError {
    #[error("an event is not JSON of the expected shape")]
    Json(#[from] serde_json::Error),
    #[error("an event has no time")]
    NoTime,
    #[error("an event names no container, or one with an id of {0} bytes")]
    NoContainer(usize),
}

/// As on the wire; what is missing is empty.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Message {
    #[serde(rename = "Type")]
    kind: Option<String>,
    #[serde(rename = "Action")]
    action: Option<String>,
    #[serde(rename = "Actor")]
    actor: Option<Actor>,
    time: Option<i64>,
    #[serde(rename = "timeNano")]
    time_nano: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Actor {
    #[serde(rename = "ID")]
    id: Option<String>,
    #[serde(rename = "Attributes")]
    attributes: Option<BTreeMap<String, Value>>,
}

impl Message {
    fn parse(line: &[u8]) -> Result<Self, DecodeError> {
        match std::str::from_utf8(line) {
            Ok(text) => Ok(serde_json::from_str(text)?),
            Err(_) => Ok(serde_json::from_str(&String::from_utf8_lossy(line))?),
        }
    }

    fn time_ns(&self) -> Option<Nanos> {
        self.time_nano.or_else(|| self.time?.checked_mul(1_000_000_000)).filter(|t| *t > 0)
    }
}

/// Which attributes of which containers are labels in disguise.
#[derive(Debug, Default)]
pub(super) struct Labels(HashMap<String, Vec<&'static str>>);

impl Labels {
    /// Learns a container's labels.
    pub(super) fn learn<'a>(&mut self, id: &str, labels: impl Iterator<Item = &'a String>) {
        let hiding: Vec<_> = labels.filter_map(|label| OWN.into_iter().find(|own| own == label)).collect();
        if hiding.is_empty() {
            return;
        }
        if self.0.len() >= MAX_LABELLED {
            self.0.clear();
        }
        self.0.insert(id.to_owned(), hiding);
    }

    pub(super) fn forget(&mut self, id: &str) {
        self.0.remove(id);
    }

    fn hide(&self, id: &str, attribute: &str) -> bool {
        self.0.get(id).is_some_and(|hiding| hiding.contains(&attribute))
    }
}

/// Reads one message. `labels` learns from a `create` and forgets at a `destroy`.
pub(super) fn decode(line: &[u8], runtime: Runtime, labels: &mut Labels) -> Result<Told, DecodeError> {
    let message = Message::parse(line)?;
    let kind = message.kind.as_deref().unwrap_or_default();
    if !matches!(kind, "container" | "image" | "network") {
        return Ok(Told::Other);
    }
    let time_ns = message.time_ns().ok_or(DecodeError::NoTime)?;
    let actor = message.actor.unwrap_or_default();
    let action = message.action.unwrap_or_default();
    let id = actor.id.unwrap_or_default();
    let attributes: BTreeMap<String, String> = actor.attributes.unwrap_or_default().into_iter().map(|(k, v)| (k, plain(v))).collect();
    match kind {
        "image" => Ok(image(&action, id, attributes, time_ns).map_or(Told::Other, Told::Image)),
        "network" => network(&action, id, attributes, time_ns),
        _ => container(&action, id, attributes, time_ns, runtime, labels),
    }
}

fn container(
    action: &str,
    id: String,
    mut attributes: BTreeMap<String, String>,
    time_ns: Nanos,
    runtime: Runtime,
    labels: &mut Labels,
) -> Result<Told, DecodeError> {
    // `exec_create: CMD`, `health_status: healthy`: the text after the colon is an attribute of its own.
    let (verb, rest) = action.split_once(':').map_or((action, None), |(verb, rest)| (verb, Some(rest.trim())));
    let recorded = verb_action(verb);
    if recorded.is_none() && verb != "init" {
        return Ok(Told::Other);
    }
    let id = checked(id)?;
    let name = attributes.remove("name").map(|name| cut(name.trim_start_matches('/'))).filter(|n| !n.is_empty());
    let image = attributes.remove("image").map(|image| cut(&image)).filter(|i| !i.is_empty());
    let mut own = BTreeMap::new();
    let mut found = BTreeMap::new();
    if recorded == Some(Action::Create) {
        if runtime == Runtime::Podman {
            attributes.retain(|key, _| key != "containerExitCode" && key != "podId");
        }
        labels.learn(&id, attributes.keys());
        found = bounded(attributes);
    } else {
        // Podman sets its own attributes after the labels, so that they win.
        let hidden = |key: &str| runtime != Runtime::Podman && labels.hide(&id, key);
        attributes.retain(|key, _| OWN.contains(&key.as_str()) && !hidden(key));
        own = attributes;
    }
    if recorded == Some(Action::Destroy) {
        labels.forget(&id);
    }
    // Podman says it with every event, of most it is not.
    let podmans = own.remove("containerExitCode").filter(|_| runtime == Runtime::Podman);
    let number = |text: Option<&String>| text.and_then(|text| text.parse::<i64>().ok());
    let exit_code = podmans.as_ref().or(own.get("exitCode")).and_then(|code| number(Some(code))).filter(|_| recorded == Some(Action::Die));
    let signal = number(own.get("signal")).filter(|_| recorded == Some(Action::Kill));
    if recorded == Some(Action::Die) {
        own.remove("exitCode");
    }
    let exec_id = own.get("execID").map(|id| cut(id)).filter(|id| !id.is_empty() && id.len() <= MAX_ID);
    if let (Some(rest), Some(action)) = (rest.filter(|r| !r.is_empty()), recorded) {
        own.insert(if action == Action::HealthStatus { "health" } else { "command" }.into(), rest.into());
    }
    if let Some(health) = own.remove("health_status") {
        own.entry("health".into()).or_insert(health);
    }
    for value in own.values_mut() {
        *value = cut(value.trim_start_matches('/'));
    }
    Ok(Told::Container(ContainerTold {
        id,
        action: recorded,
        time_ns,
        name,
        image,
        exit_code,
        signal,
        exec_id,
        labels: found,
        attributes: own,
    }))
}

fn network(action: &str, network: String, mut attributes: BTreeMap<String, String>, time_ns: Nanos) -> Result<Told, DecodeError> {
    let action = match action {
        "connect" => Action::NetworkConnect,
        "disconnect" => Action::NetworkDisconnect,
        _ => return Ok(Told::Other),
    };
    let id = checked(attributes.remove("container").unwrap_or_default())?;
    let told = [("network", attributes.remove("name")), ("network_id", Some(network)), ("network_type", attributes.remove("type"))];
    let attributes = told.into_iter().filter_map(|(k, v)| Some((k.to_owned(), cut(&v?)))).filter(|(_, v)| !v.is_empty()).collect();
    Ok(Told::Container(ContainerTold {
        id,
        action: Some(action),
        time_ns,
        name: None,
        image: None,
        exit_code: None,
        signal: None,
        exec_id: None,
        labels: BTreeMap::new(),
        attributes,
    }))
}

fn image(action: &str, actor: String, mut attributes: BTreeMap<String, String>, time_ns: Nanos) -> Option<ImageTold> {
    let action = match action {
        "pull" => "pull",
        "tag" => "tag",
        "untag" => "untag",
        "delete" | "remove" => "delete",
        "import" => "import",
        "load" | "loadfromarchive" => "load",
        "push" => "push",
        "build" => "build",
        _ => return None,
    };
    let hex = |text: &str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let id = match actor.strip_prefix("sha256:") {
        Some(digits) => hex(digits).then(|| actor.clone()),
        None => hex(&actor).then(|| format!("sha256:{actor}")),
    };
    // The actor of a pull is the name with its tag; the name of an untag is the id, Podman's name of a load a temporary path.
    let name = attributes.remove("name").filter(|name| !name.starts_with("sha256:") && !name.starts_with('/'));
    let name = Some(actor).filter(|actor| id.is_none() && !actor.is_empty()).or(name).filter(|name| !name.is_empty());
    Some(ImageTold { action, time_ns, name: name.map(|name| cut(&name)), id })
}

/// Docker's and Podman's words for what a container did.
fn verb_action(verb: &str) -> Option<Action> {
    Some(match verb {
        "create" => Action::Create,
        "start" => Action::Start,
        "pause" => Action::Pause,
        "unpause" => Action::Unpause,
        "oom" => Action::Oom,
        "kill" => Action::Kill,
        "die" | "died" => Action::Die,
        "stop" => Action::Stop,
        "restart" => Action::Restart,
        "rename" => Action::Rename,
        "update" => Action::Update,
        "health_status" => Action::HealthStatus,
        "exec_create" => Action::ExecCreate,
        "exec_start" | "exec" => Action::ExecStart,
        "exec_die" | "exec_died" => Action::ExecDie,
        "attach" => Action::Attach,
        "destroy" | "remove" => Action::Destroy,
        _ => return None,
    })
}

fn checked(id: String) -> Result<String, DecodeError> {
    if (1..=MAX_ID).contains(&id.len()) { Ok(id) } else { Err(DecodeError::NoContainer(id.len())) }
}

/// A value as text, whatever it was.
fn plain(value: Value) -> String {
    match value {
        Value::String(text) => text,
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// The first 4 KiB of a text, cut at a character.
pub(super) fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_VALUE)].to_owned()
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
