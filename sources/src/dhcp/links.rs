//! The links that packets come on: an interface, or a bridge with all its ports.
//!
//! A bridge itself hears only what is broadcast, or meant for the host: a server's answer to one client, a renewal and a release pass from port to
//! port. So ports are listened to as well, and what one sees as it comes and another as it leaves is one packet.

use std::{
    collections::{HashMap, VecDeque},
    fs,
    hash::{DefaultHasher, Hasher},
    iter,
    os::fd::BorrowedFd,
    path::Path,
    time::{Duration, Instant},
};

use rustix::net::netdevice::index_to_name;

use super::dialogue::Dialogues;

/// Interfaces and links that are remembered.
const MOST: usize = 1024;
/// Where an interface belongs, and its hardware address, are looked up again after this.
const FRESH: Duration = Duration::from_secs(10);
/// Interfaces one above the other: a port of a bond that is a port of a bridge.
const DEEPEST: usize = 4;
/// A client that asks again waits longer than this.
const ECHO: Duration = Duration::from_millis(500);
/// Packets among which an echo is looked for.
const MOST_HEARD: usize = 256;

#[derive(Debug)]
pub(super) struct Links {
    /// Empty: all.
    wanted: Vec<String>,
    ports: HashMap<i32, Port>,
    links: HashMap<String, Link>,
}

/// What an interface of this index was when it was looked at.
#[derive(Debug)]
struct Port {
    looked: Instant,
    /// `None`: it is not to be listened to.
    place: Option<Place>,
}

/// Name and hardware address of a link.
#[derive(Debug)]
struct Place {
    name: String,
    mac: Option<String>,
}

#[derive(Debug, Default)]
pub(super) struct Link {
    pub(super) name: String,
    /// The host's own, there.
    pub(super) mac: Option<String>,
    pub(super) dialogues: Dialogues,
    heard: Heard,
}

impl Links {
    pub(super) fn new(wanted: Vec<String>) -> Self {
        Self { wanted, ports: HashMap::new(), links: HashMap::new() }
    }

    /// The link that the interface of that index belongs to, if it is one to listen to.
    pub(super) fn find(&mut self, index: i32, socket: BorrowedFd<'_>) -> Option<&mut Link> {
        // What is forgotten is only looked at again.
        if self.ports.len() >= MOST && !self.ports.contains_key(&index) {
            self.ports.clear();
            self.links.clear();
        }
        let look = || Port { looked: Instant::now(), place: Place::of(index, &self.wanted, socket) };
        let port = self.ports.entry(index).or_insert_with(look);
        if port.looked.elapsed() >= FRESH {
            *port = look();
        }
        let place = port.place.as_ref()?;
        if !self.links.contains_key(&place.name) {
            self.links.insert(place.name.clone(), Link { name: place.name.clone(), ..Link::default() });
        }
        let link = self.links.get_mut(&place.name)?;
        if link.mac != place.mac {
            link.mac.clone_from(&place.mac);
        }
        Some(link)
    }
}

impl Place {
    fn of(index: i32, wanted: &[String], socket: BorrowedFd<'_>) -> Option<Self> {
        let name = index_to_name(socket, u32::try_from(index).ok()?).ok()?;
        let folder = |name: &str| Path::new("/sys/class/net").join(name);
        let above = |name: &String| Some(fs::read_link(folder(name).join("master")).ok()?.file_name()?.to_string_lossy().into_owned());
        let mut chain = iter::successors(Some(name), above).take(DEEPEST);
        let name = if wanted.is_empty() { chain.last().filter(|name| name != "lo") } else { chain.find(|name| wanted.contains(name)) }?;
        let mac = fs::read_to_string(folder(&name).join("address")).ok().map(|mac| mac.trim().to_owned());
        Some(Self { name, mac: mac.filter(|mac| !mac.is_empty()) })
    }
}

impl Link {
    /// Whether the same packet was just heard, at another port.
    pub(super) fn is_echo(&mut self, packet: &[u8], now: Instant) -> bool {
        self.heard.is_echo(packet, now)
    }
}

/// The packets of the last moment.
#[derive(Debug, Default)]
struct Heard(VecDeque<(Instant, u64)>);

impl Heard {
    fn is_echo(&mut self, packet: &[u8], now: Instant) -> bool {
        let mut hasher = DefaultHasher::new();
        hasher.write(packet);
        let digest = hasher.finish();
        while self.0.front().is_some_and(|(at, _)| now.duration_since(*at) >= ECHO) {
            self.0.pop_front();
        }
        let is_known = self.0.iter().any(|(_, heard)| *heard == digest);
        if !is_known {
            if self.0.len() >= MOST_HEARD {
                self.0.pop_front();
            }
            self.0.push_back((now, digest));
        }
        is_known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_ports_hear_is_one_packet_but_for_one_that_is_sent_again() {
        let mut heard = Heard::default();
        let began = Instant::now();
        let after = |ms| began + Duration::from_millis(ms);
        let echoes: Vec<bool> =
            [(b"a", 0), (b"a", 1), (b"b", 2), (b"a", 300), (b"a", 600)].map(|(packet, ms)| heard.is_echo(packet, after(ms))).into();
        assert_eq!(echoes, [false, true, false, true, false]);
        for n in 0..10_000u32 {
            assert!(!heard.is_echo(&n.to_be_bytes(), after(700)));
        }
        assert!(heard.0.len() <= MOST_HEARD);
    }
}
