//! A private DHCP client, which writes down when it got and lost its address.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{Namespace, Result, command::end, ip, run, tool, until};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientKind {
    Udhcpc,
    Dhclient,
    /// The same, for DHCPv6.
    Dhclient6,
}

/// What a client writes down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    Held { at_ns: i64, ip: String },
    Gone { at_ns: i64 },
}

/// Runs on an interface until it is told to give the address back, or killed. Dropping it kills it.
#[derive(Debug)]
pub struct Client {
    kind: ClientKind,
    /// `None`: in the host's own.
    namespace: Option<String>,
    interface: String,
    home: TempDir,
    child: Child,
}

/// Notes the time first; a client that has not its address cannot give it back.
const SCRIPT: &str = "#!/bin/sh
at=$(date +%s%N)
ip=${ip:-${new_ip_address:-$new_ip6_address}}
case \"$1$reason\" in
bound|renew|BOUND|RENEW|REBIND|REBOOT) echo \"held $at $ip\" >>LOG; ip address replace $ip/24 dev $interface;;
BOUND6|RENEW6|REBIND6) echo \"held $at $ip\" >>LOG; ip address replace $ip/64 dev $interface nodad;;
deconfig|RELEASE|EXPIRE|STOP|RELEASE6|EXPIRE6|STOP6) echo \"gone $at\" >>LOG; ip address flush dev $interface scope global;;
esac
exit 0
";

impl Client {
    /// Starts one on `lan0` of a namespace, as the machine of that hardware and host name.
    pub fn start(kind: ClientKind, namespace: &Namespace, mac: &str, host: &str) -> Result<Self> {
        namespace.ip("address flush dev lan0 scope global")?;
        if kind == ClientKind::Dhclient6 {
            // It speaks from an address that its hardware makes, and the last machine's neighbours still know that one's.
            namespace.ip("link set lan0 down")?;
        }
        namespace.ip(&format!("link set lan0 address {mac}"))?;
        if kind == ClientKind::Dhclient6 {
            namespace.ip("link set lan0 up")?;
            namespace.settle()?;
        }
        Self::run(kind, Some(namespace.name.clone()), "lan0", host, Self::home()?)
    }

    /// Starts one on an interface of the host.
    pub fn start_here(kind: ClientKind, interface: &str, host: &str, home: TempDir) -> Result<Self> {
        Self::run(kind, None, interface, host, home)
    }

    /// A directory for its files.
    pub fn home() -> Result<TempDir> {
        Ok(tempfile::Builder::new().prefix("mayfly-client-").tempdir_in("/tmp")?)
    }

    /// The lease file that it will write there, if it is one that has one.
    pub fn leases(home: &TempDir) -> PathBuf {
        home.path().join("dhclient.leases")
    }

    fn run(kind: ClientKind, namespace: Option<String>, interface: &str, host: &str, home: TempDir) -> Result<Self> {
        let script = home.path().join("script");
        fs::write(&script, SCRIPT.replace("LOG", &home.path().join("log").to_string_lossy()))?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        let config = format!("send host-name \"{host}\"; also request dhcp-renewal-time; initial-interval 1; backoff-cutoff 2; retry 1;\n");
        fs::write(home.path().join("conf"), config)?;
        let mut client = Self { kind, namespace, interface: interface.to_owned(), child: Command::new("true").spawn()?, home };
        client.child.wait()?;
        let mut command = client.command()?;
        if kind == ClientKind::Udhcpc {
            command.args(["-f", "-R", "-t", "30", "-T", "1", "-A", "1", "-x", &format!("hostname:{host}")]);
        } else {
            command.arg("-d");
        }
        client.child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        Ok(client)
    }

