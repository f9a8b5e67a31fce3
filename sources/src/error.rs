//! Why a source stopped, and what an operator can do about it.

use std::{error::Error, io, time::Duration};

pub(crate) use mayfly_history::chain;

/// Why a source stopped; it is restarted after a backoff.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    #[error("cannot open {endpoint}")]
    Open {
        endpoint: String,
        #[source]
        reason: io::Error,
    },
    /// The kernel, or a file, did not do what a source of the host needs.
    #[error("cannot {attempt}")]
    Host {
        /// `watch /etc/passwd`, `open a netlink socket`, ….
        attempt: String,
        #[source]
        reason: io::Error,
    },
    #[error("{endpoint} closed the stream after {events} events")]
    Closed { endpoint: String, events: u64 },
    #[error("{endpoint} broke off {request}")]
    Broken {
        endpoint: String,
        /// What was asked of it.
        request: String,
        #[source]
        reason: Box<dyn Error + Send + Sync>,
    },
    #[error("{endpoint} did not answer {request} within {} s", .after.as_secs())]
    Silent { endpoint: String, request: String, after: Duration },
    #[error("{endpoint} refused {request} with status {status}: {message}")]
    Refused { endpoint: String, request: String, status: u16, message: String },
    #[error("{endpoint} answered {request} with something else than expected")]
    Nonsense {
        endpoint: String,
        request: String,
        #[source]
        reason: Box<dyn Error + Send + Sync>,
    },
    #[error("{endpoint} cannot be followed: {why}")]
    Unsupported { endpoint: String, why: &'static str },
    #[error("the source of {endpoint} failed by a defect of its own; see the log")]
    Panicked { endpoint: String },
}

impl SourceError {
    /// What an operator can do, where that is known; else empty.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Open { reason, .. } => match reason.kind() {
                io::ErrorKind::PermissionDenied => "run as root, or in the group that owns the socket",
                io::ErrorKind::ConnectionRefused => {
                    "the socket is there but nobody listens: is the daemon running? Tried again when it is replaced"
                }
                _ => "",
            },
            Self::Host { reason, .. } if reason.kind() == io::ErrorKind::PermissionDenied => "run as root",
            Self::Silent { .. } => "is the daemon hanging?",
            Self::Nonsense { .. } => "is it the API of this kind of runtime that listens there?",
            Self::Unsupported { .. } => "name a unix:// endpoint, or for Docker one of tcp:// without TLS",
            _ => "",
        }
    }
}
