//! Connections that processes made or took, as the kernel tells it.

use std::{net::IpAddr, sync::Arc};

use crate::{container::ContainerKey, time::Nanos};

/// `container_socket_events.action`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SocketAction {
    Connect,
    Accept,
    Listen,
    Close,
}

impl SocketAction {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Accept => "accept",
            Self::Listen => "listen",
            Self::Close => "close",
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
    /// Of a connect: whether it was established.
    pub established: bool,
    pub cgroup_id: Option<i64>,
    pub net_namespace: Option<u32>,
    /// As far as the cgroup tells. Empty id: the host.
    pub container: ContainerKey,
}

impl crate::sink::Pushed for SocketEvent {
    fn share(&self) -> u64 {
        crate::sink::hash(&(&self.container, self.cgroup_id))
    }
}
