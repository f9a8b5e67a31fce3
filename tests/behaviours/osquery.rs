//! osquery as manager and as client: its own Python bindings, and osqueryd where it is installed.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    os::unix::net::UnixStream,
    process::Command,
    time::Duration,
};

use mayfly_tests::{IMAGE, Mayfly, Result, report, run, tool, until};
use serde_json::{Value, json};

use crate::{
    fake::{Fake, begin, empty, event, now},
    manager::{Extension, Manager},
    turn,
};

const TABLE: &str = "container_lifecycle_events";
const EQUALS: u8 = 2;

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

fn ids(rows: &[Value]) -> Vec<String> {
    rows.iter().filter_map(|row| Some(row.get("container_id")?.as_str()?.to_owned())).collect()
}

/// An extension under a manager that has recorded `count` events.
fn stage(count: usize) -> Result<(Fake, Mayfly, Manager, Extension)> {
    let fake = creates(count)?;
    let mayfly = Mayfly::following("docker", &fake.endpoint())?;
    let mut manager = Manager::start()?;
    let extension = Extension::start(&mayfly, &manager.socket())?;
    manager.wait_for_tables()?;
    mayfly.wait_for_count("SELECT count(*) AS n FROM container_lifecycle_events", count)?;
    Ok((fake, mayfly, manager, extension))
}

#[test]
fn the_bindings_of_osquery_read_every_table() -> Result<()> {
    let _turn = turn();
    let (_fake, mayfly, mut manager, mut extension) = stage(50)?;
    let tables = manager.wait_for_tables()?;
    let tables = tables.as_object().ok_or("no tables")?;
    for (table, routes) in tables {
        let routes = routes.as_array().ok_or("no routes")?;
        let options = |route: &Value| route.get("op").and_then(Value::as_str).unwrap_or_default().to_owned();
        let columns: Vec<_> = routes.iter().filter(|r| r.get("id").and_then(Value::as_str) == Some("column")).collect();
        assert!(!columns.is_empty() && columns.iter().all(|route| !["", "0"].contains(&&*options(route))), "{table}: {routes:?}");
        assert_eq!(
            manager.columns(table)?.as_array().map(Vec::len),
            Some(routes.len()),
            "{table}: routes when asked differ from those registered"
        );
        let rows = manager.generate(table, &[])?;
        report(&format!("{table}: {} columns, {} rows", columns.len(), rows.len()));
        // Cells without a value may be left out; nothing else may be there.
        let declared = |name: &String| columns.iter().any(|c| c.get("name").and_then(Value::as_str) == Some(name));
        let unknown: Vec<_> = rows.iter().filter_map(Value::as_object).flat_map(|row| row.keys()).filter(|name| !declared(name)).collect();
        assert!(unknown.is_empty(), "{table}: {unknown:?}");
    }
    assert!(tables.contains_key(TABLE), "{tables:?}");
    let one = manager.generate(TABLE, &[("container_id", EQUALS, &id(7))])?;
    assert_eq!(ids(&one), [id(7)]);
    let later = (now() / 1_000_000_000 + 1).to_string();
    let state = manager.generate("container_history", &[("container_id", EQUALS, &id(7)), ("as_of", EQUALS, &later)])?;
    assert_eq!(state.len(), 1);
    assert_eq!(state[0].get("as_of").and_then(Value::as_str), Some(&*later), "a parameter must be echoed: {state:?}");
    let refused = manager.generate("container_history", &[("as_of", EQUALS, "yesterday-ish")]);
    assert!(refused.as_ref().is_err_and(|error| error.to_string().contains("as_of")), "{refused:?}");
    // Bytes that are no Thrift, and Thrift that breaks off, cost nothing but their connection.
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x80, 1, 0, 1, 0, 0, 0, 4], &[0xff; 64], &[0x80, 1, 0, 1, 0x7f, 0xff, 0xff, 0xff]] {
        for number in 1..3 {
            if let Ok(mut stream) = UnixStream::connect(format!("{}.{number}", manager.socket().display())) {
                let _ = stream.write_all(bytes);
            }
        }
    }
    assert_eq!(manager.generate(TABLE, &[("consumer", EQUALS, "*")])?.len(), 50, "{}", mayfly.log());
    extension.terminate()?;
    Ok(())
}

