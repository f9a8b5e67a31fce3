//! `mayfly doctor`: what can be recorded here, what not, why, and what to do about it.

mod osquery;

use std::{
    fs,
    io::{self, IsTerminal, Write},
    os::unix::fs::MetadataExt,
    path::Path,
    process::ExitCode,
};

use mayfly_history::{captures::SOURCE, chain, feed::FeedStatus};
use mayfly_tables::Home;
use serde::Serialize;

use crate::{config, output::escaped, privileges};

/// How a finding bears on recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    /// Something will be missing that this host could have.
    Warn,
    /// Nothing is recorded, or nothing can be read.
    Bad,
}

/// One thing looked at.
#[derive(Debug, Serialize)]
pub struct Finding {
    pub verdict: Verdict,
    pub what: String,
    pub detail: String,
    /// What to do; empty where nothing is needed.
    pub remedy: String,
}

impl Finding {
    fn new(verdict: Verdict, what: &str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { verdict, what: what.to_owned(), detail: detail.into(), remedy: remedy.into() }
    }
}

/// Looks, prints, and gives exit code 1 if something is bad.
pub fn run(config_path: Option<&Path>, state_dir: &Path, json: bool) -> io::Result<ExitCode> {
    let loaded = config::load(config_path);
    let mut findings = vec![configuration(&loaded), state(state_dir)];
    findings.extend(recorder(state_dir));
    findings.push(kernel());
    findings.push(capabilities());
    findings.push(who_mounts(&loaded.config));
    findings.extend(osquery::examine(Path::new("/")));
    print(&findings, json)?;
    let bad = findings.iter().any(|f| f.verdict == Verdict::Bad);
    Ok(if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn configuration(loaded: &config::Loaded) -> Finding {
    let what = "configuration";
    if loaded.errors.is_empty() {
        let detail = loaded.path.as_ref().map_or("defaults".into(), |p| p.display().to_string());
        return Finding::new(Verdict::Ok, what, detail, "");
    }
    let errors: Vec<_> = loaded.errors.iter().map(|e| chain(e)).collect();
    Finding::new(Verdict::Warn, what, errors.join("; "), "correct these lines; they are left out until then")
}

fn state(dir: &Path) -> Finding {
    let what = "state directory";
    let shown = dir.display();
    match fs::metadata(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Finding::new(
            Verdict::Warn,
            what,
            format!("{shown} is not there"),
            "it is made when `mayfly record` starts; is the unit enabled?",
        ),
        Err(error) => Finding::new(Verdict::Bad, what, format!("{shown}: {error}"), "run as root"),
        Ok(meta) if !meta.is_dir() => {
            Finding::new(Verdict::Bad, what, format!("{shown} is not a directory"), "remove it, or set --state-dir")
        }
        Ok(meta) if meta.mode() & 0o077 != 0 => {
            Finding::new(Verdict::Warn, what, format!("{shown} has mode {:04o}", meta.mode() & 0o7777), format!("chmod 0700 {shown}"))
        }
        Ok(_) => Finding::new(Verdict::Ok, what, shown.to_string(), ""),
    }
}

/// The recorder as it described itself, and each of its sources.
fn recorder(dir: &Path) -> Vec<Finding> {
    let what = "recorder";
    let read = || -> Result<_, mayfly_history::store::StoreError> {
        let reader = Home::Recorder.open(dir)?;
        Ok((reader.info()?, reader.sources()?))
    };
    let (info, sources) = match read() {
        Ok(read) => read,
        Err(error) => return vec![Finding::new(Verdict::Bad, what, chain(&error), "see the message; a newer store needs a newer mayfly")],
    };
    let note = |name: &str| info.notes.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v.as_str());
    let holder = mayfly_history::recorder::holder(dir);
    let first = match holder {
        Some(holder) => {
            let detail = format!("{} (pid {}) version {}, store {} MB", holder.role, holder.pid, note("version"), info.db_size / 1_000_000);
            Finding::new(Verdict::Ok, what, detail, "")
        }
        None => Finding::new(
            Verdict::Bad,
            what,
            "nobody records here now",
            "systemctl enable --now mayfly, or let osqueryd autoload mayfly.ext",
        ),
    };
    let (followed, sources): (Vec<_>, Vec<_>) = sources.into_iter().partition(|source| source.source == SOURCE);
    let mut findings = vec![first];
    findings.extend(tables(&followed));
    for source in sources {
        let what = format!("source {} {}", source.source, source.endpoint);
        let verdict = match source.state.as_str() {
            "failed" => Verdict::Warn,
            // Not what the configuration asked for, but what the host does not give.
            "disabled" if !source.last_error.is_empty() => Verdict::Warn,
            // It would see more.
            "running" if !source.hint.is_empty() => Verdict::Warn,
            _ if source.evicted + source.lost_in_kernel > 0 => Verdict::Warn,
            _ => Verdict::Ok,
        };
        let mut detail = format!("{}, {} events", source.state, source.events);
        for (count, name) in [(source.evicted, "evicted"), (source.rejected, "rejected"), (source.lost_in_kernel, "lost in kernel")] {
            if count > 0 {
                detail.push_str(&format!(", {count} {name}"));
            }
        }
        if !source.last_error.is_empty() {
            detail.push_str(&format!("; last error: {}", source.last_error));
        }
        findings.push(Finding::new(verdict, what.trim_end(), detail, source.hint));
    }
    findings
}

/// The tables of osquery's that are followed: one line for all that fare well.
fn tables(sources: &[FeedStatus]) -> Vec<Finding> {
    let what = "tables of osquery";
    let is_well = |source: &&FeedStatus| source.state == "running";
    let captured = sources.iter().filter(|source| !source.endpoint.is_empty());
    let (well, ill): (Vec<_>, Vec<_>) = captured.partition(is_well);
    let mut findings = match sources.iter().find(|source| source.endpoint.is_empty()) {
        None => vec![Finding::new(
            Verdict::Ok,
            what,
            "none was captured: it takes osqueryd, with mayfly.ext loaded; what Mayfly collects itself is recorded without",
            "",
        )],
        Some(all) if all.state == "running" => {
            let names: Vec<_> = well.iter().map(|source| source.endpoint.as_str()).collect();
            vec![Finding::new(Verdict::Ok, what, format!("{} followed: {}", names.len(), names.join(", ")), "")]
        }
        Some(all) => {
            vec![Finding::new(Verdict::Warn, what, format!("{}: nothing is captured now; {}", all.state, all.last_error), &*all.hint)]
        }
    };
    findings.extend(ill.into_iter().map(|source| {
        let verdict = if source.state == "waiting" { Verdict::Ok } else { Verdict::Warn };
        Finding::new(verdict, &format!("table {}", source.endpoint), format!("{}; {}", source.state, source.last_error), &*source.hint)
    }));
    findings
}

fn kernel() -> Finding {
    match fs::metadata("/sys/kernel/btf/vmlinux") {
        Ok(_) => Finding::new(Verdict::Ok, "kernel type information (BTF)", "present", ""),
        Err(_) => Finding::new(
            Verdict::Ok,
            "kernel type information (BTF)",
            "not there: the probes tell less, see the source ebpf; containers are recorded from their runtimes alike",
            "",
        ),
    }
}

/// Whether `mount_events` has pid, program and user.
fn who_mounts(config: &config::Config) -> Finding {
    let what = "who mounts";
    match mayfly_sources::tells_who_mounts() {
        Ok(()) => Finding::new(Verdict::Ok, what, "the kernel tells (fanotify)", ""),
        Err(_) if config.mounts.who && config.ebpf.enabled => Finding::new(Verdict::Ok, what, "probes of system calls tell", ""),
        Err(error) => Finding::new(
            Verdict::Ok,
            what,
            format!("the kernel does not tell ({error}): mount_events has no pid, process_path and uid, and lacks what is undone at once"),
            "`who = true` in [mounts] has probes tell; every system call then takes some 100 ns longer",
        ),
    }
}

fn capabilities() -> Finding {
    let missing: Vec<_> = privileges::missing().into_iter().map(|(name, what_for)| format!("{name} ({what_for})")).collect();
    if missing.is_empty() {
        return Finding::new(Verdict::Ok, "capabilities", "all that recording needs", "");
    }
    let remedy = "run as root; in a container or unit, grant them";
    Finding::new(Verdict::Warn, "capabilities", format!("this process lacks {}", missing.join(", ")), remedy)
}

fn print(findings: &[Finding], json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        return writeln!(out, "{}", serde_json::to_string_pretty(findings)?);
    }
    let colour = out.is_terminal();
    for finding in findings {
        let (mark, code) = match finding.verdict {
            Verdict::Ok => ("ok  ", 32),
            Verdict::Warn => ("warn", 33),
            Verdict::Bad => ("BAD ", 31),
        };
        let mark = if colour { format!("\u{1b}[{code}m{mark}\u{1b}[0m") } else { mark.to_owned() };
        writeln!(out, "{mark}  {}: {}", escaped(&finding.what), escaped(&finding.detail))?;
        if !finding.remedy.is_empty() {
            writeln!(out, "      -> {}", escaped(&finding.remedy))?;
        }
    }
    Ok(())
}
