//! Developer commands: `cargo xtask demo`, `cargo xtask test`, and what they are made of.

mod demo;
mod docs;
mod process;
mod setup;
mod test;
mod thrift;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Developer commands. `demo` and `test` do all that is needed on a fresh Debian or Ubuntu with Rust.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install the Debian packages that the demo and the tests need and that are missing
    Setup,
    /// Show Mayfly beside a poller, on short-lived containers of a private dockerd
    Demo {
        /// How many containers to run
        #[arg(long, default_value_t = 24)]
        containers: usize,
    },
    /// Everything that CI runs
    Test,
    /// The behaviours at full load, built for release, with latencies
    Prove {
        /// Only tests whose name contains this
        filter: Option<String>,
    },
    /// The tests of the kernel's probes on other kernels, in qemu; slow
    VmTest {
        /// Releases of Debian whose kernels to take; by default those that the probes support
        #[arg(long)]
        suite: Vec<String>,
        /// Only tests whose name contains this
        filter: Option<String>,
    },
    /// Write docs/tables and docs/schema.json from the tables' declarations
    Docs {
        /// Fail where they differ instead
        #[arg(long)]
        check: bool,
    },
    /// Regenerate the Thrift code from osquery's IDL
    Thrift,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Setup => setup::run(),
        Command::Demo { containers } => setup::run().and_then(|()| demo::run(containers)),
        Command::Test => setup::run().and_then(|()| test::run()),
        Command::Prove { filter } => setup::run().and_then(|()| test::prove(filter.as_deref())),
        Command::VmTest { suite, filter } => vm::run(&suite, filter.as_deref()),
        Command::Docs { check } => docs::run(check),
        Command::Thrift => thrift::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            process::say(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}
