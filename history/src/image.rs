//! What happened to container images.

use crate::{
    container::{Runtime, Witness},
    time::Nanos,
};

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
