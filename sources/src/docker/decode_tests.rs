//! Messages captured from dockerd 20.10 and podman 4.3, ids shortened.

use super::*;

fn one(line: &str, runtime: Runtime) -> Told {
    decode(line.as_bytes(), runtime, &mut Labels::default()).unwrap()
}

fn told(line: &str) -> ContainerTold {
    match one(line, Runtime::Docker) {
        Told::Container(told) => told,
        other => panic!("{other:?}"),
    }
}

/// `docker run --label name=evil --label image=x --label exitCode=99 busybox sh -c 'exit 7'`: the label hid the status.
const CREATE: &str = r#"{"status":"create","id":"92ec","from":"busybox:test","Type":"container","Action":"create","Actor":{"ID":"92ec","Attributes":{"exitCode":"99","image":"busybox:test","name":"t1"}},"scope":"local","time":1795376949,"timeNano":1795376949944843247}"#;
const DIE: &str = r#"{"status":"die","id":"92ec","from":"busybox:test","Type":"container","Action":"die","Actor":{"ID":"92ec","Attributes":{"exitCode":"99","image":"busybox:test","name":"t1"}},"scope":"local","time":1795376950,"timeNano":1795376950178830225}"#;

#[test]
fn a_label_is_never_mistaken_for_the_exit_code() {
    let mut labels = Labels::default();
    let mut read = |line: &str| match decode(line.as_bytes(), Runtime::Docker, &mut labels).unwrap() {
        Told::Container(told) => told,
        other => panic!("{other:?}"),
    };
    let create = read(CREATE);
    assert_eq!((create.name.as_deref(), create.image.as_deref()), (Some("t1"), Some("busybox:test")));
    assert_eq!(create.labels.get("exitCode").map(String::as_str), Some("99"));
    assert_eq!(create.time_ns, 1_795_376_949_944_843_247);
    let die = read(DIE);
    assert_eq!((die.action, die.exit_code), (Some(Action::Die), None));
    assert!(die.attributes.is_empty());
}

#[test]
fn a_die_without_such_a_label_has_its_exit_code() {
    assert_eq!(told(DIE).exit_code, Some(99));
}

#[test]
fn an_exec_is_named_by_its_id_and_command() {
    let exec = told(
        r#"{"Type":"container","Action":"exec_create: true ","Actor":{"ID":"d8fc","Attributes":{"execID":"3536","image":"busybox:test","name":"t2"}},"timeNano":1795376950470748963}"#,
    );
    assert_eq!((exec.action, exec.exec_id.as_deref()), (Some(Action::ExecCreate), Some("3536")));
    assert_eq!(exec.attributes.get("command").map(String::as_str), Some("true"));
    let died = told(
        r#"{"Type":"container","Action":"exec_die","Actor":{"ID":"d8fc","Attributes":{"execID":"3536","exitCode":"3","image":"b","name":"t2"}},"timeNano":1795376950510835356}"#,
    );
    assert_eq!((died.action, died.exit_code), (Some(Action::ExecDie), None), "the column is for a container's own end");
    assert_eq!(died.attributes.get("exitCode").map(String::as_str), Some("3"));
}

