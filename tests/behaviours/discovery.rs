//! Daemons come later, and come again: they are followed without a restart.

use std::{fs, sync::Arc, time::Duration};

use mayfly_tests::{IMAGE, Mayfly, Result, fake, run, until};
use serde_json::json;

use crate::{docker, turn};

/// The socket's folder is not even there when the recorder starts.
#[test]
fn a_daemon_that_starts_later_is_followed() -> Result<()> {
    let _turn = turn();
    let docker = docker()?;
    let place = tempfile::tempdir()?;
    let socket = place.path().join("later/run/docker.sock");
    let mayfly = Mayfly::following("docker", &format!("unix://{}", socket.display()))?;
    let recording = mayfly.launch()?;
    recording.wait_for_state("waiting")?;
    // A link to a daemon that runs is as good as one that starts, and starts at once.
    fs::create_dir_all(place.path().join("later/run"))?;
    std::os::unix::fs::symlink(docker.endpoint().trim_start_matches("unix://"), &socket)?;
    recording.wait_for_state("running")?;
    run(docker.cli().args(["run", "--rm", IMAGE, "true"]))?;
    mayfly.wait_for_count("SELECT count(*) AS n FROM container_lifecycle_events WHERE action = 'destroy'", 1)?;
    recording.stop()?;
    Ok(())
}

/// A new daemon at the same path: the old connection says nothing any more.
#[test]
fn a_replaced_socket_is_followed() -> Result<()> {
    let _turn = turn();
    let place = tempfile::tempdir()?;
    let socket = place.path().join("docker.sock");
    let serve = |id: &'static str| {
        fake::listen(
            &socket,
            Arc::new(move |path: &str, stream: &mut std::os::unix::net::UnixStream| {
                if !path.contains("/events") {
                    return fake::empty(path, stream);
                }
                fake::begin(stream)?;
                std::io::Write::write_all(
                    stream,
                    fake::event("create", id, fake::now(), &json!({ "image": IMAGE, "name": id })).as_bytes(),
                )?;
                std::io::copy(stream, &mut std::io::sink()).map(drop)
            }),
        )
    };
    serve("first")?;
    let mayfly = Mayfly::following("docker", &format!("unix://{}", socket.display()))?;
    let recording = mayfly.launch()?;
    let of = |id: &str| format!("SELECT count(*) AS n FROM container_lifecycle_events WHERE container_id = '{id}'");
    mayfly.wait_for_count(&of("first"), 1)?;
    fs::remove_file(&socket)?;
    serve("second")?;
    until("event of the second daemon", Duration::from_secs(20), || match mayfly.count(&of("second"))? {
        0 => Err(format!("{:?}", mayfly.query("SELECT * FROM recorder_sources")?).into()),
        n => Ok(n),
    })?;
    recording.stop()?;
    Ok(())
}
