//! Whatever is wrong around it is said clearly, and what can be recorded is.

use std::{
    fs,
    io::Write,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use mayfly_tests::{
    IMAGE, Lifecycle, Mayfly, Result,
    fake::{Fake, begin, empty, event, now},
    report, run, until,
};
use serde_json::json;

use crate::{docker, turn};

/// Waits until a source is in `state` and its error and hint name `words`.
fn wait_for_words(mayfly: &Mayfly, state: &str, words: &[&str]) -> Result<String> {
    until("source that says what is wrong", Duration::from_secs(20), || {
        let rows = mayfly.query("SELECT state, endpoint, last_error, hint, rejected FROM recorder_sources WHERE source = 'docker'")?;
        let text = format!("{rows:?}");
        let there = text.contains(&format!("\"{state}\"")) && words.iter().all(|word| text.contains(word));
        if there { Ok(text) } else { Err(format!("{text}; {}", mayfly.log()).into()) }
    })
}

#[test]
fn a_wrong_key_is_refused_by_name_and_the_rest_is_recorded() -> Result<()> {
    let _turn = turn();
    let docker = docker()?;
    let endpoint = docker.endpoint();
    for (wrong, words) in [("enabeld = true", &["enabeld", "mayfly.toml:3"]), ("enabled = \"yes\"", &["boolean", "mayfly.toml:3"])] {
        let mayfly = Mayfly::with(&format!("[docker]\nendpoints = [\"{endpoint}\"]\n{wrong}\n"))?;
        let checked = run(Command::new("env").arg(mayfly_binary(&mayfly)?).arg("check").arg(mayfly.config()));
        let Err(refusal) = checked else { return Err(format!("`mayfly check` accepted {wrong}").into()) };
        let recording = mayfly.record()?;
        run(docker.cli().args(["run", "--rm", IMAGE, "true"]))?;
        mayfly.wait_for_count("SELECT count(*) AS n FROM container_lifecycle_events WHERE action = 'destroy'", 1)?;
        for word in words {
            assert!(refusal.to_string().contains(word), "`mayfly check` says of {wrong}: {refusal}");
            assert!(mayfly.log().contains(word), "`mayfly record` says of {wrong}: {}", mayfly.log());
        }
        recording.stop()?;
    }
    Ok(())
}

fn mayfly_binary(mayfly: &Mayfly) -> Result<PathBuf> {
    Ok(mayfly.command("check")?.get_program().into())
}

#[test]
fn a_missing_socket_is_waited_for_and_said() -> Result<()> {
    let _turn = turn();
    let mayfly = Mayfly::following("docker", "unix:///tmp/mayfly-no-such-socket.sock")?;
    let recording = mayfly.launch()?;
    report(&wait_for_words(&mayfly, "waiting", &["/tmp/mayfly-no-such-socket.sock"])?);
    recording.stop()?;
    Ok(())
}

/// As a user who may not open the socket.
#[test]
fn a_socket_without_permission_is_said_with_its_remedy() -> Result<()> {
    const NOBODY: u32 = 65534;
    let _turn = turn();
    let docker = docker()?;
    let place = tempfile::Builder::new().prefix("mayfly-nobody-").tempdir_in("/tmp")?;
    let mayfly = Mayfly::following("docker", &docker.endpoint())?;
    let binary = place.path().join("mayfly");
    fs::copy(mayfly_binary(&mayfly)?, &binary)?;
    let home = mayfly.config().parent().map(Path::to_owned).ok_or("no folder")?;
    for path in [place.path(), &home, &mayfly.config()] {
        chown(path, Some(NOBODY), Some(NOBODY))?;
    }
    // Readers are root and find the same state directory.
    let mut command = Command::new(binary);
    command.arg("record").arg("--config").arg(mayfly.config()).arg("--state-dir").arg(mayfly.state_dir());
    let mut child = command.uid(NOBODY).gid(NOBODY).stderr(fs::File::create(place.path().join("log"))?).spawn()?;
    let said = wait_for_words(&mayfly, "failed", &["ermission"]);
    let alive = child.try_wait()?.is_none();
    child.kill()?;
    child.wait()?;
    report(&said?);
    assert!(alive, "it must go on: {}", fs::read_to_string(place.path().join("log"))?);
    Ok(())
}

#[test]
fn nonsense_from_a_daemon_is_said_and_survived() -> Result<()> {
    let _turn = turn();
    let nonsense: [&'static [u8]; 4] =
        [b"\xff\xfe\x00garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{\"a\":", b"HTTP/1.1 500 \r\n\r\n", b""];
    for bytes in nonsense {
        let fake = Fake::start(move |_, stream| stream.write_all(bytes))?;
        let mayfly = Mayfly::following("docker", &fake.endpoint())?;
        let mut recording = mayfly.launch()?;
        report(&wait_for_words(&mayfly, "failed", &[&fake.endpoint()])?);
        assert!(recording.ended()?.is_none(), "{}", mayfly.log());
        assert!(recording.stop()?.success());
    }
    Ok(())
}

/// What cannot be read is counted; what comes before, between and after it is recorded. Then the stream breaks off in the middle of an event.
#[test]
fn events_around_nonsense_are_recorded() -> Result<()> {
    let _turn = turn();
    let fake = Fake::start(|path, stream| {
        if !path.contains("/events") {
            return empty(path, stream);
        }
        begin(stream)?;
        let time = now();
        let named = |name: &str| json!({ "image": IMAGE, "name": name });
        stream.write_all(event("create", "before", time, &named("before")).as_bytes())?;
        stream.write_all(b"{\"Type\":\"hologram\",\"Action\":\"shimmer\",\"timeNano\":17}\n")?;
        stream.write_all(b"{\"Type\":\"container\",\"Action\":\"create\",\"Actor\":{\"ID\":7},\"timeNano\":\"soon\"}\n")?;
        stream.write_all(b"{\"Type\":\"container\",\"Action\":\"transcend\",\"Actor\":{\"ID\":\"before\",\"Attributes\":{}},\"timeNano\":1700000000000000001}\n")?;
        stream.write_all(event("create", &"x".repeat(100_000), time + 2, &named("long")).as_bytes())?;
        stream.write_all(event("create", "after", time + 3, &named("after")).as_bytes())?;
        stream.write_all(b"{\"Type\":\"container\",\"Action\":\"cre")
    })?;
    let mayfly = Mayfly::following("docker", &fake.endpoint())?;
    let mut recording = mayfly.launch()?;
    for name in ["before", "after"] {
        let of = format!("SELECT count(*) AS n FROM container_lifecycle_events WHERE name = '{name}' AND action = 'create'");
        mayfly.wait_for_count(&of, 1)?;
    }
    let broken = until("break that is noticed", Duration::from_secs(10), || {
        let rows =
            mayfly.query("SELECT last_error, restarts, rejected FROM recorder_sources WHERE source = 'docker' AND last_error <> ''")?;
        if rows.is_empty() { Err("no error in recorder_sources".into()) } else { Ok(rows) }
    })?;
    report(&format!("{broken:?}"));
    let twice = mayfly.count("SELECT count(*) AS n FROM container_lifecycle_events WHERE name = 'before' AND action = 'create'")?;
    assert_eq!(twice, 1, "the same event again after a reconnect is the same event");
    assert!(recording.ended()?.is_none(), "{}", mayfly.log());
    recording.stop()?;
    Ok(())
}

#[test]
fn a_label_of_a_megabyte_is_cut_and_the_rest_is_kept() -> Result<()> {
    let _turn = turn();
    let docker = docker()?;
    let mayfly = Mayfly::following("docker", &docker.endpoint())?;
    let recording = mayfly.record()?;
    let mut wide = docker.cli();
    wide.args(["run", "--rm", "--name", "wide", "--label", "small=1"]);
    for n in 0..10 {
        // As much as one argument of a command may be, nearly; and what is not meant for a terminal.
        wide.args(["--label".into(), format!("big-{n}={}\u{fffd}\u{1}\u{1b}[2J", "x".repeat(110_000))]);
    }
    run(wide.args([IMAGE, "true"]))?;
    mayfly.wait_for_count("SELECT count(*) AS n FROM container_lifecycle_events WHERE name = 'wide' AND action = 'destroy'", 1)?;
    // The daemon may have containers of other tests.
    for event in Lifecycle::all(&mayfly)?.iter().filter(|event| event.text("name") == "wide") {
        let labels = event.text("labels");
        assert!(labels.len() <= 65_536, "{} bytes of labels on {}", labels.len(), event.action());
        assert!(labels.contains("small"), "{} lost its small label to the big one", event.action());
    }
    recording.stop()?;
    Ok(())
}

/// A file system of its own for the state directory.
struct Mount(PathBuf);

impl Mount {
    fn tmpfs(at: &Path, options: &str) -> Result<Self> {
        fs::create_dir_all(at)?;
        run(Command::new("mount").args(["-t", "tmpfs", "-o", options, "mayfly-tests"]).arg(at))?;
        Ok(Self(at.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = run(Command::new("umount").args(["--lazy"]).arg(&self.0));
    }
}

#[test]
fn a_read_only_state_directory_is_named() -> Result<()> {
    let _turn = turn();
    let mayfly = Mayfly::following("docker", "unix:///tmp/mayfly-no-such-socket.sock")?;
    let state = mayfly.state_dir();
    let _mount = Mount::tmpfs(&state, "ro,mode=0700")?;
    let mut recording = mayfly.launch()?;
    until("message that names the directory", Duration::from_secs(10), || {
        let (log, name) = (mayfly.log(), state.display().to_string());
        if log.contains(&name) && log.to_lowercase().contains("read-only") { Ok(()) } else { Err(log.into()) }
    })?;
    // Without a place to write to it may end, but not as if all were well.
    assert!(!recording.ended()?.is_some_and(|status| status.success()), "{}", mayfly.log());
    Ok(())
}

/// The disk fills up while it records, and is freed again: the moment is lost and said, the process lives.
#[test]
fn a_full_disk_stops_the_moment_not_the_process() -> Result<()> {
    let _turn = turn();
    let docker = docker()?;
    let mayfly = Mayfly::following("docker", &docker.endpoint())?;
    let state = mayfly.state_dir();
    let _mount = Mount::tmpfs(&state, "size=8m,mode=0700")?;
    let mut recording = mayfly.record()?;
    let once = |name: &str| run(docker.cli().args(["run", "--rm", "--name", name, IMAGE, "true"])).map(drop);
    let ended = |name: &str| format!("SELECT count(*) AS n FROM container_lifecycle_events WHERE name = '{name}' AND action = 'destroy'");
    once("before")?;
    mayfly.wait_for_count(&ended("before"), 1)?;
    let mut filler = fs::File::create(state.join("filler"))?;
    while filler.write_all(&[0; 4096]).is_ok() {}
    drop(filler);
    // Enough to need pages that are not there, whatever was kept in reserve.
    mayfly_tests::churn(40, 4, |n| once(&format!("meanwhile-{n}")))?;
    let fill = || fs::File::options().append(true).open(state.join("filler")).is_ok_and(|mut f| f.write_all(&[0; 512]).is_err());
    assert!(fill(), "the disk was not full");
    assert!(recording.ended()?.is_none(), "it ended: {}", mayfly.log());
    fs::remove_file(state.join("filler"))?;
    until("event after the disk was freed", Duration::from_secs(30), || {
        once("after")?;
        match mayfly.count(&ended("after"))? {
            0 => Err(mayfly.log().lines().last().unwrap_or_default().into()),
            n => Ok(n),
        }
    })?;
    let kept = mayfly
        .count("SELECT count(DISTINCT name) AS n FROM container_lifecycle_events WHERE name LIKE 'meanwhile-%' AND action = 'destroy'")?;
    let gaps = mayfly.count("SELECT count(*) AS n FROM recorder_gaps WHERE cause = 'store_failed'")?;
    report(&format!("full disk: {kept} of 40 kept, {gaps} gaps"));
    assert!(kept == 40 || gaps > 0, "{} containers are lost and no gap says so: {}", 40 - kept, mayfly.log());
    recording.stop()?;
    Ok(())
}

#[test]
fn a_corrupt_history_is_set_aside_and_recording_goes_on() -> Result<()> {
    let _turn = turn();
    let docker = docker()?;
    let mayfly = Mayfly::following("docker", &docker.endpoint())?;
    let once = || run(docker.cli().args(["run", "--rm", IMAGE, "true"])).map(drop);
    let ended = "SELECT count(*) AS n FROM container_lifecycle_events WHERE action = 'destroy'";
    let recording = mayfly.record()?;
    once()?;
    mayfly.wait_for_count(ended, 1)?;
    let newest = |mayfly: &Mayfly| -> Result<String> {
        let rows = mayfly.query("SELECT max(eid) AS eid FROM container_lifecycle_events")?;
        Ok(rows.first().and_then(|row| row.get("eid")?.as_str()).unwrap_or_default().to_owned())
    };
    let before = newest(&mayfly)?;
    assert!(recording.stop()?.success());
    fs::write(mayfly.state_dir().join("history.db"), [0xa5; 64 * 1024])?;
    let recording = mayfly.record()?;
    once()?;
    mayfly.wait_for_count(ended, 1)?;
    let after = newest(&mayfly)?;
    assert!(after > before, "event ids must go on rising: {before} then {after}");
    let aside = fs::read_dir(mayfly.state_dir())?.filter_map(std::result::Result::ok).map(|e| e.file_name().to_string_lossy().into_owned());
    let aside: Vec<_> = aside.filter(|name| name.contains("corrupt")).collect();
    assert!(!aside.is_empty() && aside.iter().any(|name| mayfly.log().contains(name.as_str())), "{aside:?} in {}", mayfly.log());
    recording.stop()?;
    Ok(())
}
