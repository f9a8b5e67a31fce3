//! The tests themselves leave nothing behind.

use std::{fs, path::Path};

use mayfly_tests::{
    IMAGE, Result,
    daemon::{Containerd, Docker, Podman},
    exits, run,
};

use crate::turn;

#[test]
fn a_private_dockerd_restarts_and_leaves_nothing_behind() -> Result<()> {
    let _turn = turn();
    let before = links()?;
    let mut docker = Docker::start(false)?;
    let image = run(docker.cli().args(["image", "inspect", "--format", "{{.Id}}", IMAGE]))?;
    assert_eq!(image.trim(), docker.image.id);
    exits(docker.cli().args(["run", "--rm", IMAGE, "sh", "-c", "exit 3"]), 3)?;
    docker.stop()?;
    docker.resume()?;
    exits(docker.cli().args(["run", "--rm", IMAGE, "true"]), 0)?;
    let socket = docker.endpoint().trim_start_matches("unix://").to_owned();
    drop(docker);
    assert!(!Path::new(&socket).exists(), "{socket} is still there");
    assert_eq!(links()?, before, "a bridge is still there");
    Ok(())
}

#[test]
fn containerd_and_podman_run_the_same_image() -> Result<()> {
    let _turn = turn();
    let containerd = Containerd::start()?;
    exits(containerd.cli().args(["run", "--rm", IMAGE, "one", "sh", "-c", "exit 3"]), 3)?;
    let podman = Podman::start()?;
    exits(podman.runner().args([IMAGE, "sh", "-c", "exit 3"]), 3)?;
    assert_eq!(containerd.image.id, podman.image.id);
    Ok(())
}

/// The bridges that tests make.
fn links() -> Result<Vec<String>> {
    let names = fs::read_dir("/sys/class/net")?.filter_map(|e| Some(e.ok()?.file_name().to_string_lossy().into_owned()));
    let mut links: Vec<_> = names.filter(|name| name.starts_with("mayfly")).collect();
    links.sort();
    Ok(links)
}
