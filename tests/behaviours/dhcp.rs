//! Leases on the wire: a real server on a link of this host, real clients in a network namespace behind it.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::{Child, Command, Stdio},
    time::Duration,
};

use mayfly_tests::{Mayfly, Result, Row, run, tool, until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::turn;

/// A link of the host with dnsmasq on it, and a namespace at its other end.
struct Link {
    name: String,
    home: TempDir,
    server: Option<Child>,
}

impl Link {
    fn make() -> Result<Self> {
        tool("ip", "iproute2")?;
        let name = format!("mfd{}", std::process::id() % 100_000);
        let link = Self { name, home: TempDir::new()?, server: None };
        link.ip(&format!("netns add {}", link.name))?;
        link.ip(&format!("link add {0} type veth peer name lan0 netns {0}", link.name))?;
        link.ip(&format!("address add 10.214.0.1/24 dev {}", link.name))?;
        link.ip(&format!("link set {} up", link.name))?;
        link.ip(&format!("-n {} link set lan0 up", link.name))?;
        Ok(link)
    }

    fn ip(&self, words: &str) -> Result<String> {
        run(Command::new("ip").args(words.split(' ')))
    }

    /// Grants one address for two minutes, the least that dnsmasq takes.
    fn serve(&mut self) -> Result<()> {
        let mut command = Command::new(tool("dnsmasq", "dnsmasq-base")?);
        command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--bind-interfaces", "--user=root", "--pid-file="]);
        command.arg(format!("--interface={}", self.name)).arg("--dhcp-range=10.214.0.50,10.214.0.50,120").arg("--dhcp-authoritative");
        command.arg(format!("--dhcp-leasefile={}", self.home.path().join("leases").display()));
        command.arg(format!("--log-facility={}", self.home.path().join("log").display()));
        self.server = Some(command.stdin(Stdio::null()).spawn()?);
        Ok(())
    }

    /// Runs a client that calls itself `host` until `granted`, then has it give the lease back.
    fn lease(&self, host: &str, mac: &str, granted: impl FnOnce() -> Result<()>) -> Result<()> {
        self.ip(&format!("-n {} link set lan0 address {mac}", self.name))?;
        // A client that has not its address cannot give it back.
        let script = self.home.path().join("configure");
        let configure = "#!/bin/sh\nip address flush dev $interface\n[ -z \"$ip\" ] || ip address add $ip/24 dev $interface\n";
        fs::write(&script, configure)?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        let mut client = Command::new("ip");
        client.args(["netns", "exec", &self.name]).arg(tool("busybox", "busybox-static")?);
        client.args(["udhcpc", "-i", "lan0", "-f", "-R", "-t", "20", "-x", &format!("hostname:{host}"), "-s"]).arg(script);
        let mut client = client.stdin(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let outcome = granted().and_then(|()| {
            // It has read the answer too.
            until("address of the client", Duration::from_secs(10), || {
                let shown = self.ip(&format!("-n {} -4 address show dev lan0", self.name))?;
                if shown.contains("10.214.0.50") { Ok(()) } else { Err(shown.into()) }
            })
        });
        end(&mut client);
        outcome
    }
}

/// Ends a process in order.
fn end(child: &mut Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::TERM);
    }
    let _ = child.wait();
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            end(&mut server);
        }
        let _ = self.ip(&format!("link delete {}", self.name));
        let _ = self.ip(&format!("netns delete {}", self.name));
    }
}

fn text<'r>(row: &'r Row, column: &str) -> &'r str {
    row.get(column).and_then(Value::as_str).unwrap_or_default()
}

#[test]
fn one_address_that_two_machines_leased_in_turn_has_two_holders_in_turn() -> Result<()> {
    let _turn = turn();
    let mut link = Link::make()?;
    let mayfly = Mayfly::with(&format!("[dhcp]\ninterfaces = [\"{}\"]\n", link.name))?;
    let recording = mayfly.launch()?;
    mayfly.wait_for_count("SELECT count(*) AS n FROM recorder_sources WHERE source = 'dhcp' AND state = 'running'", 1)?;
    link.serve()?;
    let told = |action: &str| format!("SELECT count(*) AS n FROM ip_lease_events WHERE source = 'dhcp' AND action = '{action}'");
    for (n, host, mac) in [(1, "laptop", "02:00:00:00:00:01"), (2, "phone", "02:00:00:00:00:02")] {
        link.lease(host, mac, || mayfly.wait_for_count(&told("assigned"), n).map(drop))?;
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
    assert_eq!(rejected, 0, "{}", fs::read_to_string(link.home.path().join("log")).unwrap_or_default());
    assert!(recording.stop()?.success(), "{}", mayfly.log());
    Ok(())
}
