//! Pushed events reach osquery's logger: each, in order, soon, as lines that osquery itself could have written.

use std::{
    collections::BTreeMap,
    env, fs, thread,
    time::{Duration, Instant},
};

use mayfly_history::{
    image::ImageEvent,
    store::{Reader, StoreOptions, TableOptions},
};
use serde_json::{Value, json};

use crate::peer::{EVENTS, Osqueryd, Place, until};

const PUSH: &str = "[push]\ntables = [\"container_image_events\"]\n";

/// What the logger has taken: when, and the line.
fn taken(place: &Place) -> Vec<(i64, Value)> {
    let text = fs::read_to_string(place.database().with_extension("json.log")).unwrap_or_default();
    // The last line may be only begun.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let lines = whole.lines().map(|line| {
        let (at, line) = line.split_once(' ').unwrap();
        (at.parse().unwrap(), serde_json::from_str(line).unwrap_or_else(|error| panic!("not JSON: {error}: {line}")))
    });
    lines.collect()
}

fn number(line: &Value) -> usize {
    line["columns"]["image"].as_str().unwrap().strip_prefix("event-").unwrap().parse().unwrap()
}

fn numbers(place: &Place) -> Vec<usize> {
    taken(place).iter().map(|(_, line)| number(line)).collect()
}

fn set(osqueryd: &mut Osqueryd, domain: &str, key: &str, value: &str) {
    osqueryd.ask(&json!({"do": "keep", "domain": domain, "key": key, "value": value}));
}

/// How a source of ours fares, as `recorder_sources` has it.
fn source(osqueryd: &mut Osqueryd, source: &str, endpoint: &str) -> Value {
    let answer = osqueryd.ask(&json!({"do": "generate", "table": "recorder_sources"}));
    let rows = answer["rows"].as_array().unwrap();
    rows.iter().find(|row| row["source"] == source && row["endpoint"] == endpoint).cloned().unwrap_or_default()
}

#[test]
fn every_line_arrives_in_order_though_the_logger_is_down_and_osquery_is_killed_twice() {
    let proves = env::var_os("MAYFLY_PROVE").is_some();
    let (events, down) = if proves { (10_000, Duration::from_secs(60)) } else { (1_000, Duration::from_secs(2)) };
    let place = Place::new();
    let mut store = place.store();
    let mut osqueryd = place.manager(&[]);
    set(&mut osqueryd, "logger", "mode", "refuse");
    let running = place.extension();
    osqueryd.registered();
    let _asking = place.asking(&running, PUSH);
    let begun = Instant::now();
    while store.written < events {
        store.record(events / 100);
        thread::sleep(down / 100);
    }
    until("the log is refused", || source(&mut osqueryd, "push", "events")["state"] == "failed");
    assert!(begun.elapsed() >= down && taken(&place).is_empty());
    set(&mut osqueryd, "logger", "mode", "take");
    for kill in 1..=2 {
        until("a part has arrived", || numbers(&place).len() >= kill * events / 4);
        osqueryd.kill();
        osqueryd = place.manager(&[]);
        osqueryd.registered();
    }
    until("the last has arrived", || numbers(&place).contains(&events));
    let seen = numbers(&place);
    let mut distinct = seen.clone();
    distinct.dedup();
    assert_eq!(distinct, (1..=events).collect::<Vec<_>>(), "each, in order");
    assert!(seen.len() - events <= 2, "only what was on its way when osquery was killed comes twice: {}", seen.len() - events);
    eprintln!("{events} events, logger down for {down:?}, osquery killed twice: all in order, {} twice", seen.len() - events);
}