    fn command(&self) -> Result<Command> {
        let (program, package) =
            if self.kind == ClientKind::Udhcpc { ("busybox", "busybox-static") } else { ("dhclient", "isc-dhcp-client") };
        let program = tool(program, package)?;
        let mut command = match &self.namespace {
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace]).arg(program);
                command
            }
            None => Command::new(program),
        };
        let home = self.home.path();
        match self.kind {
            ClientKind::Udhcpc => {
                command.args(["udhcpc", "-i", &self.interface, "-s"]).arg(home.join("script"));
            }
            ClientKind::Dhclient | ClientKind::Dhclient6 => {
                command.arg(if self.kind == ClientKind::Dhclient { "-4" } else { "-6" });
                command.arg("-sf").arg(home.join("script")).arg("-cf").arg(home.join("conf"));
                command.arg("-lf").arg(Self::leases(&self.home)).arg("-pf").arg(home.join("pid")).arg(&self.interface);
            }
        }
        Ok(command)
    }

    /// All that it wrote down.
    pub fn words(&self) -> Vec<Word> {
        let log = fs::read_to_string(self.home.path().join("log")).unwrap_or_default();
        let word = |line: &str| match line.split(' ').collect::<Vec<_>>()[..] {
            ["held", at, ip] => Some(Word::Held { at_ns: at.parse().ok()?, ip: ip.to_owned() }),
            ["gone", at] => Some(Word::Gone { at_ns: at.parse().ok()? }),
            _ => None,
        };
        log.lines().filter_map(word).collect()
    }

    /// Waits until it got its lease, and renewed it so many times; gives the times, and the address.
    pub fn held(&self, renewals: usize) -> Result<(Vec<i64>, String)> {
        let what = format!("{:?} that renewed {renewals} times", self.kind);
        until(&what, Duration::from_secs(20), || {
            let words = self.words();
            let held = |word: &Word| if let Word::Held { at_ns, ip } = word { Some((*at_ns, ip.clone())) } else { None };
            let (mut times, addresses): (Vec<_>, Vec<_>) = words.iter().filter_map(held).unzip();
            if let (Some(last), Some(began)) = (times.last_mut(), self.began_by()) {
                *last = began.min(*last);
            }
            match addresses.into_iter().next_back() {
                Some(address) if times.len() > renewals => Ok((times, address)),
                _ => Err(format!("{words:?}").into()),
            }
        })
    }

    /// By when its last lease had begun, in nanoseconds: the end of the second that it writes down itself, if it is one that does. Its script may run
    /// later.
    fn began_by(&self) -> Option<i64> {
        let leases = fs::read_to_string(Self::leases(&self.home)).ok()?;
        let (_, last) = leases.rsplit_once(" starts ")?;
        let second: i64 = last.split_once(';')?.0.parse().ok()?;
        Some((second + 1) * 1_000_000_000)
    }

    /// Has it renew at once, where it can be told to; the others do when it is time.
    pub fn renew(&self) -> Result<()> {
        if self.kind == ClientKind::Udhcpc {
            kill_process(pid(&self.child)?, Signal::USR1)?;
        }
        Ok(())
    }

    /// Has it give the address back, and waits until it ended; gives the time when it did.
    pub fn release(mut self) -> Result<i64> {
        if self.kind == ClientKind::Udhcpc {
            end(&mut self.child);
        } else {
            run(self.command()?.arg("-r"))?;
            // It was told to end too, but does not hear it while its script runs.
            self.child.kill()?;
            self.child.wait()?;
        }
        let last = self.words().into_iter().next_back();
        match last {
            Some(Word::Gone { at_ns }) => Ok(at_ns),
            last => Err(format!("{:?} did not give its address back: {last:?}", self.kind).into()),
        }
    }
}

fn pid(child: &Child) -> Result<Pid> {
    Ok(i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or("no process")?)
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // What it held it holds no more.
        let own = self.namespace.as_ref().map_or(String::new(), |namespace| format!("-n {namespace} "));
        let _ = ip(&format!("{own}address flush dev {} scope global", self.interface));
    }
}
