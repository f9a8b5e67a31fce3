use std::time::Instant;

use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::*;
use crate::{
    Cell, Column, Redaction, bigint,
    recorder::{
        batch::Batch,
        ledger::{Ledger, Moment},
        logs::TableList,
        seen::SeenAccounts,
        tests::recorded::declarations,
    },
    store::{IntervalScan, Reader, StoreOptions, Writer},
    text,
};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct User {
    uid: i64,
    name: String,
    host: String,
}

impl Fact for User {
    fn key(&self) -> std::borrow::Cow<'_, str> {
        self.uid.to_string().into()
    }

    fn scope(&self) -> std::borrow::Cow<'_, str> {
        self.host.as_str().into()
    }

    fn group(&self) -> std::borrow::Cow<'_, str> {
        self.host.as_str().into()
    }
}

const COLUMNS: &[Column<User>] = &[bigint("uid", |u: &User| Some(u.uid), "").index(), text("name", |u| Some(u.name.as_str().into()), "")];

static USERS: HistoryTable<User> = HistoryTable { name: "users_history", doc: "", columns: COLUMNS, witnesses: &[], examples: &[] };

fn user(uid: i64, name: &str) -> User {
    User { uid, name: name.into(), host: String::new() }
}

/// A timeline, a store, and a recorder that may be another after each batch.
struct Bench {
    dir: TempDir,
    batch: Batch,
    timeline: Timeline<User>,
}

impl Bench {
    fn new() -> Self {
        Self { dir: TempDir::new().unwrap(), batch: Batch::default(), timeline: Timeline::new(Self::tables().1, &USERS) }
    }

    fn tables() -> (TableList, TableId) {
        let declarations = declarations();
        let mut tables = TableList::new(declarations.container_events.schema(), declarations.container_history.schema());
        let id = tables.add(USERS.schema());
        (tables, id)
    }

    fn take(&mut self, change: Change<User>) -> Result<(), Full> {
        let moment = Moment { at: Instant::now(), wall_ns: 1000 };
        let seen = &SeenAccounts::default();
        self.timeline.take(change, &mut Desk { batch: &mut self.batch, redaction: &Redaction::default(), seen, moment })
    }

    fn holds(&mut self, fact: User, at_ns: Nanos, evidence: &'static str) {
        self.take(Change::Holds { fact, at_ns, evidence }).unwrap();
    }

    fn ends(&mut self, uid: i64, at_ns: Nanos) {
        self.take(Change::Ended { key: uid.to_string(), scope: String::new(), at_ns, reason: "removed", evidence: "accounts" }).unwrap();
    }

    fn present(&mut self, facts: Vec<User>, taken_ns: Nanos, blind_since: Option<Nanos>, evidence: &'static str) {
        self.take(Change::Present { group: String::new(), facts, taken_ns, blind_since, evidence }).unwrap();
    }

    /// Writes what waits; then another recorder goes on with what was kept.
    fn restart(&mut self) {
        let mut writer = Writer::open(self.dir.path(), &StoreOptions::default()).unwrap().writer;
        let (tables, id) = Self::tables();
        let logs = tables.open(&mut writer).unwrap();
        self.batch.commit(&mut writer, &logs, declarations().container_history, &mut Ledger::default()).unwrap();
        self.timeline = Timeline::new(id, &USERS);
        for (name, value) in writer.subjects().unwrap() {
            assert_eq!(super::super::lane::lane_of(&name), Some("users_history"));
            self.timeline.restore(&value).unwrap();
        }
    }

    /// uid, name, from, to, reason and evidence of each interval.
    fn stored(&mut self) -> Vec<(i64, String, Nanos, Option<Nanos>, String, String)> {
        self.restart();
        let mut stored = Vec::new();
        let reader = Reader::open(self.dir.path()).unwrap();
        reader
            .intervals(&USERS.schema(), &IntervalScan::default(), &mut |row| {
                let [Cell::Int(uid), Cell::Text(name)] = row.cells else { panic!("{:?}", row.cells) };
                stored.push((
                    *uid,
                    (*name).to_owned(),
                    row.valid_from_ns,
                    row.valid_to_ns,
                    row.ended_reason.to_owned(),
                    row.evidence.to_owned(),
                ));
                std::ops::ControlFlow::Continue(())
            })
            .unwrap();
        stored
    }
}

