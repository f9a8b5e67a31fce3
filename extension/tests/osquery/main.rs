//! The extension beside a manager and clients made of osquery's own Python bindings.

mod delivery;
mod garbage;
mod peer;
mod registration;