/// Two queries on different intervals, the manager killed and restarted twice: each gets every event; only a batch that was in flight comes again.
#[test]
fn every_scheduled_query_gets_every_event() -> Result<()> {
    let _turn = turn();
    let count = 2_000;
    let (_fake, mayfly, mut manager, _extension) = stage(count)?;
    let mut got: BTreeMap<&str, BTreeMap<String, usize>> = BTreeMap::new();
    let mut in_flight: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for round in 0..12 {
        for (name, every) in [("fast", 1), ("slow", 3)] {
            if round % every != 0 {
                continue;
            }
            // osqueryd dies after it asked and before it logged, twice.
            let dies = round == 3 || round == 6;
            let rows = manager.scheduled(name, TABLE, &[&[]], !dies)?.remove(0);
            let batch = ids(&rows);
            if dies {
                in_flight.entry(name).or_default().extend(batch);
                continue;
            }
            for id in batch {
                *got.entry(name).or_default().entry(id).or_default() += 1;
            }
        }
        if round == 3 || round == 6 {
            manager.restart()?;
            manager.wait_for_tables()?;
        }
    }
    for name in ["fast", "slow"] {
        let seen = got.get(name).map_or(0, BTreeMap::len);
        let repeated =
            got.get(name).into_iter().flatten().filter(|(id, n)| **n > 1 && !in_flight.get(name).is_some_and(|f| f.contains(*id))).count();
        assert_eq!(seen, count, "{name} got {seen} of {count} events: {}", mayfly.log());
        assert_eq!(repeated, 0, "{name} got events twice that were accepted");
    }
    Ok(())
}

/// What a run offers stays the same for each of its calls, and is offered again until it is accepted or has been offered three times.
#[test]
fn a_batch_is_offered_until_it_is_accepted() -> Result<()> {
    let _turn = turn();
    let (_fake, _mayfly, mut manager, mut extension) = stage(100)?;
    // A self-join asks twice; both sides see the same events.
    let both = manager.scheduled("join", TABLE, &[&[], &[]], true)?;
    assert_eq!((ids(&both[0]).len(), ids(&both[0])), (100, ids(&both[1])));
    assert_eq!(ids(&manager.scheduled("join", TABLE, &[&[]], true)?[0]).len(), 0, "accepted events come no more");
    // A constraint only narrows the batch.
    let narrow = manager.scheduled("narrow", TABLE, &[&[("container_id", EQUALS, &id(3))], &[]], true)?;
    assert_eq!((ids(&narrow[0]), ids(&narrow[1]).len()), (vec![id(3)], 100));
    // A query that fails, or whose rows are all filtered out, does not move the counter.
    for attempt in 0..3 {
        let offered = manager.scheduled("fails", TABLE, &[&[]], false)?;
        assert_eq!(ids(&offered[0]).len(), 100, "attempt {attempt}");
    }
    assert_eq!(ids(&manager.scheduled("fails", TABLE, &[&[]], false)?[0]).len(), 0, "after three it moves on");
    // A query of another name is another reader; so is every query of an osquery whose database was wiped.
    assert_eq!(ids(&manager.scheduled("renamed", TABLE, &[&[]], true)?[0]).len(), 100);
    manager.wipe()?;
    manager.wait_for_tables()?;
    assert_eq!(ids(&manager.scheduled("renamed", TABLE, &[&[]], true)?[0]).len(), 100);
    // Named consumers read until they acknowledge.
    let unread = manager.generate(TABLE, &[("consumer", EQUALS, "siem")])?;
    let eid = unread.get(49).and_then(|row| row.get("eid")?.as_str()).ok_or("no eid")?.to_owned();
    assert_eq!((unread.len(), manager.generate(TABLE, &[("consumer", EQUALS, "siem")])?.len()), (100, 100));
    assert_eq!(manager.generate(TABLE, &[("consumer", EQUALS, &format!("siem@{eid}"))])?.len(), 50);
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
    mayfly.wait_for_count("SELECT count(*) AS n FROM container_lifecycle_events", 10)?;
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
