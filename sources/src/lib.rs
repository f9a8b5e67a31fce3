//! Where events come from. A source follows one endpoint and pushes what it says into the recorder's sinks.
//!
//! A new source is one file and one line in [`start`].

mod config;
mod discover;
mod supervise;

pub use config::{RuntimeConfig, SourcesConfig};
pub use supervise::{Source, SourceError, Sources, start};
