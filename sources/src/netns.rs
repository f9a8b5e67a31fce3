//! The addresses inside another network namespace.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsFd, OwnedFd},
    thread,
};

use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags, sys::socket::LinkAddr};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::sync::oneshot;

/// Addresses of all interfaces but the loopback's, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Addresses {
    /// IPv4 first; without the link-local ones of IPv6, which every interface gives itself.
    pub(crate) ip: Vec<String>,
    /// Lower case, with colons.
    pub(crate) mac: Vec<String>,
}

/// More interfaces than this are not a container's.
const MOST: usize = 64;

/// Reads the addresses in `netns`, an open `/proc/PID/ns/net`.
///
/// On a thread of its own, which ends there: no thread that goes on ever leaves the host's namespace, and none can fail to come back.
/// About 60 µs. Needs CAP_SYS_ADMIN.
pub(crate) async fn addresses(netns: OwnedFd) -> io::Result<Addresses> {
    let (answer, answered) = oneshot::channel();
    thread::Builder::new().name("netns".into()).stack_size(256 << 10).spawn(move || {
        let _ = answer.send(read(netns));
    })?;
    answered.await.map_err(io::Error::other)?
}

fn read(netns: OwnedFd) -> io::Result<Addresses> {
    move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))?;
    let mut found = Found::default();
    for interface in getifaddrs()? {
        if interface.flags.contains(InterfaceFlags::IFF_LOOPBACK) {
            continue;
        }
        let Some(address) = interface.address else { continue };
        if let Some(v4) = address.as_sockaddr_in() {
            found.ip(v4.ip().into());
        } else if let Some(v6) = address.as_sockaddr_in6() {
            found.ip(v6.ip().into());
        } else if let Some(mac) = address.as_link_addr().and_then(LinkAddr::addr) {
            found.mac(mac);
        }
    }
    Ok(found.addresses())
}

#[derive(Debug, Default)]
struct Found {
    ip: Vec<IpAddr>,
    mac: Vec<[u8; 6]>,
}

impl Found {
    fn ip(&mut self, ip: IpAddr) {
        let of_the_link = matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
        if !of_the_link && !self.ip.contains(&ip) && self.ip.len() < MOST {
            self.ip.push(ip);
        }
    }

    fn mac(&mut self, mac: [u8; 6]) {
        if mac != [0; 6] && !self.mac.contains(&mac) && self.mac.len() < MOST {
            self.mac.push(mac);
        }
    }

    fn addresses(mut self) -> Addresses {
        self.ip.sort_by_key(IpAddr::is_ipv6);
        let mac = |m: &[u8; 6]| m.map(|byte| format!("{byte:02x}")).join(":");
        Addresses { ip: self.ip.iter().map(ToString::to_string).collect(), mac: self.mac.iter().map(mac).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_each_address_once_and_ipv4_first() {
        let mut found = Found::default();
        for ip in ["fe80::1", "fd00::2", "172.17.0.2", "172.17.0.2"] {
            found.ip(ip.parse().unwrap());
        }
        found.mac([0; 6]);
        found.mac([2, 0x42, 0xac, 0x11, 0, 2]);
        let expected = Addresses { ip: vec!["172.17.0.2".into(), "fd00::2".into()], mac: vec!["02:42:ac:11:00:02".into()] };
        assert_eq!(found.addresses(), expected);
    }

    /// Needs root, as the recorder does; says so where it is not.
    #[tokio::test]
    async fn reads_a_namespace_and_stays_in_its_own() {
        let here = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        let own = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
        match addresses(own.into()).await {
            Ok(found) => assert!(!found.ip.iter().any(|ip| ip == "127.0.0.1")),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "only for lack of root"),
        }
        assert_eq!(std::fs::read_link("/proc/thread-self/ns/net").unwrap(), here);
    }
}
