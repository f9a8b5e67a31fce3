//! A private dockerd, with its own containerd and its own bridge; the host's firewall stays as it is.

use std::{ffi::OsStr, fs, path::PathBuf, process::Command};

use super::kept::{Kept, place, ready};
use crate::{
    Result,
    command::{run, tool},
    image::Image,
};

#[derive(Debug)]
pub struct Docker {
    dir: PathBuf,
    bridge: String,
    live_restore: bool,
    daemon: Option<Kept>,
    pub image: Image,
}

impl Docker {
    /// Starts a daemon that has the image.
    pub fn start(live_restore: bool) -> Result<Self> {
        for (name, package) in
            [("dockerd", "docker.io"), ("docker", "docker.io docker-cli"), ("containerd", "containerd"), ("runc", "runc")]
        {
            tool(name, package)?;
        }
        let dir = place("docker")?;
        fs::create_dir(dir.join("image"))?;
        let image = Image::make(&dir.join("image"))?;
        let mut docker = Self { bridge: make_bridge()?, dir, live_restore, daemon: None, image };
        docker.resume()?;
        run(docker.cli().args(["load", "--input"]).arg(&docker.image.archive))?;
        Ok(docker)
    }

    /// `unix:///…`, as in `[docker] endpoints`.
    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.dir.join("docker.sock").display())
    }

    /// The endpoint of the containerd that this daemon runs, whose namespace `moby` has the same containers.
    pub fn containerd_endpoint(&self) -> String {
        format!("unix://{}", self.dir.join("exec/containerd/containerd.sock").display())
    }

    /// The host's address on the daemon's bridge.
    pub fn gateway(&self) -> String {
        format!("10.213.{}.1", self.bridge.trim_start_matches("mayfly"))
    }

    /// `docker`, speaking to this daemon.
    pub fn cli(&self) -> Command {
        let mut command = Command::new("docker");
        command.arg("--host").arg(self.endpoint()).env_remove("DOCKER_HOST").env_remove("DOCKER_CONTEXT");
        command
    }

    /// Ends the daemon in order; `live_restore` decides whether its containers live on.
    pub fn stop(&mut self) -> Result<()> {
        self.daemon.as_mut().map_or(Ok(()), Kept::stop)
    }

    /// Ends the daemon as a crash does: its containers live on.
    pub fn kill(&mut self) -> Result<()> {
        self.daemon.as_mut().map_or(Ok(()), Kept::kill)
    }

    /// Starts the daemon (again) where it was.
    pub fn resume(&mut self) -> Result<()> {
        // A daemon that was killed leaves pid files, its own and that of the containerd that died with it: they would block the next.
        for file in ["pid", "exec/containerd/containerd.pid"] {
            let _ = fs::remove_file(self.dir.join(file));
        }
        let (root, exec, pid, host) = (self.dir.join("root"), self.dir.join("exec"), self.dir.join("pid"), self.endpoint());
        let mut command = vec![OsStr::new("dockerd"), OsStr::new("--data-root"), root.as_ref(), OsStr::new("--exec-root"), exec.as_ref()];
        command.extend([OsStr::new("--pidfile"), pid.as_ref(), OsStr::new("--host"), host.as_ref()]);
        let network = ["--bridge", &self.bridge, "--iptables=false", "--ip-masq=false", "--userland-proxy=false"];
        command.extend(network.map(OsStr::new));
        command.extend(["--shutdown-timeout", "2", "--log-level", "warn"].map(OsStr::new));
        if self.live_restore {
            command.push(OsStr::new("--live-restore"));
        }
        // The one before, if any, has ended by itself and must leave the directory.
        if let Some(mut ended) = self.daemon.take() {
            ended.stop()?;
        }
        self.daemon = Some(Kept::start(&self.dir, Some(&self.bridge), &command)?);
        ready(&self.dir, || run(self.cli().arg("version")))
    }
}

impl Drop for Docker {
    /// Containers that live restore would leave behind end with their daemon.
    fn drop(&mut self) {
        if let Ok(ids) = run(self.cli().args(["ps", "--quiet"]))
            && !ids.is_empty()
        {
            let _ = run(self.cli().args(["kill"]).args(ids.split_whitespace()));
        }
    }
}

/// Makes a bridge that no other daemon uses. (`--bridge=none` would delete the host's docker0.)
fn make_bridge() -> Result<String> {
    tool("ip", "iproute2")?;
    for n in 0..250 {
        let name = format!("mayfly{n}");
        if run(Command::new("ip").args(["link", "add", &name, "type", "bridge"])).is_ok() {
            run(Command::new("ip").args(["address", "add", &format!("10.213.{n}.1/24"), "dev", &name]))?;
            run(Command::new("ip").args(["link", "set", &name, "up"]))?;
            return Ok(name);
        }
    }
    Err("cannot make a bridge for a private dockerd; root is needed".into())
}
