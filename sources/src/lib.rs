//! Where events come from. A source follows one endpoint and pushes what it says into the recorder's sinks.
//!
//! A new source is one file and one line in `supervise::KINDS`.

mod config;
mod discover;
mod docker;
mod error;
mod sockets;
mod supervise;

pub use config::{RuntimeConfig, SourcesConfig};
pub use error::SourceError;
pub use supervise::{Site, Source, Sources, start};
