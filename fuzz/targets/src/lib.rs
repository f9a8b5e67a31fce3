//! What the fuzzers call: every decoder of bytes that others send, or that a disk may have damaged.
//!
//! `cargo +nightly fuzz run NAME` feeds one of them for as long as it is let; the test beside this feeds all of them, on any
//! toolchain, what `fuzz/corpus` has and what comes of damaging it. None may panic, hang or eat the memory.

use std::{io::Write, net::Shutdown, ops::ControlFlow, os::unix::net::UnixStream, path::Path, sync::Arc, time::Duration};

use containerd_client::types::Envelope;
use mayfly::{
    context,
    thrift::{Limits, Reply, Service, Strings, attend},
};
use mayfly_ebpf::{container_of, records::Record};
use mayfly_history::{
    Cell,
    container::Runtime,
    store::{Reader, fuzzing::decode_block},
};
use mayfly_sources::{
    Naming, accounts_fuzzing, decode_containerd, decode_cri, decode_dhcp, decode_lease_file, decode_netlink, devices_fuzzing,
    docker_fuzzing, identity_fuzzing, mounts_fuzzing,
};
use mayfly_tables::{Rows, TABLES};
use prost::Message;

/// A decoder and its name, which is that of its folder in `fuzz/corpus`.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("account_files", account_files),
    ("containerd_event", containerd_event),
    ("cri_event", cri_event),
    ("dhcp_packet", dhcp_packet),
    ("docker_event", docker_event),
    ("docker_inspect", docker_inspect),
    ("kernel_record", kernel_record),
    ("lease_file", lease_file),
    ("metadata", metadata),
    ("netlink_datagram", netlink_datagram),
    ("mountinfo", mountinfo),
    ("query_context", query_context),
    ("store_block", store_block),
    ("superblock", superblock),
    ("thrift_request", thrift_request),
    ("uevent", uevent),
];

/// passwd, group, shadow and the map of ids of a container.
pub fn account_files(bytes: &[u8]) {
    accounts_fuzzing::decode(bytes);
}

/// One envelope of containerd's event stream.
pub fn containerd_event(bytes: &[u8]) {
    if let Ok(envelope) = Envelope::decode(bytes) {
        let _ = decode_containerd(&Naming::new("unix:///run/containerd/containerd.sock", None), &envelope);
    }
}

/// One message of a CRI server's event stream.
pub fn cri_event(bytes: &[u8]) {
    let _ = decode_cri(&Arc::from("unix:///run/crio/crio.sock"), Runtime::CriO, bytes);
}

/// A packet that anybody on a link sent to the ports of DHCP.
pub fn dhcp_packet(bytes: &[u8]) {
    decode_dhcp(bytes);
}

/// One line of Docker's or Podman's event stream.
pub fn docker_event(bytes: &[u8]) {
    docker_fuzzing::decode_event(bytes);
}

/// Docker's or Podman's answer to an inspect.
pub fn docker_inspect(bytes: &[u8]) {
    docker_fuzzing::decode_inspect(bytes);
}

/// One record of the ring that the kernel's probes write.
pub fn kernel_record(bytes: &[u8]) {
    match Record::parse(bytes) {
        Ok(Record::Exec { cwd, file, .. }) => {
            let _ = (cwd.path(), file.path());
        }
        Ok(Record::Mount { source, target, .. }) => {
            let _ = (source.resolved(), target.resolved());
        }
        Ok(Record::CgroupMade { path, .. } | Record::CgroupJoined { path, .. }) => {
            let _ = container_of(&String::from_utf8_lossy(path));
        }
        _ => {}
    }
}

/// An answer of what seems to be a cloud's metadata service.
pub fn metadata(bytes: &[u8]) {
    identity_fuzzing::decode(bytes);
}

/// The table of mounts of a container's namespace.
pub fn mountinfo(bytes: &[u8]) {
    mounts_fuzzing::decode(bytes);
}

/// The first bytes of a device that somebody plugged in.
pub fn superblock(bytes: &[u8]) {
    devices_fuzzing::superblock(bytes);
}

/// What the kernel says of a device, were somebody to say it in its place.
pub fn uevent(bytes: &[u8]) {
    devices_fuzzing::uevent(bytes);
}

/// A lease file of a DHCP server or client.
pub fn lease_file(bytes: &[u8]) {
    decode_lease_file(bytes);
}

/// One datagram of the kernel's routing messages.
pub fn netlink_datagram(bytes: &[u8]) {
    decode_netlink(bytes);
}

/// The context of a query, asked of every table over an empty store.
pub fn query_context(bytes: &[u8]) {
    let Ok(store) = Reader::open(Path::new("/nonexistent")) else { return };
    for table in TABLES {
        if let Ok(query) = context::parse(table.schema(), Some(bytes)) {
            let _ = table.generate(&store, &query, &mut Nobody);
        }
    }
}

/// A block or chunk of events, as it lies in the store's file.
pub fn store_block(bytes: &[u8]) {
    decode_block(bytes);
}

/// Whatever a peer sends to the extension's socket.
pub fn thrift_request(bytes: &[u8]) {
    // More would not fit into the socket while nobody reads at the other end.
    let bytes = &bytes[..bytes.len().min(64 << 10)];
    let Ok((mut peer, ours)) = UnixStream::pair() else { return };
    if peer.write_all(bytes).is_err() || peer.shutdown(Shutdown::Write).is_err() {
        return;
    }
    let limits = Limits { answer: Duration::from_millis(50), ..Limits::default() };
    let _ = attend(ours, &Echo, &limits);
}

struct Nobody;

impl Rows for Nobody {
    fn row(&mut self, _: &[Cell<'_>]) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

struct Echo;

impl Service for Echo {
    fn uuid(&self) -> i64 {
        1
    }

    fn call(&self, _: &str, _: &str, request: &Strings) -> Reply {
        Reply::success(vec![request.clone()])
    }

    fn shutdown(&self) {}
}
