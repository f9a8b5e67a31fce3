//! A private DHCP server with a small pool and short leases.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use crate::{Namespace, Result, command::end, tool, until};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerKind {
    Dnsmasq,
    Dhcpd,
    Kea,
    /// ISC's, for DHCPv6.
    Dhcpd6,
    /// Kea's.
    Kea6,
}

impl ServerKind {
    /// Whether it speaks DHCPv6.
    pub const fn is_v6(self) -> bool {
        matches!(self, Self::Dhcpd6 | Self::Kea6)
    }
}

/// What it gives: of 10.N.0.0/24, or fd15:N::/64.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    pub net: u8,
    /// The last number of its own address.
    pub own: u8,
    /// How many addresses, from .50 on.
    pub pool: u8,
    /// How long a lease is. dnsmasq gives none that is shorter than two minutes.
    pub seconds: u32,
}

/// Serves `lan0` of a namespace.
#[derive(Debug)]
pub struct Server {
    pub kind: ServerKind,
    pub range: Range,
    home: TempDir,
    child: Child,
}

impl Range {
    fn last(self) -> u8 {
        50 + self.pool - 1
    }
}

/// Seconds after which a client renews.
const RENEW: u32 = 3;

impl Server {
    pub fn start(kind: ServerKind, namespace: &Namespace, range: Range) -> Result<Self> {
        let home = tempfile::Builder::new().prefix("mayfly-dhcp-").tempdir_in("/tmp")?;
        let path = home.path();
        let Range { net, own, seconds, .. } = range;
        let address = if kind.is_v6() { format!("fd15:{net}::{own}/64 dev lan0 nodad") } else { format!("10.{net}.0.{own}/24 dev lan0") };
        namespace.ip(&format!("address add {address}"))?;
        let log = fs::File::create(path.join("log"))?;
        let mut command = match kind {
            ServerKind::Dnsmasq => {
                let mut command = namespace.command("dnsmasq", "dnsmasq-base")?;
                command.args([
                    "--keep-in-foreground",
                    "--conf-file=/dev/null",
                    "--port=0",
                    "--bind-interfaces",
                    "--user=root",
                    "--pid-file=",
                ]);
                command.args(["--interface=lan0", "--dhcp-authoritative", "--no-ping", "--log-facility=-"]);
                command.arg(format!("--dhcp-option=option:T1,{RENEW}"));
                command.arg(format!("--dhcp-range=10.{net}.0.50,10.{net}.0.{},{seconds}", range.last()));
                command.arg(format!("--dhcp-leasefile={}", path.join("dnsmasq.leases").display()));
                command
            }
            ServerKind::Dhcpd | ServerKind::Dhcpd6 => dhcpd(kind, namespace, range, path)?,
            ServerKind::Kea | ServerKind::Kea6 => kea(kind, namespace, range, path)?,
        };
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let mut server = Self { kind, range, home, child };
        let ready = match kind {
            ServerKind::Dnsmasq => "sockets bound",
            ServerKind::Dhcpd => "Listening on LPF/lan0",
            ServerKind::Dhcpd6 => "Listening on Socket",
            ServerKind::Kea => "DHCP4_STARTED",
            ServerKind::Kea6 => "DHCP6_STARTED",
        };
        until("DHCP server", Duration::from_secs(15), || match server.child.try_wait()? {
            None if server.log().contains(ready) => Ok(()),
            ended => Err(format!("{kind:?}: {ended:?}: {}", server.log()).into()),
        })?;
        Ok(server)
    }

    pub fn leases(&self) -> PathBuf {
        self.home.path().join(match self.kind {
            ServerKind::Dnsmasq => "dnsmasq.leases",
            ServerKind::Dhcpd | ServerKind::Dhcpd6 => "dhcpd.leases",
            ServerKind::Kea => "kea-leases4.csv",
            ServerKind::Kea6 => "kea-leases6.csv",
        })
    }

    /// What it said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn dhcpd(kind: ServerKind, namespace: &Namespace, range: Range, home: &Path) -> Result<Command> {
    let (Range { net, seconds, .. }, end) = (range, range.last());
    let times = format!("default-lease-time {seconds}; max-lease-time {seconds}; min-lease-time {seconds}; authoritative;");
    let (version, network) = if kind == ServerKind::Dhcpd {
        let range = format!("range 10.{net}.0.50 10.{net}.0.{end}; option dhcp-renewal-time {RENEW};");
        ("-4", format!("ping-check off; subnet 10.{net}.0.0 netmask 255.255.255.0 {{ {range} }}"))
    } else {
        ("-6", format!("preferred-lifetime {}; subnet6 fd15:{net}::/64 {{ range6 fd15:{net}::50 fd15:{net}::{end}; }}", seconds - 1))
    };
    fs::write(home.join("conf"), format!("{times} {network}\n"))?;
    fs::write(home.join("dhcpd.leases"), "")?;
    let mut command = namespace.command("dhcpd", "isc-dhcp-server")?;
    command.args([version, "-f", "-d", "--no-pid", "-cf"]).arg(home.join("conf")).arg("-lf").arg(home.join("dhcpd.leases")).arg("lan0");
    Ok(command)
}

/// Its lease file is cleaned up every few seconds, so that what it gives is told by two or three files.
fn kea(kind: ServerKind, namespace: &Namespace, range: Range, home: &Path) -> Result<Command> {
    let (Range { net, seconds, .. }, end) = (range, range.last());
    tool("kea-lfc", "kea-common")?;
    let (version, program, package) =
        if kind.is_v6() { (6, "kea-dhcp6", "kea-dhcp6-server") } else { (4, "kea-dhcp4", "kea-dhcp4-server") };
    let mut config = serde_json::json!({
        "interfaces-config": {"interfaces": ["lan0"]},
        "lease-database": {"type": "memfile", "persist": true, "name": home.join(format!("kea-leases{version}.csv")), "lfc-interval": 3},
        "expired-leases-processing": {"reclaim-timer-wait-time": 1, "flush-reclaimed-timer-wait-time": 3, "hold-reclaimed-time": 3},
        "valid-lifetime": seconds, "renew-timer": RENEW,
        "loggers": [{"name": program, "output_options": [{"output": "stdout"}], "severity": "INFO"}],
    });
    if kind.is_v6() {
        config["preferred-lifetime"] = (seconds - 1).into();
        config["rebind-timer"] = (seconds - 2).into();
        // Who it is, it would write where the host's own server does.
        config["server-id"] = serde_json::json!({"type": "LL", "persist": false});
        let pools = [serde_json::json!({"pool": format!("fd15:{net}::50 - fd15:{net}::{end}")})];
        config["subnet6"] = serde_json::json!([{"subnet": format!("fd15:{net}::/64"), "interface": "lan0", "pools": pools}]);
    } else {
        config["authoritative"] = true.into();
        let pools = [serde_json::json!({"pool": format!("10.{net}.0.50 - 10.{net}.0.{end}")})];
        config["subnet4"] = serde_json::json!([{"subnet": format!("10.{net}.0.0/24"), "pools": pools}]);
    }
    fs::write(home.join("conf"), serde_json::json!({ (format!("Dhcp{version}")): config }).to_string())?;
    let mut command = namespace.command(program, package)?;
    command.arg("-c").arg(home.join("conf")).env("KEA_PIDFILE_DIR", home).env("KEA_LOCKFILE_DIR", home);
    Ok(command)
}
