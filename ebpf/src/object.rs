//! The compiled probes.

/// What clang made (see `build.rs`), aligned as its parser wants it.
static PROBES: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/probes.o"));

/// The probes' object. A build without clang stops here with what to install; `cargo check`, which generates no code,
/// does not come so far.
pub(crate) fn probes() -> &'static [u8] {
    compiled::<{ cfg!(probes) }>()
}

fn compiled<const PRESENT: bool>() -> &'static [u8] {
    const { assert!(PRESENT, "the BPF probes need clang to be built: apt-get install clang libbpf-dev, or set CLANG") };
    PROBES
}
