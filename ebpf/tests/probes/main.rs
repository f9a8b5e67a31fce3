//! The probes, tested on the kernel that is there.
//!
//! They need root. Where the kernel takes no probes or no Docker daemon answers, a test prints so.

#[cfg(test)]
mod build;
#[cfg(test)]
mod containers;
#[cfg(test)]
mod degraded;
#[cfg(test)]
mod kernel;
#[cfg(test)]
mod layout;
#[cfg(test)]
mod long;
#[cfg(test)]
mod mounts;
#[cfg(test)]
mod plain;
#[cfg(test)]
mod probing;
