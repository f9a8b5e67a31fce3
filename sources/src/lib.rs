//! Where events come from. A source follows one endpoint and pushes what it says into the recorder's sinks.
//!
//! A new source is one file and one line in `supervise::KINDS`.

mod config;
mod containerd;
mod discover;
mod disk;
mod docker;
mod error;
mod grpc;
mod labels;
mod netns;
mod process;
mod sockets;
mod supervise;

pub use config::{RuntimeConfig, SourcesConfig};
/// What containerd says, for those who test its decoder.
#[doc(hidden)]
pub use containerd::{ImageChange, Naming, Told, Undecodable, decode as decode_containerd};
#[doc(hidden)]
pub use docker::fuzzing as docker_fuzzing;
pub use error::SourceError;
pub use supervise::{Site, Source, Sources, start};
