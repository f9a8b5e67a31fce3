//! The law of captures with containers: while they come and go, the history of each of osquery's tables about them is, as of any instant, what
//! the daemon had then, within a second.
//!
//! The rest of a host, accounts and mounts and so on, is changed by the extension's own test of the law (`extension/tests/osquery/churn.rs`).

use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

use mayfly_tests::{IMAGE, Mayfly, Result, Row, daemon::Docker, fake::now, report, run, until};
use serde_json::{Value, json};

use crate::{
    amount, docker,
    manager::{Extension, Manager},
    turn,
};

/// By how much a change may be seen late that an event tells of, and earlier than the daemon's own list shows it.
const LATE: i64 = 1_000_000_000;
const EARLY: i64 = LATE / 10;
/// How long a state lasts at least: what comes and goes in between nobody promises to see.
const LASTS: Duration = Duration::from_millis(1500);
/// Containers at most.
const MOST: usize = 3;
const TAG: &str = "docker.io/library/busybox:churn";

/// A table, and the columns that are compared.
struct Compared {
    table: &'static str,
    columns: &'static [&'static str],
}

static COMPARED: [Compared; 4] = [
    Compared { table: "docker_containers", columns: &["id", "name", "image", "image_id", "command", "state"] },
    Compared { table: "docker_container_networks", columns: &["id", "name", "network_id", "ip_address"] },
    Compared { table: "docker_images", columns: &["id", "tags"] },
    Compared { table: "docker_volumes", columns: &["name", "driver", "mount_point"] },
];

/// What a table had between two instants, sorted.
struct Snapshot {
    compared: &'static Compared,
    before_ns: i64,
    after_ns: i64,
    rows: Vec<Vec<String>>,
}

fn text(value: Option<&Value>) -> String {
    value.and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn number(value: Option<&Value>) -> Option<i64> {
    value.and_then(|value| value.as_i64().or_else(|| value.as_str()?.parse().ok()))
}

fn snapshot(manager: &mut Manager, compared: &'static Compared) -> Result<Snapshot> {
    let answer = manager.ask(&json!({ "do": "snapshot", "table": compared.table }))?;
    let instant = |name: &str| number(answer.get(name)).ok_or("no instant");
    let list = |name: &str| answer.get(name).and_then(Value::as_array).ok_or("no list");
    let (all, rows) = (list("columns")?, list("rows")?);
    let places: Vec<_> = compared.columns.iter().filter_map(|column| all.iter().position(|name| name == column)).collect();
    assert_eq!(places.len(), compared.columns.len(), "{all:?}");
    let mut rows: Vec<Vec<_>> = rows.iter().map(|row| places.iter().map(|at| text(row.get(*at))).collect()).collect();
    rows.sort();
    Ok(Snapshot { compared, before_ns: instant("before")?, after_ns: instant("after")?, rows })
}

/// A row, and while it held.
struct Held {
    row: Vec<String>,
    from_ns: i64,
    to_ns: Option<i64>,
}

fn history(mayfly: &Mayfly, compared: &Compared) -> Result<Vec<Held>> {
    let sql = format!("SELECT {}, valid_from_ns, valid_to_ns FROM {}_history", compared.columns.join(", "), compared.table);
    let held = |row: &Row| -> Result<Held> {
        let cells = compared.columns.iter().map(|column| text(row.get(*column))).collect();
        let from_ns = number(row.get("valid_from_ns")).ok_or("no beginning")?;
        Ok(Held { row: cells, from_ns, to_ns: number(row.get("valid_to_ns")) })
    };
    mayfly.query(&sql)?.iter().map(held).collect()
}

fn as_of(history: &[Held], instant: i64) -> Vec<Vec<String>> {
    let holds = |held: &&Held| held.from_ns <= instant && held.to_ns.is_none_or(|to| to > instant);
    let mut rows: Vec<_> = history.iter().filter(holds).map(|held| held.row.clone()).collect();
    rows.sort();
    rows
}

/// How long after a snapshot the history had the same; `None`: at no time within what is promised.
fn seen_after(history: &[Held], snapshot: &Snapshot) -> Option<i64> {
    let (from, to) = (snapshot.before_ns - EARLY, snapshot.after_ns + LATE);
    let changes = history.iter().flat_map(|held| [Some(held.from_ns), held.to_ns]).flatten().filter(|at| (from..=to).contains(at));
    let mut instants: Vec<_> = changes.chain([from]).collect();
    instants.sort_unstable();
    let found = instants.into_iter().find(|instant| as_of(history, *instant) == snapshot.rows)?;
    Some((found - snapshot.after_ns).max(0))
}

/// Changes one thing after the other, each at random.
struct Churn<'d> {
    docker: &'d Docker,
    random: u64,
    /// Names of containers, and whether each runs.
    slots: [Option<(String, bool)>; MOST],
    is_tagged: bool,
    made: usize,
}

