//! What the behaviours, the demo and the benchmarks share: private daemons, a recorder under test, load, and a poller to compare with.

mod churn;
mod command;
pub mod daemon;
pub mod devices;
pub mod dhcp;
pub mod fake;
mod image;
mod lifecycle;
mod loops;
mod mayfly;
mod network;
mod poll;
mod report;
mod usage;
mod verdict;
mod wait;

pub use churn::churn;
pub use command::{built, end, exits, run, tool};
pub use image::{IMAGE, Image};
pub use lifecycle::{Lifecycle, by_name, percentile};
pub use loops::Loop;
pub use mayfly::{Mayfly, Recording, Row, Watch};
pub use network::{Bridge, Namespace, ip};
pub use poll::Poller;
pub use report::report;
pub use usage::{Usage, usage};
pub use verdict::Verdict;
pub use wait::until;

/// Whatever went wrong, in words that name it.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
pub type Result<T, E = Error> = std::result::Result<T, E>;