#[test]
fn an_event_reaches_a_healthy_logger_within_half_a_second() {
    let events = if env::var_os("MAYFLY_PROVE").is_some() { 1_000 } else { 200 };
    let place = Place::new();
    let mut store = place.store();
    let mut osqueryd = place.manager(&[]);
    let running = place.extension();
    osqueryd.registered();
    let _asking = place.asking(&running, PUSH);
    store.record(1);
    until("the first has arrived", || !taken(&place).is_empty());
    while store.written <= events {
        store.record(1);
        thread::sleep(Duration::from_millis(10));
    }
    until("all have arrived", || taken(&place).len() > events);
    let late = |(at, line): &(i64, Value)| at - line["columns"]["time_ns"].as_str().unwrap().parse::<i64>().unwrap();
    let mut late: Vec<_> = taken(&place).iter().skip(1).map(late).collect();
    late.sort_unstable();
    let (p50, p99) = (late[late.len() / 2] / 1_000_000, late[late.len() * 99 / 100] / 1_000_000);
    eprintln!("from the event to the logger: p50 {p50} ms, p99 {p99} ms of {events}");
    assert!(p99 <= 500, "p99 {p99} ms");
    let counters: Vec<_> = taken(&place).iter().map(|(_, line)| line["counter"].as_i64().unwrap()).collect();
    assert!(counters[0] == 1 && counters.is_sorted(), "as of a scheduled query");
    assert!(*counters.last().unwrap() < i64::try_from(events).unwrap(), "batched: {counters:?}");
    let all = (events + 1).to_string();
    until("counted", || source(&mut osqueryd, "push", "events")["events"] == all.as_str());
}

#[test]
fn an_event_that_the_logger_never_takes_does_not_block_the_rest() {
    let place = Place::new();
    let mut store = place.store();
    let image = |name: &str| ImageEvent { action: "pull", image: Some(name.into()), ..ImageEvent::default() };
    store.append(vec![image("event-1"), image("poison"), image("event-2"), image("event-3")]);
    let mut osqueryd = place.manager(&[]);
    let running = place.extension();
    osqueryd.registered();
    let _asking = place.asking(&running, PUSH);
    until("the rest has arrived", || numbers(&place) == [1, 2, 3]);
    until("it is counted", || {
        let row = source(&mut osqueryd, "push", "events");
        row["rejected"] == "1" && row["events"] == "3" && row["last_error"].as_str().unwrap().contains("the log is full")
    });
}

#[test]
fn a_logger_that_hangs_holds_up_nothing_but_the_lines() {
    let place = Place::new();
    let mut store = place.store();
    let mut osqueryd = place.manager(&[]);
    set(&mut osqueryd, "logger", "mode", "hang");
    let running = place.extension();
    osqueryd.registered();
    let _asking = place.asking(&running, PUSH);
    store.record(10);
    until("the tables answer meanwhile", || !source(&mut osqueryd, "push", "events").is_null());
    assert!(taken(&place).is_empty());
    set(&mut osqueryd, "logger", "mode", "take");
    until("all have arrived", || numbers(&place) == (1..=10).collect::<Vec<_>>());
}

