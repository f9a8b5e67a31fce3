//! `mayfly.toml`: every key optional, unknown keys refused by name, line by line.
//!
//! A host must not go blind because of a typo: the recorder leaves out the lines that are wrong, says so, and goes on with
//! the rest. `mayfly check` refuses the same lines and exits 1.

mod entry;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use mayfly_ebpf::EbpfConfig;
use mayfly_history::{Redaction, store::StoreOptions};
use mayfly_sources::{
    AccountsConfig, DevicesConfig, DhcpConfig, HostConfig, IdentityConfig, LeaseFileConfig, MountsConfig, RuntimeConfig, SourcesConfig,
};
use serde::Deserialize;

use crate::{
    asking::{HistoryConfig, OsqueryConfig, PushConfig},
    delivery::DeliveryConfig,
};
pub use entry::Entry;
pub(crate) use entry::Texts;

/// Where the configuration is looked for when neither `--config` nor `MAYFLY_CONFIG` says.
pub const DEFAULT_PATH: &str = "/etc/mayfly/mayfly.toml";
/// Where the state is kept when neither `--state-dir` nor `MAYFLY_STATE_DIR` says.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/mayfly";

/// The whole file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
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
    pub ebpf: EbpfConfig,
    pub store: StoreOptions,
    pub delivery: DeliveryConfig,
    pub history: HistoryConfig,
    pub push: PushConfig,
    pub osquery: OsqueryConfig,
    pub redact: RedactConfig,
    pub extension: ExtensionConfig,
    pub log: LogConfig,
    /// `[[trigger]]`: what osquery is asked when an event meets a condition.
    pub trigger: Vec<Entry>,
    /// `[[enrolment]]`: what it is asked once in each incarnation of the host.
    pub enrolment: Vec<Entry>,
    /// `[[farewell]]`: what it is asked before the host, or the extension, ends.
    pub farewell: Vec<Entry>,
}

/// `[redact]`: what must not be recorded.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedactConfig {
    /// Values of keys that contain one of these words are dropped, whatever their case. Default: password, token, secret, ….
    pub keys: Option<Vec<String>>,
}

/// `[extension]`: the process that osqueryd starts.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExtensionConfig {
    /// Record where no `mayfly record` runs. Default true.
    pub record: bool,
}

impl Default for ExtensionConfig {
    fn default() -> Self {
        Self { record: true }
    }
}

/// `[log]`: what goes to stderr.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// `error`, `warn`, `info`, `debug` or `trace`. Default `info`.
    pub level: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info".into() }
    }
}

/// One thing that is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        reason: io::Error,
    },
    /// Refused; the recorder leaves the line (of a section's heading: the section) out.
    #[error("{}:{line}: {message}", path.display())]
    Line { path: PathBuf, line: usize, message: String },
}

/// A file as far as it could be used, and what could not.
#[derive(Debug, Default)]
pub struct Loaded {
    pub config: Config,
    /// The file, if there is one.
    pub path: Option<PathBuf>,
    pub errors: Vec<ConfigError>,
}

/// Reads `path`, or the default file, which may be missing.
pub fn load(path: Option<&Path>) -> Loaded {
    let file = path.unwrap_or(Path::new(DEFAULT_PATH));
    match fs::read_to_string(file) {
        Ok(text) => {
            let (config, errors) = parse(file, text);
            Loaded { config, path: Some(file.to_owned()), errors }
        }
        Err(error) if path.is_none() && error.kind() == io::ErrorKind::NotFound => Loaded::default(),
        Err(reason) => Loaded { errors: vec![ConfigError::Read { path: file.to_owned(), reason }], ..Loaded::default() },
    }
}

/// Parses, and blanks what is refused until the rest is accepted.
fn parse(file: &Path, mut text: String) -> (Config, Vec<ConfigError>) {
    let mut errors = Vec::new();
    loop {
        let error = match toml::from_str::<Config>(&text) {
            Ok(mut config) => {
                let lists = [&mut config.trigger, &mut config.enrolment, &mut config.farewell];
                lists.into_iter().flatten().for_each(|entry| entry.locate(&text));
                return (config, errors);
            }
            Err(error) => error,
        };
        let at = error.span().map_or(0, |span| span.start).min(text.len());
        let line = text[..at].matches('\n').count() + 1;
        errors.push(ConfigError::Line { path: file.to_owned(), line, message: error.message().to_owned() });
        if !blank(&mut text, line, error.span().map_or(at, |span| span.end)) {
            return (Config::default(), errors);
        }
    }
}

