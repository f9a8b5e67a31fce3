//! Damaged, foreign and newer files.

use std::{fs, os::unix::fs::PermissionsExt};

use rusqlite::Connection;
use tempfile::TempDir;

use super::{Store, THINGS, append, open_again, seen, thing};
use crate::store::{EventScan, Reader, StoreError, StoreOptions, Writer};

#[test]
fn garbage_is_set_aside_and_recording_goes_on_in_a_newer_generation() {
    let mut store = Store::new();
    let before = store.append(&[(1_700_000_000_000_000_000, thing("a", 1))])[0];
    let dir = store.dir;
    drop(store.writer);
    fs::write(dir.path().join("history.db"), b"no database at all, but long enough to be looked at by SQLite ".repeat(200)).unwrap();

    let mut opened = open_again(dir.path());
    let aside = opened.set_aside.expect("the damaged file is kept");
    assert!(aside.file_name().unwrap().to_str().unwrap().starts_with("history.db.corrupt-2"), "{aside:?}");
    assert!(fs::read(&aside).unwrap().starts_with(b"no database"));
    let log = opened.writer.events(&THINGS.schema()).unwrap();
    let after = append(&mut opened.writer, log, &[(1_700_000_000_000_000_001, thing("b", 2))])[0];
    assert!(after > before && after.to_string() > before.to_string(), "{before} {after}");
    let (rows, _) = seen(&Reader::open(dir.path()).unwrap(), &THINGS.schema(), &EventScan { after: Some(before), ..EventScan::default() });
    assert_eq!(rows.len(), 1, "a cursor from before finds what is newer");
}

#[test]
fn a_truncated_file_is_set_aside() {
    let mut store = Store::new();
    store.append(&(0..2000).map(|n| (n, thing(format!("id {n}"), n))).collect::<Vec<_>>());
    let dir = store.dir;
    drop(store.writer);
    let path = dir.path().join("history.db");
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(fs::metadata(&path).unwrap().len() / 2).unwrap();
    assert!(open_again(dir.path()).set_aside.is_some());
}

#[test]
fn damage_inside_is_found_behind_and_can_be_set_aside() {
    let mut store = Store::new();
    store.append(&(0..3000).map(|n| (n, thing(format!("id {n}"), n))).collect::<Vec<_>>());
    let dir = store.dir;
    drop(store.writer);
    let path = dir.path().join("history.db");
    let mut bytes = fs::read(&path).unwrap();
    let half = bytes.len() / 2 / 4096 * 4096;
    bytes[half..half + 3 * 4096].fill(0xa5);
    fs::write(&path, bytes).unwrap();

    let mut writer = open_again(dir.path()).writer;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let error = loop {
        match writer.maintain() {
            Err(error) => break error,
            Ok(_) => assert!(std::time::Instant::now() < deadline, "the damage is never found"),
        }
        std::thread::yield_now();
    };
    assert!(error.is_corrupt(), "{error}");
    let reader = Reader::open(dir.path()).unwrap();
    let opened = writer.set_aside().unwrap();
    assert!(opened.set_aside.unwrap().exists());
    assert_eq!(reader.bounds(&THINGS.schema()).unwrap(), None, "a reader follows to the new file");
}

#[test]
fn the_result_of_a_sound_check_is_a_note() {
    let mut store = Store::new();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !store.reader().info().unwrap().notes.contains(&("integrity".into(), "ok".into())) {
        store.writer.maintain().unwrap();
        assert!(std::time::Instant::now() < deadline);
    }
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let store = Store::new();
    let dir = store.dir;
    drop(store.writer);
    Connection::open(dir.path().join("history.db")).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let refusal = Writer::open(dir.path(), &StoreOptions::default()).unwrap_err();
    assert!(matches!(refusal, StoreError::Newer { found: 99, known: 1, .. }), "{refusal}");
    assert!(refusal.to_string().contains("history.db has format 99"), "{refusal}");
    assert!(matches!(Reader::open(dir.path()).unwrap_err(), StoreError::Newer { .. }));
}

