//! The probes that know no types: what is told on a kernel without BTF.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::{Command, Stdio},
};

use crate::probing::{Probing, everything};
use mayfly_ebpf::EbpfConfig;
use mayfly_history::{
    container::{Action, Report},
    process::{KernelStream, ProcessAction},
    socket::SocketAction,
};

fn start() -> Option<Probing> {
    Probing::start_plain(&EbpfConfig { btf: Some("/nonexistent".into()), ..everything() })
}

#[test]
fn tells_of_processes_and_says_what_would_tell_more() {
    let Some(mut probing) = start() else { return };
    let status = probing.feed.status();
    assert_eq!(status.state, "running", "{status:?}");
    assert!(status.last_error.starts_with("cannot read the kernel's type information (BTF): "), "{status:?}");
    assert!(status.last_error.ends_with("no accepted connections"), "some hook was refused: {status:?}");
    assert!(status.hint.starts_with("run a kernel built with CONFIG_DEBUG_INFO_BTF=y"), "{status:?}");

    // Long enough alive to be asked.
    let mut child = Command::new("./sh").args(["-c", "read word; exit 7"]).current_dir("/bin").stdin(Stdio::piped()).spawn().unwrap();
    let pid = i64::from(child.id());
    let exec = probing.process(|e| e.action == ProcessAction::Exec && e.pid == Some(pid));
    let folder = fs::canonicalize("/bin").unwrap();
    assert_eq!(
        (exec.source, &*exec.path, exec.cmdline.as_str()),
        (KernelStream::Ebpf, folder.join("sh").to_str().unwrap(), "./sh -c read word; exit 7")
    );
    assert_eq!((exec.uid, exec.gid, exec.euid, exec.parent), (Some(0), Some(0), Some(0), Some(std::process::id().into())));
    assert_eq!((exec.cwd.as_str(), exec.pid_namespace.is_some()), (folder.to_str().unwrap(), true), "{exec:?}");
    drop(child.stdin.take());
    child.wait().unwrap();
    let exit = probing.process(|e| e.action == ProcessAction::Exit && e.pid == Some(pid));
    assert_eq!((exit.exit_code, exit.signal, &*exit.path), (Some(7), None, &*exec.path));
    assert!(exit.duration_ms.is_some() && exit.time_ns >= exec.time_ns, "{exit:?}");
}

#[test]
fn tells_each_of_many_processes_that_end_at_once_with_its_status() {
    let Some(mut probing) = start() else { return };
    let pids: Vec<i64> = (0..50)
        .map(|_| {
            let mut child = Command::new("/bin/false").spawn().unwrap();
            child.wait().unwrap();
            i64::from(child.id())
        })
        .collect();
    let last = pids[pids.len() - 1];
    let events = probing.processes_until(|e| e.action == ProcessAction::Exit && e.pid == Some(last));
    for pid in pids {
        let of: Vec<_> = events.iter().filter(|e| e.pid == Some(pid)).map(|e| (e.action, &*e.path, e.exit_code)).collect();
        assert_eq!(of, [(ProcessAction::Exec, "/bin/false", None), (ProcessAction::Exit, "/bin/false", Some(1))]);
    }
}

#[test]
fn tells_the_status_of_a_process_whose_threads_die_together() {
    let Some(mut probing) = start() else { return };
    let me = std::env::current_exe().unwrap();
    for _ in 0..10 {
        let mut child =
            Command::new(&me).args(["kernel::dies_with_many_threads", "--exact", "--ignored"]).stdout(Stdio::null()).spawn().unwrap();
        let pid = i64::from(child.id());
        assert_eq!(child.wait().unwrap().code(), Some(3));
        let exit = probing.process(|e| e.action == ProcessAction::Exit && e.pid == Some(pid));
        assert_eq!((exit.exit_code, exit.signal), (Some(3), None), "{exit:?}");
    }
}

#[test]
fn tells_who_connects_and_who_listens() {
    let Some(mut probing) = start() else { return };
    let v4 = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let v6 = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let any_v6 = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let me = Some(i64::from(std::process::id()));
    for (bound, peer, told, family) in [(v4, v4, v4, 2), (v6, v6, v6, 10), (any_v6, v4, v4, 2)] {
        let listener = TcpListener::bind(SocketAddr::new(bound, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let listen = probing.socket(|e| e.action == SocketAction::Listen && e.local_port == port);
        assert_eq!((listen.pid, listen.local_address), (me, bound), "{listen:?}");
        let client = TcpStream::connect(SocketAddr::new(peer, port)).unwrap();
        let from = client.local_addr().unwrap().port();
        drop(client);
        let connect = probing.socket(|e| e.action == SocketAction::Connect && e.remote_port == port);
        assert_eq!((connect.remote_address, connect.local_address, connect.local_port), (told, told, from), "{connect:?}");
        assert_eq!((connect.family, connect.protocol, connect.established, connect.pid), (family, 6, true, me), "{connect:?}");
        assert_eq!(&*connect.path, std::env::current_exe().unwrap().to_str().unwrap());
        probing.socket(|e| e.action == SocketAction::Close && e.remote_port == port && e.local_port == from);
    }
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let from = socket.local_addr().unwrap().port();
    socket.connect((Ipv4Addr::LOCALHOST, 53)).unwrap();
    let connect = probing.socket(|e| e.protocol == 17 && e.local_port == from);
    assert_eq!((connect.action, connect.remote_address, connect.remote_port, connect.pid), (SocketAction::Connect, v4, 53, me));
}

#[test]
fn knows_a_container_by_its_cgroup_in_whichever_hierarchy() {
    let Some(mut probing) = start() else { return };
    let roots = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(std::path::Path::new);
    for root in roots.iter().filter(|root| root.join("cgroup.procs").exists()) {
        let id = format!("{:064x}", 0xb0b0_0000_0000_u64 + u64::from(std::process::id()) + root.as_os_str().len() as u64);
        let folder = root.join("docker").join(&id);
        fs::create_dir_all(&folder).unwrap();
        // It is moved by its parent's hand, and what it makes is born there.
        let script = format!("echo $$ > {}/cgroup.procs; /bin/false; exec /bin/true", folder.display());
        assert!(Command::new("/bin/sh").args(["-c", &script]).status().unwrap().success());
        let inner = probing.process(|e| e.action == ProcessAction::Exit && *e.container.container_id == *id && e.exit_code == Some(1));
        assert_eq!(&*inner.path, "/bin/false");
        let end = probing.process(|e| e.action == ProcessAction::Exit && *e.container.container_id == *id && e.exit_code == Some(0));
        assert_eq!((&*end.path, &*end.container.runtime_namespace), ("/bin/true", "moby"));
        fs::remove_dir(&folder).unwrap();
        let told = || {
            let reports = probing.sinks.containers.drain(usize::MAX);
            reports.into_iter().filter_map(|r| match r.item {
                Report::Event(event) if *event.key.container_id == *id => Some((event.action, event.details.run.exit_code)),
                _ => None,
            })
        };
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        let mut life = Vec::new();
        while life.len() < 3 && std::time::Instant::now() < deadline {
            life.extend(told());
            std::thread::yield_now();
        }
        assert_eq!(life[..2], [(Action::Create, None), (Action::Start, None)], "{life:?}");
        assert_eq!(life[2], (Action::Die, Some(1)));
    }
}
