//! The probes on the kernel that runs this test.
//!
//! Where the kernel takes no probes, each test says so and why, and checks that instead the feed tells an operator.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use crate::probing::{Probing, everything};
use mayfly_ebpf::{EbpfConfig, KernelSinks, follow};
use mayfly_history::{
    Feed,
    process::ProcessAction,
    recorder::{Handle, Sinks},
    sink::Bell,
    socket::SocketAction,
};

#[test]
fn tells_what_was_executed_and_how_it_ended() {
    let Some(mut probing) = Probing::start(&everything()) else { return };
    let child = Command::new("/bin/sh").args(["-c", "exit 7", "a word"]).spawn().unwrap();
    let pid = i64::from(child.id());
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(7));

    let exec = probing.process(|e| e.action == ProcessAction::Exec && e.pid == Some(pid));
    assert_eq!(&*exec.path, "/bin/sh");
    assert_eq!(exec.cmdline, "/bin/sh -c exit 7 a word");
    assert_eq!(exec.parent, Some(std::process::id().into()));
    assert_eq!((exec.uid, exec.gid, exec.euid), (Some(0), Some(0), Some(0)));
    assert!((mayfly_history::now() - exec.time_ns).abs() < 5_000_000_000);

    let exit = probing.process(|e| e.action == ProcessAction::Exit && e.pid == Some(pid));
    assert_eq!((exit.exit_code, exit.signal), (Some(7), None));
    assert_eq!(&*exit.path, "/bin/sh");
    assert!(exit.duration_ms.is_some_and(|ms| (0..5000).contains(&ms)), "{exit:?}");
    assert!(exit.time_ns >= exec.time_ns);
}

#[test]
fn tells_the_signal_that_ended_a_process() {
    let Some(mut probing) = Probing::start(&everything()) else { return };
    let mut child = Command::new("/bin/sleep").arg("60").spawn().unwrap();
    let pid = i64::from(child.id());
    child.kill().unwrap();
    child.wait().unwrap();
    let exit = probing.process(|e| e.action == ProcessAction::Exit && e.pid == Some(pid));
    assert_eq!((exit.exit_code, exit.signal), (None, Some(9)));
}

#[test]
fn tells_one_exit_of_a_process_of_many_threads() {
    let Some(mut probing) = Probing::start(&everything()) else { return };
    // The test binary itself, as a program whose threads all die at once.
    let me = std::env::current_exe().unwrap();
    let child = Command::new(me).args(["kernel::dies_with_many_threads", "--exact", "--ignored"]).stdout(Stdio::null()).spawn().unwrap();
    let pid = i64::from(child.id());
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(3));
    let marker = Command::new("/bin/true").spawn().unwrap();
    let last = i64::from(marker.id());
    marker.wait_with_output().unwrap();
    let before = probing.processes_until(|e| e.action == ProcessAction::Exit && e.pid == Some(last));
    let exits: Vec<_> = before.iter().filter(|e| e.action == ProcessAction::Exit && e.pid == Some(pid)).collect();
    assert_eq!(exits.len(), 1, "{exits:#?}");
    assert_eq!(exits[0].exit_code, Some(3));
}

#[test]
#[ignore = "run by the test above, as a process of its own"]
fn dies_with_many_threads() {
    for _ in 0..8 {
        std::thread::spawn(std::thread::park);
    }
    std::process::exit(3);
}

#[test]
fn tells_the_working_folder_and_what_a_relative_path_means() {
    let Some(mut probing) = Probing::start(&everything()) else { return };
    for (program, folder, path) in [("./true", "/bin", "./true"), ("/proc/self/exe", "/", ""), ("/bin/true", "/proc/self", "/bin/true")] {
        let Ok(child) = Command::new(program).arg("--help").current_dir(folder).stdout(Stdio::null()).spawn() else { continue };
        let pid = i64::from(child.id());
        child.wait_with_output().unwrap();
        let exec = probing.process(|e| e.action == ProcessAction::Exec && e.pid == Some(pid));
        // /bin may be a link to /usr/bin, and the kernel tells where one is, not how one came there.
        let real = std::fs::canonicalize(folder).unwrap();
        if folder != "/proc/self" {
            assert_eq!(exec.cwd, real.to_str().unwrap(), "{exec:?}");
        }
        let expected = match path {
            "" => std::env::current_exe().unwrap(),
            "./true" => real.join("true"),
            _ => path.into(),
        };
        assert_eq!(&*exec.path, expected.to_str().unwrap(), "{exec:?}");
    }
}

