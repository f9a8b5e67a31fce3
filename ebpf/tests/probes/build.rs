//! The build without clang.

use std::{env, fs, path::Path, process::Command};

#[test]
fn without_clang_empty_objects_stand_in_and_no_probes_are_claimed() {
    // cargo runs the script in one folder beside that in which it built it.
    let builds = Path::new(env!("OUT_DIR")).ancestors().nth(2).unwrap();
    let entries = fs::read_dir(builds).into_iter().flatten().flatten();
    let scripts = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("mayfly-ebpf-"))
        .map(|entry| entry.path().join("build-script-build"));
    let newest = scripts.filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path))).max();
    let Some((_, script)) = newest else {
        println!("not run here: this test was built elsewhere");
        return;
    };
    let out = env::temp_dir().join(format!("mayfly-no-clang-{}", std::process::id()));
    fs::create_dir(&out).unwrap();
    let run = Command::new(script)
        .env_clear()
        .envs([("PATH", "/nonexistent"), ("CARGO_CFG_TARGET_ARCH", "x86_64")])
        .env("OUT_DIR", &out)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let objects = ["probes.o", "plain.o", "layout.o", "floor.o"].map(|name| fs::metadata(out.join(name)).map(|m| m.len()).ok());
    fs::remove_dir_all(&out).unwrap();
    let said = String::from_utf8(run.stdout).unwrap();
    assert!(run.status.success() && !said.contains("cargo::rustc-cfg=probes"), "{said}");
    assert_eq!(objects, [Some(0); 4], "each is there, so that `cargo check` finds it, and none can be loaded");
}
