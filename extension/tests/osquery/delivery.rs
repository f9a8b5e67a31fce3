//! Events reach scheduled queries: each at least once per query, repeats only from a batch that was in flight.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    time::{SystemTime, UNIX_EPOCH},
};

use mayfly::delivery::{DeliveryConfig, Start};
use mayfly_history::store::{StoreOptions, TableOptions};
use serde_json::{Value, json};

use crate::peer::{EVENTS, Osqueryd, Place, until};

const ALL: &str = "SELECT image FROM e";

/// Runs a scheduled query over the events; gives the numbers of those that its result has, or the failure.
fn run(osqueryd: &mut Osqueryd, name: &str, sql: &str, second: u64) -> Result<Vec<usize>, String> {
    run_over(osqueryd, name, sql, second, &json!([{"table": EVENTS, "as": "e"}]))
}

fn run_over(osqueryd: &mut Osqueryd, name: &str, sql: &str, second: u64, sources: &Value) -> Result<Vec<usize>, String> {
    let answer = osqueryd.ask(&json!({"do": "schedule", "name": name, "sql": sql, "second": second, "sources": sources}));
    match answer["error"].as_str() {
        Some(error) => Err(error.to_owned()),
        None => Ok(numbers(&answer)),
    }
}

fn numbers(answer: &Value) -> Vec<usize> {
    let images = answer["rows"].as_array().unwrap().iter().map(|row| row["image"].as_str().unwrap());
    images.map(|image| image.strip_prefix("event-").unwrap().parse().unwrap()).collect()
}

#[test]
fn each_query_gets_each_event_once() {
    let place = Place::new();
    let mut store = place.store();
    store.record(10);
    let _running = place.extension();
    let mut osqueryd = place.manager(&[]);
    osqueryd.registered();
    assert_eq!(run(&mut osqueryd, "one", ALL, 1), Ok((1..=10).collect()));
    assert_eq!(run(&mut osqueryd, "one", ALL, 2), Ok(vec![]));
    store.record(5);
    assert_eq!(run(&mut osqueryd, "one", ALL, 3), Ok((11..=15).collect()));
    assert_eq!(run(&mut osqueryd, "two", ALL, 4), Ok((1..=15).collect()), "a query of its own");
    assert_eq!(run(&mut osqueryd, "renamed", ALL, 5), Ok((1..=15).collect()), "to osquery, a query with another name is another query");
}

#[test]
fn two_queries_on_different_intervals_lose_nothing_when_the_manager_dies_twice() {
    let place = Place::new();
    let mut store = place.store();
    let running = place.extension_with(DeliveryConfig { max_rows: 150, ..DeliveryConfig::default() });
    let mut osqueryd = place.manager(&[]);
    osqueryd.registered();
    let mut seen: BTreeMap<&str, BTreeMap<usize, usize>> = BTreeMap::new();
    let mut offered: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    let mut in_flight: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for second in 1..=200 {
        if store.written < 2000 {
            store.record(20);
        }
        for (name, interval) in [("fast", 2), ("slow", 5)] {
            if second % interval == 0 {
                let got = run(&mut osqueryd, name, ALL, second).unwrap();
                for event in &got {
                    let times = seen.entry(name).or_default().entry(*event).or_default();
                    *times += 1;
                    let excused = in_flight.get(name).is_some_and(|events| events.contains(event));
                    assert!(*times == 1 || excused, "{name} got event {event} again, and no batch was in flight");
                }
                in_flight.remove(name);
                offered.insert(name, got);
            }
        }
        match second {
            // Killed between two runs: what was offered last is in flight, as nobody can tell whether it was logged.
            60 => {
                osqueryd.kill();
                in_flight = offered.clone();
                osqueryd = place.manager(&[]);
                osqueryd.registered();
            }
            // Killed in the middle of a run of `slow`, whose rows nobody saw.
            123 => {
                let order = json!({"do": "schedule", "name": "slow", "sql": ALL, "second": second, "sources": [{"table": EVENTS, "as": "e"}],
                                   "die": "before counting"});
                assert!(osqueryd.order(&order).is_none());
                in_flight = offered.clone();
                osqueryd = place.manager(&[]);
                osqueryd.registered();
            }
            _ => {}
        }
    }
    for name in ["fast", "slow"] {
        let events: Vec<_> = seen[name].keys().copied().collect();
        assert_eq!(events, (1..=2000).collect::<Vec<_>>(), "{name}");
    }
    let repeats: usize = seen.values().flat_map(BTreeMap::values).map(|times| times - 1).sum();
    assert!(repeats <= 2 * 2 * 150, "{repeats} repeats are more than the batches in flight");
    drop(running);
}

