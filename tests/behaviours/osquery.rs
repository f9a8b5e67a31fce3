//! osquery as manager and as client: its own Python bindings, and osqueryd where it is installed.

use std::{collections::BTreeSet, io::Write, process::Command, time::Duration};

use mayfly_tests::{
    IMAGE, Mayfly, Result,
    fake::{Fake, begin, empty, event, now},
    report, run, tool, until,
};
use serde_json::{Map, Value, json};

use crate::{
    docker,
    manager::{Extension, Manager},
    turn,
};

const TABLE: &str = "container_lifecycle_events";
const EQUALS: u8 = 2;
const RECORDED: &str = "SELECT count(*) AS n FROM container_lifecycle_events";

/// A daemon whose stream says that `count` containers were created.
fn creates(count: usize) -> Result<Fake> {
    Fake::start(move |path, stream| {
        if !path.contains("/events") {
            return empty(path, stream);
        }
        begin(stream)?;
        for n in 0..count {
            stream.write_all(event("create", &id(n), now(), &json!({ "image": IMAGE, "name": format!("job-{n}") })).as_bytes())?;
        }
        std::io::copy(stream, &mut std::io::sink()).map(drop)
    })
}

fn id(n: usize) -> String {
    format!("{n:064x}")
}

fn ids(rows: &[Value]) -> BTreeSet<String> {
    rows.iter().filter_map(|row| Some(row.get("container_id")?.as_str()?.to_owned())).collect()
}

/// What osqueryd does with an autoloaded extension: it records by itself, and every table can be read.
#[test]
fn an_autoloaded_extension_records_and_serves() -> Result<()> {
    let _turn = turn();
    let (count, second) = (2_000, 1_800_000_000);
    let fake = creates(count)?;
    let mayfly = Mayfly::following("docker", &fake.endpoint())?;
    let mut manager = Manager::start()?;
    let mut extension = Extension::start(&mayfly, &manager.socket())?;
    let tables = manager.wait_for_tables()?;
    mayfly.wait_for_count(RECORDED, count)?;
    for (table, routes) in &tables {
        let routes = routes.as_array().ok_or("no routes")?;
        let columns: BTreeSet<_> = routes.iter().filter_map(|route| route.get("name")?.as_str()).collect();
        let rows = manager.generate(table, &[])?;
        report(&format!("{table}: {} columns, {} rows", columns.len(), rows.len()));
        // Cells without a value may be left out; nothing else may be there.
        let unknown = rows.iter().filter_map(Value::as_object).flat_map(Map::keys).find(|name| !columns.contains(name.as_str()));
        assert_eq!(unknown, None, "{table}");
    }
    let one = manager.generate(TABLE, &[("container_id", EQUALS, &id(7))])?;
    assert_eq!(ids(&one), [id(7)].into());
    let then = one.first().and_then(|row| row.get("time_ns")?.as_str()).ok_or("no time_ns")?;
    let state = manager.generate("container_history", &[("container_id", EQUALS, &id(7)), ("as_of", EQUALS, then)])?;
    assert_eq!(state.first().and_then(|row| row.get("as_of")?.as_str()), Some(then), "a parameter must be echoed: {state:?}");
    let refused = manager.generate("container_history", &[("as_of", EQUALS, "yesterday-ish")]);
    assert!(refused.as_ref().is_err_and(|error| error.to_string().contains("as_of")), "{refused:?}");
    let sql = format!("SELECT * FROM {TABLE}");
    assert_eq!(ids(&manager.scheduled("lifecycle", &sql, TABLE, second)?).len(), count);
    assert_eq!(manager.scheduled("lifecycle", &sql, TABLE, second + 1)?.len(), 0, "each event once");
    extension.terminate()?;
    Ok(())
}

/// The unit's process has priority; when it dies, the extension records again, and what came between is there once.
#[test]
fn the_extension_hands_over_to_the_recorder_and_takes_over_again() -> Result<()> {
    let _turn = turn();
    let docker = docker()?;
    let mayfly = Mayfly::following("docker", &docker.endpoint())?;
    let mut manager = Manager::start()?;
    let mut extension = Extension::start(&mayfly, &manager.socket())?;
    manager.wait_for_tables()?;
    let recorder = |wanted: Option<u32>| {
        until("change of the recorder", Duration::from_secs(20), || {
            let told = mayfly.count("SELECT pid FROM recorder_info")?;
            let right = wanted.is_none_or(|pid| told == i64::from(pid));
            let running = mayfly.count("SELECT count(*) AS n FROM recorder_sources WHERE source = 'docker' AND state = 'running'")?;
            if right && running == 1 { Ok(()) } else { Err(format!("{wanted:?} should record, {told} does: {}", mayfly.log()).into()) }
        })
    };
    let once = |name: &str| run(docker.cli().args(["run", "--rm", "--name", name, IMAGE, "true"])).map(drop);
    recorder(Some(extension.pid()))?;
    once("first")?;
    let recording = mayfly.launch()?;
    recorder(Some(recording.pid()))?;
    once("second")?;
    recording.kill()?;
    once("third")?;
    recorder(Some(extension.pid()))?;
    once("fourth")?;
    for (n, name) in ["first", "second", "third", "fourth"].iter().enumerate() {
        mayfly.wait_for_count("SELECT count(*) AS n FROM container_lifecycle_events WHERE action = 'destroy'", n + 1)?;
        let sql = format!(
            "SELECT count(*) AS n FROM container_lifecycle_events WHERE name = '{name}' AND action IN ('create', 'start', 'die', 'destroy')"
        );
        assert_eq!(mayfly.count(&sql)?, 4, "{name}: {}", mayfly.log());
    }
    extension.terminate()?;
    Ok(())
}

/// osqueryd itself, where it is installed.
#[test]
fn osqueryd_shows_the_tables() -> Result<()> {
    let _turn = turn();
    let Ok(osqueryi) = tool("osqueryi", "osquery").or_else(|_| tool("osqueryd", "osquery")) else {
        report("osqueryd is not on PATH: it is tried only where it is; the bindings stand in for it (https://osquery.io/downloads)");
        return Ok(());
    };
    let fake = creates(10)?;
    let mayfly = Mayfly::following("docker", &fake.endpoint())?;
    let place = tempfile::Builder::new().prefix("mayfly-osquery-").tempdir_in("/tmp")?;
    let socket = place.path().join("osquery.em");
    let recording = mayfly.record()?;
    mayfly.wait_for_count(RECORDED, 10)?;
    let mut extension = Extension::start(&mayfly, &socket)?;
    let mut shell = Command::new(osqueryi);
    shell.args(["-S", "--json", "--ephemeral", "--disable_database", "--disable_logging", "--extensions_require", "mayfly"]);
    shell.arg("--extensions_socket").arg(&socket).args(["--extensions_timeout", "10"]);
    let rows = until("answer from osquery", Duration::from_secs(30), || {
        let text = run(shell.arg("SELECT count(*) AS n FROM container_lifecycle_events"))?;
        if text.contains("\"10\"") { Ok(text) } else { Err(text.into()) }
    })?;
    report(&format!("osqueryi: {}", rows.trim()));
    extension.terminate()?;
    recording.stop()?;
    Ok(())
}
