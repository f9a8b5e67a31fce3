//! Leases at the edges: of this host itself, by a server of this host, by two servers that do not know of each other, and amid garbage.

use std::{
    fs,
    net::UdpSocket,
    os::fd::AsFd,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use mayfly_tests::{
    Bridge, Mayfly, Namespace, Result, Row,
    dhcp::{Client, ClientKind, Range, Server, ServerKind},
    end, ip, report, tool, until, usage,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;
use tempfile::TempDir;

use crate::{amount, turn};

const SECOND: i64 = 1_000_000_000;

fn text<'r>(row: &'r Row, column: &str) -> &'r str {
    row.get(column).and_then(Value::as_str).unwrap_or_default()
}

fn number(row: &Row, column: &str) -> i64 {
    row.get(column).and_then(|value| value.as_i64().or_else(|| value.as_str()?.parse().ok())).unwrap_or_default()
}

fn running(mayfly: &Mayfly, sources: usize) -> Result<()> {
    let asked = "SELECT count(*) FROM recorder_sources WHERE source IN ('dhcp', 'lease_file', 'netlink') AND state = 'running'";
    mayfly.wait_for_count(asked, sources).map(drop)
}

/// dnsmasq on a link of this host; grants one address for two minutes, the least that it takes.
struct OwnServer {
    home: TempDir,
    child: Child,
}

impl OwnServer {
    fn start(interface: &str) -> Result<Self> {
        ip(&format!("address add 10.214.0.1/24 dev {interface}"))?;
        let home = TempDir::new()?;
        let mut command = Command::new(tool("dnsmasq", "dnsmasq-base")?);
        command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--bind-interfaces", "--user=root", "--pid-file="]);
        command.arg(format!("--interface={interface}")).args(["--dhcp-range=10.214.0.50,10.214.0.50,120", "--dhcp-authoritative"]);
        command.arg(format!("--dhcp-leasefile={}", home.path().join("leases").display()));
        command.arg(format!("--log-facility={}", home.path().join("log").display()));
        Ok(Self { child: command.stdin(Stdio::null()).spawn()?, home })
    }

    fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

#[test]
fn one_address_that_two_machines_leased_in_turn_has_two_holders_in_turn() -> Result<()> {
    let _turn = turn();
    let link = Namespace::new("mfd214")?;
    let mayfly = Mayfly::with(&format!("[dhcp]\ninterfaces = [\"{}\"]\n", link.name))?;
    let recording = mayfly.launch()?;
    running(&mayfly, 1)?;
    let server = OwnServer::start(&link.name)?;
    let told = |action: &str| format!("SELECT count(*) AS n FROM ip_lease_events WHERE source = 'dhcp' AND action = '{action}'");
    for (n, host, mac) in [(1, "laptop", "02:00:00:00:00:01"), (2, "phone", "02:00:00:00:00:02")] {
        let client = Client::start(ClientKind::Udhcpc, &link, mac, host)?;
        mayfly.wait_for_count(&told("assigned"), n)?;
        client.held(0)?;
        client.release()?;
        mayfly.wait_for_count(&told("released"), n)?;
    }

    let held = mayfly.query(
        "SELECT mac_address, hostname, scope, server_address, lease_seconds, ended_reason, evidence, valid_from_ns, valid_to_ns \
         FROM ip_lease_history WHERE ip_address = '10.214.0.50' AND evidence LIKE '%dhcp%' ORDER BY valid_from_ns",
    )?;
    let holders: Vec<_> = held.iter().map(|row| (text(row, "mac_address"), text(row, "hostname"), text(row, "ended_reason"))).collect();
    assert_eq!(holders, [("02:00:00:00:00:01", "laptop", "released"), ("02:00:00:00:00:02", "phone", "released")], "{held:?}");
    assert!(held.iter().all(|row| text(row, "scope") == "client" && text(row, "server_address") == "10.214.0.1"), "{held:?}");
    // At the instant of each grant its own holder had the address, and nobody else.
    let asked = "SELECT e.mac_address AS granted, h.mac_address AS held FROM ip_lease_events e JOIN ip_lease_history h \
                 ON h.ip_address = e.ip_address AND h.as_of = e.time_ns WHERE e.source = 'dhcp' AND e.action = 'assigned'";
    let then = mayfly.query(asked)?;
    assert!(then.len() == 2 && then.iter().all(|row| text(row, "granted") == text(row, "held")), "{then:?}");
    let rejected = mayfly.count("SELECT rejected AS n FROM recorder_sources WHERE source = 'dhcp'")?;
    assert_eq!(rejected, 0, "{}", server.log());
    assert!(recording.stop()?.success(), "{}", mayfly.log());
    Ok(())
}

/// Interface, wire, the client's own file and the server's: one interval, of both families.
#[test]
fn the_hosts_own_lease_is_one_interval_of_all_witnesses() -> Result<()> {
    let _turn = turn();
    for (net, server, client) in [
        (215, ServerKind::Dhcpd, ClientKind::Dhclient),
        (216, ServerKind::Dhcpd6, ClientKind::Dhclient6),
        (219, ServerKind::Kea6, ClientKind::Dhclient6),
    ] {
        let link = Namespace::new(&format!("mfh{net}"))?;
        link.settle()?;
        let server = Server::start(server, &link, Range { net, own: 1, pool: 3, seconds: 8 })?;
        let home = Client::home()?;
        let files = [Client::leases(&home), server.leases()];
        let mayfly = Mayfly::with(&format!(
            "[dhcp]\ninterfaces = [\"{}\"]\n[lease_file]\nenabled = true\npaths = {files:?}\n[netlink]\nenabled = true\n",
            link.name
        ))?;
        let recording = mayfly.launch()?;
        running(&mayfly, 3)?;
        let client = Client::start_here(client, &link.name, "own", home)?;
        let (times, address) = client.held(2)?;
        let ended = client.release()?;
        let asked = format!(
            "SELECT mac_address, scope, interface, ended_reason, evidence, lease_seconds, valid_from_ns, valid_to_ns FROM ip_lease_history \
             WHERE ip_address = '{address}'"
        );
        let rows = until("one interval", Duration::from_secs(15), || {
            let rows = mayfly.query(&asked)?;
            let whole = rows.len() == 1 && text(&rows[0], "evidence") == "dhcp,lease_file,netlink" && number(&rows[0], "valid_to_ns") > 0;
            if whole { Ok(rows) } else { Err(format!("{rows:?}; {}", server.log()).into()) }
        })?;
        let row = &rows[0];
        let told = (text(row, "scope"), text(row, "interface"), text(row, "ended_reason"), number(row, "lease_seconds"));
        assert_eq!(told, ("host", &*link.name, "released", 8), "{row:?}");
        let off = [number(row, "valid_from_ns") - times[0], number(row, "valid_to_ns") - ended];
        assert!(off.iter().all(|off| off.abs() <= SECOND), "{off:?}: {row:?}");
        report(&format!("{address}: renewed {} times, ends off by {} and {} ms", times.len() - 1, off[0] / 1_000_000, off[1] / 1_000_000));
        assert!(recording.stop()?.success(), "{}", mayfly.log());
    }
    Ok(())
}

#[test]
fn two_servers_that_give_one_address_to_two_machines_make_a_conflict() -> Result<()> {
    let _turn = turn();
    let bridge = Bridge::new("mfb217")?;
    let behind = |name: &str| Namespace::behind(&bridge, name);
    let (one, other, first, second) = (behind("mfs217-1")?, behind("mfs217-2")?, behind("mfc217-1")?, behind("mfc217-2")?);
    let mayfly = Mayfly::with(&format!("[dhcp]\ninterfaces = [\"{}\"]\n", bridge.name))?;
    let recording = mayfly.launch()?;
    running(&mayfly, 1)?;
    let range = |own| Range { net: 217, own, pool: 1, seconds: 120 };
    let _one = Server::start(ServerKind::Dnsmasq, &one, range(1))?;
    let owner = Client::start(ClientKind::Udhcpc, &first, "02:00:00:00:00:01", "owner")?;
    let (_, address) = owner.held(0)?;
    // It has one address only, which is taken; the other server does not know.
    let _other = Server::start(ServerKind::Dnsmasq, &other, range(2))?;
    let rival = Client::start(ClientKind::Udhcpc, &second, "02:00:00:00:00:02", "rival")?;
    assert_eq!(rival.held(0)?.1, address);
    let conflicts = "SELECT mac_address FROM ip_lease_events WHERE action = 'conflict'";
    let told = until("conflict", Duration::from_secs(10), || {
        let rows = mayfly.query(conflicts)?;
        if rows.is_empty() { Err("none".into()) } else { Ok(rows) }
    })?;
    assert!(matches!(&told[..], [row] if text(row, "mac_address") == "02:00:00:00:00:02"), "{told:?}");
    let held = mayfly.query("SELECT mac_address, server_address FROM ip_lease_history WHERE valid_to IS NULL ORDER BY valid_from_ns")?;
    let holders: Vec<_> = held.iter().map(|row| (text(row, "mac_address"), text(row, "server_address"))).collect();
    assert_eq!(holders, [("02:00:00:00:00:01", "10.217.0.1"), ("02:00:00:00:00:02", "10.217.0.2")], "neither overwrites the other");
    assert!(recording.stop()?.success(), "{}", mayfly.log());
    Ok(())
}

/// A socket of a namespace that may broadcast.
fn socket_in(namespace: &Namespace) -> Result<UdpSocket> {
    let file = fs::File::open(format!("/run/netns/{}", namespace.name))?;
    let make = move || {
        // The thread stays there, and ends.
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_broadcast(true)?;
        Ok(socket)
    };
    thread::spawn(make).join().map_err(|_| "the thread that makes a socket died")?
}

/// What looks like a packet of DHCP and is none: noise, or a message that is cut within its options. No two are the same.
fn garbage(n: u32) -> Vec<u8> {
    let mut random = u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let length = 16 + usize::try_from(random >> 40).unwrap_or_default() % 540;
    let mut packet: Vec<u8> = (0..length)
        .map(|_| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random.to_le_bytes()[3]
        })
        .collect();
    if n.is_multiple_of(3) && length > 241 {
        packet.fill(0);
        packet[..3].copy_from_slice(&[1, 1, 6]);
        packet[236..240].copy_from_slice(&[99, 130, 83, 99]);
        packet[length - 1] = 53;
    } else if length > 236 {
        packet[236] = 0;
    }
    packet[4..8].copy_from_slice(&n.to_be_bytes());
    packet
}

