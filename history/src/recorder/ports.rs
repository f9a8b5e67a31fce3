//! Which container had which port of the host: follows from the runs of containers and what they publish.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
};

use serde::{Deserialize, Serialize};

use super::{
    batch::Written,
    lane::{Desk, Lane, kept_name},
    ledger::Moment,
    logs::TableId,
    runs::{RunSpan, runs},
    subject::Subject,
};
use crate::{
    container::{ContainerKey, Details},
    port::PortBinding,
    table::HistoryTable,
    time::Nanos,
};

/// Most ports of one container.
const MOST: usize = 1024;

/// What names an interval: start, address and scope.
type Name = (Nanos, String, String);

/// The lane of `container_port_history`.
#[derive(Debug)]
pub(super) struct Ports {
    table: TableId,
    declaration: &'static HistoryTable<PortBinding>,
    /// Of each container, what the store has, with a digest of each.
    written: HashMap<ContainerKey, Vec<(Name, u64)>>,
    /// What changed since it was written.
    news: BTreeMap<ContainerKey, News>,
}

#[derive(Debug)]
enum News {
    Intervals {
        all: Vec<(PortBinding, RunSpan)>,
        floor_ns: Option<Nanos>,
    },
    /// Its intervals are final.
    Over,
}

/// What the next recorder has to know of a container.
#[derive(Debug, Serialize, Deserialize)]
struct Kept<W> {
    container: ContainerKey,
    written: W,
}

/// An element of [`Details::ports`].
#[derive(Deserialize)]
struct Published {
    #[serde(default)]
    host_address: String,
    host_port: Option<u16>,
    protocol: Option<String>,
    container_port: Option<u16>,
}

/// The ports of the host that lead to a container with these details. On the host's network it is one binding that names no port.
fn bindings(container: &ContainerKey, details: &Details) -> Vec<PortBinding> {
    let of_container = PortBinding { container: container.clone(), ..PortBinding::default() };
    if details.network_mode.as_deref() == Some("host") {
        return vec![of_container];
    }
    let published: Vec<Published> = details.ports.as_deref().and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
    let binding = |p: Published| {
        // Exposed, but not published.
        let host_port = p.host_port.filter(|port| *port != 0)?;
        let host_address = if p.host_address.is_empty() { "0.0.0.0".to_owned() } else { p.host_address };
        let protocol = p.protocol.as_deref().and_then(number);
        Some(PortBinding { host_address, host_port: Some(host_port), protocol, container_port: p.container_port, ..of_container.clone() })
    };
    published.into_iter().take(MOST).filter_map(binding).collect()
}

fn number(protocol: &str) -> Option<u8> {
    match protocol {
        "tcp" => Some(6),
        "udp" => Some(17),
        "sctp" => Some(132),
        _ => None,
    }
}

fn scope(binding: &PortBinding) -> String {
    let number = |n: Option<u16>| n.map_or("-".to_owned(), |n| n.to_string());
    let PortBinding { host_port, protocol, container_port, container, .. } = binding;
    let ports = format!("{} {} {}", number(*host_port), number(protocol.map(Into::into)), number(*container_port));
    format!("{ports} {} {} {}", container.endpoint, container.runtime_namespace, container.container_id)
}

fn digest(binding: &PortBinding, run: &RunSpan) -> u64 {
    let mut hasher = DefaultHasher::new();
    (binding, run.to_ns, run.ended_reason, &run.evidence).hash(&mut hasher);
    hasher.finish()
}

impl Ports {
    pub(super) fn new(table: TableId, declaration: &'static HistoryTable<PortBinding>) -> Self {
        Self { table, declaration, written: HashMap::new(), news: BTreeMap::new() }
    }

    fn keep(&self, container: &ContainerKey, desk: &mut Desk<'_>) {
        let kept = self.written.get(container).and_then(|written| serde_json::to_vec(&Kept { container: container.clone(), written }).ok());
        let ContainerKey { endpoint, runtime_namespace, container_id } = container;
        desk.batch.keep(kept_name(self.name(), &format!("{endpoint} {runtime_namespace} {container_id}")), kept);
    }

