//! Everything that touches the outside: osquery's Thrift socket, the terminal, configuration and processes.

pub mod context;
pub mod delivery;
pub mod manager;
pub mod output;
pub mod query;
pub mod schema;
pub mod serve;
pub mod shell;
pub mod sql;
pub mod thrift;
