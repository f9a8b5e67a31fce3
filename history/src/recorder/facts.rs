//! What is known of a container and its runs, merged from witnesses that each know a part.
//!
//! Merging must not depend on order: between witnesses the better one wins, field by field; two values of the same
//! witness are ordered by themselves (known over unknown, then the greater), lists are united.

use std::{collections::BTreeMap, sync::Arc};

use crate::container::{Details, Run, Runtime, Witness};

/// Most entries of a list of addresses.
const MOST_ADDRESSES: usize = 64;

/// Adds what `other` knows to what the same witness said before.
pub(super) fn unite(known: &mut Details, other: &Details) {
    if known.runtime == Runtime::Unknown || (other.runtime != Runtime::Unknown && other.runtime < known.runtime) {
        known.runtime = other.runtime;
    }
    raise(&mut known.name, &other.name);
    unite_image(&mut known.image, &other.image);
    raise(&mut known.image_id, &other.image_id);
    raise(&mut known.image_digest, &other.image_digest);
    raise(&mut known.command, &other.command);
    raise(&mut known.user, &other.user);
    raise(&mut known.hostname, &other.hostname);
    raise(&mut known.privileged, &other.privileged);
    raise(&mut known.network_mode, &other.network_mode);
    if !Arc::ptr_eq(&other.labels, &known.labels) && (other.labels.len(), &other.labels) > (known.labels.len(), &known.labels) {
        known.labels.clone_from(&other.labels);
    }
    raise_json(&mut known.mounts, &other.mounts);
    raise_json(&mut known.ports, &other.ports);
    raise(&mut known.sandbox_id, &other.sandbox_id);
    raise(&mut known.created_ns, &other.created_ns);
}

/// Fills what `known` lacks with what a lesser witness says.
pub(super) fn complete(known: &mut Details, lesser: &Details) {
    if known.runtime == Runtime::Unknown {
        known.runtime = lesser.runtime;
    }
    fill(&mut known.name, &lesser.name);
    fill(&mut known.image, &lesser.image);
    fill(&mut known.image_id, &lesser.image_id);
    fill(&mut known.image_digest, &lesser.image_digest);
    fill(&mut known.command, &lesser.command);
    fill(&mut known.user, &lesser.user);
    fill(&mut known.hostname, &lesser.hostname);
    fill(&mut known.privileged, &lesser.privileged);
    fill(&mut known.network_mode, &lesser.network_mode);
    if known.labels.is_empty() {
        known.labels.clone_from(&lesser.labels);
    }
    fill(&mut known.mounts, &lesser.mounts);
    fill(&mut known.ports, &lesser.ports);
    fill(&mut known.sandbox_id, &lesser.sandbox_id);
    fill(&mut known.created_ns, &lesser.created_ns);
}

/// What all witnesses together know of the container; no facts of a run.
pub(super) fn merged(facts: &BTreeMap<Witness, Box<Details>>) -> Details {
    let mut known = Details::default();
    for details in facts.values() {
        complete(&mut known, details);
    }
    known
}

/// Adds facts of a run that the same witness said.
pub(super) fn unite_run(known: &mut Run, other: &Run) {
    raise(&mut known.started_ns, &other.started_ns);
    raise(&mut known.finished_ns, &other.finished_ns);
    raise(&mut known.pid, &other.pid);
    raise(&mut known.exit_code, &other.exit_code);
    raise(&mut known.signal, &other.signal);
    raise(&mut known.oom_killed, &other.oom_killed);
    unite_addresses(&mut known.ip_addresses, &other.ip_addresses);
    unite_addresses(&mut known.mac_addresses, &other.mac_addresses);
    raise(&mut known.cgroup_path, &other.cgroup_path);
    raise(&mut known.cgroup_id, &other.cgroup_id);
    raise(&mut known.pid_namespace, &other.pid_namespace);
    raise(&mut known.net_namespace, &other.net_namespace);
    raise(&mut known.mnt_namespace, &other.mnt_namespace);
}

