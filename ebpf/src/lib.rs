//! What the kernel saw: processes, connections, cgroups and kills, from the first instruction of a container on.
//!
//! Probes in C (`bpf/`) write records into one ring; [`load`] puts them into the kernel, [`records`] reads what they
//! wrote.

mod attach;
mod attribution;
mod cgroups;
mod clock;
mod config;
mod connector;
mod error;
mod fallback;
mod follow;
mod images;
mod interpret;
mod lives;
mod load;
mod object;
mod patience;
mod plain;
mod probes;
mod proc;
mod programs;
pub mod records;
mod statuses;
mod tracefs;

pub use attribution::{Named, container_of};
pub use config::EbpfConfig;
pub use error::LoadError;
pub use follow::{Follower, KernelSinks, follow};
pub use load::load;
pub use probes::Probes;