#[test]
fn a_damaged_block_is_stepped_over_and_counted() {
    let mut store = Store::new();
    for n in 0..3 {
        store.append(&[(n, thing("a", n))]);
        store.seal();
    }
    store.writer.conn.execute("UPDATE thing_events_blocks SET data = randomblob(60) WHERE last_sequence = 2", []).unwrap();
    let (rows, scanned) = store.scan(&EventScan::default());
    assert_eq!(rows.iter().map(|s| s.thing.number.unwrap()).collect::<Vec<_>>(), [0, 2]);
    assert_eq!(scanned.damaged, 1);
}

fn gaps(store: &Store) -> Vec<(String, i64, Option<i64>, String)> {
    let gaps = store.reader().gaps().unwrap().into_iter().filter(|gap| gap.cause == "damaged_block");
    gaps.map(|gap| (gap.endpoint, gap.from_ns, gap.to_ns, gap.detail)).collect()
}

fn lost(from_ns: i64, to_ns: i64, events: usize) -> (String, i64, Option<i64>, String) {
    let detail = format!("{events} events cannot be read: what was stored of them is damaged");
    ("thing_events".into(), from_ns, Some(to_ns), detail)
}

#[test]
fn what_a_reader_finds_damaged_becomes_a_gap_of_its_time() {
    let mut store = Store::new();
    for n in 0..3 {
        store.append(&[(10 * n, thing("a", n)), (10 * n + 5, thing("b", n))]);
        if n < 2 {
            store.seal();
        }
    }
    let damage = |table: &str, last: i64| {
        let sql = format!("UPDATE thing_events_{table} SET data = randomblob(60) WHERE last_sequence = {last}");
        assert_eq!(store.writer.conn.execute(&sql, []).unwrap(), 1);
    };
    damage("blocks", 4);
    damage("tail", 6);
    assert_eq!((store.scan(&EventScan::default()).1.damaged, gaps(&store)), (2, vec![]));
    let reader = store.reader();
    for _ in 0..2 {
        assert_eq!(seen(&reader, &THINGS.schema(), &EventScan::default()).1.damaged, 2);
    }
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while gaps(&store).is_empty() {
        store.writer.maintain().unwrap();
        assert!(std::time::Instant::now() < deadline, "the recorder never hears of it");
    }
    assert_eq!(gaps(&store), [lost(10, 16, 2), lost(20, 26, 2)], "once each");
}

#[test]
fn what_is_damaged_before_it_is_sealed_becomes_a_gap() {
    let mut store = Store::new();
    store.append(&[(1, thing("a", 1))]);
    store.append(&[(2, thing("b", 2)), (3, thing("c", 3))]);
    store.writer.conn.execute("UPDATE thing_events_tail SET data = randomblob(60) WHERE last_sequence = 3", []).unwrap();
    store.seal();
    assert_eq!(store.all().len(), 1);
    assert_eq!(gaps(&store), [lost(2, 4, 2)]);
}

#[test]
fn a_directory_without_a_store_is_an_empty_one_until_there_is_one() {
    let dir = TempDir::new().unwrap();
    let inner = dir.path().join("state");
    let reader = Reader::open(&inner).unwrap();
    assert_eq!(reader.bounds(&THINGS.schema()).unwrap(), None);
    assert!(reader.gaps().unwrap().is_empty() && reader.info().unwrap().store_uuid.is_empty());
    let mut writer = open_again(&inner).writer;
    assert_eq!(fs::metadata(&inner).unwrap().permissions().mode() & 0o777, 0o700);
    let log = writer.events(&THINGS.schema()).unwrap();
    append(&mut writer, log, &[(5, thing("a", 1))]);
    for entry in fs::read_dir(&inner).unwrap().map(Result::unwrap) {
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.file_name());
    }
    assert!(reader.bounds(&THINGS.schema()).unwrap().is_some());
    assert_eq!(reader.info().unwrap().store_uuid.len(), 36);
    assert_eq!(reader.gaps().unwrap()[0].cause, "before_first_record");
}
