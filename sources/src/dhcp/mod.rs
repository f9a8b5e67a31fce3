//! DHCP on the wire: what servers grant to the machines on this host's links, and to this host.
//!
//! On a router, a hypervisor or a DHCP server this makes the host the witness for other machines (`scope = client`).

mod dialogue;
mod links;
mod packet;
mod socket;
mod v4;
mod v6;

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    time::Instant,
};

use mayfly_history::{
    Nanos, Sink,
    feed::cause,
    lease::{LeaseEvent, LeaseReport},
    now,
};
use rustix::io::Errno;
use serde::Deserialize;
use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;

use self::{
    dialogue::Message,
    links::Links,
    packet::datagram,
    socket::{LONGEST, dropped, listen, receive},
};
use crate::{
    error::SourceError,
    readable::readable,
    sight::Sight,
    supervise::{Site, Source},
};

/// Packets that are taken before the other sources have their turn.
const AT_ONCE: usize = 256;

/// `[dhcp]` of `mayfly.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DhcpConfig {
    /// Whether to listen at all. Default true.
    pub enabled: bool,
    /// Interfaces to listen on; of a bridge, all its ports. Default: all.
    pub interfaces: Vec<String>,
}

impl Default for DhcpConfig {
    fn default() -> Self {
        Self { enabled: true, interfaces: Vec::new() }
    }
}

/// Listens on the host's links.
#[derive(Debug)]
pub(crate) struct Dhcp {
    site: Site,
    sight: Sight,
}

impl Dhcp {
    pub(crate) fn new(site: Site) -> Self {
        let sight = Sight::new(&site);
        Self { site, sight }
    }
}

impl Source for Dhcp {
    async fn follow(&mut self, stop: CancellationToken) -> Result<(), SourceError> {
        let open = |reason| SourceError::Host { attempt: "open a packet socket for DHCP".into(), reason };
        let socket = listen().and_then(readable).map_err(open)?;
        let wanted = self.site.config.dhcp.interfaces.clone();
        let sink = self.site.recorder.sinks().of();
        let mut session = Session { site: self.site.clone(), sink, socket, links: Links::new(wanted), begun_ns: now() };
        self.site.feed.running();
        self.sight.regain(&self.site, "of leases that were granted meanwhile nothing is known from the wire");
        let ended = session.run(&stop).await;
        self.sight.lose();
        ended.map_err(|reason| SourceError::Host { attempt: "read DHCP packets".into(), reason })
    }

    /// The wire tells what happens, never what is.
    fn lists(&self) -> bool {
        false
    }
}

/// One life of the socket.
#[derive(Debug)]
struct Session {
    site: Site,
    sink: Sink<LeaseReport>,
    socket: AsyncFd<OwnedFd>,
    links: Links,
    /// When losses were counted last.
    begun_ns: Nanos,
}

impl Session {
    async fn run(&mut self, stop: &CancellationToken) -> io::Result<()> {
        let mut buffer = Box::new([0; LONGEST]);
        while let Some(ready) = stop.run_until_cancelled(self.socket.readable()).await {
            let mut ready = ready?;
            for _ in 0..AT_ONCE {
                let received = match receive(ready.get_inner().as_fd(), &mut buffer) {
                    Ok(received) => received,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        ready.clear_ready();
                        break;
                    }
                    // Said once of an interface that went down; the others go on.
                    Err(error) if error.raw_os_error() == Some(Errno::NETDOWN.raw_os_error()) => continue,
                    Err(error) => return Err(error),
                };
                let Some(link) = self.links.find(received.interface, ready.get_inner().as_fd()) else { continue };
                if link.is_echo(&buffer[..received.bytes], Instant::now()) {
                    continue;
                }
                let heard = if received.is_cut { Err("it is longer than a link takes".into()) } else { message(&buffer[..received.bytes]) };
                match heard {
                    Ok(message) => {
                        for event in link.dialogues.hear(message, &link.name, link.mac.as_deref(), now()) {
                            tell(&self.sink, &self.site, event);
                        }
                    }
                    Err(error) => self.site.feed.reject(format!("a DHCP packet on {} cannot be read: {error}", link.name)),
                }
            }
            drop(ready);
            self.count_dropped();
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    fn count_dropped(&mut self) {
        let (lost, at_ns) = (dropped(self.socket.get_ref().as_fd()), now());
        if lost > 0 {
            self.site.feed.count_lost_in_kernel(lost);
            self.site.feed.blind(
                cause::STREAM_LAGGED,
                self.begun_ns,
                Some(at_ns),
                0,
                format!("{lost} packets found no room in the socket"),
            );
        }
        self.begun_ns = at_ns;
    }
}

fn tell(sink: &Sink<LeaseReport>, site: &Site, event: LeaseEvent) {
    // Where the next recorder knows that it was blind from.
    let cursor = event.time_ns.to_string();
    sink.push_at(&site.feed, LeaseReport::Event(Box::new(event)), cursor);
}

/// Hears a packet that the filter let through, for those who test the decoder.
#[doc(hidden)]
pub fn decode(packet: &[u8]) {
    if let Ok(message) = message(packet) {
        dialogue::Dialogues::default().hear(message, "lan0", None, now());
    }
}

/// Reads a packet that the filter let through.
fn message(packet: &[u8]) -> Result<Message, String> {
    let datagram = datagram(packet).ok_or("it is cut")?;
    let read = match datagram.to_port {
        67 | 68 => v4::decode(datagram.payload),
        _ => v6::decode(datagram.payload, datagram.from),
    };
    read.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
