//! A private containerd, as on a Kubernetes node: its CRI plugin is there, no Docker in front.

use std::{ffi::OsStr, fs, path::PathBuf, process::Command};

use super::kept::{Kept, place, ready};
use crate::{
    Result,
    command::{run, tool},
    image::Image,
};

#[derive(Debug)]
pub struct Containerd {
    dir: PathBuf,
    daemon: Option<Kept>,
    pub image: Image,
}

impl Containerd {
    /// Starts a daemon that has the image in the namespace `default`.
    pub fn start() -> Result<Self> {
        for (name, package) in [("containerd", "containerd"), ("ctr", "containerd"), ("runc", "runc")] {
            tool(name, package)?;
        }
        let dir = place("containerd")?;
        fs::create_dir(dir.join("image"))?;
        let image = Image::make(&dir.join("image"))?;
        let at = dir.display();
        let config = format!("version = 2\nroot = \"{at}/root\"\nstate = \"{at}/state\"\n[grpc]\naddress = \"{at}/containerd.sock\"\n");
        fs::write(dir.join("config.toml"), config)?;
        let mut containerd = Self { dir, daemon: None, image };
        containerd.resume()?;
        run(containerd.cli().args(["images", "import"]).arg(&containerd.image.archive))?;
        Ok(containerd)
    }

    /// `unix:///…`, as in `[containerd] endpoints`.
    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.dir.join("containerd.sock").display())
    }

    /// `ctr`, speaking to this daemon.
    pub fn cli(&self) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.dir.join("containerd.sock"));
        command
    }

    /// Ends the daemon in order; containers live on under their shims.
    pub fn stop(&mut self) -> Result<()> {
        self.daemon.as_mut().map_or(Ok(()), Kept::stop)
    }

    /// Starts the daemon (again) where it was.
    pub fn resume(&mut self) -> Result<()> {
        if let Some(mut ended) = self.daemon.take() {
            ended.stop()?;
        }
        let config = self.dir.join("config.toml");
        let command = [OsStr::new("containerd"), OsStr::new("--log-level"), OsStr::new("warn"), OsStr::new("--config"), config.as_ref()];
        self.daemon = Some(Kept::start(&self.dir, None, &command)?);
        ready(&self.dir, || run(self.cli().arg("version")))
    }
}

impl Drop for Containerd {
    /// What still runs would live on under its shim, and its id would stay taken: runc's own state is not private.
    fn drop(&mut self) {
        for id in run(self.cli().args(["tasks", "list", "--quiet"])).unwrap_or_default().split_whitespace() {
            let _ = run(self.cli().args(["tasks", "delete", "--force", id]));
        }
    }
}