#[test]
fn lines_bear_what_osquerys_flags_and_decorators_say() {
    let place = Place::new();
    let mut store = place.store();
    store.record(1);
    let mut osqueryd = place.manager(&[]);
    let config = json!({
        "decorators": {"load": ["SELECT 'web' AS role", "SELECT broken"], "interval": {"600": ["SELECT instance_id AS i FROM osquery_info"]}},
        "packs": {
            "here": {"decorators": {"always": ["SELECT 'pack' AS here"]}},
            "there": "/etc/there.conf",
            "inactive": {"decorators": {"always": ["SELECT 'no' AS inactive"]}},
        },
    });
    set(&mut osqueryd, "config", "main", &format!("{config:#}\n# the end\n"));
    set(&mut osqueryd, "config", "/etc/there.conf", r#"{"decorators": {"load": ["SELECT 'file' AS there"]}}"#);
    set(
        &mut osqueryd,
        "flags",
        "changed",
        r#"{"host_identifier": "specified", "specified_identifier": "its-name", "pack_delimiter": "/"}"#,
    );
    let running = place.extension();
    osqueryd.registered();
    let _asking = place.asking(&running, PUSH);
    until("it has arrived", || !taken(&place).is_empty());
    let (_, line) = taken(&place).remove(0);
    assert_eq!(line["decorations"], json!({"role": "web", "i": osqueryd.instance, "here": "pack", "there": "file"}));
    assert_eq!((line["hostIdentifier"].as_str(), line["action"].as_str()), (Some("its-name"), Some("added")));
    assert_eq!(line["name"].as_str(), Some("pack/mayfly_push/container_image_events"));
    assert_eq!(line["columns"]["eid"].as_str().unwrap().len(), 20);
}

#[test]
fn the_end_is_told_before_we_go() {
    let place = Place::new();
    let mut store = place.store();
    let mut osqueryd = place.manager(&[]);
    let running = place.extension();
    osqueryd.registered();
    let asking = place.asking(&running, PUSH);
    store.record(1);
    until("the first has arrived", || numbers(&place) == [1]);
    store.record(50);
    asking.stop();
    assert_eq!(numbers(&place), (1..=51).collect::<Vec<_>>());
}

#[test]
fn a_host_that_is_about_to_end_tells_even_what_it_says_first() {
    let place = Place::new();
    let mut store = place.store();
    let mut osqueryd = place.manager(&[]);
    let running = place.extension();
    osqueryd.registered();
    let asking = place.asking(&running, PUSH);
    until("it is pushing", || source(&mut osqueryd, "push", "events")["state"] == "running");
    store.record(1);
    asking.stop();
    assert_eq!(numbers(&place), [1]);
}

#[test]
fn only_one_of_two_extensions_pushes_and_the_other_ends_at_once() {
    let place = Place::new();
    let mut store = place.store();
    let mut osqueryd = place.manager(&[]);
    let running = place.extension();
    osqueryd.registered();
    let asking = place.asking(&running, PUSH);
    until("the first has the lock", || source(&mut osqueryd, "push", "events")["state"] == "running");
    let elsewhere = place.extension();
    let other = place.asking(&elsewhere, PUSH);
    store.record(5);
    until("all have arrived", || numbers(&place) == (1..=5).collect::<Vec<_>>());
    let begun = Instant::now();
    other.stop();
    assert!(begun.elapsed() < Duration::from_secs(2), "it has nothing to write: {:?}", begun.elapsed());
    asking.stop();
    assert_eq!(numbers(&place).len(), 5);
}

#[test]
fn what_retention_drops_before_it_is_pushed_is_a_gap() {
    let place = Place::new();
    let bound = TableOptions { max_rows: Some(100), ..TableOptions::default() };
    let mut store = place.store_with(&StoreOptions { tables: BTreeMap::from([(EVENTS.to_owned(), bound)]), ..StoreOptions::default() });
    let mut osqueryd = place.manager(&[]);
    let running = place.extension();
    osqueryd.registered();
    let asking = place.asking(&running, PUSH);
    store.record(3);
    until("the first have arrived", || numbers(&place).len() == 3);
    asking.stop();
    drop(running);
    store.record(20_000);
    store.expire();
    let schema = mayfly_tables::CONTAINER_IMAGE_EVENTS.schema();
    let (newest, oldest) = Reader::open(&place.state_dir()).unwrap().bounds(&schema).unwrap().unwrap();
    let running = place.extension();
    let _asking = place.asking(&running, PUSH);
    until("the rest has arrived", || numbers(&place).last() == Some(&20_003));
    assert_eq!(numbers(&place).len() as u64, 3 + newest.sequence - oldest.sequence + 1);
    let gaps = osqueryd.ask(&json!({"do": "generate", "table": "recorder_gaps"}));
    let gaps: Vec<_> = gaps["rows"].as_array().unwrap().iter().filter(|row| row["cause"] == "expired_undelivered").collect();
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert_eq!(
        (gaps[0]["endpoint"].as_str(), gaps[0]["detail"].as_str()),
        (Some(EVENTS), Some("events that osquery's logger was not given"))
    );
}

#[test]
fn the_pack_is_installed_once_at_each_registration() {
    let place = Place::new();
    let mut osqueryd = place.manager(&[]);
    let running = place.extension();
    osqueryd.registered();
    let _asking = place.asking(&running, "[osquery]\ninstall_pack = true\n[push]\ntables = [\"mount_events\"]\n");
    let updates = |osqueryd: &mut Osqueryd| -> Vec<Value> {
        let told = osqueryd.ask(&json!({"do": "kept", "domain": "config", "key": "updates"}));
        told["value"].as_str().map(|text| serde_json::from_str(text).unwrap()).unwrap_or_default()
    };
    until("installed", || updates(&mut osqueryd).len() == 1);
    let config: Value = serde_json::from_str(updates(&mut osqueryd)[0]["mayfly"].as_str().unwrap()).unwrap();
    let queries = config["packs"]["mayfly"]["queries"].as_object().unwrap();
    assert!(queries.contains_key("account_changes") && !queries.contains_key("mounts"), "what is pushed is not scheduled too");
    osqueryd.ask(&json!({"do": "forget"}));
    osqueryd.registered();
    until("installed again", || updates(&mut osqueryd).len() == 2);
    until("that is all", || source(&mut osqueryd, "push", "pack")["state"] == "running");
    assert_eq!(updates(&mut osqueryd).len(), 2);
}
