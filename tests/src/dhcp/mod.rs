//! DHCP servers and clients, real ones, in namespaces of their own.

mod client;
mod server;

pub use client::{Client, ClientKind, Word};
pub use server::{Range, Server, ServerKind};
