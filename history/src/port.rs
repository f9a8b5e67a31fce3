//! Which container a port of the host led to.

use serde::{Deserialize, Serialize};

use crate::container::ContainerKey;

/// A published port; the record of `container_port_history`. Of a container on the host's network only the container is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortBinding {
    /// `0.0.0.0` or `::` for all; empty on the host's network.
    pub host_address: String,
    /// `None` on the host's network: any that nobody else has.
    pub host_port: Option<u16>,
    /// Number of the protocol, as in an IP header.
    pub protocol: Option<u8>,
    pub container_port: Option<u16>,
    pub container: ContainerKey,
}
