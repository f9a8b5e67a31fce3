//! Networks of our own: bridges of the host, and network namespaces behind them or beside it.

use std::{fs, os::unix::fs::MetadataExt, process::Command, time::Duration};

use crate::{Result, run, tool, until};

/// `ip WORDS`.
pub fn ip(words: &str) -> Result<String> {
    run(Command::new(tool("ip", "iproute2")?).args(words.split_whitespace()))
}

/// A bridge of the host, without an address. Dropping it deletes it.
#[derive(Debug)]
pub struct Bridge {
    pub name: String,
}

impl Bridge {
    pub fn new(name: &str) -> Result<Self> {
        ip(&format!("link add {name} type bridge"))?;
        let bridge = Self { name: name.to_owned() };
        ip(&format!("link set {name} up"))?;
        Ok(bridge)
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = ip(&format!("link delete {}", self.name));
    }
}

/// A network namespace with one interface, `lan0`, whose other end is called like the namespace, in the host's. Dropping it deletes both.
#[derive(Debug)]
pub struct Namespace {
    pub name: String,
}

impl Namespace {
    pub fn new(name: &str) -> Result<Self> {
        ip(&format!("netns add {name}"))?;
        let namespace = Self { name: name.to_owned() };
        ip(&format!("link add {name} type veth peer name lan0 netns {name}"))?;
        ip(&format!("link set {name} up"))?;
        namespace.ip("link set lo up")?;
        namespace.ip("link set lan0 up")?;
        Ok(namespace)
    }

    /// One whose other end is a port of a bridge.
    pub fn behind(bridge: &Bridge, name: &str) -> Result<Self> {
        let namespace = Self::new(name)?;
        ip(&format!("link set {name} master {}", bridge.name))?;
        Ok(namespace)
    }

    /// Waits until both ends may speak IPv6: nobody does before its own address is known to be unique.
    pub fn settle(&self) -> Result<()> {
        until("addresses of the link", Duration::from_secs(10), || {
            let tentative = [ip(&format!("-6 address show dev {} tentative", self.name))?, self.ip("-6 address show dev lan0 tentative")?];
            let made = self.ip("-6 address show dev lan0 scope link")?;
            if tentative.iter().all(String::is_empty) && !made.is_empty() { Ok(()) } else { Err(format!("{tentative:?}").into()) }
        })
    }

    /// `ip WORDS` in it.
    pub fn ip(&self, words: &str) -> Result<String> {
        ip(&format!("-n {} {words}", self.name))
    }

    /// A program that runs in it.
    pub fn command(&self, program: &str, package: &str) -> Result<Command> {
        let mut command = Command::new(tool("ip", "iproute2")?);
        command.args(["netns", "exec", &self.name]).arg(tool(program, package)?);
        Ok(command)
    }

    /// Its number, as `net_namespace` has it.
    pub fn inode(&self) -> Result<String> {
        Ok(fs::metadata(format!("/run/netns/{}", self.name))?.ino().to_string())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = ip(&format!("link delete {}", self.name));
        let _ = ip(&format!("netns delete {}", self.name));
    }
}