#[test]
fn what_was_counted_but_never_logged_is_offered_again_after_a_restart() {
    let place = Place::new();
    let mut store = place.store();
    store.record(4);
    let _running = place.extension();
    let mut osqueryd = place.manager(&[]);
    osqueryd.registered();
    let order =
        json!({"do": "schedule", "name": "q", "sql": ALL, "second": 1, "sources": [{"table": EVENTS, "as": "e"}], "die": "after counting"});
    assert!(osqueryd.order(&order).is_none());
    store.record(2);
    let mut osqueryd = place.manager(&[]);
    osqueryd.registered();
    assert_eq!(run(&mut osqueryd, "q", ALL, 2), Ok((1..=6).collect()));
    assert_eq!(run(&mut osqueryd, "q", ALL, 3), Ok(vec![]));
}

#[test]
fn a_restart_of_the_extension_offers_the_last_batch_again() {
    let place = Place::new();
    let mut store = place.store();
    store.record(3);
    let running = place.extension();
    let mut osqueryd = place.manager(&[]);
    osqueryd.registered();
    assert_eq!(run(&mut osqueryd, "q", ALL, 1), Ok(vec![1, 2, 3]));
    store.record(1);
    assert_eq!(run(&mut osqueryd, "q", ALL, 2), Ok(vec![4]));
    running.extension.stop();
    let _running = place.extension();
    osqueryd.registered();
    assert_eq!(run(&mut osqueryd, "q", ALL, 3), Ok(vec![4]), "only what was in flight");
}

#[test]
fn both_sides_of_a_self_join_get_the_same_batch() {
    let place = Place::new();
    let mut store = place.store();
    store.record(6);
    let _running = place.extension();
    let mut osqueryd = place.manager(&[]);
    osqueryd.registered();
    let sources = json!([{"table": EVENTS, "as": "a"}, {"table": EVENTS, "as": "b"}]);
    let join = "SELECT a.image FROM a JOIN b USING (eid)";
    assert_eq!(run_over(&mut osqueryd, "j", join, 1, &sources), Ok((1..=6).collect()));
    store.record(2);
    assert_eq!(run_over(&mut osqueryd, "j", join, 2, &sources), Ok(vec![7, 8]));
}

#[test]
fn a_query_that_fails_in_sql_is_offered_the_batch_again() {
    let place = Place::new();
    let mut store = place.store();
    store.record(3);
    let _running = place.extension();
    let mut osqueryd = place.manager(&[]);
    osqueryd.registered();
    assert!(run(&mut osqueryd, "q", "SELECT nonsense(", 1).is_err());
    store.record(1);
    assert_eq!(run(&mut osqueryd, "q", ALL, 2), Ok(vec![1, 2, 3, 4]));
    assert_eq!(run(&mut osqueryd, "q", ALL, 3), Ok(vec![]));
}

#[test]
fn a_query_whose_where_matches_nothing_moves_on_after_three_runs() {
    let place = Place::new();
    let mut store = place.store();
    store.record(3);
    let _running = place.extension();
    let mut osqueryd = place.manager(&[]);
    osqueryd.registered();
    let nothing = "SELECT image FROM e WHERE action = 'push'";
    for second in 1..=3 {
        assert_eq!(run(&mut osqueryd, "q", nothing, second), Ok(vec![]));
    }
    store.record(1);
    assert_eq!(run(&mut osqueryd, "q", ALL, 4), Ok(vec![4]), "the first three were offered three times");
    let told = osqueryd.ask(&json!({"do": "generate", "table": "recorder_sources"}));
    let tables = told["rows"].as_array().unwrap().iter().find(|row| row["source"] == "tables").unwrap();
    let given_up = format!("1 batches of {EVENTS} were given up, of which q took no row in 3 runs");
    assert!(tables["last_error"].as_str().unwrap().starts_with(&given_up), "{tables}");
    let elsewhere = place.query("SELECT last_error FROM recorder_sources WHERE source = 'tables'");
    assert!(elsewhere.len() == 1 && elsewhere[0].starts_with(&given_up), "{elsewhere:?}");
}

