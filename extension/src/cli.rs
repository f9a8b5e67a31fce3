//! The command line.

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, Parser, Subcommand};

use crate::{diff::DiffFormat, output::Format, schema::SchemaFormat};

/// Mayfly remembers ephemeral infrastructure: containers, addresses, users and devices that are gone by the time you look.
#[derive(Debug, Parser)]
#[command(name = "mayfly", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub places: Places,
}

#[derive(Clone, Debug, Args)]
pub struct Places {
    /// Configuration file [default: /etc/mayfly/mayfly.toml, which may be missing]
    #[arg(long, global = true, value_name = "FILE", env = "MAYFLY_CONFIG")]
    pub config: Option<PathBuf>,
    /// Directory of the recorded history
    #[arg(long, global = true, value_name = "DIR", env = "MAYFLY_STATE_DIR", default_value = crate::config::DEFAULT_STATE_DIR)]
    pub state_dir: PathBuf,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the tables to osqueryd; also what an autoloaded `mayfly.ext` does
    Extension(ExtensionArgs),
    /// Record until stopped; started at boot, before osqueryd
    Record,
    /// Answer one SQL query from the recorded history
    Query {
        /// The query; `-` reads it from standard input
        sql: String,
        /// How to print rows [default: table on a terminal, else json]
        #[arg(long, value_enum)]
        format: Option<Format>,
    },
    /// Query interactively
    Shell {
        /// How to print rows at first; `.mode` changes it
        #[arg(long, value_enum, default_value = "table")]
        format: Format,
    },
    /// Print events as they happen
    Watch {
        /// Event tables to follow [default: all]
        tables: Vec<String>,
        /// Print one JSON object a line, as in a pipe
        #[arg(long)]
        json: bool,
    },
    /// Print what changed in a table between two instants
    Diff {
        /// osquery's name of the table (`users`), or that of its history
        table: String,
        /// '2026-03-01T14:05:00Z', UNIX seconds, or how long ago: -90s, -15m, -2h, -3d
        #[arg(allow_hyphen_values = true)]
        from: String,
        #[arg(allow_hyphen_values = true, default_value = "now")]
        to: String,
        /// How to print changes [default: lines]
        #[arg(long, value_enum)]
        format: Option<DiffFormat>,
    },
    /// Say what can be recorded here, what not, why, and how to enable it
    Doctor {
        /// Print findings as JSON
        #[arg(long)]
        json: bool,
    },
    /// Validate a configuration file
    Check {
        /// The file [default: the one that would be used]
        file: Option<PathBuf>,
    },
    /// Print the tables and their columns
    Schema {
        #[arg(long, value_enum, default_value = "markdown")]
        format: SchemaFormat,
        /// Write schema.json and a page for each table below DIR instead
        #[arg(long, value_name = "DIR", conflicts_with = "check")]
        write: Option<PathBuf>,
        /// Compare DIR with the tables instead; exits 1 and names the files that differ
        #[arg(long, value_name = "DIR")]
        check: Option<PathBuf>,
    },
}

/// What osqueryd passes to an extension.
#[derive(Clone, Debug, Args)]
pub struct ExtensionArgs {
    /// The extension manager's socket (osqueryd's --extensions_socket)
    #[arg(long, value_name = "PATH")]
    pub socket: PathBuf,
    /// Seconds to wait for the socket at first
    #[arg(long, default_value_t = 3)]
    pub timeout: u64,
    /// Seconds between two looks whether we are still registered
    #[arg(long, default_value_t = 3)]
    pub interval: u64,
    /// Log more
    #[arg(long)]
    pub verbose: bool,
}

/// Reads the command line. osqueryd starts an autoloaded extension with flags alone: those mean `extension`.
pub fn parse() -> Cli {
    Cli::parse_from(with_command(std::env::args_os().collect()))
}

fn with_command(mut args: Vec<OsString>) -> Vec<OsString> {
    let is_flag = |arg: &OsString| arg.to_string_lossy().starts_with('-');
    let names_socket = args.iter().any(|a| a == "--socket" || a.to_string_lossy().starts_with("--socket="));
    if names_socket && args.get(1).is_some_and(is_flag) {
        args.insert(1, "extension".into());
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_alone_mean_the_extension() {
        let args = ["mayfly.ext", "--verbose", "--socket", "/s", "--timeout", "9", "--interval", "3"].map(OsString::from);
        let cli = Cli::try_parse_from(with_command(args.to_vec())).unwrap();
        assert!(matches!(cli.command, Command::Extension(ExtensionArgs { timeout: 9, interval: 3, verbose: true, .. })));
    }

    #[test]
    fn places_are_taken_before_and_after_the_command() {
        for args in [["mayfly", "--state-dir", "/x", "record"], ["mayfly", "record", "--state-dir", "/x"]] {
            let cli = Cli::try_parse_from(with_command(args.map(OsString::from).to_vec())).unwrap();
            assert_eq!(cli.places.state_dir, PathBuf::from("/x"));
        }
    }
}