/// Fills what is lacking with what a lesser witness says. Addresses are united: each witness may see only some.
pub(super) fn complete_run(known: &mut Run, lesser: &Run) {
    fill(&mut known.started_ns, &lesser.started_ns);
    fill(&mut known.finished_ns, &lesser.finished_ns);
    fill(&mut known.pid, &lesser.pid);
    fill(&mut known.exit_code, &lesser.exit_code);
    fill(&mut known.signal, &lesser.signal);
    raise(&mut known.oom_killed, &lesser.oom_killed);
    unite_addresses(&mut known.ip_addresses, &lesser.ip_addresses);
    unite_addresses(&mut known.mac_addresses, &lesser.mac_addresses);
    fill(&mut known.cgroup_path, &lesser.cgroup_path);
    fill(&mut known.cgroup_id, &lesser.cgroup_id);
    fill(&mut known.pid_namespace, &lesser.pid_namespace);
    fill(&mut known.net_namespace, &lesser.net_namespace);
    fill(&mut known.mnt_namespace, &lesser.mnt_namespace);
}

fn fill<T: Clone>(known: &mut Option<T>, other: &Option<T>) {
    if known.is_none() {
        known.clone_from(other);
    }
}

fn raise<T: Clone + Ord>(known: &mut Option<T>, other: &Option<T>) {
    if *other > *known {
        known.clone_from(other);
    }
}

/// A list that says more wins over a shorter one (`[]` while a container is not started).
fn raise_json(known: &mut Option<String>, other: &Option<String>) {
    let weight = |text: &Option<String>| text.as_ref().map(String::len);
    if (weight(other), other) > (weight(known), &*known) {
        known.clone_from(other);
    }
}

/// An image's name says more than its digest, which runtimes give once a name moved on to another image.
fn unite_image(known: &mut Option<String>, other: &Option<String>) {
    let weight = |image: &Option<String>| image.as_ref().map(|name| !name.starts_with("sha256:"));
    if (weight(other), other) > (weight(known), &*known) {
        known.clone_from(other);
    }
}

fn unite_addresses(known: &mut Vec<String>, other: &[String]) {
    for address in other {
        if let Err(at) = known.binary_search_by(|k| address_order(k).cmp(&address_order(address))) {
            known.insert(at, address.clone());
        }
    }
    known.truncate(MOST_ADDRESSES);
}

/// IPv4 before IPv6, each in the order of its numbers; hardware addresses by their text.
fn address_order(text: &str) -> (u8, u128, &str) {
    match text.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(v4)) => (0, u32::from(v4).into(), text),
        Ok(std::net::IpAddr::V6(v6)) => (1, u128::from(v6), text),
        Err(_) => (2, 0, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_united_each_once_ipv4_first() {
        let mut known = Vec::new();
        unite_addresses(&mut known, &["fe80::2".into(), "172.17.0.10".into()]);
        unite_addresses(&mut known, &["172.17.0.9".into(), "172.17.0.10".into()]);
        assert_eq!(known, ["172.17.0.9", "172.17.0.10", "fe80::2"]);
    }

    #[test]
    fn the_better_witness_wins_and_the_lesser_fills_what_it_lacks() {
        let docker = Details { name: Some("web".into()), ..Details::default() };
        let containerd = Details { name: Some("a7".into()), image: Some("busybox".into()), ..Details::default() };
        for order in [[0, 1], [1, 0]] {
            let mut facts = BTreeMap::new();
            for which in order {
                let (witness, details) = [(Witness::Docker, &docker), (Witness::Containerd, &containerd)][which];
                facts.insert(witness, Box::new(details.clone()));
            }
            let known = merged(&facts);
            assert_eq!((known.name.as_deref(), known.image.as_deref()), (Some("web"), Some("busybox")));
        }
    }

    #[test]
    fn a_name_of_an_image_says_more_than_its_digest() {
        let mut image = Some("sha256:ff".into());
        unite_image(&mut image, &Some("busybox:test".into()));
        unite_image(&mut image, &Some("sha256:ff".into()));
        assert_eq!(image.as_deref(), Some("busybox:test"));
    }
}