/// Empties the refused line, and those that its value goes on in; of a heading, and within a section of a list, the whole section. Keeps
/// the count of lines, so that later errors name the right one. False: there was nothing to empty.
fn blank(text: &mut String, line: usize, end: usize) -> bool {
    let last = text[..end.min(text.len())].trim_end().matches('\n').count() + 1;
    let heading = |l: &str| l.trim_start().starts_with('[');
    let section = text.split('\n').enumerate().take(line).filter(|(_, content)| heading(content)).last();
    let line = section.filter(|(_, content)| content.trim_start().starts_with("[[")).map_or(line, |(index, _)| index + 1);
    let mut within = false;
    let mut emptied = false;
    let lines: Vec<&str> = text
        .split('\n')
        .enumerate()
        .map(|(index, content)| {
            let number = index + 1;
            within = if number == line { heading(content) } else { within && !heading(content) };
            if number == line || within || (number > line && number <= last && !heading(content)) {
                emptied |= !content.trim().is_empty();
                ""
            } else {
                content
            }
        })
        .collect();
    *text = lines.join("\n");
    emptied
}

impl Config {
    pub fn sources(&self) -> SourcesConfig {
        SourcesConfig {
            docker: self.docker.clone(),
            podman: self.podman.clone(),
            containerd: self.containerd.clone(),
            cri: self.cri.clone(),
            accounts: self.accounts.clone(),
            mounts: self.mounts.clone(),
            devices: self.devices.clone(),
            identity: self.identity.clone(),
            dhcp: self.dhcp.clone(),
            netlink: self.netlink.clone(),
            lease_file: self.lease_file.clone(),
        }
    }

    /// The sections of all lists.
    pub fn lists(&self) -> impl Iterator<Item = &Entry> {
        self.trigger.iter().chain(&self.enrolment).chain(&self.farewell)
    }

    pub fn redaction(&self) -> Redaction {
        self.redact.keys.clone().map_or_else(Redaction::default, Redaction::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> (Config, Vec<String>) {
        let (config, errors) = parse(Path::new("m.toml"), text.to_owned());
        (config, errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn refuses_unknown_keys_and_wrong_types_by_line_and_uses_the_rest() {
        let (config, errors) =
            lines("[docker]\nenabled = \"yes\"\nendpoints = [\"unix:///d\"]\n\n[podman]\nenabeld = false\n\n[cri]\nenabled = false\n");
        assert!(config.docker.enabled && config.docker.endpoints == ["unix:///d"] && !config.cri.enabled);
        assert_eq!(errors.len(), 2, "{errors:?}");
        assert!(errors.iter().any(|e| e.starts_with("m.toml:2:") && e.contains("boolean")), "{errors:?}");
        assert!(errors.iter().any(|e| e.starts_with("m.toml:6:") && e.contains("enabeld")), "{errors:?}");
    }

    #[test]
    fn a_table_that_is_none_is_named_where_it_is_to_be_pushed() {
        let (config, errors) = lines("[push]\ntables = [\"mount_events\", \"mounts_history\"]\n");
        assert!(config.push.tables.is_empty() && errors.len() == 1, "{errors:?}");
        assert!(
            errors[0].starts_with("m.toml:2:") && errors[0].contains("mounts_history") && errors[0].contains("oom_events"),
            "{errors:?}"
        );
        assert!(lines("[push]\ntables = [\"mount_events\"]\n").0.push.pushes("mount_events"));
    }

    #[test]
    fn an_unknown_section_goes_with_its_keys() {
        let (config, errors) = lines("[dokcer]\nenabled = false\n[podman]\nenabled = false\n");
        assert!(config.docker.enabled && !config.podman.enabled);
        assert_eq!(errors.len(), 1);
        assert!(errors[0].starts_with("m.toml:1:") && errors[0].contains("dokcer"), "{errors:?}");
    }

    #[test]
    fn a_value_over_several_lines_goes_whole() {
        let (config, errors) = lines("[docker]\nendpoints = [\n  1,\n  2,\n]\nenabled = false\n");
        assert!(!config.docker.enabled, "{errors:?}");
        assert!(!errors.is_empty());
    }

    #[test]
    fn a_section_of_a_list_goes_whole_and_knows_its_line() {
        let (config, errors) = lines(
            "[[trigger]]\nname = \"a\"\n\n[[trigger]]\nname = \"b\"\nwhen = 'x\nrun = \"SELECT 1\"\n\n[[trigger]]\nname = \"c\"\n[docker]\nenabled = false\n",
        );
        let left: Vec<_> = config.trigger.iter().map(|entry| (entry.name(), entry.line)).collect();
        assert_eq!(left, [("a".to_owned(), 1), ("c".to_owned(), 9)], "{errors:?}");
        assert!(!config.docker.enabled && !errors.is_empty());
    }

    #[test]
    fn ends_on_any_text() {
        for text in [
            "\u{0}",
            "[",
            "= = =",
            "[a\n[b\n[c",
            "x = \"\"\"\n\n",
            "[docker]\n[docker]\n",
            "[[trigger]]\nx = \"\"\"\n[a",
            "[[trigger]\n",
            "[trigger]\n",
        ] {
            let (_, errors) = lines(text);
            assert!(!errors.is_empty(), "{text:?} is not a configuration");
        }
    }
}
