//! Leases of real DHCP servers to real clients, seen by a host that is neither: the bridge between them is its own. What the clients write down is
//! the truth.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
    time::Duration,
};

use mayfly_tests::{
    Bridge, Mayfly, Namespace, Recording, Result, Row, Verdict, churn,
    dhcp::{Client, ClientKind, Range, Server, ServerKind},
    report, until,
};
use serde_json::Value;

use crate::{amount, turn};

const SECOND: i64 = 1_000_000_000;
/// Machines that ask one server at once.
const WORKERS: usize = 2;

/// One lease as its client knew it.
#[derive(Debug)]
struct Lease {
    server: ServerKind,
    ip: String,
    mac: String,
    host: String,
    from_ns: i64,
    to_ns: i64,
    ended: &'static str,
}

/// A server with its own network, and the namespaces in which clients run.
struct Network {
    server: Server,
    clients: Vec<Namespace>,
    _home: Namespace,
    bridge: Bridge,
}

impl Network {
    fn new(kind: ServerKind, net: u8, seconds: u32, pool: u8) -> Result<Self> {
        let range = Range { net, own: 1, pool, seconds };
        let bridge = Bridge::new(&format!("mfb{net}"))?;
        let home = Namespace::behind(&bridge, &format!("mfs{net}"))?;
        let clients = (0..WORKERS).map(|n| Namespace::behind(&bridge, &format!("mfc{net}-{n}"))).collect::<Result<Vec<_>>>()?;
        clients.iter().chain([&home]).filter(|_| kind.is_v6()).try_for_each(Namespace::settle)?;
        let server = Server::start(kind, &home, range)?;
        Ok(Self { server, clients, _home: home, bridge })
    }

    /// Has `runs` machines get leases one after the other, on each of the clients' namespaces at once: some renew, some give back, some vanish.
    fn run(&self, runs: usize, truth: &Mutex<Vec<Lease>>) -> Result<()> {
        let free: Mutex<Vec<&Namespace>> = Mutex::new(self.clients.iter().collect());
        churn(runs, WORKERS, |n| {
            let namespace = free.lock().map_err(|_| "poisoned")?.pop().ok_or("no free namespace")?;
            // dnsmasq's leases are too long to wait for the end of many.
            let vanishes = n % 4 == 1 && (self.server.kind != ServerKind::Dnsmasq || n + 3 == runs);
            let lease = self.lease(namespace, n, vanishes)?;
            free.lock().map_err(|_| "poisoned")?.push(namespace);
            truth.lock().map_err(|_| "poisoned")?.push(lease);
            Ok(())
        })?;
        Ok(())
    }

    fn lease(&self, namespace: &Namespace, n: usize, vanishes: bool) -> Result<Lease> {
        let server = self.server.kind;
        let kind = match n % 2 {
            _ if server.is_v6() => ClientKind::Dhclient6,
            0 => ClientKind::Udhcpc,
            _ => ClientKind::Dhclient,
        };
        let (mac, host) = (format!("02:00:00:00:{:02x}:{n:02x}", server as u8), format!("{server:?}-{n}").to_lowercase());
        let client = Client::start(kind, namespace, &mac, &host)?;
        // A client of DHCPv6 does not tell its name unless it wants one in DNS.
        let host = if server.is_v6() { String::new() } else { host };
        let from_ns = client.held(0)?.0[0];
        let renewals = usize::from(n.is_multiple_of(3));
        if renewals > 0 {
            client.renew()?;
        }
        let (times, ip) = client.held(renewals)?;
        // A file that is written anew with each change does not show what lasts for milliseconds.
        until("lease of a second", Duration::from_secs(2), || if now() > from_ns + SECOND { Ok(()) } else { Err("not yet".into()) })?;
        let (to_ns, ended) = if vanishes {
            drop(client);
            (times[times.len() - 1] + i64::from(self.server.range.seconds) * SECOND, "expired")
        } else {
            (client.release()?, "released")
        };
        Ok(Lease { server, ip, mac, host, from_ns, to_ns, ended })
    }
}

/// A recorder that has only some of the witnesses.
struct Watcher {
    evidence: &'static str,
    mayfly: Mayfly,
}

impl Watcher {
    fn all(networks: &[Network]) -> Result<[Self; 3]> {
        let bridges: Vec<_> = networks.iter().map(|network| &network.bridge.name).collect();
        let files: Vec<_> = networks.iter().map(|network| network.server.leases()).collect();
        let (wire, file) = (format!("[dhcp]\ninterfaces = {bridges:?}\n"), format!("[lease_file]\nenabled = true\npaths = {files:?}\n"));
        let of = |evidence, config: &str| Ok::<_, mayfly_tests::Error>(Self { evidence, mayfly: Mayfly::with(config)? });
        Ok([of("dhcp", &wire)?, of("lease_file", &file)?, of("dhcp,lease_file", &format!("{wire}{file}"))?])
    }

