//! Containers whose processes nobody wants to hear of, by their image.

use std::collections::HashMap;

use mayfly_history::{container::ContainerKey, recorder::Directory};

/// Containers whose images are remembered.
const MOST: usize = 4096;

/// The images that are left out. Of a container whose image is not known yet, everything is told.
#[derive(Debug)]
pub(crate) struct ExcludedImages {
    /// Whole, or up to a final `*`.
    patterns: Vec<String>,
    directory: Directory,
    decided: HashMap<ContainerKey, bool>,
}

impl ExcludedImages {
    pub(crate) fn new(patterns: Vec<String>, directory: Directory) -> Self {
        Self { patterns, directory, decided: HashMap::new() }
    }

    pub(crate) fn has(&mut self, container: &ContainerKey) -> bool {
        if self.patterns.is_empty() || container.container_id.is_empty() {
            return false;
        }
        if let Some(decided) = self.decided.get(container) {
            return *decided;
        }
        let Some(image) = self.directory.image(&container.container_id) else { return false };
        let is_excluded = self.patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(beginning) => image.starts_with(beginning),
            None => *image == **pattern,
        });
        if self.decided.len() >= MOST {
            self.decided.clear();
        }
        self.decided.insert(container.clone(), is_excluded);
        is_excluded
    }
}
