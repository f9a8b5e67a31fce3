//! Private daemons under temporary directories: they share nothing with the host's own, and end with whoever started them.

mod containerd;
mod docker;
mod kept;
mod podman;

pub use containerd::Containerd;
pub use docker::Docker;
pub use podman::Podman;
