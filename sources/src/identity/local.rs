//! What the host itself tells of its identity: files, sysfs, its interfaces.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
};

use mayfly_history::{boot_id, identity::Identity};
use nix::{ifaddrs::getifaddrs, sys::socket::LinkAddr};

use super::metadata::Provider;
use crate::{
    devices::{Sysfs, read},
    disk, mounts,
};

/// Longest file that is read.
const LONGEST: u64 = 1 << 20;

/// A host's files.
#[derive(Clone, Debug)]
pub(crate) struct Local {
    pub(crate) root: PathBuf,
}

impl Local {
    fn path(&self, below: &str) -> PathBuf {
        self.root.join(below)
    }

    fn text(&self, below: &str) -> String {
        read(&self.path(below)).unwrap_or_default()
    }

    fn file(&self, below: &str) -> String {
        let root = std::fs::File::open(&self.root);
        let bytes = root.and_then(|root| disk::read_below(root, below, LONGEST)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Everything but the cloud and the incarnation.
    pub(crate) fn identity(&self) -> Identity {
        let system = rustix::system::uname();
        let hostname = system.nodename().to_string_lossy().into_owned();
        let mut identity = Identity {
            host_uuid: self.text("sys/class/dmi/id/product_uuid").to_ascii_lowercase(),
            machine_id: self.text("etc/machine-id"),
            boot_id: boot_id(),
            primary_interface: self.primary_interface().unwrap_or_default(),
            ecs_cluster: setting(&self.file("etc/ecs/ecs.config"), "ECS_CLUSTER").unwrap_or_default(),
            kubernetes_node: self.kubernetes_node(&hostname),
            container_runtime: self.runtimes(),
            os: self.os(),
            kernel: system.release().to_string_lossy().into_owned(),
            hostname,
            ..Identity::default()
        };
        self.addresses(&mut identity);
        identity
    }

    /// The uuid of the filesystem that is the host's root; empty where it has none.
    pub(crate) fn root_filesystem(&self) -> String {
        let sysfs = Sysfs::new(&self.root);
        let table = ["proc/1/mountinfo", "proc/self/mountinfo"].map(|file| std::fs::read_to_string(self.path(file)));
        let number = table.into_iter().flatten().find_map(|table| mounts::number_of_root(&table));
        let name = number.and_then(|number| Some(sysfs.filesystem(&number, &sysfs.folder(&number)?)));
        name.map(|name| name.uuid).unwrap_or_default()
    }

    /// The cloud that the firmware says it is, so that nobody else is asked.
    pub(crate) fn provider(&self) -> Option<Provider> {
        let dmi = |name: &str| self.text(&format!("sys/class/dmi/id/{name}"));
        // Nitro says so itself; Xen in its version and its uuid.
        if dmi("sys_vendor") == "Amazon EC2"
            || dmi("bios_version").contains("amazon")
            || self.text("sys/hypervisor/uuid").starts_with("ec2")
        {
            return Some(Provider::Aws);
        }
        if dmi("product_name").contains("Google Compute Engine") {
            return Some(Provider::Gce);
        }
        (dmi("chassis_asset_tag") == "7783-7084-3265-9085-8269-3286-77").then_some(Provider::Azure)
    }

    fn os(&self) -> String {
        let release = self.file("etc/os-release");
        setting(&release, "PRETTY_NAME").or_else(|| setting(&release, "NAME")).unwrap_or_default()
    }

    fn kubernetes_node(&self, hostname: &str) -> String {
        for config in ["etc/kubernetes/kubelet.conf", "var/lib/kubelet/kubeconfig"] {
            let config = self.file(config);
            let node = config.split("system:node:").nth(1).map(|rest| rest.split(|c: char| !is_of_name(c)).next().unwrap_or_default());
            if let Some(node) = node.filter(|node| !node.is_empty()) {
                return node.to_owned();
            }
        }
        if self.path("var/lib/kubelet/pki").is_dir() { hostname.to_ascii_lowercase() } else { String::new() }
    }

    fn runtimes(&self) -> String {
        let sockets = [
            ("containerd", "containerd/containerd.sock"),
            ("cri-o", "crio/crio.sock"),
            ("docker", "docker.sock"),
            ("podman", "podman/podman.sock"),
        ];
        let here = sockets.into_iter().filter(|(_, socket)| self.path("run").join(socket).exists());
        here.map(|(name, _)| name).collect::<Vec<_>>().join(",")
    }

    /// That of the default route with the smallest metric, of IPv4 before IPv6.
    fn primary_interface(&self) -> Option<String> {
        let number = |text: &str| u32::from_str_radix(text, 16).ok();
        let v4 = self.table("proc/net/route");
        let v4 = v4.iter().filter(|f| f.len() > 7 && f[1] == "00000000" && f[7] == "00000000");
        let v4 = v4.filter_map(|f| Some((f[6].parse::<u32>().ok()?, f[0].clone()))).min();
        let v6 = || {
            let routes = self.table("proc/net/ipv6_route");
            let routes = routes.iter().filter(|f| f.len() > 9 && f[1] == "00" && f[0].bytes().all(|b| b == b'0') && f[9] != "lo");
            routes.filter_map(|f| Some((number(&f[5])?, f[9].clone()))).min()
        };
        v4.or_else(v6).map(|(_, name)| name)
    }

    fn table(&self, below: &str) -> Vec<Vec<String>> {
        // It is the kernel's own, of this process's network namespace.
        let text = std::fs::read_to_string(self.path(below)).unwrap_or_default();
        text.lines().map(|line| line.split_ascii_whitespace().map(str::to_owned).collect()).collect()
    }

    /// Of its network cards, and of the primary interface: those of containers come and go, and are not the host.
    fn addresses(&self, identity: &mut Identity) {
        let (mut ips, mut macs) = (BTreeMap::<String, Vec<IpAddr>>::new(), BTreeSet::new());
        let is_card = |name: &str| self.path("sys/class/net").join(name).join("device").exists();
        for interface in getifaddrs().into_iter().flatten() {
            let name = interface.interface_name;
            let Some(address) = interface.address.filter(|_| name == identity.primary_interface || is_card(&name)) else { continue };
            let v4 = address.as_sockaddr_in().map(|a| IpAddr::from(a.ip()));
            let v6 = address.as_sockaddr_in6().filter(|a| !a.ip().is_unicast_link_local()).map(|a| IpAddr::from(a.ip()));
            ips.entry(name).or_default().extend(v4.or(v6));
            if let Some(mac) = address.as_link_addr().and_then(LinkAddr::addr).filter(|mac| *mac != [0; 6]) {
                macs.insert(mac.map(|byte| format!("{byte:02x}")).join(":"));
            }
        }
        ips.values_mut().for_each(|ips| ips.sort_by_key(|ip| (ip.is_ipv6(), *ip)));
        let primary = ips.get(&identity.primary_interface).and_then(|ips| ips.first());
        identity.primary_ip = primary.map(ToString::to_string).unwrap_or_default();
        let mut all: Vec<_> = ips.into_values().flatten().collect();
        all.sort_by_key(|ip| (ip.is_ipv6(), *ip));
        identity.ip_addresses = all.iter().map(ToString::to_string).collect();
        identity.mac_addresses = macs.into_iter().collect();
    }
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '.'
}

/// The value of `NAME=value` or `NAME="value"`.
fn setting(text: &str, name: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix('='))?;
    Some(value.trim_matches(['"', '\'']).to_owned())
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    fn host(files: &[(&str, &str)]) -> (tempfile::TempDir, Local) {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path: &Path = Path::new(path);
            fs::create_dir_all(root.path().join(path.parent().unwrap())).unwrap();
            fs::write(root.path().join(path), text).unwrap();
        }
        let local = Local { root: root.path().to_owned() };
        (root, local)
    }

