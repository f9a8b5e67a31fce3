//! The extension beside a manager and clients made of osquery's own Python bindings.

#![expect(clippy::unwrap_used, clippy::panic, reason = "clippy knows tests only by their attribute, not the functions they share")]

mod captures;
mod churn;
mod cost;
mod delivery;
mod enrolment;
mod garbage;
mod host;
mod peer;
mod process;
mod push;
mod registration;
mod rows;
mod triggers;
