//! The server survives what it is fed: noise, halves, silence, crowds.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    sync::{
        Arc, Barrier, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use mayfly::{
    manager::Manager,
    thrift::{Limits, Reply, Server, Service, Strings},
};
use proptest::{prelude::*, test_runner::TestRunner};
use tempfile::TempDir;

use crate::peer::until;

/// Answers every call; those of `slow` only when the gate is opened.
#[derive(Default)]
struct Plugin {
    gate: Mutex<bool>,
    opened: Condvar,
    inside: AtomicUsize,
}

impl Plugin {
    fn open(&self) {
        *self.gate.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

impl Service for Plugin {
    fn uuid(&self) -> i64 {
        7
    }

    fn call(&self, _: &str, item: &str, request: &Strings) -> Reply {
        if item == "slow" {
            self.inside.fetch_add(1, SeqCst);
            drop(self.opened.wait_while(self.gate.lock().unwrap(), |open| !*open).unwrap());
        }
        Reply::success(vec![request.clone()])
    }

    fn shutdown(&self) {}
}

struct Fixture {
    dir: TempDir,
    plugin: Arc<Plugin>,
    server: Option<Server>,
}

impl Fixture {
    fn new(limits: Limits) -> Self {
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        let plugin = Arc::new(Plugin::default());
        let server = Server::start(&dir.path().join("s"), Arc::clone(&plugin) as Arc<dyn Service>, limits).unwrap();
        Self { dir, plugin, server: Some(server) }
    }

    fn connect(&self) -> UnixStream {
        UnixStream::connect(self.path()).unwrap()
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("s")
    }

    /// A call as any client makes it.
    fn echo(&self) -> bool {
        echo(&self.path(), "echo")
    }
}

fn echo(path: &Path, item: &str) -> bool {
    let rows = Manager::new(path, Duration::from_secs(10)).call("table", item, &[("a", "b")]);
    rows.is_ok_and(|rows| rows.len() == 1 && rows[0]["a"] == "b")
}

/// A call of `table echo {}` as bytes, with a versioned header.
fn call() -> Vec<u8> {
    let mut bytes = vec![0x80, 0x01, 0, 1];
    bytes.extend(b"\0\0\0\x04call\0\0\0\x05");
    bytes.extend(arguments());
    bytes
}

fn arguments() -> Vec<u8> {
    let mut bytes = b"\x0b\0\x01\0\0\0\x05table\x0b\0\x02\0\0\0\x04echo\x0d\0\x03\x0b\x0b".to_vec();
    bytes.extend(b"\0\0\0\x01\0\0\0\x01a\0\0\0\x01b\0");
    bytes
}

fn answer_to(fixture: &Fixture, bytes: &[u8]) -> Vec<u8> {
    let mut stream = fixture.connect();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    // The server may have hung up on the first bytes already.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

#[test]
fn understands_requests_with_and_without_a_version() {
    let fixture = Fixture::new(Limits::default());
    let strict = answer_to(&fixture, &call());
    assert_eq!(strict[..4], [0x80, 0x01, 0, 2], "{strict:?}");
    let mut old = b"\0\0\0\x04call\x01\0\0\0\x05".to_vec();
    old.extend(arguments());
    assert_eq!(answer_to(&fixture, &old), strict);
    let both = [call(), old].concat();
    assert_eq!(answer_to(&fixture, &both), [strict.clone(), strict].concat(), "two requests on one connection");
}

#[test]
fn survives_random_bytes() {
    let fixture = Fixture::new(Limits::default());
    let noise = proptest::collection::vec(any::<u8>(), 0..300);
    TestRunner::new(ProptestConfig::with_cases(300))
        .run(&noise, |bytes| {
            answer_to(&fixture, &bytes);
            Ok(())
        })
        .unwrap();
    assert!(fixture.echo());
}

#[test]
fn survives_every_half_and_every_flipped_byte_of_a_request() {
    let fixture = Fixture::new(Limits::default());
    let whole = call();
    for length in 0..whole.len() {
        assert!(answer_to(&fixture, &whole[..length]).len() < 200);
    }
    for position in 0..whole.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[position] ^= flip;
            answer_to(&fixture, &bytes);
        }
    }
    assert!(fixture.echo());
}

#[test]
fn refuses_lengths_that_nobody_means() {
    let fixture = Fixture::new(Limits::default());
    let began = Instant::now();
    for wrong in [
        &b"\x80\x01\0\x01\x7f\xff\xff\xff"[..],
        b"\x7f\xff\xff\xffcall",
        b"\x80\x01\0\x01\0\0\0\x04call\0\0\0\0\x0d\0\x03\x0b\x0b\x7f\xff\xff\xff",
        b"\x80\x01\0\x01\0\0\0\x04call\0\0\0\0\x0b\0\x01\xff\xff\xff\xff",
    ] {
        answer_to(&fixture, wrong);
    }
    assert!(fixture.echo());
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_method_that_is_not_there_is_an_exception() {
    let fixture = Fixture::new(Limits::default());
    let answer = answer_to(&fixture, b"\x80\x01\0\x01\0\0\0\x04none\0\0\0\x01\0");
    assert_eq!(answer[..4], [0x80, 0x01, 0, 3], "{answer:?}");
    assert!(fixture.echo());
}

#[test]
fn drops_a_peer_that_trickles() {
    let fixture = Fixture::new(Limits { request: Duration::from_millis(300), ..Limits::default() });
    let mut stream = fixture.connect();
    let began = Instant::now();
    let mut bytes = call().into_iter().cycle();
    let mut dropped = false;
    while !dropped && began.elapsed() < Duration::from_secs(10) {
        dropped = stream.write_all(&[bytes.next().unwrap()]).is_err();
        thread::sleep(Duration::from_millis(20));
    }
    assert!(dropped, "a byte now and then keeps no connection");
    assert!(fixture.echo());
}

#[test]
fn drops_a_peer_that_does_not_read() {
    let fixture = Fixture::new(Limits { answer: Duration::from_millis(300), ..Limits::default() });
    let mut stream = fixture.connect();
    stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut sent = Ok(());
    let began = Instant::now();
    while sent.is_ok() && began.elapsed() < Duration::from_secs(10) {
        sent = stream.write_all(&call());
    }
    assert!(sent.is_err(), "the server hung up");
    assert!(fixture.echo());
}

#[test]
fn answers_although_200_connections_are_held_open() {
    let fixture = Fixture::new(Limits::default());
    let mut crowd: Vec<_> = (0..200).map(|_| fixture.connect()).collect();
    for half in crowd.iter_mut().step_by(2) {
        let _ = half.write_all(&call()[..20]);
    }
    assert!(fixture.echo());
    drop(crowd);
    assert!(fixture.echo());
}

#[test]
fn answers_others_while_a_slow_call_is_being_answered() {
    let fixture = Fixture::new(Limits::default());
    let path = fixture.path();
    let slow: Vec<_> = (0..8)
        .map(|_| {
            let path = path.clone();
            thread::spawn(move || echo(&path, "slow"))
        })
        .collect();
    until("all are inside", || fixture.plugin.inside.load(SeqCst) == 8);
    for _ in 0..20 {
        let began = Instant::now();
        assert!(fixture.echo());
        assert!(began.elapsed() < Duration::from_secs(1));
    }
    fixture.plugin.open();
    assert!(slow.into_iter().all(|call| call.join().unwrap()));
}

#[test]
fn never_drops_a_call_that_is_being_answered_for_a_newcomer() {
    let fixture = Fixture::new(Limits { connections: 4, ..Limits::default() });
    let path = fixture.path();
    let slow: Vec<_> = (0..3)
        .map(|_| {
            let path = path.clone();
            thread::spawn(move || echo(&path, "slow"))
        })
        .collect();
    until("all are inside", || fixture.plugin.inside.load(SeqCst) == 3);
    let crowd: Vec<_> = (0..20).map(|_| fixture.connect()).collect();
    assert!(fixture.echo());
    drop(crowd);
    fixture.plugin.open();
    assert!(slow.into_iter().all(|call| call.join().unwrap()));
}

#[test]
fn stops_quickly_under_load_and_removes_its_socket() {
    let mut fixture = Fixture::new(Limits::default());
    let (path, began) = (fixture.path(), Arc::new(Barrier::new(5)));
    let peers: Vec<_> = (0..4)
        .map(|_| {
            let (path, began) = (path.clone(), Arc::clone(&began));
            thread::spawn(move || {
                began.wait();
                while path.exists() {
                    let _ = Manager::new(&path, Duration::from_secs(1)).call("table", "echo", &[]);
                }
            })
        })
        .collect();
    let idle: Vec<_> = (0..10).map(|_| fixture.connect()).collect();
    began.wait();
    let began = Instant::now();
    drop(fixture.server.take());
    assert!(began.elapsed() < Duration::from_secs(4));
    assert!(!path.exists());
    drop(idle);
    for peer in peers {
        peer.join().unwrap();
    }
}
