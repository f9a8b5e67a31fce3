//! Intervals against a plain list.

use std::ops::ControlFlow;

use proptest::{collection::vec, prelude::*};
use tempfile::TempDir;

use super::open_again;
use crate::{
    cell::Cell,
    store::{Interval, IntervalLog, IntervalScan, Limit, Reader, RowBuf, Scanned, Writer},
    table::{HistoryTable, text},
};

static STATES: HistoryTable<(String, String)> = HistoryTable {
    name: "thing_history",
    doc: "What things were.",
    columns: &[
        text("id", |s: &(String, String)| Some((&*s.0).into()), "Which thing.").index(),
        text("state", |s| Some((&*s.1).into()), "What it was."),
    ],
    witnesses: &[],
    examples: &[],
};

/// Times after 2020: earlier ones are taken for those of a clock that was not set.
const EPOCH: i64 = 1_700_000_000_000_000_000;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    key: String,
    from: i64,
    scope: String,
    to: Option<i64>,
    state: String,
}

fn held() -> impl Strategy<Value = Held> {
    ("[a-c]", 0..60i64, "[xy]", proptest::option::of(0..100i64), "[p-s]{1,3}").prop_map(|(key, from, scope, length, state)| Held {
        key,
        from: EPOCH + from,
        scope,
        to: length.map(|l| EPOCH + from + l),
        state,
    })
}

fn put(writer: &mut Writer, log: IntervalLog, all: &[Held]) {
    let mut row = RowBuf::default();
    let mut tx = writer.begin().unwrap();
    for h in all {
        row.encode(STATES.columns, &(h.key.clone(), h.state.clone()));
        let interval = Interval {
            key: &h.key,
            scope: &h.scope,
            valid_from_ns: h.from,
            valid_to_ns: h.to,
            ended_reason: if h.to.is_some() { "ended" } else { "" },
            evidence: "docker",
        };
        tx.put_interval(log, &interval, &row).unwrap();
    }
    tx.commit().unwrap();
}

/// Key, start, end and state.
type Found = (String, i64, Option<i64>, String);

fn scan(reader: &Reader, scan: &IntervalScan) -> (Vec<Found>, Scanned) {
    let mut rows = Vec::new();
    let visit = &mut |row: &crate::store::IntervalRow<'_>| {
        let text = |i: usize| if let Cell::Text(text) = row.cells[i] { text.to_owned() } else { String::new() };
        assert_eq!((row.ended_reason.is_empty(), row.evidence), (row.valid_to_ns.is_none(), "docker"));
        rows.push((text(0), row.valid_from_ns, row.valid_to_ns, text(1)));
        ControlFlow::Continue(())
    };
    let scanned = reader.intervals(&STATES.schema(), scan, visit).unwrap();
    (rows, scanned)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_scan_finds_what_a_plain_list_has(
        puts in vec(held(), 1..60),
        removed in vec(any::<prop::sample::Index>(), 0..4),
        keys in vec("[a-d]", 0..3),
        bounds in (proptest::option::of(0..160i64), proptest::option::of(0..60i64), proptest::option::of(0..60i64), proptest::option::of(0..160i64)),
        limit in prop_oneof![Just(Limit::All), (0..9usize).prop_map(Limit::Oldest), (0..9usize).prop_map(Limit::Newest)],
    ) {
        let dir = TempDir::new().unwrap();
        let mut writer = open_again(dir.path()).writer;
        let log = writer.history(&STATES.schema()).unwrap();
        put(&mut writer, log, &puts);
        let mut list: Vec<Held> = Vec::new();
        for h in puts {
            list.retain(|l| (&l.key, l.from, &l.scope) != (&h.key, h.from, &h.scope));
            list.push(h);
        }
        for index in removed.iter().filter(|_| list.len() > 1).map(|i| i.index(usize::MAX)).collect::<Vec<_>>() {
            let gone = list.remove(index % list.len());
            let mut tx = writer.begin().unwrap();
            tx.remove_interval(log, &gone.key, &gone.scope, gone.from).unwrap();
            tx.commit().unwrap();
            if list.len() == 1 { break }
        }
        list.sort();

        let at = |t: Option<i64>| t.map(|t| EPOCH + t);
        let question = IntervalScan {
            keys: keys.clone(), as_of: at(bounds.0), from_min: at(bounds.1), from_max: at(bounds.2), to_after: at(bounds.3),
            wanted: Vec::new(), limit,
        };
        let ends_after = |h: &Held, t: i64| h.to.is_none_or(|to| to > t);
        let mut expected: Vec<_> = list.iter()
            .filter(|h| keys.is_empty() || keys.contains(&h.key))
            .filter(|h| question.as_of.is_none_or(|t| h.from <= t && ends_after(h, t)))
            .filter(|h| question.from_min.is_none_or(|t| h.from >= t) && question.from_max.is_none_or(|t| h.from <= t))
            .filter(|h| question.to_after.is_none_or(|t| ends_after(h, t)))
            .collect();
        let all = expected.len();
        match limit {
            Limit::All => {}
            Limit::Oldest(n) => expected.truncate(n),
            Limit::Newest(n) => {
                expected.sort_by_key(|h| (h.from, &h.key, &h.scope));
                expected.drain(..all.saturating_sub(n));
                expected.sort();
            }
        }
        let cut = expected.len() < all;
        let expected: Vec<_> = expected.iter().map(|h| (h.key.clone(), h.from, h.to, h.state.clone())).collect();
        let (rows, scanned) = scan(&Reader::open(dir.path()).unwrap(), &question);
        prop_assert_eq!((rows, scanned.cut), (expected, cut), "{:?}", question);
    }
}