#[test]
fn tells_both_ends_of_a_connection() {
    let Some(mut probing) = Probing::start(&everything()) else { return };
    let v4 = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let v6 = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let any_v6 = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let mapped = IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped());
    // Where it listens, whom it connects to, and the addresses that are told.
    for (bound, peer, told, family) in [(v4, v4, v4, 2), (v6, v6, v6, 10), (any_v6, mapped, v4, 2), (any_v6, v4, v4, 2)] {
        let listener = TcpListener::bind(SocketAddr::new(bound, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect(SocketAddr::new(peer, port)).unwrap();
        let from = client.local_addr().unwrap().port();
        drop(listener.accept().unwrap());
        drop(client);

        let connect = probing.socket(|e| e.action == SocketAction::Connect && e.remote_port == port);
        assert_eq!((connect.remote_address, connect.local_address, connect.local_port), (told, told, from), "{peer} {connect:?}");
        assert_eq!((connect.family, connect.protocol, connect.established), (family, 6, true), "{connect:?}");
        assert_eq!(connect.pid, Some(std::process::id().into()));
        let accept = probing.socket(|e| e.action == SocketAction::Accept && e.local_port == port);
        assert_eq!((accept.local_address, accept.remote_address, accept.remote_port), (told, told, from), "{accept:?}");
        assert_eq!(accept.pid, Some(std::process::id().into()));
        probing.socket(|e| e.action == SocketAction::Close && e.remote_port == port && e.local_port == from);
    }
}

#[test]
fn tells_a_listener_and_a_connect_that_failed() {
    let Some(mut probing) = Probing::start(&everything()) else { return };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let listen = probing.socket(|e| e.action == SocketAction::Listen && e.local_port == port);
    assert_eq!(listen.local_address, IpAddr::V4(Ipv4Addr::LOCALHOST));
    assert!(listen.remote_address.is_unspecified());
    assert_eq!(&*listen.path, std::env::current_exe().unwrap().to_str().unwrap());
    drop(listener);
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap_err();
    let connect = probing.socket(|e| e.action == SocketAction::Connect && e.remote_port == port);
    assert!(!connect.established, "{connect:?}");
}

#[test]
fn tells_whom_a_datagram_socket_is_connected_to() {
    let Some(mut probing) = Probing::start(&everything()) else { return };
    let v4 = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let v6 = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let any_v6 = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let mapped = IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped());
    for (bound, peer, told) in [(v4, v4, v4), (v6, v6, v6), (any_v6, mapped, v4)] {
        let socket = UdpSocket::bind(SocketAddr::new(bound, 0)).unwrap();
        let from = socket.local_addr().unwrap().port();
        socket.connect(SocketAddr::new(peer, 53)).unwrap();
        let connect = probing.socket(|e| e.protocol == 17 && e.local_port == from);
        assert_eq!((connect.action, connect.remote_address, connect.remote_port), (SocketAction::Connect, told, 53), "{connect:?}");
        assert_eq!(connect.pid, Some(std::process::id().into()));
        assert!(connect.net_namespace.is_some() && connect.established, "{connect:?}");
    }
}

#[test]
fn tells_the_users_of_a_process_that_changed_them() {
    let Some(mut probing) = Probing::start(&everything()) else { return };
    let mut child = Command::new("/bin/cat").uid(65534).gid(65534).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"x").unwrap();
    child.stdout.take().unwrap().read_to_end(&mut Vec::new()).unwrap();
    let pid = i64::from(child.id());
    child.wait().unwrap();
    let exec = probing.process(|e| e.action == ProcessAction::Exec && e.pid == Some(pid));
    assert_eq!((exec.uid, exec.gid, exec.euid), (Some(65534), Some(65534), Some(65534)));
}

#[test]
fn what_finds_no_room_in_the_ring_is_counted() {
    let Some(mut probing) = Probing::start(&EbpfConfig { ring_kib: 64, ..everything() }) else { return };
    let listeners = 50_000;
    for _ in 0..listeners {
        drop(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    }
    probing.stop();
    let status = probing.feed.status();
    // Each listens and closes; others of this machine add theirs.
    assert!(status.received + status.lost_in_kernel >= 2 * listeners, "{status:?}");
    assert_eq!(status.lost_in_kernel > 0, probing.feed.take_gaps().iter().any(|gap| gap.cause == "ring_full"), "{status:?}");
}

#[test]
fn says_what_is_missing_where_it_has_no_rights() {
    if !rustix::process::geteuid().is_root() {
        println!("not run here: only root can give up rights");
        return;
    }
    // Where the test binary lies, others may not look.
    let copy = std::env::temp_dir().join(format!("mayfly-ebpf-{}", std::process::id()));
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    let output = Command::new(&copy).uid(65534).gid(65534).args(["kernel::is_refused", "--exact", "--ignored", "--nocapture"]).output();
    std::fs::remove_file(&copy).unwrap();
    let output = output.unwrap();
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
}

#[test]
#[ignore = "run by the test above, as a process without rights"]
fn is_refused() {
    let feed = Feed::new("ebpf", "");
    let sinks = KernelSinks::of(&Handle::detached(Sinks::new(Bell::default())));
    // Newer kernels let everybody listen to the process connector.
    if let Some(follower) = follow(&everything(), feed.clone(), sinks).unwrap() {
        follower.stop();
    }
    let status = feed.status();
    assert_eq!(status.state, "disabled");
    assert!(status.hint.contains("CAP_BPF") || status.hint.contains("BTF"), "{status:?}");
    assert!(status.last_error.starts_with("may not load BPF programs: ") || status.last_error.contains("BTF"), "{status:?}");
}
