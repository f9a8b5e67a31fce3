//! The kernel's own word on addresses: of the host and of every network namespace that it knows, the moment they come and go.
//!
//! One socket hears of all namespaces; which one a message is of, it says by a number, whose meaning is asked for when it first appears and
//! forgotten when the kernel takes it back. When the socket overran, everything is listed again.

mod message;
mod namespaces;
mod request;
mod socket;
mod world;

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use mayfly_history::{
    Nanos,
    feed::cause,
    lease::{LeaseEvent, LeaseReport, LeaseSource, PresentLeases},
    now,
};
use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;

#[doc(hidden)]
pub use message::decode_datagram;

pub(crate) use self::socket::{LONGEST, receive};

use self::{
    message::{Body, messages},
    namespaces::Namespaces,
    socket::listen,
    world::{Nsid, World},
};
use crate::{
    error::SourceError,
    readable::readable,
    sight::Sight,
    supervise::{Site, Source},
};

/// Messages that are taken before the other sources have their turn.
const AT_ONCE: usize = 256;

/// Follows the kernel.
#[derive(Debug)]
pub(crate) struct Netlink {
    site: Site,
    sight: Sight,
}

impl Netlink {
    pub(crate) fn new(site: Site) -> Self {
        let sight = Sight::new(&site);
        Self { site, sight }
    }
}

impl Source for Netlink {
    async fn follow(&mut self, stop: CancellationToken) -> Result<(), SourceError> {
        let open = |reason| SourceError::Host { attempt: "open a netlink socket".into(), reason };
        let mut session = Session::open(self.site.clone()).map_err(open)?;
        let listed = session.list(self.sight.blind_since());
        listed.map_err(|reason| SourceError::Host { attempt: "list addresses".into(), reason })?;
        self.site.feed.running();
        self.sight.regain(&self.site, "of addresses that came and went meanwhile nothing is known");
        let ended = session.run(&stop).await;
        self.sight.lose();
        ended.map_err(|reason| SourceError::Host { attempt: "read from netlink".into(), reason })
    }
}

/// One life of the socket.
#[derive(Debug)]
struct Session {
    site: Site,
    socket: AsyncFd<OwnedFd>,
    namespaces: Namespaces,
    world: World,
    last_ns: Nanos,
}

impl Session {
    fn open(site: Site) -> io::Result<Self> {
        // It listens before anything is listed, so that nothing falls between.
        let socket = readable(listen()?)?;
        Ok(Self { site, socket, namespaces: Namespaces::new()?, world: World::default(), last_ns: now() })
    }

    /// Tells all that there is now.
    fn list(&mut self, blind_since: Option<Nanos>) -> io::Result<()> {
        self.world = World::default();
        let host = self.namespaces.host();
        self.look(None, Some(host))?;
        for (nsid, inode) in self.namespaces.all() {
            // One that ends meanwhile cannot be looked into.
            if let Err(error) = self.look(Some(nsid), Some(inode)) {
                tracing::debug!(nsid, inode, error = &error as &dyn std::error::Error, "cannot list a network namespace");
            }
        }
        let leases = self.world.present();
        let present = PresentLeases { source: LeaseSource::Netlink, channel: "".into(), taken_ns: self.tick(), blind_since, leases };
        self.site.recorder.sinks().of().push(&self.site.feed, LeaseReport::Present(Box::new(present)));
        Ok(())
    }

    /// Begins with a namespace: what is in it already, told as if it came now.
    fn look(&mut self, nsid: Nsid, inode: Option<u64>) -> io::Result<Vec<LeaseEvent>> {
        self.world.begin(nsid, inode);
        // The links after the addresses: a runtime names an interface, then gives it an address.
        let addresses = self.namespaces.requests().addresses(nsid)?;
        let links = self.namespaces.requests().links(nsid)?;
        Ok(links.into_iter().chain(addresses).flat_map(|body| self.world.take(nsid, body, self.last_ns)).collect())
    }

    async fn run(&mut self, stop: &CancellationToken) -> io::Result<()> {
        let mut buffer = Box::new([0; LONGEST]);
        while let Some(ready) = stop.run_until_cancelled(self.socket.readable()).await {
            let mut ready = ready?;
            let mut heard = Vec::new();
            let ended = loop {
                match receive(ready.get_inner().as_fd(), &mut buffer) {
                    Ok(datagram) => heard.extend(messages(datagram.bytes).map(|message| (datagram.nsid, message))),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        ready.clear_ready();
                        break Ok(());
                    }
                    Err(error) => break Err(error),
                }
                if heard.len() >= AT_ONCE {
                    break Ok(());
                }
            };
            drop(ready);
            for (nsid, message) in heard {
                match message {
                    Ok(message) => self.hear(nsid, message.body),
                    Err(error) => self.site.feed.reject(format!("a netlink message cannot be read: {error}")),
                }
            }
            match ended {
                Err(error) if error.raw_os_error() == Some(OVERRUN) => self.recover()?,
                ended => ended?,
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    fn hear(&mut self, nsid: Nsid, body: Body) {
        let at_ns = self.tick();
        if let Body::DelNsid(gone) = body {
            self.namespaces.forget(gone);
        } else if !self.world.knows(nsid) {
            // The first word of a namespace: who it is, and what it has already.
            let inode = nsid.and_then(|nsid| self.namespaces.find(nsid));
            match self.look(nsid, inode) {
                Ok(events) => self.tell(events),
                // It is gone; what the kernel still has to say of it comes.
                Err(error) => tracing::debug!(nsid, error = &error as &dyn std::error::Error, "cannot list a network namespace"),
            }
        }
        let events = self.world.take(nsid, body, at_ns);
        self.tell(events);
    }

    fn tell(&self, events: Vec<LeaseEvent>) {
        for event in events {
            // Where the next recorder knows that it was blind from.
            let cursor = event.time_ns.to_string();
            self.site.recorder.sinks().of().push_at(&self.site.feed, LeaseReport::Event(Box::new(event)), cursor);
        }
    }

    /// The kernel dropped messages: nobody knows which, so that everything is looked at again.
    fn recover(&mut self) -> io::Result<()> {
        let from_ns = self.last_ns;
        self.site.feed.count_lost_in_kernel(1);
        self.list(Some(from_ns))?;
        self.site.feed.blind(cause::STREAM_LAGGED, from_ns, Some(self.last_ns), 0, "the netlink socket overran");
        Ok(())
    }

    /// Now, and later than before.
    fn tick(&mut self) -> Nanos {
        self.last_ns = now().max(self.last_ns + 1);
        self.last_ns
    }
}

/// ENOBUFS.
const OVERRUN: i32 = rustix::io::Errno::NOBUFS.raw_os_error();