#[test]
fn kill_rename_and_health_keep_what_they_say() {
    let kill = told(r#"{"Type":"container","Action":"kill","Actor":{"ID":"d8","Attributes":{"name":"t3","signal":"10"}},"timeNano":1}"#);
    assert_eq!(kill.signal, Some(10));
    let rename =
        told(r#"{"Type":"container","Action":"rename","Actor":{"ID":"d8","Attributes":{"name":"t3","oldName":"/t2"}},"timeNano":1}"#);
    assert_eq!((rename.name.as_deref(), rename.attributes.get("oldName").map(String::as_str)), (Some("t3"), Some("t2")));
    let health = told(r#"{"Type":"container","Action":"health_status: unhealthy","Actor":{"ID":"d8","Attributes":{}},"timeNano":1}"#);
    assert_eq!(health.action, Some(Action::HealthStatus));
    assert_eq!(health.attributes.get("health").map(String::as_str), Some("unhealthy"));
}

#[test]
fn a_network_event_is_its_containers() {
    let connect = told(
        r#"{"Type":"network","Action":"connect","Actor":{"ID":"7937","Attributes":{"container":"92ec","name":"bridge","type":"bridge"}},"scope":"local","time":1795376949,"timeNano":1795376949973148422}"#,
    );
    assert_eq!((connect.id.as_str(), connect.action, connect.name), ("92ec", Some(Action::NetworkConnect), None));
    assert_eq!(connect.attributes.get("network").map(String::as_str), Some("bridge"));
    assert_eq!(one(r#"{"Type":"network","Action":"create","Actor":{"ID":"79"},"timeNano":1}"#, Runtime::Docker), Told::Other);
}

#[test]
fn podmans_words_are_translated() {
    let podman = |line: &str| match one(line, Runtime::Podman) {
        Told::Container(told) => told,
        other => panic!("{other:?}"),
    };
    let die = podman(
        r#"{"status":"die","Type":"container","Action":"die","Actor":{"ID":"9cb8","Attributes":{"containerExitCode":"7","exitCode":"7","image":"localhost/busybox:test","name":"p1","podId":""}},"timeNano":1795376961334889379}"#,
    );
    assert_eq!((die.exit_code, die.attributes.len()), (Some(7), 0));
    let mut labels = Labels::default();
    labels.learn("9cb8", ["exitCode".to_owned()].iter());
    let line =
        r#"{"Type":"container","Action":"die","Actor":{"ID":"9cb8","Attributes":{"containerExitCode":"7","exitCode":"7"}},"timeNano":1}"#;
    let Told::Container(die) = decode(line.as_bytes(), Runtime::Podman, &mut labels).unwrap() else { panic!() };
    assert_eq!(die.exit_code, Some(7), "its own attributes win over labels");
    let remove = podman(
        r#"{"Type":"container","Action":"remove","Actor":{"ID":"9c","Attributes":{"containerExitCode":"0","name":"p1"}},"timeNano":1}"#,
    );
    assert_eq!((remove.action, remove.exit_code), (Some(Action::Destroy), None));
    let create = podman(
        r#"{"Type":"container","Action":"create","Actor":{"ID":"9c","Attributes":{"containerExitCode":"0","image":"i","name":"p1","podId":""}},"timeNano":1}"#,
    );
    assert!(create.labels.is_empty());
    assert_eq!(podman(r#"{"Type":"container","Action":"init","Actor":{"ID":"9c"},"timeNano":1}"#).action, None);
    assert_eq!(one(r#"{"Type":"container","Action":"sync","Actor":{"ID":"9c"},"timeNano":1}"#, Runtime::Podman), Told::Other);
}

#[test]
fn images_are_told_by_name_or_id() {
    let image = |line: &str| match one(line, Runtime::Docker) {
        Told::Image(told) => (told.action, told.name, told.id),
        other => panic!("{other:?}"),
    };
    let digits = "d58d2c9dbecc078c238634fbeec8d360ed0a067e8de2eb703d0c754e0186aef7";
    let id = Some(format!("sha256:{digits}"));
    let line = |action: &str, actor: &str, name: &str| {
        format!(r#"{{"Type":"image","Action":"{action}","Actor":{{"ID":"{actor}","Attributes":{{"name":"{name}"}}}},"timeNano":1}}"#)
    };
    assert_eq!(image(&line("tag", &format!("sha256:{digits}"), "foo:bar")), ("tag", Some("foo:bar".into()), id.clone()));
    assert_eq!(image(&line("tag", digits, "foo:bar")), ("tag", Some("foo:bar".into()), id.clone()));
    assert_eq!(image(&line("untag", &format!("sha256:{digits}"), &format!("sha256:{digits}"))), ("untag", None, id));
    assert_eq!(image(&line("pull", "alpine:3", "alpine")), ("pull", Some("alpine:3".into()), None));
    assert_eq!(image(&line("loadfromarchive", "", "/var/tmp/x")), ("load", None, None));
    assert_eq!(one(&line("save", digits, "x"), Runtime::Docker), Told::Other);
}

#[test]
fn nonsense_is_refused_and_the_unknown_passed_over() {
    let refused = |line: &[u8]| decode(line, Runtime::Docker, &mut Labels::default()).is_err();
    assert!(refused(b"<html>") && refused(b"{") && refused(b"\xff\xfe") && refused(b""));
    assert!(refused(br#"{"Type":"container","Action":"die","Actor":{"ID":"x"}}"#), "without a time");
    assert!(refused(br#"{"Type":"container","Action":"die","timeNano":1}"#), "without a container");
    let long = format!(r#"{{"Type":"container","Action":"die","Actor":{{"ID":"{}"}},"timeNano":1}}"#, "x".repeat(129));
    assert!(refused(long.as_bytes()));
    assert_eq!(one("{}", Runtime::Docker), Told::Other);
    assert_eq!(one(r#"{"Type":"hologram","Action":"create","timeNano":1}"#, Runtime::Docker), Told::Other);
    assert_eq!(one(r#"{"Type":"container","Action":"levitate","Actor":{"ID":"x"},"timeNano":1}"#, Runtime::Docker), Told::Other);
}

#[test]
fn names_that_are_not_utf8_and_huge_labels_are_recorded_as_far_as_possible() {
    let mut line = br#"{"Type":"container","Action":"create","Actor":{"ID":"x","Attributes":{"name":"a"#.to_vec();
    line.extend_from_slice(b"\xff\xfe");
    line.extend_from_slice(br#"","n":7,"big":""#);
    line.resize(line.len() + (1 << 20), b'x');
    line.extend_from_slice(br#""}},"timeNano":1}"#);
    let Told::Container(told) = decode(&line, Runtime::Docker, &mut Labels::default()).unwrap() else { panic!() };
    assert_eq!(told.name.as_deref(), Some("a\u{fffd}\u{fffd}"));
    assert!(told.labels.get("big").is_some_and(|big| (MAX_VALUE..64 << 10).contains(&big.len())));
    assert_eq!(told.labels.get("n").map(String::as_str), Some("7"));
}
