//! Everything that touches the outside: osquery's Thrift socket, the terminal, configuration and processes.

pub mod asking;
pub mod check;
pub mod cli;
mod commits;
pub mod config;
pub mod context;
pub mod delivery;
pub mod diff;
pub mod doctor;
pub mod extension;
mod folders;
pub mod line;
mod logging;
pub mod manager;
pub mod output;
mod privileges;
pub mod query;
pub mod record;
mod recording;
pub mod schema;
pub mod serve;
pub mod shell;
mod signals;
pub mod sql;
pub mod thrift;
mod turn;
pub mod watch;
mod watched;

use std::{error::Error, process::ExitCode};

use mayfly_history::chain;

use cli::{Cli, Command};
use output::Format;

/// Runs one command; an error goes to stderr with its causes, and exits 1.
pub fn run(cli: Cli) -> ExitCode {
    match dispatch(cli) {
        Ok(code) => code,
        Err(error) => {
            let message = chain(&*error);
            let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("mayfly: {message}\n"));
            ExitCode::FAILURE
        }
    }
}

fn dispatch(cli: Cli) -> Result<ExitCode, Box<dyn Error>> {
    let places = cli.places;
    let state_dir = places.state_dir.as_path();
    let service = |verbose: bool| {
        let loaded = config::load(places.config.as_deref());
        logging::start(if verbose { "debug" } else { &loaded.config.log.level });
        for error in &loaded.errors {
            tracing::error!(error = chain(error), "configuration refused; going on without it");
        }
        privileges::drop_unneeded();
        loaded
    };
    Ok(match cli.command {
        Command::Extension(args) => extension::run(service(args.verbose), &args, state_dir)?,
        Command::Record => record::run(&service(false), state_dir)?,
        Command::Query { sql, format } => {
            let sql = if sql == "-" { std::io::read_to_string(std::io::stdin())? } else { sql };
            query::run(&query::QueryArgs { sql, format: format.unwrap_or_else(Format::usual), state_dir: state_dir.to_owned() })?
        }
        Command::Shell { format } => shell::run(&shell::ShellArgs { format, state_dir: state_dir.to_owned() })?,
        Command::Watch { tables, json } => watch::run(&tables, json, state_dir)?,
        Command::Diff { table, from, to, format } => {
            let format = format.unwrap_or(diff::DiffFormat::Lines);
            diff::run(&diff::DiffArgs { table: &table, from: &from, to: &to, format, state_dir })?
        }
        Command::Doctor { json } => doctor::run(places.config.as_deref(), state_dir, json)?,
        Command::Check { file } => check::run(file.as_deref().or(places.config.as_deref()))?,
        Command::Schema { format, write, check } => schema::run(format, write.as_deref(), check.as_deref())?,
    })
}