    fn launch(&self) -> Result<Recording<'_>> {
        let recording = self.mayfly.launch()?;
        let running = "SELECT count(*) FROM recorder_sources WHERE source IN ('dhcp', 'lease_file') AND state = 'running'";
        self.mayfly.wait_for_count(running, self.evidence.split(',').count())?;
        Ok(recording)
    }

    /// Compares what it has with the truth; gives how far it was off at most, in nanoseconds.
    fn compare(&self, truth: &[Lease], verdict: &mut Verdict) -> Result<i64> {
        let leases = until("all intervals closed", Duration::from_secs(20), || {
            let rows = self.mayfly.query(
                "SELECT ip_address, mac_address, hostname, scope, ended_reason, evidence, valid_from_ns, valid_to_ns FROM ip_lease_history \
                 WHERE ip_address LIKE '10.21_.0.%' OR ip_address LIKE 'fd15:21_::%' ORDER BY ip_address, valid_from_ns",
            )?;
            let open = rows.iter().filter(|row| number(row, "valid_to_ns").is_none()).count();
            if rows.len() >= truth.len() && open == 0 { Ok(rows) } else { Err(format!("{} with {open} open: {rows:?}", rows.len()).into()) }
        })?;
        let by = self.evidence;
        let mut off = 0;
        verdict.check(leases.len() == truth.len(), format!("{by}: other intervals than leases"), || {
            format!("{} of {}", leases.len(), truth.len())
        });
        for lease in truth {
            let of_it: Vec<_> = leases
                .iter()
                .filter(|row| text(row, "ip_address") == lease.ip && text(row, "mac_address") == lease.mac)
                .filter(|row| number(row, "valid_from_ns") < Some(lease.to_ns) && number(row, "valid_to_ns") > Some(lease.from_ns))
                .collect();
            let [row] = of_it[..] else {
                verdict.check(false, format!("{by}: leases that are not one interval"), || format!("{lease:?}: {of_it:?}"));
                continue;
            };
            let shown = || {
                let asked = format!("SELECT action, source, time_ns, mac_address FROM ip_lease_events WHERE ip_address = '{}'", lease.ip);
                format!("{lease:?}: {row:?}; told: {:?}", self.mayfly.query(&asked))
            };
            for (column, told) in [("valid_from_ns", lease.from_ns), ("valid_to_ns", lease.to_ns)] {
                let error = (number(row, column).unwrap_or_default() - told).abs();
                off = off.max(error);
                verdict.check(error <= SECOND, format!("{by}: {column} off by more than a second, {:?}", lease.server), shown);
            }
            verdict.check(text(row, "evidence") == by, format!("{by}: other evidence, {:?}", lease.server), shown);
            // A file that is written anew a moment after shows only who has the address now.
            let at_once = |next: &Lease| next.ip == lease.ip && (0..SECOND).contains(&(next.from_ns - lease.to_ns));
            let is_taken = by == "lease_file" && text(row, "ended_reason") == "taken" && truth.iter().any(at_once);
            verdict.check(is_taken || text(row, "ended_reason") == lease.ended, format!("{by}: other reason, {:?}", lease.server), shown);
            verdict.check(text(row, "hostname") == lease.host && text(row, "scope") == "client", format!("{by}: another holder"), shown);
        }
        let rejected = self.mayfly.query("SELECT * FROM recorder_sources WHERE rejected > 0 OR evicted > 0 OR lost_in_kernel > 0")?;
        verdict.check(rejected.is_empty(), format!("{by}: losses"), || format!("{rejected:?}"));
        let conflicts = self.mayfly.query("SELECT * FROM ip_lease_events WHERE action = 'conflict'")?;
        verdict.check(conflicts.is_empty(), format!("{by}: conflicts that were none"), || format!("{conflicts:?}"));
        Ok(off)
    }
}

fn text<'r>(row: &'r Row, column: &str) -> &'r str {
    row.get(column).and_then(Value::as_str).unwrap_or_default()
}

fn number(row: &Row, column: &str) -> Option<i64> {
    let value = row.get(column)?;
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

#[test]
fn every_lease_is_one_interval_with_its_true_ends_by_wire_by_file_and_by_both() -> Result<()> {
    let _turn = turn();
    let runs = amount(6, 20);
    // Few addresses, so that most are used again by another machine.
    let networks = [
        Network::new(ServerKind::Dnsmasq, 211, 120, 4)?,
        Network::new(ServerKind::Dhcpd, 212, 8, 6)?,
        Network::new(ServerKind::Kea, 215, 8, 6)?,
        Network::new(ServerKind::Kea6, 219, 8, 6)?,
    ];
    let watchers = Watcher::all(&networks)?;
    let recordings = watchers.iter().map(Watcher::launch).collect::<Result<Vec<_>>>()?;

    let truth: Mutex<Vec<Lease>> = Mutex::default();
    let took = churn(networks.len(), networks.len(), |n| {
        let network = &networks[n];
        network.run(runs, &truth).map_err(|error| format!("{error}; {}", network.server.log()).into())
    })?;
    let truth = truth.into_inner()?;
    let last = truth.iter().map(|lease| lease.to_ns).max().unwrap_or_default();
    until("end of the last lease", Duration::from_secs(130), || if now() > last { Ok(()) } else { Err("it goes on".into()) })?;

    let mut machines: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for lease in &truth {
        machines.entry(&lease.ip).or_default().insert(&lease.mac);
    }
    let reused = machines.values().filter(|machines| machines.len() > 1).count();
    let mut verdict = Verdict::default();
    verdict.check(reused > 0, "no address was used again", || format!("{machines:?}"));
    let expired = truth.iter().filter(|lease| lease.ended == "expired").count();
    report(&format!(
        "{} leases of {} servers in {took:.1?}: {expired} expired, {} given back, {} addresses, of which {reused} by several machines",
        truth.len(),
        networks.len(),
        truth.len() - expired,
        machines.len()
    ));
    for watcher in &watchers {
        let off = watcher.compare(&truth, &mut verdict)?;
        report(&format!("  by {}: ends off by {} ms at most", watcher.evidence, off / 1_000_000));
    }
    for recording in recordings {
        verdict.check(recording.stop()?.success(), "recorder that does not end in order", String::new);
    }
    verdict.pass()
}

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
