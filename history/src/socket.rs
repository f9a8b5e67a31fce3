//! Connections that processes made or took, as the kernel tells it.

use std::{net::IpAddr, sync::Arc};

use crate::{
    container::ContainerKey,
    record::Record,
    sink::{Pushed, hash},
    time::Nanos,
};

/// `container_socket_events.action`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SocketAction {
    Connect,
    Accept,
    Listen,
    Close,
    /// A cgroup did more than it may; [`SocketEvent::shed`] says how much was left out.
    Throttled,
}

impl SocketAction {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Accept => "accept",
            Self::Listen => "listen",
            Self::Close => "close",
            Self::Throttled => "throttled",
        }
    }
}

/// One event of a socket: the record of `container_socket_events`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketEvent {
    /// Of a connect: when it was asked for; the row comes when its outcome is known.
    pub time_ns: Nanos,
    pub action: SocketAction,
    /// Of an accept: the process that listens. `None` where it listened before the probes were there.
    pub pid: Option<i64>,
    /// What that process executed, where it is known.
    pub path: Arc<str>,
    pub uid: Option<i64>,
    /// `AF_INET` 2 or `AF_INET6` 10, of the addresses: a v4-mapped one counts, and is shown, as IPv4.
    pub family: i64,
    /// As in the IP header: 6 is TCP.
    pub protocol: i64,
    pub local_address: IpAddr,
    pub local_port: u16,
    /// Unspecified for a listener.
    pub remote_address: IpAddr,
    pub remote_port: u16,
    /// Of a connect: whether it was established. UDP has nothing to establish: it is told as asked for.
    pub established: bool,
    pub cgroup_id: Option<i64>,
    pub net_namespace: Option<u32>,
    /// As far as the cgroup tells. Empty id: the host.
    pub container: ContainerKey,
    /// Of `throttled`, which tells nothing else but whose it is: how many events were left out.
    pub shed: Option<i64>,
}

impl SocketEvent {
    fn told<T>(&self, value: T) -> Option<T> {
        (self.action != SocketAction::Throttled).then_some(value)
    }

    /// The address family; `None` of `throttled`, as for the rest.
    pub fn family(&self) -> Option<i64> {
        self.told(self.family)
    }

    pub fn protocol(&self) -> Option<i64> {
        self.told(self.protocol)
    }

    /// Address and port of this side.
    pub fn local(&self) -> Option<(IpAddr, u16)> {
        self.told((self.local_address, self.local_port))
    }

    /// Address and port of the peer.
    pub fn remote(&self) -> Option<(IpAddr, u16)> {
        self.told((self.remote_address, self.remote_port))
    }
}

impl Pushed for SocketEvent {
    const RING: usize = 16_384;

    fn share(&self) -> u64 {
        hash(&(&self.container, self.cgroup_id))
    }
}

impl Record for SocketEvent {
    fn time_ns(&self) -> Nanos {
        self.time_ns
    }

    fn users(&self) -> [Option<i64>; 3] {
        [self.uid.filter(|_| self.container.container_id.is_empty()), None, None]
    }

    fn throttled(self, events: u64, now_ns: Nanos) -> Option<Self> {
        let shed = Some(i64::try_from(events).unwrap_or(i64::MAX));
        Some(Self { time_ns: now_ns, action: SocketAction::Throttled, pid: None, path: Arc::default(), uid: None, shed, ..self })
    }
}
