//! What an operator can set about sources. Every key is optional; unknown keys are refused by name.

use serde::Deserialize;

use crate::{accounts::AccountsConfig, devices::DevicesConfig, dhcp::DhcpConfig, identity::IdentityConfig, mounts::MountsConfig};

/// `[docker]`, `[podman]`, `[containerd]`, `[cri]`, `[accounts]`, `[mounts]`, `[devices]`, `[identity]` of `mayfly.toml`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SourcesConfig {
    pub docker: RuntimeConfig,
    pub podman: RuntimeConfig,
    pub containerd: RuntimeConfig,
    pub cri: RuntimeConfig,
    pub accounts: AccountsConfig,
    pub mounts: MountsConfig,
    pub devices: DevicesConfig,
    pub identity: IdentityConfig,
    pub dhcp: DhcpConfig,
    pub netlink: HostConfig,
    pub lease_file: LeaseFileConfig,
}

/// One kind of runtime.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RuntimeConfig {
    /// Whether to follow this runtime at all. Default true.
    pub enabled: bool,
    /// Endpoints to follow, `unix:///…` (Docker also `tcp://…`), instead of those that are discovered. Default: discover.
    pub endpoints: Vec<String>,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self { enabled: true, endpoints: Vec::new() }
    }
}

/// A source of the host that can only be switched off.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostConfig {
    /// Whether to record it at all. Default true.
    pub enabled: bool,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// `[lease_file]`: what DHCP servers and clients of this host write down.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LeaseFileConfig {
    /// Whether to read them at all. Default true.
    pub enabled: bool,
    /// Absolute paths of lease files that are not where they usually are.
    pub paths: Vec<String>,
}

impl Default for LeaseFileConfig {
    fn default() -> Self {
        Self { enabled: true, paths: Vec::new() }
    }
}
