//! Queries at event time.

use std::{
    thread,
    time::{Duration, Instant},
};

use mayfly_history::now;

use crate::{
    peer::{Place, until},
    process::{Found, Process, manager, results, status, wait_for_results, wait_for_status},
};

/// A trigger on the events that these tests record.
fn trigger(name: &str, keys: &str) -> String {
    format!("[[trigger]]\nname = \"{name}\"\non = \"container_image_events\"\n{keys}\n")
}

fn count(results: &[Found]) -> usize {
    results.iter().map(|result| result["events"].parse::<usize>().unwrap()).sum()
}

#[test]
fn asks_with_the_values_of_the_event_and_links_to_it() {
    let place = Place::new();
    let mut store = place.store();
    let keys = "when = \"action = 'pull' AND image <> 'event-2'\"\nrun = [\"SELECT :image AS image, username FROM people -- ':image'\", \"SELECT 7 AS b, :eid AS a;\"]";
    let _process = Process::start(&place, &trigger("pulled", keys));
    let mut osqueryd = manager(&place, 0);
    osqueryd.registered();
    wait_for_status(&place, "triggers", "pulled", |status| status.state == "running");
    store.record(3);
    let found = wait_for_results(&place, "pulled", 4);
    let mut rows: Vec<_> = found.iter().map(|result| result["row"].as_str()).filter(|row| row.contains("image")).collect();
    rows.sort_unstable();
    assert_eq!(rows, [r#"{"image":"event-1","username":"root"}"#, r#"{"image":"event-3","username":"root"}"#]);
    let linked: Vec<_> = found.iter().filter(|result| result["query"].starts_with("SELECT 7")).collect();
    assert_eq!(linked.len(), 2);
    for result in linked {
        assert_eq!(result["row"], format!("{{\"a\":\"{}\",\"b\":\"7\"}}", result["event_eid"]), "columns are sorted");
        assert_eq!((result["kind"].as_str(), result["event_table"].as_str()), ("trigger", "container_image_events"));
        assert!(result["error"].is_empty() && result["events"] == "1");
    }
    wait_for_status(&place, "triggers", "pulled", |status| status.received == 4 && status.events == 4);
}

#[test]
fn answers_while_the_event_is_fresh() {
    const EVENTS: usize = 100;
    let place = Place::new();
    let mut store = place.store();
    let _process = Process::start(&place, &trigger("each", "run = \"SELECT :image AS image\""));
    let mut osqueryd = manager(&place, 0);
    osqueryd.registered();
    wait_for_status(&place, "triggers", "each", |status| status.state == "running");
    let began = Instant::now();
    for event in 0..u32::try_from(EVENTS).unwrap() {
        // 20 events a second.
        thread::sleep((began + Duration::from_millis(50) * event).saturating_duration_since(Instant::now()));
        store.record(1);
    }
    let found = wait_for_results(&place, "each", EVENTS);
    let milliseconds = |result: &Found| {
        let row: serde_json::Value = serde_json::from_str(&result["row"]).unwrap();
        assert!(row["image"].as_str().unwrap().starts_with("event-"));
        result["delay_ms"].parse::<u64>().unwrap() + result["duration_ms"].parse::<u64>().unwrap()
    };
    let mut latencies: Vec<_> = found.iter().map(milliseconds).collect();
    latencies.sort_unstable();
    println!("event to answer at 20 events/s: p50 {} ms, p99 {} ms, worst {} ms", latencies[49], latencies[98], latencies[99]);
}

#[test]
fn a_thousand_events_at_once_are_bounded_and_none_is_lost() {
    let place = Place::new();
    let mut store = place.store();
    let config = trigger("each", "run = \"SELECT :image AS image\"") + &trigger("same", "run = \"SELECT count(*) AS people FROM people\"");
    let _process = Process::start(&place, &config);
    let mut osqueryd = manager(&place, 0);
    osqueryd.registered();
    wait_for_status(&place, "triggers", "each", |status| status.state == "running");
    let began = Instant::now();
    for _ in 0..10 {
        store.record(100);
    }
    let each = wait_for_results(&place, "each", 1000);
    println!("1,000 events with a query each: all answered after {:?}", began.elapsed());
    assert_eq!(count(&each), 1000);
    until("all events are answered for", || count(&results(&place, "same")) == 1000);
    let same = results(&place, "same");
    assert!(same.len() < 500, "{} runs of a query that was the same", same.len());
    for name in ["each", "same"] {
        let status = wait_for_status(&place, "triggers", name, |status| status.events == 1000);
        assert_eq!((status.received, status.evicted, status.rejected), (1000, 0, 0));
    }
}

#[test]
fn cooldown_and_limits_shed_and_say_how_much() {
    let place = Place::new();
    let mut store = place.store();
    let config = trigger("cooling", "run = \"SELECT :eid\"\ncooldown = 600")
        + &trigger("per", "run = \"SELECT :eid\"\ncooldown = 600\nper = [\"image\"]")
        + &trigger("limited", "run = \"SELECT :eid\"\nmax_per_minute = 3");
    let _process = Process::start(&place, &config);
    let mut osqueryd = manager(&place, 0);
    osqueryd.registered();
    store.record(10);
    for (name, fired) in [("cooling", 1), ("per", 10), ("limited", 3)] {
        let status = wait_for_status(&place, "triggers", name, |status| status.received == 10 && status.events + status.rejected == 10);
        assert_eq!((status.events, status.rejected), (fired, 10 - fired), "{name}");
        wait_for_results(&place, name, usize::try_from(fired).unwrap());
    }
    assert!(status(&place, "triggers", "limited").unwrap().last_error.contains("max_per_minute"));
}

#[test]
fn what_is_wrong_is_said_and_the_rest_goes_on() {
    let place = Place::new();
    let mut store = place.store();
    let endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 10000000) SELECT i FROM n";
    let config = trigger("unparsable", "run = \"SELECT FROM WHERE\"")
        + &trigger("no-table", "run = \"SELECT * FROM not_a_table\"")
        + "[[trigger]]\nname = \"itself\"\non = \"triggered_results\"\nrun = \"SELECT 1\"\n"
        + &trigger("endless", &format!("run = \"{endless}\""))
        + &trigger("hangs", "run = \"SELECT * FROM sleepers\"\ntimeout = 1")
        + &trigger("good", "run = \"SELECT :image AS image\"");
    let _process = Process::start(&place, &config);
    let mut osqueryd = manager(&place, 5);
    osqueryd.registered();
    wait_for_status(&place, "triggers", "good", |status| status.state == "running");
    for (name, said) in [("unparsable", "syntax error"), ("itself", "fire itself")] {
        let status = wait_for_status(&place, "triggers", name, |status| status.state == "disabled");
        assert!(status.last_error.contains(said) && status.hint.contains("line "), "{status:?}");
    }
    store.record(1);
    for (name, said) in [("no-table", "no such table: not_a_table"), ("endless", "more than 1000 rows"), ("hangs", "did not answer within")]
    {
        let found = wait_for_results(&place, name, 1).remove(0);
        assert!(found["error"].contains(said) && found["row"].is_empty(), "{name}: {found:?}");
        wait_for_status(&place, "triggers", name, |status| status.last_error.contains(said));
    }
    store.record(1);
    wait_for_results(&place, "good", 2);
    wait_for_results(&place, "hangs", 2);
}

#[test]
fn after_a_restart_what_is_not_too_old_fires_and_the_rest_is_counted() {
    let place = Place::new();
    let mut store = place.store();
    let config = trigger("each", "run = \"SELECT :image AS image\"");
    store.record_at(now() - 600_000_000_000, 2);
    store.record(2);
    let process = Process::start(&place, &config);
    let mut osqueryd = manager(&place, 0);
    wait_for_results(&place, "each", 2);
    let (exit, took) = process.terminate();
    assert!(exit.success() && took < Duration::from_secs(10), "{exit} after {took:?}");
    store.record_at(now() - 600_000_000_000, 3);
    store.record(4);
    let process = Process::start(&place, &config);
    wait_for_results(&place, "each", 6);
    let status = wait_for_status(&place, "triggers", "each", |status| status.rejected == 3 && status.events == 4);
    assert!(status.last_error.contains("older than 5 minutes"), "{status:?}");
    // What waits for an osquery that went is not lost with the extension.
    osqueryd.kill();
    store.record(2);
    wait_for_status(&place, "triggers", "each", |status| status.received == 9);
    process.terminate();
    let _process = Process::start(&place, &config);
    let _osqueryd = manager(&place, 0);
    let found = wait_for_results(&place, "each", 8);
    let mut eids: Vec<_> = found.iter().map(|result| result["event_eid"].as_str()).collect();
    eids.sort_unstable();
    eids.dedup();
    assert_eq!(eids.len(), 8, "each event once");
}
