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
    image::{IMAGE, Image},
};

const RUN: [&str; 6] = ["run", "--rm", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"];

/// Names the only configuration that Podman reads.
const CONF: &str = "CONTAINERS_CONF";
/// The same limits for what holds a pod, which no option reaches.
const LIMITS: &str = "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n";

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
        fs::write(dir.join("containers.conf"), LIMITS)?;
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
        command.env(CONF, self.dir.join("containers.conf")).arg("--url").arg(self.endpoint());
        command
    }

    /// `podman run --rm`, with limits that hold where the host's are lower than Podman's wish.
    pub fn runner(&self) -> Command {
        let mut command = self.cli();
        command.args(RUN);
        command
    }

    /// Makes a pod; what holds its network is a container `NAME-infra` of our image, since what Podman would take is a package of its own.
    pub fn pod(&self, name: &str) -> Result<()> {
        let infra = format!("{name}-infra");
        let hold = ["--infra-name", &infra, "--infra-image", IMAGE, "--infra-command", "sleep 600"];
        run(self.cli().args(["pod", "create", "--name", name]).args(hold)).map(drop)
    }

    /// The same without the service, over the same storage: whoever calls it needs none, and the service hears of it from Podman's log.
    pub fn alone(&self) -> impl Fn() -> Command + Sync + use<> {
        let options = self.options();
        move || {
            let mut command = Command::new("podman");
            command.args(&options).args(RUN);
            command
        }
    }

    /// Where everything is kept; neither systemd nor journald is needed to try this.
    fn options(&self) -> Vec<OsString> {
        let folders = [("--root", "root"), ("--runroot", "run"), ("--tmpdir", "tmp")];
        let folders = folders.into_iter().flat_map(|(flag, folder)| [flag.into(), self.dir.join(folder).into()]);
        folders.chain(["--cgroup-manager=cgroupfs", "--events-backend=file", "--runtime", "runc"].map(Into::into)).collect()
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
        let (options, endpoint) = (self.options(), self.endpoint());
        let conf = format!("{CONF}={}", self.dir.join("containers.conf").display());
        let command: Vec<&OsStr> = ["env", &conf, "podman"]
            .into_iter()
            .map(AsRef::as_ref)
            .chain(options.iter().map(AsRef::as_ref))
            .chain(["system", "service", "--time=0", &endpoint].map(AsRef::as_ref))
            .collect();
        self.daemon = Some(Kept::start(&self.dir, None, &command)?);
        ready(&self.dir, || run(self.cli().arg("version")))
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        for all in [&["pod", "rm"][..], &["rm"]] {
            let _ = run(self.cli().args(all).args(["--all", "--force", "--time", "0"]));
        }
    }
}
