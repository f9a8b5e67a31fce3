//! Registering, and staying so.

use std::{
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};

use mayfly_history::TableKind;
use mayfly_tables::TABLES;
use serde_json::{Value, json};

use crate::peer::{EVENTS, Place, until};

fn route<'r>(routes: &'r Value, table: &str, id: &str) -> Vec<&'r Value> {
    routes["routes"][table].as_array().unwrap().iter().filter(|row| row["id"] == id).collect()
}

#[test]
fn registers_every_table_with_its_columns_and_attributes() {
    let place = Place::new();
    let running = place.extension();
    let mut osqueryd = place.manager(&[]);
    let uuid = osqueryd.registered();
    let routes = osqueryd.ask(&json!({"do": "routes"}));
    assert_eq!(routes["routes"].as_object().unwrap().len(), TABLES.len());
    for table in TABLES {
        let schema = table.schema();
        let columns = route(&routes, schema.name, "column");
        assert_eq!(columns.len(), schema.columns.len());
        assert!(columns.iter().all(|c| c["op"] != "0"), "osquery would make an INDEX of op 0");
        let attributes = route(&routes, schema.name, "attributes");
        assert_eq!(attributes.len(), usize::from(schema.kind == TableKind::Events), "only event tables are EVENT_BASED");
        assert!(attributes.iter().all(|a| a["attributes"] == "4"));
    }
    let pong = osqueryd.ask(&json!({"do": "ping", "uuid": uuid}));
    assert_eq!((pong["message"].as_str(), pong["uuid"].as_i64()), (Some("pong"), Some(uuid)));
    until("running", || running.feed.status().state == "running");
}

#[test]
fn answers_columns_and_refuses_writes_and_strangers() {
    let place = Place::new();
    let _running = place.extension();
    let mut osqueryd = place.manager(&[]);
    osqueryd.registered();
    let mut ask =
        |table: &str, action: &str| osqueryd.order(&json!({"do": "plugin", "table": table, "request": {"action": action}})).unwrap();
    let columns = ask(EVENTS, "columns");
    assert_eq!(columns["code"], 0);
    assert!(columns["rows"].as_array().unwrap().iter().any(|row| row["name"] == "eid" && row["op"] == "16"));
    for write in ["insert", "update", "delete"] {
        assert_eq!(ask(EVENTS, write)["rows"], json!([{"status": "readonly"}]));
    }
    let unknown = ask(EVENTS, "explode");
    assert_eq!(unknown["code"], 1);
    assert!(unknown["message"].as_str().unwrap().contains("explode"));
}

#[test]
fn registers_again_after_the_manager_died_and_when_it_was_forgotten() {
    let place = Place::new();
    let _running = place.extension();
    let mut first = place.manager(&[]);
    first.registered();
    first.ask(&json!({"do": "forget"}));
    let again = first.registered();
    assert!(again > 41, "a registration of its own");
    first.kill();
    let mut second = place.manager(&[]);
    second.registered();
    second.ask(&json!({"do": "generate", "table": "recorder_info"}));
    until("old sockets are gone", || place.sockets().len() == 1);
}

#[test]
fn binds_again_when_its_socket_is_deleted() {
    let place = Place::new();
    let _running = place.extension();
    let mut osqueryd = place.manager(&[]);
    let uuid = osqueryd.registered();
    std::fs::remove_file(&place.sockets()[0]).unwrap();
    until("registered anew", || osqueryd.registered() != uuid);
}

#[test]
fn leaves_out_a_table_whose_name_is_taken_and_says_so() {
    let place = Place::new();
    let running = place.extension();
    let mut osqueryd = place.manager(&[EVENTS]);
    osqueryd.registered();
    let routes = osqueryd.ask(&json!({"do": "routes"}));
    assert_eq!(routes["routes"].as_object().unwrap().len(), TABLES.len() - 1);
    assert!(routes["routes"].get(EVENTS).is_none());
    until("said so", || running.feed.status().last_error.contains(EVENTS));
}

#[test]
fn waits_for_its_name_to_be_free() {
    let place = Place::new();
    let first = place.extension();
    let mut osqueryd = place.manager(&[]);
    let uuid = osqueryd.registered();
    let second = place.extension();
    until("refused", || second.feed.status().last_error.contains("registered already"));
    drop(first.extension);
    until("the second one took over", || osqueryd.registered() != uuid);
}

#[test]
fn says_goodbye_when_it_is_stopped_and_tells_when_osquery_asks() {
    let place = Place::new();
    let running = place.extension();
    let mut osqueryd = place.manager(&[]);
    let uuid = osqueryd.registered();
    osqueryd.ask(&json!({"do": "shutdown", "uuid": uuid}));
    until("asked to end", || running.shutdowns.load(SeqCst) == 1);
    let began = Instant::now();
    running.extension.stop();
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(osqueryd.ask(&json!({"do": "extensions"}))["extensions"], json!({}));
    assert!(place.sockets().is_empty(), "{:?}", place.sockets());
}

#[test]
fn stops_at_once_though_osquery_never_came() {
    let place = Place::new();
    let running = place.extension();
    until("waiting", || running.feed.status().state == "waiting" && !running.feed.status().hint.is_empty());
    let began = Instant::now();
    running.extension.stop();
    assert!(began.elapsed() < Duration::from_secs(5));
}
