//! Reports of containers in a ring.

use super::{Pushed, hash};
use crate::container::Report;

impl Pushed for Report {
    fn share(&self) -> u64 {
        match self {
            Report::Event(event) => hash(&event.key),
            Report::Details { key, .. } => hash(key),
            Report::Snapshot(snapshot) => hash(&(&snapshot.endpoint, &snapshot.runtime_namespace)),
        }
    }

    fn is_event(&self) -> bool {
        matches!(self, Self::Event(_))
    }

    fn is_trifle(&self) -> bool {
        matches!(self, Self::Event(event) if event.action.is_trifle())
    }

    fn mends(&self) -> bool {
        matches!(self, Self::Snapshot(_))
    }

    fn weight(&self) -> usize {
        match self {
            Report::Event(event) => event.weight(),
            Report::Details { details, .. } => details.weight(),
            Report::Snapshot(snapshot) => snapshot.containers.iter().map(|(.., details)| details.weight()).sum(),
        }
    }
}
