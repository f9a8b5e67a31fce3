//! Links and addresses of every namespace, as the kernel's messages tell them. Knows no socket, so that every course of messages can be tested.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use mayfly_history::{
    Nanos,
    lease::{HeldLease, Lease, LeaseAction, LeaseEvent, LeaseScope, LeaseSource},
};

use super::message::{Address, Body, Link};

/// Id of a namespace; `None`: the host's.
pub(super) type Nsid = Option<i32>;

/// Most links and addresses of one namespace that are kept track of.
const MOST: usize = 16_384;

/// Everything.
#[derive(Debug, Default)]
pub(super) struct World {
    spaces: HashMap<Nsid, Space>,
}

/// One namespace.
#[derive(Debug)]
struct Space {
    inode: Option<u64>,
    links: HashMap<u32, Link>,
    /// As it was told when it came: what the interface is called later does not matter.
    addresses: BTreeMap<(u32, IpAddr), HeldLease>,
}

impl World {
    /// Whether a namespace was begun.
    pub(super) fn knows(&self, nsid: Nsid) -> bool {
        self.spaces.contains_key(&nsid)
    }

    /// Begins to follow a namespace.
    pub(super) fn begin(&mut self, nsid: Nsid, inode: Option<u64>) {
        self.spaces.insert(nsid, Space { inode, links: HashMap::new(), addresses: BTreeMap::new() });
    }

    /// What holds now.
    pub(super) fn present(&self) -> Vec<HeldLease> {
        self.spaces.values().flat_map(|space| space.addresses.values().cloned()).collect()
    }

    /// Takes a message of a namespace that was begun; gives what follows.
    pub(super) fn take(&mut self, nsid: Nsid, body: Body, at_ns: Nanos) -> Vec<LeaseEvent> {
        let event = |action, held| event(action, held, at_ns);
        match body {
            Body::NewLink(link) => {
                if let Some(space) = self.spaces.get_mut(&nsid)
                    && (space.links.len() < MOST || space.links.contains_key(&link.index))
                {
                    space.links.insert(link.index, link);
                }
            }
            Body::DelLink { index } => {
                let Some(space) = self.spaces.get_mut(&nsid) else { return Vec::new() };
                space.links.remove(&index);
                let gone: Vec<_> =
                    space.addresses.range((index, LOWEST)..).take_while(|(key, _)| key.0 == index).map(|(key, _)| *key).collect();
                return gone.iter().filter_map(|key| space.addresses.remove(key)).map(|held| event(LeaseAction::Removed, held)).collect();
            }
            Body::NewAddress(address) if is_of_interest(address.ip) => {
                let key = (address.link, address.ip);
                let held = self.held(nsid, &address);
                let Some(space) = self.spaces.get_mut(&nsid) else { return Vec::new() };
                if !address.is_held {
                    return space.addresses.remove(&key).map(|held| event(LeaseAction::Removed, held)).into_iter().collect();
                }
                // The kernel tells it again when something else about it changes.
                if let Some(held) = held.filter(|_| space.addresses.len() < MOST && !space.addresses.contains_key(&key)) {
                    space.addresses.insert(key, held.clone());
                    return vec![event(LeaseAction::Added, held)];
                }
            }
            Body::DelAddress(address) => {
                let gone = self.spaces.get_mut(&nsid).and_then(|space| space.addresses.remove(&(address.link, address.ip)));
                return gone.map(|held| event(LeaseAction::Removed, held)).into_iter().collect();
            }
            Body::DelNsid(gone) => {
                let gone = self.spaces.remove(&Some(gone)).map(|space| space.addresses).unwrap_or_default();
                return gone.into_values().map(|held| event(LeaseAction::Removed, held)).collect();
            }
            Body::NewAddress(_) | Body::NewNsid(_) | Body::Error(_) | Body::Done | Body::Other => {}
        }
        Vec::new()
    }

    /// The lease that an address is.
    fn held(&self, nsid: Nsid, address: &Address) -> Option<HeldLease> {
        let space = self.spaces.get(&nsid)?;
        let link = space.links.get(&address.link);
        let net_namespace = space.inode.map(|inode| inode.to_string());
        let interface = link.map(|link| link.name.clone()).filter(|name| !name.is_empty());
        let place = net_namespace.clone().unwrap_or_else(|| format!("nsid {}", nsid.unwrap_or(-1)));
        let channel = format!("{place} {}", interface.as_deref().map_or_else(|| address.link.to_string(), ToOwned::to_owned));
        let lease = Lease {
            ip_address: Some(address.ip),
            prefix_length: Some(address.prefix_length),
            mac_address: link.and_then(|link| link.mac).map(|mac| mac.map(|byte| format!("{byte:02x}")).join(":")),
            interface,
            scope: if nsid.is_none() { LeaseScope::Host } else { LeaseScope::Container },
            net_namespace,
            ..Lease::default()
        };
        let segment = self.segment(nsid, address.link);
        Some(HeldLease { channel: channel.into(), lease, since_ns: None, until_ns: None, segment })
    }

