//! What happened to container images.

use crate::{
    bound::{bound, bound_option, bound_time},
    container::{Runtime, Witness},
    record::Record,
    redact::Redaction,
    sink::{Pushed, hash},
    time::Nanos,
};

const LONGEST_ID: usize = 128;
const LONGEST_NAME: usize = 4096;

/// One event of an image, as its runtime told it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageEvent {
    pub time_ns: Nanos,
    /// `pull`, `tag`, `untag`, `delete`, `import`, `load`, `push`, `build`.
    pub action: &'static str,
    pub runtime: Runtime,
    pub source: Witness,
    /// The name that the runtime gives, e.g. `docker.io/library/busybox:1.36`.
    pub image: Option<String>,
    /// `sha256:…` of the image's configuration.
    pub image_id: Option<String>,
    /// `sha256:…` of the manifest, where the runtime knows one.
    pub image_digest: Option<String>,
    pub runtime_namespace: String,
    pub endpoint: String,
}

impl Pushed for ImageEvent {
    const RING: usize = 1024;

    fn share(&self) -> u64 {
        hash(&self.image)
    }
}

impl Record for ImageEvent {
    fn time_ns(&self) -> Nanos {
        self.time_ns
    }

    fn clean(&mut self, _redaction: &Redaction, now_ns: Nanos) {
        bound_time(&mut self.time_ns, now_ns);
        for text in [&mut self.image, &mut self.image_id, &mut self.image_digest] {
            bound_option(text, LONGEST_NAME);
        }
        bound(&mut self.runtime_namespace, LONGEST_ID);
        bound(&mut self.endpoint, LONGEST_NAME);
    }

    fn identity(&self) -> Option<u64> {
        Some(hash(&(self.time_ns, self.action, &self.image, &self.image_id, &self.runtime_namespace, &self.endpoint)))
    }
}
