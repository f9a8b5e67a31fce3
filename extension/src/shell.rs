//! `mayfly shell`: line editing over the same tables.

mod complete;
mod statement;

use std::{
    io::{self, BufRead, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use mayfly_history::chain;
use mayfly_tables::{TABLES, find};
use rustyline::{CompletionType, Config, Editor, error::ReadlineError, history::FileHistory};

use self::{complete::Assistant, statement::is_whole};
use crate::{
    output::{Format, Screen, escaped},
    query::{QueryError, write_all},
    schema,
    sql::{Database, OpenError},
};

/// What `mayfly shell` was asked.
#[derive(Clone, Debug)]
pub struct ShellArgs {
    pub format: Format,
    pub state_dir: PathBuf,
}

/// Why there is no shell, or why it ended early. Errors of statements are shown, and it goes on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShellError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("cannot read the next line")]
    Read(#[from] ReadlineError),
    #[error("cannot read the next line")]
    Input(#[source] io::Error),
    #[error("cannot write")]
    Write(#[source] io::Error),
    #[error("cannot take Ctrl-C")]
    Signal(#[source] io::Error),
}

const HELP: &str = "\
SQL ends with `;` and may take several lines. Ctrl-C breaks off a statement, Ctrl-D leaves.
.tables [WORD]   the tables (whose name contains WORD)
.schema [TABLE]  columns and what they mean
.mode [FORMAT]   how results are written: table, json, csv, line
.help            this
.quit            leave
";

/// Reads statements until the end of input. The exit code is 1 if a statement failed that nobody typed.
pub fn run(args: &ShellArgs) -> Result<ExitCode, ShellError> {
    let database = Database::open(&args.state_dir)?;
    // The second Ctrl-C, if the first did not help, ends the process.
    let interrupt = signal_hook::consts::SIGINT;
    signal_hook::flag::register_conditional_shutdown(interrupt, 130, Arc::clone(database.stop())).map_err(ShellError::Signal)?;
    signal_hook::flag::register(interrupt, Arc::clone(database.stop())).map_err(ShellError::Signal)?;

    let mut shell = Shell { database, format: args.format, out: io::stdout(), failed: false };
    if io::stdin().is_terminal() {
        shell.converse()?;
        return Ok(ExitCode::SUCCESS);
    }
    shell.read(io::stdin().lock())?;
    Ok(if shell.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The editor makes it with mode 0600.
fn history_file() -> Option<PathBuf> {
    Some(PathBuf::from(std::env::var_os("HOME").filter(|home| !home.is_empty())?).join(".mayfly_history"))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Line,
    Leave,
}

impl Next {
    fn is_leaving(self) -> bool {
        self == Self::Leave
    }
}

struct Shell<W: Write> {
    database: Database,
    format: Format,
    out: W,
    failed: bool,
}

impl<W: Write> Shell<W> {
    /// Takes what is typed, with line editing and a history.
    fn converse(&mut self) -> Result<(), ShellError> {
        let config = Config::builder().completion_type(CompletionType::List).auto_add_history(true).history_ignore_space(true).build();
        let mut editor: Editor<Assistant, FileHistory> = Editor::with_config(config)?;
        editor.set_helper(Some(Assistant));
        let history = history_file();
        if let Some(path) = &history {
            // The first time there is none.
            let _ = editor.load_history(path);
        }
        self.say("mayfly shell: SQL ends with `;`, .help helps, .quit leaves.")?;
        loop {
            match editor.readline("mayfly> ") {
                Ok(input) if self.take(&input)?.is_leaving() => break,
                Ok(_) | Err(ReadlineError::Interrupted) => {}
                Err(ReadlineError::Eof) => break,
                Err(error) => return Err(error.into()),
            }
        }
        if let Some(path) = history
            && let Err(error) = editor.append_history(&path)
        {
            self.complain(format_args!("cannot keep the history in {}: {error}", path.display()))?;
        }
        Ok(())
    }

    /// Takes what is piped in; the last statement may lack its `;`.
    fn read(&mut self, input: impl BufRead) -> Result<(), ShellError> {
        let mut pending = String::new();
        for line in input.lines() {
            pending.push_str(&line.map_err(ShellError::Input)?);
            if is_whole(&pending) {
                if self.take(&std::mem::take(&mut pending))?.is_leaving() {
                    return Ok(());
                }
            } else {
                pending.push('\n');
            }
        }
        self.take(&pending).map(drop)
    }

    fn take(&mut self, input: &str) -> Result<Next, ShellError> {
        let input = input.trim();
        if let Some(command) = input.strip_prefix('.') {
            return self.command(command);
        }
        self.database.stop().store(false, Relaxed);
        match write_all(&self.database, input, self.format, Screen::stdout(), &mut self.out) {
            Ok(()) => {}
            // Nobody reads any more.
            Err(QueryError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Next::Leave),
            Err(error) => self.complain(chain(&error))?,
        }
        self.database.stop().store(false, Relaxed);
        Ok(Next::Line)
    }

    fn command(&mut self, command: &str) -> Result<Next, ShellError> {
        let mut words = command.split_whitespace();
        let (name, argument) = (words.next().unwrap_or_default(), words.next().map(|word| word.trim_end_matches(';')));
        match (name.trim_end_matches(';'), argument) {
            ("quit" | "exit", _) => return Ok(Next::Leave),
            ("help", _) => self.say(HELP.trim_end())?,
            ("tables", part) => {
                for table in TABLES.iter().map(|t| t.schema()).filter(|s| s.name.contains(part.unwrap_or_default())) {
                    self.say(format_args!("{:28} {}", table.name, table.doc))?;
                }
            }
            ("schema", None) => {
                for table in TABLES {
                    self.say(schema::statement(table.schema()))?;
                }
            }
            ("schema", Some(table)) => match find(table) {
                Some(table) => self.say(schema::statement(table.schema()))?,
                None => self.complain(format_args!("no such table: {table}; .tables lists them"))?,
            },
            ("mode", None) => {
                let mode = Format::NAMES.iter().find(|(_, format)| *format == self.format).map_or("", |(name, _)| name);
                self.say(mode)?;
            }
            ("mode", Some(mode)) => match Format::NAMES.iter().find(|(name, _)| *name == mode) {
                Some((_, format)) => self.format = *format,
                None => self.complain(format_args!("no such mode: {mode}; there are table, json, csv and line"))?,
            },
            (other, _) => self.complain(format_args!("no such command: .{other}; .help lists them"))?,
        }
        Ok(Next::Line)
    }

    fn say(&mut self, text: impl std::fmt::Display) -> Result<(), ShellError> {
        writeln!(self.out, "{text}").map_err(ShellError::Write)
    }

    /// Errors go to where errors go, escaped: a message may quote what a container said.
    fn complain(&mut self, what: impl std::fmt::Display) -> Result<(), ShellError> {
        self.failed = true;
        writeln!(io::stderr(), "error: {}", escaped(&what.to_string())).map_err(ShellError::Write)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(inputs: &[&str]) -> (String, bool) {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::over(dir.path()).unwrap();
        let mut shell = Shell { database, format: Format::Csv, out: Vec::new(), failed: false };
        for input in inputs {
            if shell.take(input).unwrap().is_leaving() {
                break;
            }
        }
        (String::from_utf8(shell.out).unwrap(), shell.failed)
    }

    #[test]
    fn an_error_does_not_end_the_session() {
        let (out, failed) = session(&["SELECT * FROM nowhere;", ".mode tree", ".nothing", "SELECT 1 AS one; SELECT 2 AS two;"]);
        assert_eq!(out, "one\n1\ntwo\n2\n");
        assert!(failed);
    }

    #[test]
    fn piped_statements_span_lines_and_the_last_needs_no_semicolon() {
        let dir = tempfile::tempdir().unwrap();
        let mut shell = Shell { database: Database::over(dir.path()).unwrap(), format: Format::Csv, out: Vec::new(), failed: false };
        shell.read("SELECT 1\nAS one; -- a remark\n.mode line\n\nSELECT 'a\nb' AS two".as_bytes()).unwrap();
        assert_eq!(String::from_utf8(shell.out).unwrap(), "one\n1\ntwo = a\\nb\n");
        assert!(!shell.failed);
    }

    #[test]
    fn commands_answer_and_quit_leaves() {
        let (out, failed) = session(&[".tables gaps", ".schema container_history", ".mode line", "SELECT 1 AS a;", ".quit", "SELECT 2;"]);
        assert!(out.starts_with("recorder_gaps ") && out.contains("as_of TEXT HIDDEN -- ") && out.ends_with("a = 1\n"), "{out}");
        assert!(!failed);
    }
}
