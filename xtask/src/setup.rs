//! Installs what is missing, and only that, with apt.

use std::{path::Path, process::Command};

use crate::process::{self, Result, installed, say};

/// A program (or, with a slash, a file) and the packages that bring it. Names differ between releases: the first that apt knows is taken.
const NEEDS: &[(&str, &[&str])] = &[
    ("cc", &["gcc"]),
    ("/usr/include/stdlib.h", &["libc6-dev"]),
    ("pkg-config", &["pkg-config"]),
    ("git", &["git"]),
    ("dockerd", &["docker.io"]),
    ("docker", &["docker-cli", "docker.io"]),
    ("containerd", &["containerd"]),
    ("ctr", &["containerd"]),
    ("runc", &["runc"]),
    ("iptables", &["iptables"]),
    ("ip", &["iproute2"]),
    ("mount", &["mount"]),
    ("busybox", &["busybox-static"]),
    ("podman", &["podman"]),
    ("conmon", &["conmon"]),
    ("python3", &["python3"]),
    ("/usr/share/doc/python3-venv", &["python3-venv"]),
    ("protoc", &["protobuf-compiler"]),
    ("clang", &["clang"]),
    ("dnsmasq", &["dnsmasq-base"]),
    ("dhcpd", &["isc-dhcp-server"]),
    ("dhclient", &["isc-dhcp-client"]),
    ("kea-dhcp4", &["kea-dhcp4-server"]),
    ("kea-dhcp6", &["kea-dhcp6-server"]),
    ("/usr/include/bpf/bpf_helpers.h", &["libbpf-dev"]),
    ("useradd", &["passwd"]),
    ("/usr/share/doc/libnss-extrausers", &["libnss-extrausers"]),
];

/// Looks, and installs.
pub(crate) fn ensure(needs: &[(&str, &[&'static str])]) -> Result {
    let there = |what: &str| if what.contains('/') { Path::new(what).exists() } else { installed(what) };
    let missing: Vec<_> = needs.iter().filter(|(what, _)| !there(what)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = missing.iter().map(|(what, _)| *what).collect();
    say(&format!("missing: {}", names.join(", ")));
    if !installed("apt-get") {
        return Err("this is no Debian or Ubuntu: install them by your system's means".into());
    }
    process::run(apt("apt-get").args(["update", "--quiet"]))?;
    let mut packages: Vec<&str> = missing.iter().filter_map(|(_, choices)| choices.iter().copied().find(|name| known(name))).collect();
    packages.sort_unstable();
    packages.dedup();
    process::run(apt("apt-get").args(["install", "--yes", "--quiet", "--no-install-recommends"]).args(&packages))?;
    match missing.iter().find(|(what, _)| !there(what)) {
        Some((what, choices)) => Err(format!("{what} is still missing after installing {}", choices.join(" or ")).into()),
        None => Ok(()),
    }
}

pub(crate) fn run() -> Result {
    ensure(NEEDS)
}

/// Whether apt has a package of that name to install.
fn known(package: &str) -> bool {
    Command::new("apt-cache").args(["show", "--quiet=2", package]).output().is_ok_and(|out| out.status.success() && !out.stdout.is_empty())
}

/// A command that root must run, and that asks nothing.
fn apt(program: &str) -> Command {
    let root = Command::new("id").arg("-u").output().is_ok_and(|out| out.stdout == b"0\n");
    if root {
        let mut command = Command::new(program);
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    } else {
        let mut command = Command::new("sudo");
        command.args(["env", "DEBIAN_FRONTEND=noninteractive", program]);
        command
    }
}
