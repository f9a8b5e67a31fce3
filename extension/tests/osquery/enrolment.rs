//! What is asked once in a host's life, and what is asked at its end.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::{
    peer::{Place, until},
    process::{Process, manager, results, wait_for_results, wait_for_status},
};

const ENROLMENT: &str = "[[enrolment]]\nname = \"who\"\nrun = [\"SELECT username FROM people\", \"SELECT 1 AS one\"]\n";

#[test]
fn is_asked_at_once_when_the_socket_appears_and_once_in_an_incarnation() {
    let place = Place::new();
    let mut store = place.store();
    store.identify("first");
    let process = Process::start(&place, ENROLMENT);
    // By then its pauses between attempts have grown longer than what is allowed.
    std::thread::sleep(Duration::from_secs(8));
    let mut osqueryd = manager(&place, 0);
    let appeared = Instant::now();
    let found = wait_for_results(&place, "who", 2);
    let took = appeared.elapsed();
    println!("enrolment results {took:?} after the socket appeared");
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!((found[0]["row"].as_str(), found[0]["kind"].as_str()), (r#"{"username":"root"}"#, "enrolment"));
    assert!(process.terminate().0.success());
    for _ in 0..10 {
        let process = Process::start(&place, ENROLMENT);
        osqueryd.registered();
        wait_for_status(&place, "triggers", "enrolment who", |status| status.state == "running");
        process.terminate();
    }
    assert_eq!(results(&place, "who").len(), 2);
    let _process = Process::start(&place, ENROLMENT);
    osqueryd.registered();
    store.identify("clone");
    wait_for_results(&place, "who", 4);
    assert_eq!(osqueryd.ask(&json!({"do": "asked"}))["asked"]["people"], 2);
}

#[test]
fn is_asked_again_until_osquery_accepts_and_waits_until_the_host_is_known() {
    let place = Place::new();
    let mut store = place.store();
    store.record(1);
    let _process = Process::start(&place, "[[enrolment]]\nname = \"who\"\nrun = \"SELECT name FROM late\"\n");
    let mut osqueryd = manager(&place, 0);
    osqueryd.registered();
    wait_for_status(&place, "triggers", "enrolment who", |status| status.state == "waiting" && status.hint.contains("host_identity"));
    store.identify("first");
    wait_for_status(&place, "triggers", "enrolment who", |status| status.restarts >= 3);
    let failed = wait_for_results(&place, "who", 1).remove(0);
    assert!(failed["error"].contains("no such table: late"), "a failure that lasts is one row: {failed:?}");
    osqueryd.ask(&json!({"do": "put", "table": "late", "columns": [["name", "TEXT", 8]], "rows": [["now"]]}));
    let found = wait_for_results(&place, "who", 2).remove(1);
    assert_eq!(found["row"], r#"{"name":"now"}"#);
}

#[test]
fn asks_each_query_whatever_the_others_do_and_takes_too_much_for_an_answer() {
    let place = Place::new();
    let mut store = place.store();
    store.identify("first");
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n";
    let long = "SELECT 'kept' AS it UNION ALL SELECT hex(zeroblob(40000))";
    let huge = "SELECT hex(zeroblob(3000000)) AS it";
    let config = format!(
        "[[enrolment]]\nname = \"all\"\nrun = [\"SELECT name FROM absent\", \"{endless}\", \"{long}\", \"{huge}\", \"SELECT 1 AS one\"]\n"
    );
    let _process = Process::start(&place, &config);
    let mut osqueryd = manager(&place, 0);
    osqueryd.registered();
    wait_for_status(&place, "triggers", "enrolment all", |status| status.restarts >= 3);
    let found = results(&place, "all");
    let errors: Vec<_> = found.iter().map(|row| row["error"].as_str()).filter(|error| !error.is_empty()).collect();
    let said = ["no such table: absent", "more than 1000 rows", "1 rows are left out", "more than 1048576 bytes"];
    assert!(errors.len() == said.len() && errors.iter().zip(said).all(|(error, said)| error.contains(said)), "each once: {errors:?}");
    let rows: Vec<_> = found.iter().filter(|row| row["error"].is_empty()).map(|row| row["row"].as_str()).collect();
    assert_eq!(rows, [r#"{"it":"kept"}"#, r#"{"one":"1"}"#]);
}

#[test]
fn says_farewell_before_it_deregisters() {
    let place = Place::new();
    let _store = place.store();
    let config = "[[farewell]]\nname = \"hangs\"\nrun = \"SELECT * FROM sleepers\"\n[[farewell]]\nname = \"last\"\nrun = \"SELECT username FROM people\"\n";
    let process = Process::start(&place, config);
    let mut osqueryd = manager(&place, 20);
    osqueryd.registered();
    wait_for_status(&place, "triggers", "farewell last", |status| status.state == "running");
    assert!(results(&place, "last").is_empty());
    let (exit, took) = process.terminate();
    assert!(exit.success() && took < Duration::from_secs(10), "{exit} after {took:?}");
    let found = results(&place, "last");
    assert_eq!(found.len(), 1);
    assert_eq!((found[0]["row"].as_str(), found[0]["kind"].as_str()), (r#"{"username":"root"}"#, "farewell"));
    assert!(results(&place, "hangs")[0]["error"].contains("did not answer within"));
    until("deregistered", || osqueryd.ask(&json!({"do": "extensions"}))["extensions"] == json!({}));
}