#[test]
fn constraints_narrow_a_batch_and_do_not_change_what_counts_as_delivered() {
    let place = Place::new();
    let mut store = place.store();
    store.record(8);
    let _running = place.extension();
    let mut osqueryd = place.manager(&[]);
    osqueryd.registered();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let context = json!({"constraints": [{"name": "time", "affinity": "BIGINT", "list": [{"op": 32, "expr": (now - 600).to_string()}]}]});
    let sources = json!([{"table": EVENTS, "as": "e", "context": context}]);
    assert_eq!(run_over(&mut osqueryd, "q", ALL, 1, &sources), Ok((1..=8).collect()), "a constraint on time does not opt out");
    store.record(1);
    assert_eq!(run_over(&mut osqueryd, "q", ALL, 2, &sources), Ok(vec![9]));
}

#[test]
fn the_row_cap_bounds_a_batch_and_the_next_run_goes_on() {
    let place = Place::new();
    let mut store = place.store();
    store.record(25);
    let _running = place.extension_with(DeliveryConfig { max_rows: 10, ..DeliveryConfig::default() });
    let mut osqueryd = place.manager(&[]);
    osqueryd.registered();
    assert_eq!(run(&mut osqueryd, "q", ALL, 1), Ok((1..=10).collect()));
    assert_eq!(run(&mut osqueryd, "q", ALL, 2), Ok((11..=20).collect()));
    assert_eq!(run(&mut osqueryd, "q", ALL, 3), Ok((21..=25).collect()));
}

#[test]
fn what_expires_before_it_is_delivered_is_a_gap() {
    let place = Place::new();
    let bound = TableOptions { max_rows: Some(100), ..TableOptions::default() };
    let mut store = place.store_with(&StoreOptions { tables: BTreeMap::from([(EVENTS.to_owned(), bound)]), ..StoreOptions::default() });
    store.record(3);
    let _running = place.extension();
    let mut osqueryd = place.manager(&[]);
    osqueryd.registered();
    assert_eq!(run(&mut osqueryd, "q", ALL, 1), Ok(vec![1, 2, 3]));
    let gaps = |osqueryd: &mut Osqueryd| {
        let answer = osqueryd.ask(&json!({"do": "generate", "table": "recorder_gaps"}));
        let rows = answer["rows"].as_array().unwrap().iter().filter(|row| row["cause"] == "expired_undelivered");
        rows.cloned().collect::<Vec<_>>()
    };
    assert_eq!(gaps(&mut osqueryd), Vec::<Value>::new());
    store.record(20_000);
    store.expire();
    let left = run(&mut osqueryd, "q", ALL, 2).unwrap();
    assert!(left.len() < 20_000 && left.last().is_none_or(|newest| *newest == 20_003), "{} {:?}", left.len(), left.last());
    let told = gaps(&mut osqueryd);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((told[0]["source"].as_str(), told[0]["endpoint"].as_str()), (Some("tables"), Some(EVENTS)));
    assert_eq!(told[0]["detail"], "events that q was not given");
    let elsewhere = "SELECT detail FROM recorder_gaps WHERE cause = 'expired_undelivered'";
    assert_eq!(place.query(elsewhere), ["events that q was not given"], "without osquery it is shown as well");
    run(&mut osqueryd, "q", ALL, 3).unwrap();
    assert_eq!(gaps(&mut osqueryd).len(), 1, "told once");
}

#[test]
fn starts_now_if_told_so() {
    let place = Place::new();
    let mut store = place.store();
    store.record(5);
    let _running = place.extension_with(DeliveryConfig { start: Start::Now, ..DeliveryConfig::default() });
    let mut osqueryd = place.manager(&[]);
    osqueryd.registered();
    assert_eq!(run(&mut osqueryd, "q", ALL, 1), Ok(vec![]));
    store.record(1);
    assert_eq!(run(&mut osqueryd, "q", ALL, 2), Ok(vec![6]));
}

#[test]
fn a_wiped_database_of_osquery_starts_anew() {
    let place = Place::new();
    let mut store = place.store();
    store.record(3);
    let _running = place.extension();
    let mut osqueryd = place.manager(&[]);
    osqueryd.registered();
    assert_eq!(run(&mut osqueryd, "q", ALL, 1), Ok(vec![1, 2, 3]));
    let before = osqueryd.instance.clone();
    osqueryd.kill();
    fs::remove_file(place.database()).unwrap();
    let mut osqueryd = place.manager(&[]);
    osqueryd.registered();
    assert_ne!(osqueryd.instance, before);
    assert_eq!(run(&mut osqueryd, "q", ALL, 1), Ok(vec![1, 2, 3]), "a new osquery was given nothing yet");
}

