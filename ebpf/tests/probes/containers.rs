//! Containers of a real Docker daemon, seen by the kernel alone.
//!
//! `DOCKER_HOST` names the daemon (default: the host's own). Where none answers, each test says so.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::{Command, Output},
};

use crate::probing::Probing;
use mayfly_ebpf::EbpfConfig;
use mayfly_history::{process::ProcessAction, socket::SocketAction};

const IMAGE: &str = "busybox:test";

fn docker(args: &[&str]) -> Output {
    Command::new("docker").args(args).output().unwrap()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap().trim().to_owned()
}

/// Whether there is a daemon with the image of these tests.
fn has_docker() -> bool {
    let asked = Command::new("docker").args(["image", "inspect", IMAGE]).output();
    let has = asked.is_ok_and(|o| o.status.success());
    if !has {
        println!("not run here: no Docker daemon that has the image {IMAGE}");
    }
    has
}

#[test]
fn knows_the_container_of_the_very_first_exec_and_of_every_exit() {
    if !has_docker() {
        return;
    }
    let Some(mut probing) = Probing::start(&EbpfConfig::default()) else { return };
    let mut ids = BTreeSet::new();
    for _ in 0..10 {
        let id = text(&docker(&["create", IMAGE, "sh", "-c", "echo; /bin/true; exit 5"]));
        docker(&["start", "-a", &id]);
        docker(&["rm", "-f", &id]);
        ids.insert(id);
    }
    probing.stop();
    let mut programs: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for received in probing.sinks.processes.drain(usize::MAX) {
        let event = received.item;
        let id = event.container.container_id.to_string();
        assert!(!id.is_empty(), "the host was not asked for: {event:?}");
        let row = match event.action {
            ProcessAction::Exec => format!("exec {} pid {}", event.cmdline, event.ns_pid.unwrap_or_default()),
            ProcessAction::Exit => format!("exit {} code {:?}", event.path, event.exit_code),
            ProcessAction::Throttled => "throttled".into(),
        };
        programs.entry(id).or_default().push(row);
    }
    for id in &ids {
        let rows = programs.get(id).map(Vec::as_slice).unwrap_or_default();
        for wanted in ["exec sh -c echo; /bin/true; exit 5 pid 1", "exit /bin/true code Some(0)", "exit /bin/sh code Some(5)"] {
            assert!(rows.iter().any(|row| row.contains(wanted)), "{wanted} is not among {rows:#?}");
        }
    }
    assert_eq!(probing.feed.status().lost_in_kernel, 0);
}

#[test]
fn knows_the_container_of_a_connection() {
    if !has_docker() {
        return;
    }
    let Some(mut probing) = Probing::start(&EbpfConfig::default()) else { return };
    let script = "nc -l -p 8099 -e /bin/true & sleep 0.2; nc 127.0.0.1 8099 </dev/null; true";
    let id = text(&docker(&["create", IMAGE, "sh", "-c", script]));
    docker(&["start", "-a", &id]);
    for action in [SocketAction::Listen, SocketAction::Connect, SocketAction::Accept] {
        let event = probing.socket(|e| e.action == action && (e.local_port == 8099 || e.remote_port == 8099));
        assert_eq!(&*event.container.container_id, id, "{event:?}");
        assert!(event.net_namespace.is_some() && event.pid.is_some() && &*event.path == "/bin/busybox", "{event:?}");
    }
    docker(&["rm", "-f", &id]);
}

#[test]
fn knows_the_container_of_an_oom_kill() {
    if !has_docker() {
        return;
    }
    let Some(mut probing) = Probing::start(&EbpfConfig::default()) else { return };
    let id = text(&docker(&["create", "--memory=16m", IMAGE, "sh", "-c", "tail /dev/zero"]));
    docker(&["start", "-a", &id]);
    let kill = probing.oom(|e| *e.container.container_id == *id);
    assert!(kill.rss > 4 << 20 && kill.rss <= 64 << 20 && kill.total_vm >= kill.rss, "{kill:?}");
    docker(&["rm", "-f", &id]);
}

#[test]
fn a_fork_bomb_in_one_container_is_shed_and_counted_and_hides_no_other() {
    if !has_docker() {
        return;
    }
    let config = EbpfConfig { max_events_per_second: 100, ..EbpfConfig::default() };
    let Some(mut probing) = Probing::start(&config) else { return };
    let bomb = text(&docker(&["run", "-d", IMAGE, "sh", "-c", "while true; do /bin/true; done"]));
    let other = text(&docker(&["create", IMAGE, "sh", "-c", "exit 3"]));
    docker(&["start", "-a", &other]);
    let throttled = probing.process(|e| e.action == ProcessAction::Throttled);
    assert_eq!(&*throttled.container.container_id, bomb);
    assert!(throttled.shed.is_some_and(|n| n > 0), "{throttled:?}");
    docker(&["rm", "-f", &bomb]);
    docker(&["start", "-a", &other]);
    probing.process(|e| e.action == ProcessAction::Exit && *e.container.container_id == *other && e.exit_code == Some(3));
    docker(&["rm", "-f", &other]);
}