    /// The link of the host that an interface is on: its bridge, else itself; of a pair whose other end is elsewhere, that of the host's end.
    fn segment(&self, nsid: Nsid, index: u32) -> Option<Arc<str>> {
        let host = &self.spaces.get(&None)?.links;
        let own = match nsid {
            None => host.get(&index),
            Some(nsid) => host.values().find(|link| link.peer == Some((index, nsid))),
        }?;
        let bridge = own.master.and_then(|master| host.get(&master)).unwrap_or(own);
        Some(bridge.name.as_str().into())
    }
}

const LOWEST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

/// Every interface gives itself link-local addresses of IPv6, and every namespace has a loopback: they are nobody's name.
fn is_of_interest(ip: IpAddr) -> bool {
    let of_the_link = matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
    !(of_the_link || ip.is_loopback() || ip.is_unspecified() || ip.is_multicast())
}

fn event(action: LeaseAction, held: HeldLease, time_ns: Nanos) -> LeaseEvent {
    let HeldLease { channel, lease, segment, .. } = held;
    LeaseEvent { time_ns, action, source: LeaseSource::Netlink, channel, lease, until_ns: None, segment }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, mac: u8, master: Option<u32>, peer: Option<(u32, i32)>) -> Body {
        Body::NewLink(Link { index, name: name.into(), mac: Some([2, 0, 0, 0, 0, mac]), master, peer })
    }

    fn address(link: u32, ip: &str) -> Address {
        Address { link, ip: ip.parse().unwrap(), prefix_length: 16, is_held: true }
    }

    /// A host with a bridge, and a container on it.
    fn world() -> World {
        let mut world = World::default();
        world.begin(None, Some(1));
        world.begin(Some(7), Some(4_026_532_001));
        for (nsid, body) in [
            (None, link(3, "docker0", 1, None, None)),
            (None, link(9, "veth1", 2, Some(3), Some((2, 7)))),
            (Some(7), link(2, "eth0", 3, None, Some((9, 0)))),
        ] {
            assert!(world.take(nsid, body, 0).is_empty());
        }
        world
    }

    fn told(events: &[LeaseEvent]) -> Vec<(&'static str, String)> {
        events.iter().map(|e| (e.action.as_str(), e.lease.ip_address.unwrap().to_string())).collect()
    }

    #[test]
    fn an_address_is_told_with_its_interface_namespace_and_bridge() {
        let mut world = world();
        let events = world.take(Some(7), Body::NewAddress(address(2, "172.17.0.2")), 5);
        let [event] = &events[..] else { panic!("{events:?}") };
        assert_eq!((event.action, event.time_ns, &*event.channel), (LeaseAction::Added, 5, "4026532001 eth0"));
        let Lease { mac_address, interface, scope, net_namespace, prefix_length, .. } = &event.lease;
        assert_eq!((mac_address.as_deref(), interface.as_deref()), (Some("02:00:00:00:00:03"), Some("eth0")));
        assert_eq!((*scope, net_namespace.as_deref(), *prefix_length), (LeaseScope::Container, Some("4026532001"), Some(16)));
        assert_eq!(event.segment.as_deref(), Some("docker0"));
        let host = world.take(None, Body::NewAddress(address(3, "172.17.0.1")), 6);
        assert_eq!((host[0].lease.scope, host[0].segment.as_deref()), (LeaseScope::Host, Some("docker0")));
    }

    #[test]
    fn it_comes_once_and_goes_once_whatever_takes_it_away() {
        let ends = [Body::DelAddress(address(2, "172.17.0.2")), Body::DelLink { index: 2 }, Body::DelNsid(7)];
        for end in ends {
            let mut world = world();
            let mut events = world.take(Some(7), Body::NewAddress(address(2, "172.17.0.2")), 5);
            events.extend(world.take(Some(7), Body::NewAddress(address(2, "172.17.0.2")), 6));
            events.extend(world.take(Some(7), link(2, "renamed", 3, None, None), 7));
            let of = if matches!(end, Body::DelNsid(_)) { None } else { Some(7) };
            events.extend(world.take(of, end.clone(), 8));
            events.extend(world.take(of, end, 9));
            assert_eq!(told(&events), [("added", "172.17.0.2".into()), ("removed", "172.17.0.2".into())]);
            assert_eq!(events[0].channel, events[1].channel, "by the name that it came under");
            assert!(world.present().is_empty());
        }
    }

    #[test]
    fn what_every_interface_gives_itself_is_nobodys_name() {
        let mut world = world();
        for ip in ["fe80::1", "127.0.0.1", "::1"] {
            assert!(world.take(None, Body::NewAddress(address(3, ip)), 5).is_empty(), "{ip}");
        }
        let tried = Address { is_held: false, ..address(3, "fd00::1") };
        assert!(world.take(None, Body::NewAddress(tried.clone()), 5).is_empty());
        assert_eq!(world.take(None, Body::NewAddress(address(3, "fd00::1")), 6).len(), 1);
        assert_eq!(told(&world.take(None, Body::NewAddress(tried), 7)), [("removed", "fd00::1".into())], "another host has it");
    }
}
