//! Containers of a real Docker daemon, a private one, seen by the kernel alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Output,
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
};

use crate::probing::Probing;
use mayfly_ebpf::EbpfConfig;
use mayfly_history::{process::ProcessAction, socket::SocketAction};
use mayfly_tests::{IMAGE, Result, daemon::Docker};

/// The daemon of these tests, which have it in turn. What it needs and does not find fails them, and says what to install.
struct Daemon(&'static Docker, #[expect(dead_code, reason = "held until it is dropped")] MutexGuard<'static, ()>);

impl Daemon {
    fn wait() -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        static DOCKER: LazyLock<Result<Docker, String>> = LazyLock::new(|| Docker::start(false).map_err(|error| error.to_string()));
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        Self(DOCKER.as_ref().unwrap_or_else(|why| panic!("{why}")), turn)
    }

    fn docker(&self, args: &[&str]) -> Output {
        self.0.cli().args(args).output().unwrap()
    }
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap().trim().to_owned()
}

#[test]
fn knows_the_container_of_the_very_first_exec_and_of_every_exit() {
    let daemon = Daemon::wait();
    let Some(mut probing) = Probing::start(&EbpfConfig::default()) else { return };
    let mut ids = BTreeSet::new();
    for _ in 0..10 {
        let id = text(&daemon.docker(&["create", IMAGE, "sh", "-c", "echo; /bin/true; exit 5"]));
        daemon.docker(&["start", "-a", &id]);
        daemon.docker(&["rm", "-f", &id]);
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
    let daemon = Daemon::wait();
    let Some(mut probing) = Probing::start(&EbpfConfig::default()) else { return };
    let script = "busybox nc -l -p 8099 -e /bin/true & sleep 0.2; busybox nc 127.0.0.1 8099 </dev/null; true";
    let id = text(&daemon.docker(&["create", IMAGE, "sh", "-c", script]));
    daemon.docker(&["start", "-a", &id]);
    for action in [SocketAction::Listen, SocketAction::Connect, SocketAction::Accept] {
        let event = probing.socket(|e| e.action == action && (e.local_port == 8099 || e.remote_port == 8099));
        assert_eq!(&*event.container.container_id, id, "{event:?}");
        assert!(event.net_namespace.is_some() && event.pid.is_some() && &*event.path == "/bin/busybox", "{event:?}");
    }
    daemon.docker(&["rm", "-f", &id]);
}

#[test]
fn knows_the_container_of_an_oom_kill() {
    let daemon = Daemon::wait();
    let Some(mut probing) = Probing::start(&EbpfConfig::default()) else { return };
    let id = text(&daemon.docker(&["create", "--memory=16m", IMAGE, "sh", "-c", "busybox tail /dev/zero"]));
    daemon.docker(&["start", "-a", &id]);
    let kill = probing.oom(|e| *e.container.container_id == *id);
    assert!(kill.rss > 4 << 20 && kill.rss <= 64 << 20 && kill.total_vm >= kill.rss, "{kill:?}");
    daemon.docker(&["rm", "-f", &id]);
}

#[test]
fn a_fork_bomb_in_one_container_is_shed_and_counted_and_hides_no_other() {
    let daemon = Daemon::wait();
    let config = EbpfConfig { max_events_per_second: 100, ..EbpfConfig::default() };
    let Some(mut probing) = Probing::start(&config) else { return };
    let bomb = text(&daemon.docker(&["run", "-d", IMAGE, "sh", "-c", "while true; do /bin/true; done"]));
    let other = text(&daemon.docker(&["create", IMAGE, "sh", "-c", "exit 3"]));
    daemon.docker(&["start", "-a", &other]);
    let throttled = probing.process(|e| e.action == ProcessAction::Throttled);
    assert_eq!(&*throttled.container.container_id, bomb);
    assert!(throttled.shed.is_some_and(|n| n > 0), "{throttled:?}");
    daemon.docker(&["rm", "-f", &bomb]);
    daemon.docker(&["start", "-a", &other]);
    probing.process(|e| e.action == ProcessAction::Exit && *e.container.container_id == *other && e.exit_code == Some(3));
    daemon.docker(&["rm", "-f", &other]);
}