fn row(
    uid: i64,
    name: &str,
    from: Nanos,
    to: impl Into<Option<Nanos>>,
    reason: &str,
    evidence: &str,
) -> (i64, String, Nanos, Option<Nanos>, String, String) {
    (uid, name.into(), from, to.into(), reason.into(), evidence.into())
}

#[test]
fn a_uid_that_went_to_another_name_has_two_intervals_that_touch() {
    let mut bench = Bench::new();
    bench.holds(user(7, "ann"), 10, "accounts");
    bench.holds(user(7, "ann"), 11, "nss");
    bench.holds(user(7, "bob"), 20, "accounts");
    bench.ends(7, 30);
    assert_eq!(bench.stored(), [row(7, "ann", 10, 20, "changed", "accounts,nss"), row(7, "bob", 20, 30, "removed", "accounts")]);
}

#[test]
fn one_key_holds_in_each_scope_by_itself() {
    let mut bench = Bench::new();
    bench.holds(user(0, "root"), 10, "accounts");
    bench.holds(User { host: "c1".into(), ..user(0, "admin") }, 10, "accounts");
    bench.ends(0, 20);
    assert_eq!(bench.stored(), [row(0, "root", 10, 20, "removed", "accounts"), row(0, "admin", 10, None, "", "accounts")]);
    assert!(bench.timeline.now("0", "c1").is_some());
}

#[test]
fn what_differs_after_a_blind_time_ends_as_unknown_when_it_was_noticed() {
    let mut bench = Bench::new();
    bench.present(vec![user(1, "ann"), user(2, "bob"), user(3, "eve")], 10, None, "startup");
    bench.restart();
    bench.present(vec![user(1, "ann"), user(2, "bill"), user(4, "dan")], 50, Some(30), "accounts");
    assert_eq!(
        bench.stored(),
        [
            row(1, "ann", 10, None, "", "accounts,startup"),
            row(2, "bob", 10, 50, "unknown", "startup"),
            row(2, "bill", 50, None, "", "accounts"),
            row(3, "eve", 10, 50, "unknown", "startup"),
            row(4, "dan", 50, None, "", "accounts"),
        ]
    );
}

#[test]
fn a_list_speaks_for_its_group_alone() {
    let mut bench = Bench::new();
    bench.holds(User { host: "c1".into(), ..user(0, "admin") }, 10, "accounts");
    bench.present(vec![], 20, None, "accounts");
    assert!(bench.timeline.now("0", "c1").is_some());
}

#[test]
fn a_fact_that_ended_is_not_taken_up_again() {
    let mut bench = Bench::new();
    bench.holds(user(7, "ann"), 10, "accounts");
    bench.restart();
    assert!(bench.timeline.now("7", "").is_some());
    bench.ends(7, 20);
    bench.restart();
    assert!(bench.timeline.now("7", "").is_none());
}

#[test]
fn a_new_store_gets_what_holds() {
    let mut bench = Bench::new();
    bench.holds(user(7, "ann"), 10, "accounts");
    bench.restart();
    bench.dir = TempDir::new().unwrap();
    let moment = Moment { at: Instant::now(), wall_ns: 1000 };
    let seen = &SeenAccounts::default();
    bench.timeline.write_anew(&mut Desk { batch: &mut bench.batch, redaction: &Redaction::default(), seen, moment });
    assert_eq!(bench.stored(), [row(7, "ann", 10, None, "", "accounts")]);
}

#[test]
fn an_end_before_the_start_is_the_start() {
    let mut bench = Bench::new();
    bench.holds(user(7, "ann"), 10, "accounts");
    bench.ends(7, 5);
    assert_eq!(bench.stored(), [row(7, "ann", 10, 10, "removed", "accounts")]);
}
