//! What is kept, and for how long.

use std::collections::BTreeMap;

use super::{Store, THINGS, thing};
use crate::{
    feed::{FeedStatus, Gap},
    store::{EventScan, RowBuf, StoreOptions, TableOptions, retention},
};

const DAY: i64 = 24 * 60 * 60 * 1_000_000_000;

fn drop_all_that_is_due(store: &mut Store) {
    while retention::step(&mut store.writer).unwrap() {}
}

fn numbers(store: &Store) -> Vec<i64> {
    store.all().iter().map(|s| s.thing.number.unwrap()).collect()
}

#[test]
fn whole_blocks_and_tails_are_dropped_when_they_are_older_than_the_store_counts() {
    let mut store = Store::new();
    store.append(&[(1, thing("a", 1))]);
    store.seal();
    store.append(&[(2, thing("b", 2))]);
    drop_all_that_is_due(&mut store);
    assert_eq!(numbers(&store), [1, 2]);
    // As if those were recorded forty days ago by the store's own clock.
    store
        .writer
        .conn
        .execute_batch(&format!(
            "UPDATE thing_events_blocks SET age_ns = age_ns - {0}; UPDATE thing_events_tail SET age_ns = age_ns - {0}",
            40 * DAY
        ))
        .unwrap();
    store.append(&[(3, thing("c", 3))]);
    drop_all_that_is_due(&mut store);
    assert_eq!(numbers(&store), [3]);
}

#[test]
fn a_wall_clock_that_jumps_ahead_expires_nothing() {
    let mut store = Store::new();
    store.append(&[(1, thing("a", 1))]);
    store.seal();
    let state = "UPDATE state SET boot_id = 'earlier', wall_ns = wall_ns - ?";
    store.writer.conn.execute(state, [4000 * DAY]).unwrap();
    let mut store = store.reopen();
    drop_all_that_is_due(&mut store);
    assert_eq!(numbers(&store), [1]);
}

#[test]
fn a_table_keeps_so_many_rows_give_or_take_a_block() {
    let rows = TableOptions { max_rows: Some(10), ..TableOptions::default() };
    let options = StoreOptions { tables: BTreeMap::from([(THINGS.name.to_owned(), rows)]), ..StoreOptions::default() };
    let mut store = Store::new().reopen_with(&options);
    for n in 0..20 {
        store.append(&[(n, thing("a", n))]);
        store.seal();
    }
    assert_eq!(store.reader().dropped(&THINGS.schema()).unwrap(), None);
    let newest_of_ten = store.all()[9].eid;
    drop_all_that_is_due(&mut store);
    assert_eq!(numbers(&store), (10..20).collect::<Vec<_>>());
    assert_eq!(store.reader().dropped(&THINGS.schema()).unwrap(), Some(newest_of_ten));
}

#[test]
fn the_store_shrinks_to_its_size() {
    let mut store = Store::new();
    let mut state = 1u64;
    let mut noise = || {
        let letters = (0..400).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(b'a' + (state >> 60) as u8)
        });
        letters.collect::<String>()
    };
    for _ in 0..60 {
        let things: Vec<_> = (0..4096).map(|i| (i, thing(noise(), i))).collect();
        store.append(&things);
        store.maintain();
    }
    let before = store.reader().info().unwrap().db_size;
    assert!(before > 48 << 20, "{before}");
    let mut store = store.reopen_with(&StoreOptions { max_size_mib: 32, ..StoreOptions::default() });
    drop_all_that_is_due(&mut store);
    let after = store.reader().info().unwrap().db_size;
    assert!((16 << 20..=32 << 20).contains(&after), "{before} {after}");
    let left = store.all();
    assert!(!left.is_empty() && left.last().unwrap().eid.sequence == 60 * 4096, "the newest are kept");
}

#[test]
fn ended_intervals_are_dropped_and_open_ones_stay() {
    use crate::{
        store::{Interval, IntervalScan},
        table::{HistoryTable, text},
    };
    static STATES: HistoryTable<String> = HistoryTable {
        name: "thing_history",
        doc: "What things were.",
        columns: &[text("id", |s: &String| Some((&**s).into()), "Which thing.").index()],
        witnesses: &[],
        examples: &[],
    };
    let mut store = Store::new();
    let log = store.writer.history(&STATES.schema()).unwrap();
    let mut row = RowBuf::default();
    let mut tx = store.writer.begin().unwrap();
    for n in 0..1000i64 {
        let key = format!("{n:04}");
        row.encode(STATES.columns, &key);
        let from = 1_700_000_000_000_000_000 + n;
        let to = (n % 10 != 0).then_some(from + n * n);
        tx.put_interval(log, &Interval { key: &key, valid_from_ns: from, valid_to_ns: to, ..Interval::default() }, &row).unwrap();
    }
    tx.commit().unwrap();
    store.writer.conn.execute("UPDATE thing_history_intervals SET age_ns = age_ns - ?", [40 * DAY]).unwrap();
    // It held for long, and its age counts from its end.
    let mut tx = store.writer.begin().unwrap();
    tx.end_intervals(log, "0000", "", 1_700_000_000_000_000_005).unwrap();
    tx.commit().unwrap();
    drop_all_that_is_due(&mut store);
    let mut left = 0;
    let schema = STATES.schema();
    let visit = &mut |row: &crate::store::IntervalRow<'_>| {
        assert_eq!(row.valid_to_ns.is_some(), row.key == "0000");
        left += 1;
        std::ops::ControlFlow::Continue(())
    };
    store.reader().intervals(&schema, &IntervalScan::default(), visit).unwrap();
    assert_eq!(left, 100);
    let since = store.reader().gaps().unwrap()[0].to_ns.unwrap();
    assert!(since >= 1_700_000_000_000_000_999, "what was dropped is a gap now: {since}");
}