#[test]
fn garbage_at_ten_thousand_packets_a_second_is_counted_and_hides_no_lease() -> Result<()> {
    const A_SECOND: u32 = 10_000;
    let _turn = turn();
    let bridge = Bridge::new("mfb218")?;
    let behind = |name: &str| Namespace::behind(&bridge, name);
    let (flood, home, machine) = (behind("mff218")?, behind("mfs218")?, behind("mfc218")?);
    flood.ip("address add 10.218.0.9/24 dev lan0")?;
    flood.ip("route add default dev lan0")?;
    let socket = socket_in(&flood)?;
    let server = Server::start(ServerKind::Dnsmasq, &home, Range { net: 218, own: 1, pool: 2, seconds: 120 })?;
    let mayfly = Mayfly::with(&format!("[dhcp]\ninterfaces = [\"{}\"]\n", bridge.name))?;
    let recording = mayfly.launch()?;
    running(&mayfly, 1)?;
    let before = usage(recording.pid())?;

    let packets = A_SECOND * u32::try_from(amount(4, 20))?;
    let stop = AtomicBool::new(false);
    let began = Instant::now();
    let (took, most, leases) = thread::scope(|scope| -> Result<_> {
        let flooding = scope.spawn(|| -> Result<Duration> {
            for n in 0..packets {
                let due = Duration::from_secs(1) / A_SECOND * n;
                if let Some(early) = due.checked_sub(began.elapsed()).filter(|early| *early > Duration::from_millis(1)) {
                    thread::sleep(early);
                }
                socket.send_to(&garbage(n), if n.is_multiple_of(2) { "255.255.255.255:67" } else { "255.255.255.255:68" })?;
            }
            stop.store(true, Ordering::Relaxed);
            Ok(began.elapsed())
        });
        let (mut most, mut leases) = (0, 0);
        while !stop.load(Ordering::Relaxed) && !flooding.is_finished() {
            let client = Client::start(ClientKind::Udhcpc, &machine, &format!("02:00:00:00:01:{leases:02x}"), &format!("amid-{leases}"))?;
            client.held(0).map_err(|error| format!("{error}; {}", server.log()))?;
            client.release()?;
            leases += 1;
            most = most.max(usage(recording.pid())?.resident_kb);
        }
        let took = flooding.join().map_err(|_| "the flood died")??;
        Ok((took, most, leases))
    })?;

    let asked = "SELECT rejected, lost_in_kernel, evicted FROM recorder_sources WHERE source = 'dhcp'";
    let row = until("all garbage counted", Duration::from_secs(10), || {
        let row = mayfly.query(asked)?.into_iter().next().ok_or("no such source")?;
        let counted = number(&row, "rejected") + number(&row, "lost_in_kernel");
        if counted >= i64::from(packets) { Ok(row) } else { Err(format!("{counted} of {packets}: {}", mayfly.log()).into()) }
    })?;
    assert!(number(&row, "rejected") <= i64::from(packets), "what several ports hear counts once: {row:?}");
    let closed = "SELECT count(DISTINCT mac_address) FROM ip_lease_history WHERE ip_address LIKE '10.218.%' AND ended_reason = 'released'";
    mayfly.wait_for_count(closed, leases)?;
    report(&format!(
        "{packets} packets of garbage in {took:.1?}: {} rejected, {} lost in the kernel; {leases} leases amid; resident {} KB before, {most} at most",
        number(&row, "rejected"),
        number(&row, "lost_in_kernel"),
        before.resident_kb
    ));
    assert!(most < before.resident_kb + 16_384, "{most} KB after {}", before.resident_kb);
    assert!(recording.stop()?.success(), "{}", mayfly.log());
    Ok(())
}
