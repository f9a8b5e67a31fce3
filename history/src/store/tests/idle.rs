//! A store to which next to nothing comes.

use std::{
    fs,
    time::{Duration, Instant},
};

use super::{Store, thing};
use crate::store::maintain::IDLE_LOG;

fn size(store: &Store, suffix: &str) -> u64 {
    fs::metadata(store.dir.path().join(format!("history.db{suffix}"))).map_or(0, |file| file.len())
}

/// The housework of a minute.
fn minute(store: &mut Store) {
    store.writer.chores.retention_at = Instant::now();
    while store.writer.chores.retention_at <= Instant::now() {
        store.writer.maintain().unwrap();
    }
}

#[test]
fn a_day_in_which_nothing_comes_leaves_a_store_as_large_as_it_was() {
    let mut store = Store::new();
    for n in 0..400 {
        store.append(&[(n, thing("a", n))]);
    }
    minute(&mut store);
    assert!(size(&store, "-wal") > IDLE_LOG, "a store that is written goes on in its log");
    // The integrity check reads behind, and is not waited for.
    let deadline = Instant::now() + Duration::from_secs(10);
    while size(&store, "-wal") > 0 {
        assert!(Instant::now() < deadline, "the log of an idle store is emptied");
        minute(&mut store);
    }
    let before = size(&store, "");
    let mut longest = 0;
    for _ in 0..24 * 60 {
        minute(&mut store);
        longest = longest.max(size(&store, "-wal"));
    }
    assert_eq!(size(&store, ""), before);
    assert!(longest > 0 && longest <= IDLE_LOG + (64 << 10), "a log of {longest} bytes");
}
