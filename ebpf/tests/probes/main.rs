//! The probes, tested on the kernel that is there.
//!
//! They need root, and those of containers Docker's programs. Where the kernel takes no probes, a test prints so.

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
