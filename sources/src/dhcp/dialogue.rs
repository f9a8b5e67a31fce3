//! What clients and servers say to each other, and what follows from it for an address.
//!
//! A server's answer names the address and the lease; who asked, under which name, and whether it had the address already,
//! is in the question. So questions are remembered until they are answered.

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use mayfly_history::{
    Nanos,
    lease::{Lease, LeaseAction, LeaseEvent, LeaseScope, LeaseSource},
};

/// Questions that are remembered; of more, the newest.
const MOST: usize = 4096;
/// A lease of so many seconds does not end.
const FOREVER: u32 = u32::MAX;

/// One message, of either version, as far as it concerns addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    /// What tells the transaction apart: its id, and who asked.
    pub(super) transaction: Vec<u8>,
    pub(super) says: Option<Says>,
    /// The addresses that it is about, each with its lease where it names one.
    pub(super) addresses: Vec<(IpAddr, Option<u32>)>,
    /// The client already uses the address that it asks for.
    pub(super) has_it: bool,
    pub(super) mac_address: Option<String>,
    pub(super) client_id: Option<String>,
    pub(super) hostname: Option<String>,
    pub(super) server_address: Option<IpAddr>,
    /// What tells the server apart, in its answers and in what is said to it: with DHCPv6 that is no address.
    pub(super) server_id: Option<String>,
}

/// What a message says; DHCPv6's messages in the words of DHCPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Says {
    Discover,
    Offer,
    Request,
    Ack,
    Nak,
    Decline,
    Release,
}

/// A client's question.
#[derive(Debug)]
struct Asked {
    message: Message,
    /// The newest answer, and whose it was.
    answered: Option<(LeaseAction, Option<String>)>,
}

/// The dialogues on one link.
#[derive(Debug, Default)]
pub(super) struct Dialogues {
    asked: HashMap<Vec<u8>, Asked>,
    order: VecDeque<Vec<u8>>,
}

impl Dialogues {
    /// Takes a message that was seen on `interface`; `own_mac` is that interface's. Returns what happened.
    pub(super) fn hear(&mut self, mut message: Message, interface: &str, own_mac: Option<&str>, time_ns: Nanos) -> Vec<LeaseEvent> {
        let Some(says) = message.says else { return Vec::new() };
        let action = match says {
            Says::Discover => LeaseAction::Discover,
            Says::Offer => LeaseAction::Offer,
            Says::Request => LeaseAction::Request,
            Says::Nak => LeaseAction::Nak,
            Says::Decline => LeaseAction::Declined,
            Says::Release => LeaseAction::Released,
            Says::Ack if self.asked.get(&message.transaction).is_some_and(|asked| asked.message.has_it) => LeaseAction::Renewed,
            Says::Ack => LeaseAction::Assigned,
        };
        match says {
            Says::Discover | Says::Request => self.remember(message.clone()),
            Says::Offer | Says::Ack | Says::Nak => {
                if let Some(asked) = self.asked.get_mut(&message.transaction) {
                    // The same answer, relayed or repeated.
                    let answer = Some((action, message.server_id.clone()));
                    if asked.answered == answer {
                        return Vec::new();
                    }
                    asked.answered = answer;
                    message.complete(&asked.message);
                }
            }
            Says::Decline | Says::Release => {}
        }
        let mut addresses = message.addresses.clone();
        if addresses.is_empty() && !matches!(says, Says::Ack | Says::Offer) {
            return vec![message.event(action, None, interface, own_mac, time_ns)];
        }
        addresses.dedup();
        addresses.into_iter().map(|address| message.event(action, Some(address), interface, own_mac, time_ns)).collect()
    }

    fn remember(&mut self, message: Message) {
        let key = message.transaction.clone();
        if self.asked.insert(key.clone(), Asked { message, answered: None }).is_none() {
            self.order.push_back(key);
            if self.order.len() > MOST
                && let Some(oldest) = self.order.pop_front()
            {
                self.asked.remove(&oldest);
            }
        }
    }
}

impl Message {
    /// What an answer leaves out, the question says.
    fn complete(&mut self, question: &Self) {
        let fill = |own: &mut Option<String>, other: &Option<String>| {
            if own.is_none() {
                own.clone_from(other);
            }
        };
        fill(&mut self.mac_address, &question.mac_address);
        fill(&mut self.client_id, &question.client_id);
        fill(&mut self.hostname, &question.hostname);
        if self.says == Some(Says::Nak) && self.addresses.is_empty() {
            self.addresses = question.addresses.iter().map(|(address, _)| (*address, None)).collect();
        }
    }

    fn event(
        &self,
        action: LeaseAction,
        address: Option<(IpAddr, Option<u32>)>,
        interface: &str,
        own_mac: Option<&str>,
        time_ns: Nanos,
    ) -> LeaseEvent {
        let is_own = own_mac.is_some() && self.mac_address.as_deref() == own_mac;
        let lease_seconds = address.and_then(|(_, seconds)| seconds);
        let holds = matches!(action, LeaseAction::Assigned | LeaseAction::Renewed);
        let until_ns = lease_seconds.filter(|seconds| holds && *seconds != FOREVER).map(|s| time_ns + i64::from(s) * 1_000_000_000);
        LeaseEvent {
            time_ns,
            action,
            source: LeaseSource::Dhcp,
            channel: Arc::from(format!("{interface} {}", self.server_id.as_deref().unwrap_or_default())),
            lease: Lease {
                ip_address: address.map(|(ip, _)| ip).filter(|ip| !ip.is_unspecified()),
                mac_address: self.mac_address.clone(),
                interface: Some(interface.to_owned()),
                scope: if is_own { LeaseScope::Host } else { LeaseScope::Client },
                hostname: self.hostname.clone(),
                client_id: self.client_id.clone(),
                server_address: self.server_address,
                lease_seconds: lease_seconds.map(i64::from),
                ..Lease::default()
            },
            until_ns,
            segment: Some(interface.into()),
        }
    }
}

/// A hardware address, or an identifier, as it is written: lower case, with colons.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

/// An address of DHCPv4, where zero means none.
pub(super) fn given(address: Ipv4Addr) -> Option<IpAddr> {
    (!address.is_unspecified()).then_some(address.into())
}