impl Churn<'_> {
    fn random(&mut self, below: u64) -> u64 {
        // Marsaglia's xorshift.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    fn docker(&self, arguments: &[&str]) -> Result<()> {
        run(self.docker.cli().args(arguments)).map(drop)
    }

    fn change(&mut self) -> Result<()> {
        if self.random(4) == 0 {
            self.docker(if self.is_tagged { &["rmi", TAG] } else { &["tag", IMAGE, TAG] })?;
            self.is_tagged = !self.is_tagged;
            return Ok(());
        }
        let at = usize::try_from(self.random(MOST as u64))?;
        let is_removed = self.random(2) == 0;
        self.slots[at] = match self.slots[at].take() {
            None => {
                self.made += 1;
                let name = format!("churn-{}", self.made);
                self.docker(&["run", "--detach", "--name", &name, "--volume", "/data", IMAGE, "sleep", "1000"])?;
                Some((name, true))
            }
            Some((name, _)) if is_removed => {
                self.docker(&["rm", "--force", "--volumes", &name])?;
                None
            }
            Some((name, runs)) => {
                self.docker(&[if runs { "kill" } else { "start" }, &name])?;
                Some((name, !runs))
            }
        };
        Ok(())
    }

    fn end(mut self) -> Result<()> {
        for (name, _) in std::mem::take(&mut self.slots).into_iter().flatten() {
            self.docker(&["rm", "--force", "--volumes", &name])?;
        }
        if self.is_tagged { self.docker(&["rmi", TAG]) } else { Ok(()) }
    }
}

/// Runs containers until one is in the history since its event told: from then on nothing is missed.
fn wait_until_told(mayfly: &Mayfly, docker: &Docker) -> Result<()> {
    for n in 0..10 {
        run(docker.cli().args(["run", "--detach", "--name", &format!("warm-{n}"), IMAGE, "sleep", "1000"]))?;
        let count = format!("SELECT count(*) AS n FROM docker_containers_history WHERE name = '/warm-{n}'");
        mayfly.wait_for_count(&count, 1)?;
        run(docker.cli().args(["rm", "--force", &format!("warm-{n}")]))?;
        mayfly.wait_for_count(&format!("{count} AND valid_to IS NOT NULL"), 1)?;
        if mayfly.count(&format!("{count} AND evidence LIKE '%container_lifecycle_events%'"))? > 0 {
            return Ok(());
        }
    }
    Err(format!("events told nothing: {}", mayfly.log()).into())
}

#[test]
fn histories_of_dockers_tables_are_what_the_daemon_had() -> Result<()> {
    let _turn = turn();
    let docker = docker()?;
    let names: Vec<_> = COMPARED.iter().map(|compared| compared.table).collect();
    // What a budget does is shown elsewhere: here it must not be in the way.
    let history_section = format!("[history]\ntables = {names:?}\ninterval_seconds = 10\ncpu_percent = 100\n");
    let mayfly = Mayfly::with(&format!("[docker]\nendpoints = [\"{}\"]\n{history_section}", docker.endpoint()))?;
    let mut manager = Manager::start()?;
    manager.ask(&json!({ "do": "have", "tables": names, "root": docker.endpoint().trim_start_matches("unix://") }))?;
    let mut extension = Extension::start(&mayfly, &manager.socket())?;
    manager.wait_for_tables()?;
    let running = "SELECT count(*) AS n FROM recorder_sources WHERE state = 'running'";
    mayfly.wait_for_count(&format!("{running} AND source = 'docker'"), 1)?;
    mayfly.wait_for_count(&format!("{running} AND source = 'tables' AND endpoint <> ''"), names.len())?;
    wait_until_told(&mayfly, docker)?;

    let (changes, seed) = (amount(10, 200), now().unsigned_abs() | 1);
    report(&format!("seed {seed}"));
    let mut churn = Churn { docker, random: seed, slots: Default::default(), is_tagged: false, made: 0 };
    let mut snapshots = Vec::new();
    for _ in 0..changes {
        churn.change()?;
        let changed = Instant::now();
        let lasts = u64::try_from(LASTS.as_millis())?;
        thread::sleep(Duration::from_millis(churn.random(lasts)));
        for compared in &COMPARED {
            snapshots.push(snapshot(&mut manager, compared)?);
        }
        let lasts = LASTS + Duration::from_millis(churn.random(lasts));
        thread::sleep(lasts.saturating_sub(changed.elapsed()));
    }
    for compared in &COMPARED {
        until("last state in the history", Duration::from_secs(20), || {
            let (there, known) = (snapshot(&mut manager, compared)?.rows, as_of(&history(&mayfly, compared)?, i64::MAX));
            if there == known { Ok(()) } else { Err(format!("{}: {there:?} is there, {known:?} is known", compared.table).into()) }
        })?;
    }

    let mut latest = 0;
    for compared in &COMPARED {
        let history = history(&mayfly, compared)?;
        for snapshot in snapshots.iter().filter(|snapshot| snapshot.compared.table == compared.table) {
            let Some(late) = seen_after(&history, snapshot) else {
                let instants = [snapshot.before_ns - EARLY, snapshot.after_ns, snapshot.after_ns + LATE];
                let known = instants.map(|instant| (instant, as_of(&history, instant)));
                let Snapshot { before_ns, after_ns, rows, .. } = snapshot;
                return Err(format!("{} had {rows:?} from {before_ns} to {after_ns}, and its history {known:#?}", compared.table).into());
            };
            latest = latest.max(late);
        }
    }
    let states: BTreeSet<_> = snapshots.iter().map(|snapshot| (snapshot.compared.table, &snapshot.rows)).collect();
    assert!(states.len() > COMPARED.len(), "nothing changed: {states:?}");
    report(&format!(
        "{} snapshots, {} different ones, of {} tables through {changes} changes of containers, images and volumes: in the histories at most {} ms later",
        snapshots.len(),
        states.len(),
        COMPARED.len(),
        latest / 1_000_000
    ));
    churn.end()?;
    extension.terminate()
}