    /// Brings the store from what was written to what follows now.
    fn write(&mut self, container: &ContainerKey, all: &[(PortBinding, RunSpan)], floor_ns: Option<Nanos>, desk: &mut Desk<'_>) {
        let before = self.written.remove(container).unwrap_or_default();
        // What is older is final, and no longer known here.
        let before: Vec<_> = before.into_iter().filter(|((from_ns, ..), _)| floor_ns.is_none_or(|floor| *from_ns >= floor)).collect();
        let mut written = Vec::with_capacity(all.len());
        for (binding, run) in all {
            let entry = ((run.from_ns, binding.host_address.clone(), scope(binding)), digest(binding, run));
            if !before.contains(&entry) {
                let ((from_ns, key, scope), _) = entry.clone();
                let evidence = run.evidence.iter().map(String::as_str).collect::<Vec<_>>().join(",");
                let interval = Written { key, scope, from_ns, to_ns: run.to_ns, ended_reason: run.ended_reason, evidence, fact: binding };
                desk.batch.add_interval(self.table, self.declaration.columns, interval);
            }
            written.push(entry);
        }
        for ((from_ns, key, scope), _) in before.iter().filter(|(name, _)| written.iter().all(|(known, _)| known != name)) {
            desk.batch.remove_interval(self.table, *from_ns, key.clone(), scope.clone());
        }
        if written == before {
            self.written.insert(container.clone(), written);
            return;
        }
        if !written.is_empty() {
            self.written.insert(container.clone(), written);
        }
        self.keep(container, desk);
    }
}

impl Lane for Ports {
    fn name(&self) -> &'static str {
        self.declaration.name
    }

    fn drain(&mut self, _most: usize, _desk: &mut Desk<'_>) -> usize {
        0
    }

    fn see_container(&mut self, subject: &Subject, _moment: Moment) {
        let news = if subject.sealed_ns.is_some() {
            News::Over
        } else {
            let of_run = |run: RunSpan| bindings(&subject.key, &run.details).into_iter().map(move |binding| (binding, run.clone()));
            News::Intervals { all: runs(subject).into_iter().flat_map(of_run).collect(), floor_ns: subject.floor_ns }
        };
        self.news.insert(subject.key.clone(), news);
    }

    fn settle(&mut self, desk: &mut Desk<'_>) {
        for (container, news) in std::mem::take(&mut self.news) {
            match news {
                News::Intervals { all, floor_ns } => self.write(&container, &all, floor_ns, desk),
                News::Over => {
                    if self.written.remove(&container).is_some() {
                        self.keep(&container, desk);
                    }
                }
            }
        }
    }

    fn restore(&mut self, value: &[u8]) {
        match serde_json::from_slice::<Kept<Vec<(Name, u64)>>>(value) {
            Ok(Kept { container, written }) => drop(self.written.insert(container, written)),
            Err(error) => tracing::warn!(%error, "what was known of the ports of a container cannot be read"),
        }
    }

    /// The containers themselves are seen anew.
    fn write_anew(&mut self, _desk: &mut Desk<'_>) {
        self.written.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_published_leads_to_a_container() {
        let container = ContainerKey { container_id: "c".into(), ..ContainerKey::default() };
        let ports = r#"[{"container_port":80,"host_address":"::","host_port":8080,"protocol":"tcp"},
            {"container_port":53,"host_address":"","host_port":53,"protocol":"udp"},
            {"container_port":9000,"protocol":"tcp"}]"#;
        let details = Details { ports: Some(ports.into()), ..Details::default() };
        let shown: Vec<_> =
            bindings(&container, &details).into_iter().map(|b| (b.host_address, b.host_port, b.protocol, b.container_port)).collect();
        assert_eq!(shown, [("::".into(), Some(8080), Some(6), Some(80)), ("0.0.0.0".into(), Some(53), Some(17), Some(53))]);
        for garbage in ["", "{", "[1]", r#"[{"host_port":99999}]"#] {
            assert!(bindings(&container, &Details { ports: Some(garbage.into()), ..Details::default() }).is_empty());
        }
    }

    #[test]
    fn on_the_hosts_network_no_port_is_guessed() {
        let container = ContainerKey { container_id: "c".into(), ..ContainerKey::default() };
        let details = Details { network_mode: Some("host".into()), ports: Some("[]".into()), ..Details::default() };
        assert_eq!(bindings(&container, &details), [PortBinding { container, ..PortBinding::default() }]);
    }
}
