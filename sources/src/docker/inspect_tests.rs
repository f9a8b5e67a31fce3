use super::*;

fn details(text: &str) -> Details {
    serde_json::from_str::<Inspect>(text).unwrap().details(Runtime::Docker)
}

/// What `GET /containers/ID/json` of dockerd 20.10 answers, shortened.
const RUNNING: &str = r#"{"Id":"49e5","Created":"2026-11-22T20:00:28.689364018Z","Path":"sleep","Args":["5"],"State":{"Status":"running","Running":true,
"Paused":false,"Restarting":false,"OOMKilled":false,"Dead":false,"Pid":30018,"ExitCode":0,"Error":"","StartedAt":"2026-11-22T20:00:28.97441654Z",
"FinishedAt":"0001-01-01T00:00:00Z"},"Image":"sha256:d58d","Name":"/t9","HostConfig":{"NetworkMode":"default","PortBindings":{"80/tcp":[{"HostIp":"",
"HostPort":"18080"}]},"Privileged":false},"Mounts":[{"Type":"bind","Source":"/tmp","Destination":"/m","Mode":"ro","RW":false,"Propagation":"rslave"}],
"Config":{"Hostname":"49e58c3427aa","User":"","Cmd":["sleep","5"],"Image":"busybox:test","Labels":{"a":"b"}},"NetworkSettings":{"Ports":{"80/tcp":[
{"HostIp":"0.0.0.0","HostPort":"18080"},{"HostIp":"::","HostPort":"18080"}]},"SandboxKey":"/run/docker/netns/ccbe","Networks":{"bridge":{
"IPAddress":"172.17.0.2","GlobalIPv6Address":"","MacAddress":"02:42:ac:11:00:02"}}}}"#;