#[test]
fn an_end_before_the_start_is_the_start() {
    let dir = TempDir::new().unwrap();
    let mut writer = open_again(dir.path()).writer;
    let log = writer.history(&STATES.schema()).unwrap();
    put(&mut writer, log, &[Held { key: "a".into(), from: EPOCH, scope: String::new(), to: Some(EPOCH - 9), state: "p".into() }]);
    let (rows, _) = scan(&Reader::open(dir.path()).unwrap(), &IntervalScan::default());
    assert_eq!(rows, [("a".to_owned(), EPOCH, Some(EPOCH), "p".to_owned())]);
}

#[test]
fn rows_are_read_back_before_and_after_there_is_a_dictionary() {
    let dir = TempDir::new().unwrap();
    let mut writer = open_again(dir.path()).writer;
    let log = writer.history(&STATES.schema()).unwrap();
    let held = |n: i64| Held {
        key: format!("{n:05}"),
        from: EPOCH + n,
        scope: String::new(),
        to: None,
        state: format!("the {}th state of a thing, which is labelled org.opencontainers.image.title={n}, as it was observed", n * n),
    };
    let mut all: Vec<Held> = (0..1500).map(held).collect();
    put(&mut writer, log, &all);
    let plain = writer.histories[log.0].log.layout;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while writer.histories[log.0].log.layout == plain {
        writer.maintain().unwrap();
        assert!(std::time::Instant::now() < deadline, "no dictionary is made");
    }
    let more: Vec<Held> = (1500..2000).map(held).collect();
    put(&mut writer, log, &more);
    drop(writer);
    let mut writer = open_again(dir.path()).writer;
    let log = writer.history(&STATES.schema()).unwrap();
    assert_ne!(writer.histories[log.0].log.layout, plain, "it is used again");
    let last: Vec<Held> = (2000..2100).map(held).collect();
    put(&mut writer, log, &last);
    all.extend(more.into_iter().chain(last));
    let length = |condition: &str| {
        let sql = format!("SELECT avg(length(row)) FROM thing_history_intervals WHERE {condition}");
        writer.conn.query_row(&sql, [], |r| r.get::<_, f64>(0)).unwrap()
    };
    assert!(length("key >= '01500'") < length("key < '01500'") / 2.0);
    let (rows, _) = scan(&Reader::open(dir.path()).unwrap(), &IntervalScan::default());
    assert_eq!(rows, all.into_iter().map(|h| (h.key, h.from, h.to, h.state)).collect::<Vec<_>>());
}

#[test]
fn intervals_from_before_the_clock_was_set_are_mapped_once_it_is() {
    use crate::store::clock::{Clock, Reading};
    const SECOND: i64 = 1_000_000_000;
    let dir = TempDir::new().unwrap();
    let mut writer = open_again(dir.path()).writer;
    let log = writer.history(&STATES.schema()).unwrap();
    // A boot whose clock stands in 1970 until the next transaction looks at it.
    let unset = Reading { wall_ns: 100 * SECOND, ..Reading::take() };
    let held = |key: &str, from, to| Held { key: key.into(), from, scope: String::new(), to, state: "p".into() };
    writer.conn.execute("DELETE FROM clocks", []).unwrap();
    writer.clock = Clock::resume(writer.clock.age(unset.boot_ns), &unset, &unset);
    writer.keep_step(unset.boot_ns).unwrap();
    let mut row = RowBuf::default();
    row.encode(STATES.columns, &("early".to_owned(), "p".to_owned()));
    let age = writer.clock.age(unset.boot_ns);
    let insert = writer.histories[log.0].log.insert.clone();
    let packed = writer.histories[log.0].packer.pack(row.after_key()).unwrap();
    let layout = writer.histories[log.0].log.layout;
    let values = rusqlite::params!["early", 90 * SECOND, "", None::<i64>, crate::store::intervals::OPEN, age, "", "docker", layout, packed];
    writer.conn.execute(&insert, values).unwrap();

    // The clock is set; the recorder still has the old start in mind when it ends the interval.
    let shift = crate::now() - 100 * SECOND;
    put(&mut writer, log, &[held("early", 90 * SECOND, Some(100 * SECOND)), held("late", crate::now(), None)]);
    let (rows, _) = scan(&Reader::open(dir.path()).unwrap(), &IntervalScan::default());
    assert_eq!(rows.len(), 2, "one interval, not one for each clock: {rows:?}");
    assert!((rows[0].1 - (90 * SECOND + shift)).abs() < 2 * SECOND && rows[0].2.unwrap() - rows[0].1 == 10 * SECOND, "{rows:?}");
}
