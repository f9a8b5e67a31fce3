//! A private Podman service with its own storage.

use std::{
    ffi::{OsStr, OsString},
    fs,
    path::PathBuf,
    process::Command,
};

use super::kept::{Kept, place, ready};
use crate::{
    Result,
    command::{run, tool},
    image::Image,
};

#[derive(Debug)]
pub struct Podman {
    dir: PathBuf,
    daemon: Option<Kept>,
    pub image: Image,
}

impl Podman {
    /// Starts a service that has the image.
    pub fn start() -> Result<Self> {
        for (name, package) in [("podman", "podman"), ("conmon", "conmon"), ("runc", "runc")] {
            tool(name, package)?;
        }
        let dir = place("podman")?;
        fs::create_dir(dir.join("image"))?;
        let image = Image::make(&dir.join("image"))?;
        let mut podman = Self { dir, daemon: None, image };
        podman.resume()?;
        run(podman.cli().args(["load", "--input"]).arg(&podman.image.archive))?;
        Ok(podman)
    }

    /// `unix:///…`, as in `[podman] endpoints`.
    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.dir.join("podman.sock").display())
    }

    /// `podman`, speaking to this service.
    pub fn cli(&self) -> Command {
        let mut command = Command::new("podman");
        command.arg("--url").arg(self.endpoint());
        command
    }

    /// `podman run --rm`, with limits that hold where the host's are lower than Podman's wish.
    pub fn runner(&self) -> Command {
        let mut command = self.cli();
        command.args(["run", "--rm", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]);
        command
    }

    /// Ends the service; containers live on under conmon.
    pub fn stop(&mut self) -> Result<()> {
        self.daemon.as_mut().map_or(Ok(()), Kept::stop)
    }

    /// Starts the service (again) where it was.
    pub fn resume(&mut self) -> Result<()> {
        if let Some(mut ended) = self.daemon.take() {
            ended.stop()?;
        }
        let mut command: Vec<OsString> = vec!["podman".into()];
        for (flag, folder) in [("--root", "root"), ("--runroot", "run"), ("--tmpdir", "tmp")] {
            command.extend([flag.into(), self.dir.join(folder).into()]);
        }
        // Neither systemd nor journald is needed to try this.
        command.extend(["--cgroup-manager=cgroupfs", "--events-backend=file", "--runtime", "runc"].map(Into::into));
        command.extend(["system", "service", "--time=0"].map(Into::into));
        command.push(self.endpoint().into());
        let command: Vec<&OsStr> = command.iter().map(AsRef::as_ref).collect();
        self.daemon = Some(Kept::start(&self.dir, None, &command)?);
        ready(&self.dir, || run(self.cli().arg("version")))
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = run(self.cli().args(["rm", "--all", "--force", "--time", "0"]));
    }
}
