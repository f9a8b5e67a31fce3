//! Compiles the probes with clang into the crate's output folder.
//!
//! `cargo check` and `cargo clippy` work without clang: then an empty object stands in, and generating code that would
//! load it fails with a message (see `object.rs`).

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The probes, those that know no types, and what only a test and a benchmark read.
const OBJECTS: [&str; 4] = ["probes", "plain", "layout", "floor"];

fn main() {
    println!("cargo::rustc-check-cfg=cfg(probes)");
    println!("cargo::rerun-if-env-changed=CLANG");
    println!("cargo::rerun-if-changed=bpf");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let Some(clang) = find_clang() else {
        for name in OBJECTS {
            fs::write(out.join(name).with_extension("o"), []).expect("OUT_DIR is writable");
        }
        // A file that never exists: look for clang again at the next build.
        println!("cargo::rerun-if-changed=bpf/no-clang");
        return;
    };
    for name in OBJECTS {
        compile(&clang, name, &out);
    }
    println!("cargo::rustc-cfg=probes");
}

/// `CLANG` of the environment, the default clang, or the newest of those that distributions number.
fn find_clang() -> Option<String> {
    let works = |clang: &String| Command::new(clang).args(["-target", "bpf", "--version"]).output().is_ok_and(|o| o.status.success());
    let numbered = (14..=24).rev().map(|version| format!("clang-{version}"));
    env::var("CLANG").ok().into_iter().chain(["clang".to_owned()]).chain(numbered).find(works)
}

#[expect(clippy::panic, reason = "how a build script fails")]
fn compile(clang: &str, name: &str, out: &Path) {
    let multiarch = format!("/usr/include/{}-linux-gnu", env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets it"));
    let status = Command::new(clang)
        .args(["-target", "bpf", "-mcpu=v2", "-O2", "-g", "-Wall", "-Werror"])
        // Debian keeps the C library's <asm/types.h> there; a target of `bpf` does not look for it.
        .args(["-idirafter", &multiarch, "-c"])
        .arg(format!("bpf/{name}.c"))
        .arg("-o")
        .arg(out.join(format!("{name}.o")))
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("{clang} could not compile bpf/{name}.c ({status}); its headers are in libbpf-dev and linux-libc-dev"),
        Err(error) => panic!("cannot run {clang}: {error}"),
    }
}
