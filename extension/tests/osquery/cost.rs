//! What captures cost on a host where nothing happens.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{host::Host, peer::until};

/// Followed with the data of this host: some may change by themselves.
const REAL: [&str; 8] =
    ["interface_addresses", "routes", "kernel_modules", "deb_packages", "etc_hosts", "crontab", "sudoers", "authorized_keys"];
/// The rest of the default set, as far as it is the same on all hosts: these do not change.
const CONSTANT: [&str; 19] = [
    "interface_details",
    "arp_cache",
    "dns_resolvers",
    "listening_ports",
    "iptables",
    "known_hosts",
    "logged_in_users",
    "systemd_units",
    "startup_items",
    "apt_sources",
    "docker_images",
    "docker_networks",
    "docker_volumes",
    "os_version",
    "kernel_info",
    "system_info",
    "usb_devices",
    "pci_devices",
    "disk_encryption",
];

/// Captures of a table in a day, at the default interval of 15 minutes.
const A_DAY: u64 = 96;
/// What they may add to the store, in bytes.
const A_DAY_ADDS: u64 = 1_000_000;
/// The most that the log beside the store's file holds while next to nothing is written, however long that lasts: then it is emptied into the file.
const LOG: u64 = 512 << 10;
/// The shortest interval that the configuration allows, and how long it takes at most with what the tables are spread by.
const INTERVAL: u64 = 10;
const LONGEST: Duration = Duration::from_secs(15);

fn size(store: &Path, file: &str) -> u64 {
    fs::metadata(store.join(file)).map_or(0, |file| file.len())
}

/// Empties the log of a store into its file; gives the size of that.
fn emptied(store: &Path) -> u64 {
    let database = rusqlite::Connection::open(store.join("history.db")).unwrap();
    // The first column says whether somebody was in the way.
    let empty = || database.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0)).is_ok_and(|busy| !busy);
    until("the log is emptied", empty);
    size(store, "history.db")
}

/// How often each table was captured.
fn captures(host: &mut Host) -> BTreeMap<&'static str, u64> {
    let asked = host.osqueryd.ask(&json!({"do": "asked"}));
    REAL.into_iter().chain(CONSTANT).map(|table| (table, asked["asked"][table].as_u64().unwrap())).collect()
}

/// What was written of each table: how many rows began and ended.
fn written(host: &Host) -> BTreeMap<&'static str, i64> {
    let count = |table: &'static str| (table, host.number(&format!("SELECT count(*) + count(valid_to) FROM {table}_history")));
    REAL.into_iter().chain(CONSTANT).map(count).collect()
}

/// The law: captures that find nothing add next to nothing to the store. A day of them at the default interval (`MAYFLY_PROVE`), or two of each table.
#[test]
fn a_day_of_an_idle_host_costs_next_to_nothing() {
    let wanted = if std::env::var_os("MAYFLY_PROVE").is_some() { A_DAY } else { 2 };
    let mut host = Host::new();
    host.write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n");
    host.osqueryd.ask(&json!({"do": "have", "tables": REAL, "root": "/"}));
    // Keys are asked for by user.
    host.osqueryd.ask(&json!({"do": "have", "tables": ["users"], "root": "/"}));
    // More than most have.
    let rows: Vec<_> = (0..300).map(|n| [format!("name-{n}"), n.to_string()]).collect();
    for table in CONSTANT {
        host.put(table, &[("name", "TEXT", 8), ("size", "BIGINT", 8)], json!(rows));
    }
    host.start(&["default"], &format!("interval_seconds = {INTERVAL}\ncpu_percent = 100\n"));
    let running = "SELECT count(*) FROM recorder_sources WHERE source = 'tables' AND state = 'running' AND endpoint NOT IN ('', 'users')";
    until("all are followed", || host.texts(running) == [(REAL.len() + CONSTANT.len()).to_string()]);
    until("its state was written", || {
        host.texts("SELECT state FROM recorder_sources WHERE source = 'tables' AND endpoint = ''") == ["running"]
    });

    let store = host.place.state_dir().join("osquery");
    let (size_before, written_before, captures_before) = (emptied(&store), written(&host), captures(&mut host));
    let (cpu_before, began) = (host.cpu(), Instant::now());
    let deadline = began + Duration::from_secs(30) + LONGEST * u32::try_from(wanted).unwrap();
    let mut log = 0;
    loop {
        thread::sleep(Duration::from_secs(1));
        log = log.max(size(&store, "history.db-wal"));
        let captures = captures(&mut host);
        if captures.iter().all(|(table, asked)| asked - captures_before[table] >= wanted) {
            break;
        }
        assert!(Instant::now() < deadline, "{wanted} captures of each should have been made: {captures_before:?} {captures:?}");
    }
    let (took, cpu) = (began.elapsed(), host.cpu() - cpu_before);
    let share = cpu.as_secs_f64() / took.as_secs_f64();
    let added = emptied(&store).saturating_sub(size_before);
    let mut written = written(&host);
    written.retain(|table, count| *count > written_before[table]);
    println!(
        "{wanted} captures of each of {} tables in {took:.1?}: {:.2} % of a core; the store grew by {added} bytes, its log held at most {log}; \
         of these tables something was written: {written:?}",
        REAL.len() + CONSTANT.len(),
        100.0 * share
    );
    assert!(CONSTANT.iter().all(|table| !written.contains_key(table)), "nothing changed there: {written:?}");
    assert!(added <= A_DAY_ADDS * wanted / A_DAY, "{added} bytes for captures that found nothing");
    assert!(log <= LOG, "a log of {log} bytes");
    // The usual interval is ninety times as long as this one.
    assert!(share < 0.25, "{share}");
}
