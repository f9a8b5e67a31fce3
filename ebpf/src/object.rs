//! The compiled probes.

/// What clang made (see `build.rs`), aligned as its parser wants it.
static PROBES: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/probes.o"));
static PLAIN: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/plain.o"));

/// The probes that find the kernel's fields by its types. A build without clang stops here with what to install; `cargo
/// check`, which generates no code, does not come so far.
pub(crate) fn probes() -> &'static [u8] {
    compiled::<{ cfg!(probes) }>(PROBES)
}

/// Those for a kernel that does not tell its types.
pub(crate) fn plain() -> &'static [u8] {
    compiled::<{ cfg!(probes) }>(PLAIN)
}

fn compiled<const PRESENT: bool>(object: &'static [u8]) -> &'static [u8] {
    const { assert!(PRESENT, "the BPF probes need clang to be built: apt-get install clang libbpf-dev, or set CLANG") };
    object
}