#[test]
fn what_is_put_is_there_for_readers_and_the_next_recorder() {
    let gap = |to_ns| Gap {
        source: "docker".into(),
        endpoint: "unix:///run/docker.sock".into(),
        cause: "daemon_down".into(),
        from_ns: 1_700_000_000_000_000_000,
        to_ns,
        recovered: 3,
        detail: "it was stopped".into(),
    };
    let mut store = Store::new();
    let sources = [FeedStatus { source: "docker".into(), state: "running".into(), events: 5, lag_ms: -1, ..FeedStatus::default() }];
    let mut tx = store.writer.begin().unwrap();
    tx.put_gap(&gap(None)).unwrap();
    tx.set_cursor("docker unix:///run/docker.sock", "17").unwrap();
    tx.put_subject("b", &[1, 2]).unwrap();
    tx.put_subject("a", &[3]).unwrap();
    tx.put_sources(&[FeedStatus::default()]).unwrap();
    tx.put_sources(&sources).unwrap();
    tx.put_note("version", "1").unwrap();
    tx.commit().unwrap();
    let mut store = store.reopen();
    assert_eq!(store.writer.open_gaps().unwrap(), [gap(None)]);
    assert_eq!(store.writer.cursor("docker unix:///run/docker.sock").unwrap().as_deref(), Some("17"));
    assert_eq!(store.writer.subjects().unwrap(), [("a".to_owned(), vec![3]), ("b".to_owned(), vec![1, 2])]);
    let mut tx = store.writer.begin().unwrap();
    tx.put_gap(&gap(Some(1_700_000_000_000_000_009))).unwrap();
    tx.remove_subject("b").unwrap();
    tx.commit().unwrap();
    assert_eq!(store.writer.open_gaps().unwrap(), []);
    assert_eq!(store.writer.subject("b").unwrap(), None);
    let reader = store.reader();
    assert_eq!(reader.gaps().unwrap()[1..], [gap(Some(1_700_000_000_000_000_009))]);
    assert_eq!(reader.sources().unwrap(), sources);
    assert!(reader.info().unwrap().notes.contains(&("version".into(), "1".into())));
    assert_eq!(reader.cursor("nobody").unwrap(), None);
}

#[test]
fn a_beating_heart_is_seen_by_the_next_recorder() {
    let mut store = Store::new();
    store.writer.heartbeat().unwrap();
    let before = crate::now();
    let dir = store.dir;
    drop(store.writer);
    let alive = super::open_again(dir.path()).last_alive.unwrap();
    assert!((before - alive).abs() < 2_000_000_000, "{before} {alive}");
}

#[test]
fn events_from_before_the_clock_was_set_are_mapped_when_they_are_read() {
    let mut store = Store::new();
    store.append(&[(5_000_000_000, thing("early", 1))]);
    store.seal();
    // As if this boot had begun with a clock that stood in 1970 and was set after the first event.
    let conn = &store.writer.conn;
    let boot = 60_000_000_000_000i64;
    conn.execute("UPDATE clocks SET boot_ns = 4000000000, offset_ns = 0", []).unwrap();
    let id: String = conn.query_row("SELECT boot_id FROM clocks", [], |r| r.get(0)).unwrap();
    conn.execute("INSERT INTO clocks VALUES (NULL, 2, ?, ?, ?)", (id, boot, 1_700_000_000_000_000_000i64)).unwrap();
    store.append(&[(1_700_000_000_000_000_000 + boot, thing("late", 2))]);
    let all = store.all();
    assert_eq!(all[0].time_ns, 1_700_000_005_000_000_000);
    assert_eq!(all[1].time_ns, 1_700_000_000_000_000_000 + boot);
    let scan = EventScan { from_ns: Some(1_700_000_004_000_000_000), to_ns: Some(1_700_000_006_000_000_000), ..EventScan::default() };
    assert_eq!(store.scan(&scan).0.len(), 1);
}