#[test]
fn a_running_container_is_told_whole() {
    let details = details(RUNNING);
    assert_eq!(details.name.as_deref(), Some("t9"));
    assert_eq!(details.image.as_deref(), Some("busybox:test"));
    assert_eq!(details.image_id.as_deref(), Some("sha256:d58d"));
    assert_eq!(details.command.as_deref(), Some("sleep 5"));
    assert_eq!((details.user, details.privileged), (None, Some(false)));
    assert_eq!(details.created_ns, Some(1_795_377_628_689_364_018));
    assert_eq!(details.mounts.as_deref(), Some(r#"[{"destination":"/m","mode":"ro","name":"","rw":false,"source":"/tmp","type":"bind"}]"#));
    assert_eq!(
        details.ports.as_deref(),
        Some(
            r#"[{"container_port":80,"host_address":"0.0.0.0","host_port":18080,"protocol":"tcp"},{"container_port":80,"host_address":"::","host_port":18080,"protocol":"tcp"}]"#
        )
    );
    let run = details.run;
    assert_eq!((run.pid, run.exit_code, run.finished_ns, run.oom_killed), (Some(30018), None, None, None));
    assert_eq!(run.started_ns, Some(1_795_377_628_974_416_540));
    assert_eq!(run.ip_addresses, ["172.17.0.2"]);
    assert_eq!(run.mac_addresses, ["02:42:ac:11:00:02"]);
}

#[test]
fn only_an_ended_run_has_an_exit_code() {
    let state = |state: &str| {
        let inspect: Inspect = serde_json::from_str(&format!(r#"{{"State":{{{state}}}}}"#)).unwrap();
        (inspect.state(), inspect.details(Runtime::Docker).run)
    };
    let times = r#""StartedAt":"2026-11-22T20:00:28Z","FinishedAt":"2026-11-22T20:00:30Z""#;
    let (exited, run) = state(&format!(r#""Status":"exited","ExitCode":7,"OOMKilled":true,{times}"#));
    assert_eq!((exited, run.exit_code, run.oom_killed), (State::Exited, Some(7), Some(true)));
    let (running, run) =
        state(r#""Status":"running","Pid":4,"ExitCode":7,"StartedAt":"2026-11-22T20:00:30Z","FinishedAt":"2026-11-22T20:00:28Z""#);
    assert_eq!((running, run.exit_code, run.finished_ns), (State::Running, None, None), "those are of the run before");
    let (created, run) = state(r#""Status":"created","ExitCode":0,"StartedAt":"0001-01-01T00:00:00Z""#);
    assert_eq!((created, run), (State::Created, Run::default()));
    // Docker's file has no status.
    assert_eq!(state(&format!(r#""Running":false,"ExitCode":3,{times}"#)).1.exit_code, Some(3));
    assert_eq!(state(r#""Running":true,"Paused":true,"StartedAt":"2026-11-22T20:00:28Z""#).0, State::Paused);
}

#[test]
fn before_the_start_the_ports_asked_for_are_told() {
    let asked =
        details(r#"{"HostConfig":{"PortBindings":{"53/udp":[{"HostIp":"","HostPort":""}],"x":null}},"NetworkSettings":{"Ports":{}}}"#);
    assert_eq!(asked.ports.as_deref(), Some(r#"[{"container_port":53,"host_address":"","host_port":null,"protocol":"udp"}]"#));
}

#[test]
fn missing_and_null_fields_are_unknown_not_errors() {
    let nothing = Details { runtime: Runtime::Docker, ..Details::default() };
    assert_eq!(details("{}"), nothing);
    assert_eq!(
        details(r#"{"State":null,"Config":{"Labels":null},"Mounts":null,"HostConfig":{},"NetworkSettings":{"Networks":{"b":null}}}"#),
        nothing
    );
    assert!(serde_json::from_str::<Inspect>("[1]").is_err() || serde_json::from_str::<Inspect>("[1]").is_ok(), "never a panic");
}

#[test]
fn dockers_file_is_found_only_for_an_id() {
    let root = Path::new("/var/lib/docker");
    assert_eq!(file_of(root, "49e5"), Some("/var/lib/docker/containers/49e5/config.v2.json".into()));
    assert_eq!(file_of(root, "../../etc"), None);
    assert_eq!(file_of(root, ""), None);
    assert_eq!(escape("a b/c?d"), "a%20b/c%3Fd");
}

#[test]
fn dockers_files_tell_of_a_new_container_what_an_inspect_would() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.v2.json");
    let config = r#"{"ID":"49e5","Created":"2026-11-22T20:00:28Z","Path":"sleep","Args":["5"],"Image":"sha256:d58d","Name":"/t9",
        "State":{"Running":false,"StartedAt":"0001-01-01T00:00:00Z"},"Config":{"Hostname":"h","User":"app","Image":"busybox:test","Labels":{"a":"b"}},
        "MountPoints":{"/m":{"Source":"/tmp","Destination":"/m","RW":false,"Name":"","Type":"bind","Relabel":"ro"}}}"#;
    std::fs::write(&file, config).unwrap();
    assert!(from_files(&file).is_none(), "both are needed");
    let host = r#"{"NetworkMode":"host","Privileged":true,"PortBindings":{"80/tcp":[{"HostIp":"","HostPort":"18080"}]}}"#;
    std::fs::write(dir.path().join("hostconfig.json"), host).unwrap();
    let details = from_files(&file).unwrap().details(Runtime::Docker);
    assert_eq!((details.image_id.as_deref(), details.user.as_deref()), (Some("sha256:d58d"), Some("app")));
    assert_eq!((details.network_mode.as_deref(), details.privileged), (Some("host"), Some(true)));
    assert_eq!(details.mounts.as_deref(), Some(r#"[{"destination":"/m","mode":"ro","name":"","rw":false,"source":"/tmp","type":"bind"}]"#));
    assert_eq!(details.ports.as_deref(), Some(r#"[{"container_port":80,"host_address":"","host_port":18080,"protocol":"tcp"}]"#));
    assert_eq!(details.run, Run::default());
}
