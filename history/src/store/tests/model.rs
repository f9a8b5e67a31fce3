//! The store against a plain list: whatever is done, a scan finds what the list says.

use proptest::{collection::vec, prelude::*};

use super::{Seen, Store, THINGS, Thing};
use crate::{
    eid::Eid,
    store::{EventScan, Limit},
};

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<(i64, Thing)>),
    Undo(Vec<(i64, Thing)>),
    Seal,
    Reopen,
}

fn things() -> impl Strategy<Value = Vec<(i64, Thing)>> {
    let thing = ("[a-d]{1,2}", proptest::option::of(0..4i64), proptest::option::of(".{0,6}")).prop_map(|(id, number, note)| Thing {
        id,
        number,
        note,
    });
    // Times after 2020: earlier ones are taken for those of a clock that was not set.
    vec((1_700_000_000_000_000_000..1_700_000_000_000_000_050i64, thing), 1..20)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => things().prop_map(Step::Append),
        1 => things().prop_map(Step::Undo),
        2 => Just(Step::Seal),
        1 => Just(Step::Reopen),
    ];
    vec(step, 1..12)
}

/// A scan; bounds on eids are drawn as positions in the list.
#[derive(Clone, Debug)]
struct Question {
    after: Option<prop::sample::Index>,
    upto: Option<prop::sample::Index>,
    from: Option<i64>,
    to: Option<i64>,
    ids: Option<Vec<String>>,
    number: Option<i64>,
    limit: Limit,
}

fn question() -> impl Strategy<Value = Question> {
    let limit = prop_oneof![Just(Limit::All), (0..30usize).prop_map(Limit::Oldest), (0..30usize).prop_map(Limit::Newest)];
    let time = || proptest::option::of(1_700_000_000_000_000_000..1_700_000_000_000_000_050i64);
    let index = || proptest::option::of(any::<prop::sample::Index>());
    (index(), index(), time(), time(), proptest::option::of(vec("[a-d]{1,2}", 1..4)), proptest::option::of(0..4i64), limit)
        .prop_map(|(after, upto, from, to, ids, number, limit)| Question { after, upto, from, to, ids, number, limit })
}

impl Question {
    fn eid(list: &[Seen], index: Option<prop::sample::Index>) -> Option<Eid> {
        index.filter(|_| !list.is_empty()).map(|i| list[i.index(list.len())].eid)
    }

    fn scan(&self, list: &[Seen]) -> EventScan {
        let ids = self.ids.iter().map(|ids| (0, ids.clone()));
        let number = self.number.iter().map(|n| (1, vec![n.to_string()]));
        EventScan {
            after: Self::eid(list, self.after),
            upto: Self::eid(list, self.upto),
            from_ns: self.from,
            to_ns: self.to,
            keys: ids.chain(number).collect(),
            wanted: Vec::new(),
            limit: self.limit,
        }
    }

    fn answer(&self, list: &[Seen]) -> (Vec<Seen>, bool) {
        let (after, upto) = (Self::eid(list, self.after), Self::eid(list, self.upto));
        let mut rows: Vec<Seen> = list
            .iter()
            .filter(|s| after.is_none_or(|e| s.eid > e) && upto.is_none_or(|e| s.eid <= e))
            .filter(|s| self.from.is_none_or(|t| s.time_ns >= t) && self.to.is_none_or(|t| s.time_ns <= t))
            .filter(|s| self.ids.as_ref().is_none_or(|ids| ids.contains(&s.thing.id)))
            .filter(|s| self.number.is_none_or(|n| s.thing.number == Some(n)))
            .cloned()
            .collect();
        let all = rows.len();
        match self.limit {
            Limit::All => {}
            Limit::Oldest(n) => rows.truncate(n),
            Limit::Newest(n) => drop(rows.drain(..all.saturating_sub(n))),
        }
        let cut = rows.len() < all;
        (rows, cut)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn a_scan_finds_what_a_plain_list_has(steps in steps(), questions in vec(question(), 8)) {
        let mut store = Store::new();
        let mut list = Vec::new();
        for step in steps {
            match step {
                Step::Append(things) => {
                    let eids = store.append(&things);
                    list.extend(things.into_iter().zip(eids).map(|((time_ns, thing), eid)| Seen { eid, time_ns, thing }));
                }
                Step::Undo(things) => {
                    let mut row = crate::store::RowBuf::default();
                    let log = store.log;
                    let mut tx = store.writer.begin().unwrap();
                    for (time_ns, thing) in things {
                        row.encode(THINGS.columns, &thing);
                        tx.append(log, time_ns, &row).unwrap();
                    }
                    drop(tx);
                }
                Step::Seal => store.seal(),
                Step::Reopen => store = store.reopen(),
            }
        }
        prop_assert_eq!(&store.all(), &list);
        prop_assert!(list.is_sorted_by(|a, b| a.eid < b.eid), "event ids grow");
        let (reader, schema) = (store.reader(), THINGS.schema());
        prop_assert_eq!(reader.bounds(&schema).unwrap(), list.last().map(|l| (l.eid, list[0].eid)));
        for question in questions {
            let (rows, scanned) = store.scan(&question.scan(&list));
            prop_assert_eq!((rows, scanned.cut), question.answer(&list), "{:?}", question);
            let after = Question::eid(&list, question.after);
            let later: Vec<_> = list.iter().map(|s| s.eid).filter(|e| after.is_none_or(|a| *e > a)).collect();
            for count in [1, 5, 1000] {
                let nth = later.get(count.min(later.len()).wrapping_sub(1)).copied();
                prop_assert_eq!(reader.nth_after(&schema, after, count).unwrap(), nth);
            }
        }
    }
}

#[test]
fn sealing_by_itself_keeps_every_row() {
    let mut store = Store::new();
    for batch in 0..20 {
        let things: Vec<_> = (0..512).map(|i| (1_700_000_000_000_000_000 + i, super::thing(format!("{batch}-{i}"), i))).collect();
        store.append(&things);
        store.maintain();
    }
    assert!(store.writer.logs[0].rows < 4096, "full blocks were sealed");
    let all = store.all();
    assert_eq!(all.len(), 20 * 512);
    assert!(all.is_sorted_by(|a, b| a.eid < b.eid));
    let scan = EventScan { keys: vec![(0, vec!["3-7".into()])], wanted: vec![true, false, false], ..EventScan::default() };
    let (found, _) = store.scan(&scan);
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].thing.id.as_str(), found[0].thing.number), ("3-7", None), "only what is wanted is decoded");
}

#[test]
fn a_visitor_may_ask_the_same_reader() {
    let mut store = Store::new();
    store.append(&[(1, super::thing("a", 1)), (2, super::thing("b", 2))]);
    store.seal();
    store.append(&[(3, super::thing("c", 3))]);
    let (reader, schema) = (store.reader(), THINGS.schema());
    let mut rows = 0;
    reader
        .events(&schema, &EventScan::default(), &mut |_| {
            rows += super::seen(&reader, &schema, &EventScan::default()).0.len();
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(rows, 9);
}
