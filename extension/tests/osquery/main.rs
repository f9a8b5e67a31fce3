//! The extension beside a manager and clients made of osquery's own Python bindings.

#![expect(clippy::unwrap_used, clippy::panic, reason = "clippy knows tests only by their attribute, not the functions they share")]

mod captures;
mod churn;
mod delivery;
mod garbage;
mod host;
mod peer;
mod push;
mod registration;
mod rows;
