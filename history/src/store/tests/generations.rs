//! No event id is given twice.

use std::fs;

use tempfile::TempDir;

use super::{Store, THINGS, append, seen, thing};
use crate::store::{EventScan, Reader, StoreOptions, Writer};

#[test]
fn a_clone_continues_in_a_new_generation() {
    let dir = TempDir::new().unwrap();
    let open = |machine: &str| {
        let mut writer = Writer::open_on(dir.path(), &StoreOptions::default(), machine).unwrap().writer;
        let log = writer.events(&THINGS.schema()).unwrap();
        append(&mut writer, log, &[(5, thing("a", 1))])[0]
    };
    let eids = [open("one"), open("one"), open("two"), open("two"), open(""), open("one")];
    assert!(eids.is_sorted_by(|a, b| a < b && a.to_string() < b.to_string()), "{eids:?}");
    assert_eq!(eids[0].generation, eids[1].generation);
    assert!(eids[1].generation < eids[2].generation);
    assert_eq!(eids[2].generation, eids[4].generation, "a machine without a name is no other machine");
    let reader = Reader::open(dir.path()).unwrap();
    for (i, eid) in eids.iter().enumerate() {
        let (rows, _) = seen(&reader, &THINGS.schema(), &EventScan { after: Some(*eid), ..EventScan::default() });
        assert_eq!(rows.iter().map(|s| s.eid).collect::<Vec<_>>(), eids[i + 1..]);
    }
}

#[test]
fn a_machine_that_turns_out_to_be_another_continues_in_a_new_generation_once() {
    let dir = TempDir::new().unwrap();
    let open = || Writer::open_on(dir.path(), &StoreOptions::default(), "one").unwrap().writer;
    let first = open().generation();
    let mut writer = open();
    let log = writer.events(&THINGS.schema()).unwrap();
    let before = append(&mut writer, log, &[(5, thing("a", 1))])[0];
    writer.begin_generation().unwrap();
    writer.begin_generation().unwrap();
    let after = append(&mut writer, log, &[(6, thing("b", 2))])[0];
    assert_eq!((before.generation, after.sequence), (first, before.sequence + 1));
    assert!(after.generation > first && after > before, "{before} then {after}");
    drop(writer);
    assert_eq!(open().generation(), after.generation, "and stays there");
    let reader = Reader::open(dir.path()).unwrap();
    let (rows, _) = seen(&reader, &THINGS.schema(), &EventScan::default());
    assert_eq!(rows.iter().map(|s| s.eid).collect::<Vec<_>>(), [before, after]);
}

#[test]
fn an_older_file_put_back_continues_in_a_new_generation() {
    let mut store = Store::new();
    store.append(&[(5, thing("a", 1))]);
    let backup = store.dir.path().join("backup");
    let store = store.reopen();
    store.writer.conn.execute("VACUUM INTO ?", [backup.to_str().unwrap()]).unwrap();
    let dir = store.dir;
    drop(store.writer);
    // The machine goes on elsewhere, in a newer generation; then the backup comes back.
    let newer = Writer::open_on(dir.path(), &StoreOptions::default(), "elsewhere").unwrap().writer.generation();
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(dir.path().join(format!("history.db{suffix}")));
    }
    fs::rename(backup, dir.path().join("history.db")).unwrap();
    assert!(Writer::open(dir.path(), &StoreOptions::default()).unwrap().writer.generation() > newer);
}

#[test]
fn a_sequence_number_is_not_given_again_after_all_was_expired() {
    let mut store = Store::new();
    let before = store.append(&[(5, thing("a", 1)), (6, thing("b", 2))])[1];
    store.writer.conn.execute("DELETE FROM thing_events_tail", []).unwrap();
    let mut store = store.reopen();
    assert!(store.append(&[(7, thing("c", 3))])[0] > before);
}
