//! Histories of osquery's tables, by the binary itself beside a manager with tables of the host and others.

use std::time::{Duration, Instant};

use mayfly_history::now;
use serde_json::json;

use crate::{
    host::{Host, SECOND},
    peer::until,
};

const HOSTS: &[&str] = &["etc_hosts"];

#[test]
fn a_change_that_a_file_tells_of_is_in_the_history_within_a_second() {
    let mut host = Host::new();
    host.write("etc/hosts", "127.0.0.1 localhost\n");
    host.osqueryd.ask(&json!({"do": "have", "tables": HOSTS, "root": host.root}));
    host.start(HOSTS, "");
    let names = "SELECT hostnames FROM etc_hosts_history WHERE as_of = ";
    until("captured", || host.texts("SELECT hostnames FROM etc_hosts_history") == ["localhost"]);
    // What is written while the watches are not there yet is seen at the interval only.
    until("files are watched", || {
        host.write("etc/hosts", "127.0.0.1 watched\n");
        std::thread::sleep(Duration::from_millis(200));
        host.texts("SELECT evidence FROM etc_hosts_history WHERE hostnames = 'watched'") == ["/etc/hosts"]
    });
    let before = now();
    host.write("etc/hosts", "127.0.0.1 localhost\n10.0.0.9 evil\n");
    until("seen", || host.texts(&format!("{names}{} ORDER BY 1", now())) == ["evil", "localhost"]);
    let seen: i64 = host.number("SELECT valid_from_ns FROM etc_hosts_history WHERE hostnames = 'evil'");
    assert!(seen - before < SECOND, "{} ms", (seen - before) / 1_000_000);
    assert_eq!(host.texts(&format!("{names}{before}")), ["watched"]);
    assert_eq!(host.texts("SELECT ended_reason FROM etc_hosts_history WHERE hostnames = 'watched' AND valid_to IS NOT NULL"), ["removed"]);
    let (code, printed, _) = host.run(&["diff", "etc_hosts", &format!("{before}"), "now"]);
    assert_eq!((code, printed.as_str()), (0, "+ address=10.0.0.9 hostnames=evil\n~ address=127.0.0.1 hostnames: watched -> localhost\n"));
    let (code, _, said) = host.run(&["diff", "etc_hosts", "yesterday"]);
    assert_eq!((code, said.matches("is not an instant").count()), (1, 1), "{said}");
    let (code, _, said) = host.run(&["diff", "etc_host", "-5m"]);
    assert!(code == 1 && said.contains("did you mean etc_hosts?"), "{said}");
    let status = "SELECT state FROM recorder_sources WHERE source = 'tables' AND endpoint = 'etc_hosts' AND hint LIKE '%/etc/hosts%'";
    until("said so", || host.texts(status) == ["running"]);
}

#[test]
fn an_unchanged_table_costs_no_storage_and_its_safety_net_sees_what_nothing_tells_of() {
    let mut host = Host::new();
    host.put("things", &[("name", "TEXT", 1), ("size", "BIGINT", 8)], json!([["a", "1"], ["b", "2"]]));
    host.start(&["things"], "interval_seconds = 10\n");
    until("captured", || host.texts("SELECT name FROM things_history") == ["a", "b"]);
    let asked = host.asked("things");
    host.osqueryd.ask(&json!({"do": "put", "table": "things", "rows": [["a", "1"], ["b", "3"]]}));
    until("the interval has passed", || host.asked("things") > asked);
    until("seen", || {
        host.texts("SELECT name || size || evidence FROM things_history ORDER BY 1") == ["a1startup", "b2startup", "b3interval"]
    });
    assert_eq!(host.texts("SELECT ended_reason FROM things_history WHERE size = 2"), ["changed"]);
}

#[test]
fn while_osquery_is_away_nobody_looks_and_the_gap_says_so() {
    let mut host = Host::new();
    let columns = &[("name", "TEXT", 8)];
    host.put("things", columns, json!([["before"]]));
    host.start(&["things"], "");
    until("captured", || host.texts("SELECT name FROM things_history") == ["before"]);
    let gaps = "SELECT gap_to_ns IS NULL FROM recorder_gaps WHERE source = 'tables' AND cause = 'osquery_down' ORDER BY gap_from_ns";
    until("the first look ended", || host.texts(gaps) == ["0"]);
    host.kill_osquery();
    until("noticed", || host.texts(gaps) == ["0", "1"]);
    let away = now();
    let put = json!({"do": "put", "table": "things", "columns": columns, "rows": [["after"]]});
    host.start_osquery(|osqueryd| {
        osqueryd.ask(&put);
    });
    until("seen again", || host.texts("SELECT name FROM things_history WHERE valid_to IS NULL") == ["after"]);
    until("the gap ended", || host.texts(gaps).iter().all(|open| open == "0"));
    assert_eq!(host.texts("SELECT ended_reason FROM things_history WHERE name = 'before'"), ["unknown"]);
    assert_eq!(host.texts(&format!("SELECT complete FROM things_history WHERE as_of = {away}")), ["0"]);
    assert_eq!(host.texts(&format!("SELECT complete FROM things_history WHERE as_of = {}", now())), ["1"]);
}

