//! One image that all runtimes load, made without a registry: a static busybox, with a known image id.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    Result,
    command::{run, tool},
};

/// Its name, spelt in full so that each runtime means the same.
pub const IMAGE: &str = "docker.io/library/busybox:test";

/// The archive in `docker save`'s format, and what the runtimes must say of it.
#[derive(Debug)]
pub struct Image {
    pub archive: PathBuf,
    /// `sha256:…` of the configuration.
    pub id: String,
}

impl Image {
    /// Makes the archive in `dir`. The bytes depend on busybox alone, so the id is the same each time.
    pub fn make(dir: &Path) -> Result<Self> {
        let busybox = tool("busybox", "busybox-static")?;
        let bin = dir.join("rootfs/bin");
        fs::create_dir_all(&bin)?;
        fs::create_dir_all(dir.join("rootfs/tmp"))?;
        fs::copy(busybox, bin.join("busybox"))?;
        for applet in ["sh", "true", "false", "sleep", "cat", "echo"] {
            symlink("busybox", bin.join(applet))?;
        }
        let stable = ["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner"];
        run(Command::new("tar").current_dir(dir).args(stable).args(["-C", "rootfs", "-cf", "layer.tar", "."]))?;
        let layer = sha256(&dir.join("layer.tar"))?;
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let config = serde_json::json!({
            "architecture": architecture,
            "os": "linux",
            "created": "2020-01-01T00:00:00Z",
            "config": { "Cmd": ["sh"], "Env": ["PATH=/bin"], "Labels": { "origin": "mayfly-tests" } },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer}")] },
            "history": [{ "created": "2020-01-01T00:00:00Z" }],
        });
        fs::write(dir.join("config.json"), config.to_string())?;
        let manifest = serde_json::json!([{ "Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"] }]);
        fs::write(dir.join("manifest.json"), manifest.to_string())?;
        run(Command::new("tar").current_dir(dir).args(["-cf", "image.tar", "manifest.json", "config.json", "layer.tar"]))?;
        let id = format!("sha256:{}", sha256(&dir.join("config.json"))?);
        Ok(Self { archive: dir.join("image.tar"), id })
    }
}

fn sha256(file: &Path) -> Result<String> {
    let line = run(Command::new("sha256sum").arg(file))?;
    line.split_whitespace().next().map(str::to_owned).ok_or_else(|| format!("sha256sum said {line:?}").into())
}
