//! What holds over time: facts about keys, and how sources tell that they changed.

use std::{borrow::Cow, fmt};

use serde::{Serialize, de::DeserializeOwned};

use crate::{redact::Redaction, sink::Pushed, time::Nanos};

/// A fact about a key that holds over time: the record of a history table.
pub trait Fact: Clone + PartialEq + fmt::Debug + Serialize + DeserializeOwned + Send + 'static {
    /// Value of the table's first declared column, as text.
    fn key(&self) -> Cow<'_, str>;

    /// What tells facts of one key apart that may hold at once, e.g. the container that has its own users; empty: the host.
    fn scope(&self) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    /// The list that it stands in: what [`Change::Present`] is complete for. Empty: there is one list.
    fn group(&self) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    /// Drops secrets and bounds what is too long, before anything of it is kept.
    fn clean(&mut self, _redaction: &Redaction) {}
}

/// What a source tells of facts. It may tell the same as often as it likes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change<S> {
    /// The fact holds from `at_ns`. Another one of the same key and scope ends then, as `changed`; the same one goes on, with the
    /// evidence of this witness too.
    Holds { fact: S, at_ns: Nanos, evidence: &'static str },
    /// What holds of this key and scope ends. `reason` becomes `ended_reason`: `removed`, `expired`, `unmounted`, ….
    Ended { key: String, scope: String, at_ns: Nanos, reason: &'static str, evidence: &'static str },
    /// All facts of a group, as read at `taken_ns`: others of the group ended. Nobody knows when a fact changed in a blind time
    /// before, so that what differs ends and begins at `taken_ns`, and what ended says `unknown`; without one it says `removed`.
    /// At the very first look, tell `startup` as the evidence.
    Present { group: String, facts: Vec<S>, taken_ns: Nanos, blind_since: Option<Nanos>, evidence: &'static str },
}

impl<S: Fact> Pushed for Change<S> {
    fn share(&self) -> u64 {
        match self {
            Self::Holds { fact, .. } => crate::sink::hash(&(fact.key(), fact.scope())),
            Self::Ended { key, scope, .. } => crate::sink::hash(&(key, scope)),
            Self::Present { group, .. } => crate::sink::hash(group),
        }
    }

    fn is_event(&self) -> bool {
        false
    }
}
