//! Everything that touches the outside: osquery's Thrift socket, the terminal, configuration and processes.

pub mod context;
pub mod delivery;
pub mod manager;
pub mod serve;
pub mod thrift;
