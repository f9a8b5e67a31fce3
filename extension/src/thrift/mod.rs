//! osquery's extension protocol: Thrift's binary protocol, unframed, over UNIX sockets.
//!
//! Everything goes through the code that Thrift generates from `extension/thrift/osquery.thrift`, but for the rows of a
//! table: [`Answer`] writes those straight to the bytes of the reply.

mod answer;
mod connection;
#[expect(
    dead_code,
    missing_debug_implementations,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::semicolon_if_nothing_returned,
    clippy::uninlined_format_args,
    clippy::unwrap_used,
    reason = "made by thrift-compiler; `cargo xtask thrift` makes it anew"
)]
mod generated;
mod server;
mod stream;

pub use answer::Answer;
pub use connection::{Reply, Service, attend};
pub use generated::{
    ExtensionManagerSyncClient, ExtensionResponse, ExtensionStatus, InternalExtensionInfo, TExtensionManagerSyncClient,
    TExtensionSyncClient,
};
pub use server::{Limits, Server};
pub(crate) use stream::{TOO_LONG, Timed, check_peer};

use std::collections::BTreeMap;

/// A request, or a row of an answer: names and values, as bytes.
pub type Strings = BTreeMap<Vec<u8>, Vec<u8>>;