#[test]
fn what_cannot_be_followed_is_said_and_the_rest_goes_on() {
    let mut host = Host::new();
    host.put("hash", &[("path", "TEXT", 2), ("md5", "TEXT", 8)], json!([]));
    host.put("users", &[("uid", "BIGINT", 1)], json!([["0"]]));
    host.put("huge", &[("n", "BIGINT", 8)], json!((0..101).map(|n| [n.to_string()]).collect::<Vec<_>>()));
    host.put("odd", &[("valid_from", "TEXT", 8)], json!([]));
    host.put("fine", &[("name", "TEXT", 8)], json!([["x"]]));
    host.start(&["hash", "users", "huge", "odd", "nowhere", "recorder_info", "fine", "a\"b"], "max_rows = 100\n");
    until("captured", || host.texts("SELECT name FROM fine_history") == ["x"]);
    let said = |host: &Host, table: &str| {
        host.texts(&format!(
            "SELECT state || ': ' || last_error || ' ' || hint FROM recorder_sources WHERE source = 'tables' AND endpoint = '{table}'"
        ))
        .concat()
    };
    for (table, words) in [
        ("hash", "disabled: hash answers only where path is given"),
        ("users", "running:  users_history stands in"),
        ("huge", "failed: has more than 100 rows"),
        ("odd", "disabled: odd has a column valid_from"),
        ("nowhere", "waiting:  osquery has no table of that name"),
        ("recorder_info", "disabled: it is a table of Mayfly's own"),
        ("fine", "running:  resolution: 99"),
    ] {
        until(table, || said(&host, table).starts_with(words));
    }
    until("gap", || host.texts("SELECT cause FROM recorder_gaps WHERE endpoint = 'huge'") == ["capture_failed"]);
}

#[test]
fn tables_of_other_extensions_are_followed_when_they_come_and_kept_when_they_go() {
    let mut host = Host::new();
    host.put("always", &[("name", "TEXT", 8)], json!([["x"]]));
    host.start(&["always", "theirs"], "");
    until("captured", || host.texts("SELECT name FROM always_history") == ["x"]);
    host.put("theirs", &[("name", "TEXT", 8)], json!([["y"]]));
    host.osqueryd.ask(&json!({"do": "extend", "uuid": 7, "name": "other"}));
    until("followed", || host.has("theirs_history") && host.texts("SELECT name FROM theirs_history") == ["y"]);
    host.osqueryd.ask(&json!({"do": "remove", "table": "theirs"}));
    host.osqueryd.ask(&json!({"do": "retract", "uuid": 7}));
    let state = "SELECT state FROM recorder_sources WHERE source = 'tables' AND endpoint = 'theirs'";
    until("said so", || host.texts(state) == ["waiting"]);
    host.osqueryd.registered();
    let routes = host.osqueryd.ask(&json!({"do": "routes"}));
    assert!(routes["routes"].get("theirs_history").is_some(), "its history is served on");
    assert_eq!(host.texts("SELECT name FROM theirs_history WHERE valid_to IS NULL"), ["y"]);
    until("nobody looks, and that is said", || {
        host.texts(&format!("SELECT complete FROM theirs_history WHERE as_of = {}", now())) == ["0"]
    });
}

#[test]
fn an_upgrade_of_osquery_that_adds_a_column_goes_on_with_the_same_history() {
    let mut host = Host::new();
    host.put("things", &[("name", "TEXT", 1)], json!([["a"]]));
    host.start(&["things"], "");
    until("captured", || host.texts("SELECT name FROM things_history") == ["a"]);
    let before = now();
    host.kill_osquery();
    host.start_osquery(|osqueryd| {
        osqueryd
            .ask(&json!({"do": "put", "table": "things", "columns": [["name", "TEXT", 1], ["colour", "TEXT", 8]], "rows": [["a", "red"]]}));
    });
    until("the new column is there", || host.texts("SELECT colour FROM things_history WHERE valid_to IS NULL") == ["red"]);
    assert_eq!(host.texts(&format!("SELECT name || colour FROM things_history WHERE as_of = {before}")), ["a"]);
}

#[test]
fn a_change_is_never_dated_before_it_happened() {
    let mut host = Host::new();
    host.put("slow", &[("name", "TEXT", 8)], json!([["before"]]));
    // It is asked, and looks after that.
    host.osqueryd.ask(&json!({"do": "pause", "table": "slow", "seconds": 2}));
    host.start(&["slow"], "");
    until("it is asked", || host.asked("slow") > 0);
    let changed = now();
    host.osqueryd.ask(&json!({"do": "put", "table": "slow", "rows": [["after"]]}));
    let seen = format!("SELECT valid_from_ns >= {changed} FROM slow_history WHERE name = 'after'");
    until("seen", || !host.texts(&seen).is_empty());
    assert_eq!(host.texts(&seen), ["1"]);
}

#[test]
fn a_table_that_takes_its_time_delays_no_answer_and_ends_with_the_process() {
    let mut host = Host::new();
    host.put("slow", &[("name", "TEXT", 8)], json!([["x"]]));
    host.osqueryd.ask(&json!({"do": "pause", "table": "slow", "seconds": 2}));
    host.start(&["slow"], "interval_seconds = 10\n");
    host.osqueryd.registered();
    let began = Instant::now();
    host.osqueryd.ask(&json!({"do": "generate", "table": "recorder_info"}));
    assert!(began.elapsed() < Duration::from_secs(2));
    let hint = "SELECT hint FROM recorder_sources WHERE source = 'tables' AND endpoint = 'slow'";
    until("said so", || host.texts(hint).concat().contains("captured more rarely"));
}
