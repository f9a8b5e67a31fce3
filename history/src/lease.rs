//! Who had which address: what the kernel, the wire, lease files and runtimes say of it.

use std::{net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    bound::{bound_option, bound_time},
    container::ContainerKey,
    sink,
    time::Nanos,
};

/// What happened to an address, or was asked of a DHCP server. The text is the table's `action`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseAction {
    Added,
    Removed,
    Discover,
    Offer,
    Request,
    Assigned,
    Renewed,
    Nak,
    Declined,
    Released,
    Expired,
    Conflict,
}

impl LeaseAction {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Discover => "discover",
            Self::Offer => "offer",
            Self::Request => "request",
            Self::Assigned => "assigned",
            Self::Renewed => "renewed",
            Self::Nak => "nak",
            Self::Declined => "declined",
            Self::Released => "released",
            Self::Expired => "expired",
            Self::Conflict => "conflict",
        }
    }
}

/// Who saw it: the `source` of an event, and what `evidence` lists. The better witness first: of the times at which an address came and went, an
/// interface knows best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseSource {
    Netlink,
    Dhcp,
    LeaseFile,
    Runtime,
}

impl LeaseSource {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Netlink => "netlink",
            Self::Dhcp => "dhcp",
            Self::LeaseFile => "lease_file",
            Self::Runtime => "runtime",
        }
    }
}

/// Whose address it is, seen from this host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseScope {
    /// The host's own.
    Host,
    /// Of another network namespace on this host.
    Container,
    /// Of another machine, whose lease this host witnessed.
    #[default]
    Client,
}

impl LeaseScope {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Container => "container",
            Self::Client => "client",
        }
    }
}

/// An address and its holder, as far as they are known; also the record of `ip_lease_history`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Lease {
    /// `None` in messages that concern no address yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_address: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix_length: Option<u8>,
    /// Lower case, with colons.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac_address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    pub scope: LeaseScope,
    /// Inode number, as in core's `process_namespaces`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub net_namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// DHCP's client identifier or DUID: hex digits with colons.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_address: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_seconds: Option<i64>,
    /// Empty id: none, or none that is known.
    #[serde(skip_serializing_if = "is_nobody")]
    pub container: ContainerKey,
}

fn is_nobody(container: &ContainerKey) -> bool {
    container.container_id.is_empty()
}

impl Lease {
    /// AF_INET or AF_INET6, as in `container_socket_events`; `None` without an address.
    pub fn family(&self) -> Option<i64> {
        self.ip_address.map(|ip| if ip.is_ipv4() { 2 } else { 10 })
    }
}

/// One thing that a witness saw: a row of `ip_lease_events`, and evidence for `ip_lease_history`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseEvent {
    pub time_ns: Nanos,
    pub action: LeaseAction,
    pub source: LeaseSource,
    /// What tells the streams of one source apart, within which a later word about an address overrides an earlier one: a
    /// namespace with its interface, a link with its DHCP server, a lease file.
    pub channel: Arc<str>,
    pub lease: Lease,
    /// When the lease ends unless it is renewed. `None`: it does not end by itself.
    pub until_ns: Option<Nanos>,
    /// The link (a bridge, else an interface of the host) that the holder is on, where that is known: two holders of one address on
    /// one link are a conflict, on two links they are not.
    pub segment: Option<Arc<str>>,
}

/// A lease that holds when everything is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldLease {
    pub channel: Arc<str>,
    pub lease: Lease,
    /// Since when, where the list tells it.
    pub since_ns: Option<Nanos>,
    pub until_ns: Option<Nanos>,
    pub segment: Option<Arc<str>>,
}

/// All that a part of a source has now.
#[derive(Clone, Debug)]
pub struct PresentLeases {
    pub source: LeaseSource,
    /// The channel that was listed; empty: all of them.
    pub channel: Arc<str>,
    pub taken_ns: Nanos,
    /// The blind time before it, where there was one. `None` at the very first look: what is found was there before.
    pub blind_since: Option<Nanos>,
    pub leases: Vec<HeldLease>,
}

/// What a source pushes.
#[derive(Clone, Debug)]
pub enum LeaseReport {
    Event(Box<LeaseEvent>),
    Present(Box<PresentLeases>),
}

/// Longest name of a host, and longest client identifier in hexadecimal digits.
const MAX_NAME: usize = 255;
const MAX_CLIENT_ID: usize = 3 * 255;

impl LeaseReport {
    /// Bounds what is too long or cannot be. `now_ns`: when it was taken.
    pub(crate) fn clean(&mut self, now_ns: Nanos) {
        let clean = |lease: &mut Lease| {
            bound_option(&mut lease.hostname, MAX_NAME);
            bound_option(&mut lease.client_id, MAX_CLIENT_ID);
            bound_option(&mut lease.interface, MAX_NAME);
        };
        match self {
            Self::Event(event) => {
                bound_time(&mut event.time_ns, now_ns);
                clean(&mut event.lease);
            }
            Self::Present(present) => present.leases.iter_mut().for_each(|held| clean(&mut held.lease)),
        }
    }
}

impl sink::Pushed for LeaseReport {
    fn share(&self) -> u64 {
        match self {
            // The first word: a flood on one link must not take the ring, whichever servers it invents.
            Self::Event(event) => sink::hash(&(event.source, event.channel.split(' ').next())),
            Self::Present(present) => sink::hash(&(present.source, &present.channel)),
        }
    }

    fn mends(&self) -> bool {
        matches!(self, Self::Present(_))
    }

    fn weight(&self) -> usize {
        match self {
            Self::Event(_) => size_of::<LeaseEvent>() + MAX_NAME,
            Self::Present(present) => present.leases.len() * size_of::<HeldLease>(),
        }
    }

    fn is_event(&self) -> bool {
        matches!(self, Self::Event(_))
    }

    /// What is only asked or offered gives way to what was granted.
    fn is_trifle(&self) -> bool {
        use LeaseAction::{Discover, Offer, Request};
        matches!(self, Self::Event(event) if matches!(event.action, Discover | Offer | Request))
    }
}
