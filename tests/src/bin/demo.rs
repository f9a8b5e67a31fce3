//! `cargo xtask demo`: short-lived containers, recorded by Mayfly and polled once a second, side by side.

use std::{
    collections::BTreeMap,
    env,
    io::{self, IsTerminal, Write},
    process::{Command, ExitCode},
    time::Duration,
};

use mayfly_tests::{IMAGE, Lifecycle, Mayfly, Poller, Result, by_name, churn, daemon::Docker, exits};

fn main() -> ExitCode {
    match demonstrate() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn demonstrate() -> Result<()> {
    let runs: usize = env::args().nth(1).map_or(Ok(24), |n| n.parse())?;
    let mut out = io::stdout().lock();
    writeln!(out, "Starting a private dockerd and `mayfly record` (temporary directories, nothing of this host is touched) …")?;
    let docker = Docker::start(false)?;
    let mayfly = Mayfly::following("docker", &docker.endpoint())?;
    let recording = mayfly.record()?;
    let mut list = docker.cli();
    list.args(["ps", "--all", "--format", "{{.Names}} {{.Status}}"]);
    let poller = Poller::start(list, Duration::from_secs(1));

    writeln!(out, "Running {runs} containers by 4 workers; a poller asks `docker ps --all` each second.\n")?;
    let took = churn(runs, 4, |n| job(&docker, n))?;
    mayfly.wait_for_count("SELECT count(*) AS n FROM container_lifecycle_events WHERE action = 'destroy'", runs)?;
    let polled = poller.stop();

    let containers = by_name(Lifecycle::all(&mayfly)?);
    writeln!(out, "{:<10} {:>7}   {:<44} polling each second", "container", "lived", "Mayfly recorded")?;
    for n in 0..runs {
        let name = format!("job-{n}");
        let seen = polled.get(&name).map_or("-", String::as_str);
        let (lived, known) = containers.get(&name).map_or_else(|| ("?".into(), "-".into()), |events| story(events));
        writeln!(out, "{name:<10} {lived:>7}   {known:<44} {seen}")?;
    }
    let whole = |events: &Vec<Lifecycle>| events.iter().any(|e| e.number("exit_code").is_some() && e.text("ip_addresses").len() > 2);
    let recorded = containers.values().filter(|events| whole(events)).count();
    let ends = polled.values().filter(|status| status.starts_with("Exited")).count();
    let bold = if out.is_terminal() { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    let polled = polled.len();
    writeln!(
        out,
        "\n{}Mayfly recorded {recorded} of {runs} containers{}, each with its exit code and address, in {took:.1?}.",
        bold.0, bold.1
    )?;
    writeln!(out, "{}Polling saw {polled}{}, and how they ended of {ends}.", bold.0, bold.1)?;

    let sql = "SELECT action, name, image, pid, exit_code, lifetime_ms, ip_addresses FROM container_lifecycle_events \
               WHERE action IN ('start', 'die') ORDER BY eid LIMIT 6";
    writeln!(out, "\n$ mayfly query \"{sql}\"")?;
    out.write_all(mayfly_tests::run(mayfly.command("query")?.args(["--format", "table", sql]))?.as_bytes())?;
    writeln!(out, "\nEnding the recorder and the private dockerd …")?;
    recording.stop()?;
    Ok(())
}

/// Containers as build jobs, migrations and health checks are: most over in no time, every eighth lives two seconds.
fn job(docker: &Docker, n: usize) -> Result<()> {
    let code = i32::from(n % 5 == 3);
    let script = format!("{}exit {code}", if n % 8 == 7 { "sleep 2; " } else { "" });
    let mut command: Command = docker.cli();
    exits(command.args(["run", "--rm", "--name", &format!("job-{n}"), IMAGE, "sh", "-c", &script]), code)
}

/// How long a container lived, and what is known of it.
fn story(events: &[Lifecycle]) -> (String, String) {
    let of: BTreeMap<_, _> = events.iter().map(|event| (event.action(), event)).collect();
    let lived = of.get("die").and_then(|e| e.number("lifetime_ms")).map_or("?".into(), |ms| format!("{ms} ms"));
    let exit = of.get("die").and_then(|e| e.number("exit_code")).map_or("?".into(), |code| code.to_string());
    let pid = events.iter().find_map(|e| e.number("pid")).map_or("?".into(), |pid| pid.to_string());
    let address =
        events.iter().map(|e| e.text("ip_addresses")).find(|ip| ip.len() > 2).unwrap_or("?").trim_matches(['[', ']', '"']).to_owned();
    (lived, format!("{} events, exit {exit}, pid {pid}, {address}", events.len()))
}
