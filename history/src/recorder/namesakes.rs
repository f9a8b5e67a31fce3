//! The containers of one id.

use std::{collections::hash_map::Entry, sync::Arc};

use foldhash::HashMap;

use crate::container::ContainerKey;

/// Keys by the id of their container. It is one, mostly: a set for each id would take ten times the room.
#[derive(Debug, Default)]
pub(super) struct Namesakes(HashMap<Arc<str>, Vec<ContainerKey>>);

impl Namesakes {
    pub(super) fn insert(&mut self, key: &ContainerKey) {
        match self.0.entry(Arc::clone(&key.container_id)) {
            Entry::Vacant(none) => drop(none.insert(vec![key.clone()])),
            Entry::Occupied(mut some) if !some.get().contains(key) => some.get_mut().push(key.clone()),
            Entry::Occupied(_) => {}
        }
    }

    pub(super) fn remove(&mut self, key: &ContainerKey) {
        if let Some(keys) = self.0.get_mut(&key.container_id) {
            keys.retain(|k| k != key);
            if keys.is_empty() {
                self.0.remove(&key.container_id);
            }
        }
    }

    pub(super) fn of(&self, container_id: &str) -> &[ContainerKey] {
        self.0.get(container_id).map(Vec::as_slice).unwrap_or_default()
    }

    /// The only container of that id.
    pub(super) fn only(&self, container_id: &str) -> Option<&ContainerKey> {
        match self.of(container_id) {
            [only] => Some(only),
            _ => None,
        }
    }

    pub(super) fn shrink(&mut self) {
        self.0.shrink_to_fit();
    }
}