    #[test]
    fn reads_what_the_host_is_called() {
        let (_root, local) = host(&[
            ("sys/class/dmi/id/product_uuid", "EC2A0B1C-0000\n"),
            ("etc/machine-id", "abc\n"),
            ("etc/os-release", "NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"),
            ("etc/ecs/ecs.config", "ECS_CLUSTER=prod\n"),
            ("etc/kubernetes/kubelet.conf", "  user: system:node:ip-10-0-0-1.ec2.internal\n"),
            ("run/docker.sock", ""),
            ("run/crio/crio.sock", ""),
            (
                "proc/net/route",
                "Iface Destination Gateway Flags RefCnt Use Metric Mask\nlo 0000007F 0 1 0 0 0 000000FF\n\
                wlan0 00000000 1 3 0 0 600 00000000\nnone0 00000000 1 3 0 0 100 00000000\n",
            ),
        ]);
        let identity = local.identity();
        assert_eq!(
            (identity.host_uuid.as_str(), identity.machine_id.as_str(), identity.os.as_str()),
            ("ec2a0b1c-0000", "abc", "Debian GNU/Linux 12")
        );
        assert_eq!((identity.ecs_cluster.as_str(), identity.kubernetes_node.as_str()), ("prod", "ip-10-0-0-1.ec2.internal"));
        assert_eq!((identity.container_runtime.as_str(), identity.primary_interface.as_str()), ("cri-o,docker", "none0"));
        assert!(!identity.boot_id.is_empty() && !identity.kernel.is_empty());
        assert!(identity.ip_addresses.is_empty(), "none of these interfaces is here");
    }

    #[test]
    fn a_host_that_has_no_files_still_has_a_name() {
        let (_root, local) = host(&[]);
        let identity = local.identity();
        assert!(!identity.hostname.is_empty() && identity.machine_id.is_empty() && identity.kubernetes_node.is_empty());
        assert_eq!((local.provider(), local.root_filesystem().as_str()), (None, ""));
    }

    #[test]
    fn the_firmware_tells_which_cloud_it_is() {
        for (file, text, provider) in [
            ("sys/class/dmi/id/sys_vendor", "Amazon EC2\n", Provider::Aws),
            ("sys/class/dmi/id/bios_version", "4.11.amazon\n", Provider::Aws),
            ("sys/class/dmi/id/product_name", "Google Compute Engine\n", Provider::Gce),
            ("sys/class/dmi/id/chassis_asset_tag", "7783-7084-3265-9085-8269-3286-77\n", Provider::Azure),
        ] {
            assert_eq!(host(&[(file, text)]).1.provider(), Some(provider));
        }
    }
}
