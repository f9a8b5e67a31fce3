//! The `[history]` section of the configuration.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Deserializer, de::Error};

/// The tables that are followed unless the configuration names others: what tells how a host was set up and who could get in, and what a
/// scheduler asks too rarely.
///
/// Chosen by cost: none of them takes a tenth of a second on a usual host, and none changes by itself. Left out therefore are processes and
/// their sockets (the kernel's events tell them), files by the thousand (`suid_bin`, `python_packages`), and what holds
/// secrets (`shell_history`, `shadow`, variables). Containers have `container_history`. Tables that osquery does not have here are skipped.
const DEFAULT: &[&str] = &[
    // What the host is connected to.
    "interface_addresses",
    "interface_details",
    "routes",
    "arp_cache",
    "dns_resolvers",
    "etc_hosts",
    "listening_ports",
    "iptables",
    // Who may get in, and who is.
    "authorized_keys",
    "known_hosts",
    "sudoers",
    "logged_in_users",
    // What runs by itself.
    "crontab",
    "systemd_units",
    "startup_items",
    // What is installed and loaded.
    "deb_packages",
    "rpm_packages",
    "apt_sources",
    "yum_sources",
    "kernel_modules",
    "docker_images",
    "docker_networks",
    "docker_volumes",
    // What the host is.
    "os_version",
    "kernel_info",
    "system_info",
    "usb_devices",
    "pci_devices",
    "disk_encryption",
];

/// Stands for all of them in `[history] tables`.
const DEFAULT_NAME: &str = "default";

/// Which of osquery's tables are followed, and at what cost.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HistoryConfig {
    /// Their names; `default` among them stands for all that are followed by default. Empty: none.
    tables: Vec<String>,
    /// Seconds between two captures of a table of which nothing tells that it changed. Default 900, at least 10.
    interval_seconds: u32,
    /// A table with more rows is not captured. Default 20,000.
    pub(super) max_rows: u32,
    /// Percent of one core that osquery may spend on captures, on average over ten minutes. Default 1.
    #[serde(deserialize_with = "percent")]
    cpu_percent: f64,
    /// The host's files, where the extension's own are others: those that tell of tables are watched below it. Default `/`.
    pub(super) root: PathBuf,
}

/// Takes no number of which nothing could be a part.
fn percent<'de, D: Deserializer<'de>>(value: D) -> Result<f64, D::Error> {
    let percent = f64::deserialize(value)?;
    if percent.is_finite() && percent >= 0.0 { Ok(percent) } else { Err(D::Error::custom(format!("{percent} is no percentage"))) }
}

impl Default for HistoryConfig {
    fn default() -> Self {
        Self { tables: vec![DEFAULT_NAME.into()], interval_seconds: 900, max_rows: 20_000, cpu_percent: 1.0, root: "/".into() }
    }
}

impl HistoryConfig {
    /// The tables to follow, each once.
    pub(crate) fn tables(&self) -> Vec<String> {
        let mut tables: Vec<String> = Vec::new();
        for name in &self.tables {
            let named = if name == DEFAULT_NAME { DEFAULT } else { &[name.as_str()] };
            for name in named {
                if !tables.iter().any(|known| known == name) {
                    tables.push((*name).to_owned());
                }
            }
        }
        tables
    }

    /// Whether the configuration names this table: then it matters that osquery does not have it.
    pub(super) fn names(&self, table: &str) -> bool {
        self.tables.iter().any(|name| name == table)
    }

    pub(super) fn interval(&self) -> Duration {
        Duration::from_secs(self.interval_seconds.max(10).into())
    }

    /// The part of one core that captures may take.
    pub(super) fn share(&self) -> f64 {
        self.cpu_percent.clamp(0.01, 100.0) / 100.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_stands_for_the_usual_tables_and_each_is_followed_once() {
        let config = HistoryConfig { tables: ["extra", "default", "routes"].map(str::to_owned).to_vec(), ..HistoryConfig::default() };
        let tables = config.tables();
        assert_eq!(tables[0], "extra");
        assert_eq!(tables.len(), DEFAULT.len() + 1);
        assert!(config.names("routes") && config.names("extra") && !config.names("crontab"));
        assert!(HistoryConfig { tables: Vec::new(), ..HistoryConfig::default() }.tables().is_empty());
    }

    #[test]
    fn a_percentage_that_is_none_is_refused_where_it_is_read() {
        for wrong in ["nan", "inf", "-inf", "-1.0"] {
            let error = toml::from_str::<HistoryConfig>(&format!("cpu_percent = {wrong}")).unwrap_err();
            assert!(error.to_string().contains("is no percentage"), "{error}");
        }
        assert_eq!(toml::from_str::<HistoryConfig>("cpu_percent = 2.5").unwrap().share(), 0.025);
        assert_eq!(toml::from_str::<HistoryConfig>("cpu_percent = 2").unwrap().share(), 0.02);
    }

    #[test]
    fn a_share_that_makes_no_sense_is_taken_to_the_nearest_that_does() {
        let share = |cpu_percent| HistoryConfig { cpu_percent, ..HistoryConfig::default() }.share();
        assert_eq!(share(1.0), 0.01);
        assert!(share(-5.0) > 0.0 && share(1e9) <= 1.0);
    }
}
