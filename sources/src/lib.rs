//! Where events come from. A source follows one endpoint, or the host itself, and pushes what it says into the recorder's sinks.
//!
//! A new source is one file and one line in `supervise::KINDS` or `supervise::HOST_SOURCES`.

mod accounts;
mod config;
mod containerd;
mod cri;
mod devices;
mod dhcp;
mod discover;
mod disk;
mod docker;
mod error;
mod grpc;
mod hearing;
mod identity;
mod labels;
mod lease_file;
mod mounts;
mod netlink;
mod netns;
mod parked;
mod process;
mod readable;
mod sight;
mod sockets;
mod supervise;

pub use accounts::AccountsConfig;
#[doc(hidden)]
pub use accounts::fuzzing as accounts_fuzzing;
pub use config::{HostConfig, LeaseFileConfig, RuntimeConfig, SourcesConfig};
#[doc(hidden)]
pub use containerd::{ImageChange, Naming, Told, Undecodable, decode as decode_containerd};
/// What containerd and CRI servers say, for those who test the decoders.
#[doc(hidden)]
pub use cri::{Nonsense, decode as decode_cri};
pub use devices::DevicesConfig;
#[doc(hidden)]
pub use devices::fuzzing as devices_fuzzing;
pub use dhcp::DhcpConfig;
#[doc(hidden)]
pub use dhcp::decode as decode_dhcp;
#[doc(hidden)]
pub use docker::fuzzing as docker_fuzzing;
pub use error::SourceError;
#[doc(hidden)]
pub use identity::fuzzing as identity_fuzzing;
pub use identity::{CloudChoice, IdentityConfig, Spot, SpotError};
#[doc(hidden)]
pub use lease_file::decode_lease_file;
#[doc(hidden)]
pub use mounts::fuzzing as mounts_fuzzing;
pub use mounts::{MountsConfig, tells_who_mounts};
#[doc(hidden)]
pub use netlink::decode_datagram as decode_netlink;
pub use supervise::{Site, Source, Sources, start};