#[test]
fn a_wiped_or_damaged_book_is_set_aside_and_begun_anew() {
    for damage in ["deleted", "overwritten"] {
        let place = Place::new();
        let mut store = place.store();
        store.record(3);
        let running = place.extension();
        let mut osqueryd = place.manager(&[]);
        osqueryd.registered();
        assert_eq!(run(&mut osqueryd, "q", ALL, 1), Ok(vec![1, 2, 3]));
        running.extension.stop();
        let book = place.state_dir().join("delivery.db");
        assert_eq!(fs::metadata(&book).unwrap().permissions().mode() & 0o777, 0o600);
        match damage {
            "deleted" => fs::remove_file(&book).unwrap(),
            _ => fs::write(&book, b"this was a database".repeat(1000)).unwrap(),
        }
        let _running = place.extension();
        osqueryd.registered();
        assert_eq!(run(&mut osqueryd, "q", ALL, 2), Ok(vec![1, 2, 3]), "{damage}");
        let aside =
            fs::read_dir(place.state_dir()).unwrap().filter(|f| f.as_ref().unwrap().file_name().to_string_lossy().contains("set-aside"));
        assert_eq!(aside.count(), usize::from(damage == "overwritten"));
    }
}

#[test]
fn an_ad_hoc_query_has_no_cursor_and_a_star_opts_out_of_one() {
    let place = Place::new();
    let mut store = place.store();
    store.record(3);
    let _running = place.extension();
    let mut osqueryd = place.manager(&[]);
    osqueryd.registered();
    for _ in 0..2 {
        assert_eq!(numbers(&osqueryd.ask(&json!({"do": "generate", "table": EVENTS}))), [1, 2, 3]);
    }
    assert_eq!(run(&mut osqueryd, "q", ALL, 1), Ok(vec![1, 2, 3]));
    assert_eq!(run(&mut osqueryd, "q", ALL, 2), Ok(vec![]));
    // A distributed query while the scheduled one runs.
    osqueryd.ask(&json!({"do": "run", "name": "q"}));
    assert_eq!(numbers(&osqueryd.ask(&read_as("*"))), [1, 2, 3]);
}

fn read_as(consumer: &str) -> Value {
    let context = json!({"constraints": [{"name": "consumer", "affinity": "TEXT", "list": [{"op": 2, "expr": consumer}]}]});
    json!({"do": "generate", "table": EVENTS, "context": context})
}

#[test]
fn a_consumer_reads_what_it_has_not_acknowledged() {
    let place = Place::new();
    let mut store = place.store();
    store.record(4);
    let _running = place.extension();
    let mut osqueryd = place.manager(&[]);
    osqueryd.registered();
    for _ in 0..2 {
        let answer = osqueryd.ask(&read_as("siem"));
        assert_eq!(numbers(&answer), [1, 2, 3, 4], "reading changes nothing");
        assert!(answer["rows"].as_array().unwrap().iter().all(|row| row["consumer"] == "siem"), "the parameter is echoed");
    }
    let eid = |answer: &Value, row: usize| answer["rows"][row]["eid"].as_str().unwrap().to_owned();
    let second = eid(&osqueryd.ask(&read_as("siem")), 1);
    for _ in 0..2 {
        assert_eq!(numbers(&osqueryd.ask(&read_as(&format!("siem@{second}")))), [3, 4], "acknowledging twice is acknowledging once");
    }
    assert_eq!(numbers(&osqueryd.ask(&read_as("siem"))), [3, 4]);
    assert_eq!(numbers(&osqueryd.ask(&read_as("other"))), [1, 2, 3, 4]);
    let refusal = osqueryd.order(&read_as("siem@99999999990000000001")).unwrap();
    assert!(refusal["failed"].as_str().is_some(), "{refusal}");
    let ahead = osqueryd.order(&read_as("siem@40000000000000000001")).unwrap();
    assert!(ahead["failed"].as_str().unwrap().contains("was not recorded"), "{ahead}");
}

#[test]
fn a_book_that_cannot_be_written_fails_the_scheduled_query_and_no_other() {
    let place = Place::new();
    let mut store = place.store();
    store.record(2);
    // Root writes anywhere; a folder in the file's place stops it, too.
    fs::create_dir(place.state_dir().join("delivery.db")).unwrap();
    let _running = place.extension();
    let mut osqueryd = place.manager(&[]);
    osqueryd.registered();
    let error = run(&mut osqueryd, "q", ALL, 1).unwrap_err();
    assert!(error.contains("delivery.db"), "{error}");
    assert_eq!(numbers(&osqueryd.ask(&json!({"do": "generate", "table": EVENTS}))), [1, 2]);
    fs::remove_dir(place.state_dir().join("delivery.db")).unwrap();
    until("it passes", || run(&mut osqueryd, "q", ALL, 2) == Ok(vec![1, 2]));
}
