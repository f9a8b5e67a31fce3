//! What ended while the store failed, and whose end found no room in memory: no lane leaves it open.

use std::{borrow::Cow, ops::ControlFlow, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::*;
use crate::{
    fact::{Change, Fact},
    lease::{Lease, LeaseAction, LeaseEvent, LeaseReport, LeaseScope, LeaseSource},
    port::PortBinding,
    store::{IntervalScan, Reader},
    table::text,
};

/// More facts than are kept while the store fails.
const FLOOD: usize = 16_500;
const SECOND: Nanos = 1_000_000_000;

/// Who has a desk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Seat {
    desk: String,
    who: String,
    room: String,
}

impl Fact for Seat {
    fn key(&self) -> Cow<'_, str> {
        self.desk.as_str().into()
    }

    fn group(&self) -> Cow<'_, str> {
        self.room.as_str().into()
    }
}

static PORTS: HistoryTable<PortBinding> = HistoryTable {
    name: "container_port_history",
    doc: "",
    columns: &[text("host_address", |p: &PortBinding| Some(p.host_address.as_str().into()), "").index()],
    witnesses: &[],
    examples: &[],
};

static LEASES: EventTable<LeaseEvent> = EventTable {
    name: "ip_lease_events",
    doc: "",
    columns: &[text("mac_address", |e: &LeaseEvent| e.lease.mac_address.as_deref().map(Into::into), "")],
    examples: &[],
};

static ADDRESSES: HistoryTable<Lease> = HistoryTable {
    name: "ip_lease_history",
    doc: "",
    columns: &[text("ip_address", |l: &Lease| l.ip_address.map(|ip| ip.to_string().into()), "").index()],
    witnesses: &[],
    examples: &[],
};

/// The last, so that the ends of all others are evicted before what fills it.
static SEATS: HistoryTable<Seat> = HistoryTable {
    name: "seat_history",
    doc: "",
    columns: &[text("desk", |s: &Seat| Some(s.desk.as_str().into()), "").index(), text("who", |s| Some(s.who.as_str().into()), "")],
    witnesses: &[],
    examples: &[],
};

fn every_lane(dir: &Path) -> Worker {
    let mut declarations = declarations();
    declarations.add_ports(&PORTS);
    declarations.add_leases(&LEASES, &ADDRESSES);
    declarations.add_history(&SEATS);
    worker_of(dir, declarations)
}

fn seat(desk: impl Into<String>, who: &str, room: &str) -> Seat {
    Seat { desk: desk.into(), who: who.into(), room: room.into() }
}

fn sits(worker: &Worker, feed: &Feed, change: Change<Seat>) {
    worker.sinks.of::<Change<Seat>>().push(feed, change);
}

fn lease(worker: &Worker, feed: &Feed, action: LeaseAction, time_ns: Nanos) {
    let lease =
        Lease { ip_address: Some([10, 0, 0, 7].into()), mac_address: Some("02:07".into()), scope: LeaseScope::Client, ..Lease::default() };
    let event = LeaseEvent { time_ns, action, source: LeaseSource::Netlink, channel: "eth0".into(), lease, until_ns: None, segment: None };
    worker.sinks.of::<LeaseReport>().push(feed, LeaseReport::Event(Box::new(event)));
}

/// A container that publishes a port.
fn publishes(worker: &mut Worker, feed: &Feed, id: &str, actions: &[Action]) {
    for action in actions {
        let mut event = event(&docker(id), Witness::Docker, *action, now());
        event.details.ports = Some(r#"[{"host_address":"0.0.0.0","host_port":80,"protocol":"tcp","container_port":80}]"#.into());
        worker.ledger.take(Received { item: Report::Event(Box::new(event)), feed: feed.clone(), cursor: None }, moment());
    }
    worker.ledger.settle(moment());
}

/// What the thread does when its bell rings.
fn turn(worker: &mut Worker, moment: Moment) {
    worker.drain();
    worker.ledger.settle(moment);
    worker.collect(moment);
    worker.at_desk(moment, |lane, desk| lane.settle(desk));
    worker.commit();
}

fn lose_store(worker: &mut Worker) -> PathBuf {
    worker.writer = None;
    let place = worker.dir.clone();
    worker.dir = place.join("file");
    fs::write(&worker.dir, "").unwrap();
    place
}

/// Key, end and why, of each interval.
fn kept<S>(dir: &Path, table: &HistoryTable<S>) -> Vec<(String, Option<Nanos>, String)> {
    let mut rows = Vec::new();
    let mut visit = |row: &crate::store::IntervalRow<'_>| {
        rows.push((row.key.to_owned(), row.valid_to_ns, row.ended_reason.to_owned()));
        ControlFlow::Continue(())
    };
    Reader::open(dir).unwrap().intervals(&table.schema(), &IntervalScan::default(), &mut visit).unwrap();
    rows
}

#[test]
fn what_ended_in_vain_is_closed_as_unknown_in_every_lane() {
    let dir = TempDir::new().unwrap();
    let mut worker = every_lane(dir.path());
    let (feed, begins) = (worker.shared.feeds.feed("docker", ""), now() - SECOND);
    publishes(&mut worker, &feed, "d0", &[Action::Create, Action::Start]);
    lease(&worker, &feed, LeaseAction::Added, begins);
    for (desk, who) in [("left", "ann"), ("passed on", "bob"), ("kept", "eve")] {
        sits(&worker, &feed, Change::Holds { fact: seat(desk, who, ""), at_ns: begins, evidence: "eyes" });
    }
    turn(&mut worker, moment());
    let going_on = |rows: Vec<(String, Option<Nanos>, String)>| rows.iter().filter(|(_, to_ns, _)| to_ns.is_none()).count();
    assert_eq!([going_on(kept(dir.path(), &PORTS)), going_on(kept(dir.path(), &ADDRESSES)), going_on(kept(dir.path(), &SEATS))], [1, 1, 3]);

    let failed_ns = now();
    let place = lose_store(&mut worker);
    publishes(&mut worker, &feed, "d0", &[Action::Die, Action::Destroy]);
    for n in 1..1500 {
        publishes(&mut worker, &feed, &format!("d{n}"), &[Action::Create, Action::Destroy]);
    }
    lease(&worker, &feed, LeaseAction::Removed, begins + 1);
    sits(
        &worker,
        &feed,
        Change::Ended { key: "left".into(), scope: String::new(), at_ns: begins + 1, reason: "removed", evidence: "eyes" },
    );
    turn(&mut worker, moment());
    worker.beat(moment());
    // By then nothing is known any more of the container and of the address.
    turn(&mut worker, Moment { wall_ns: now() + 3600 * SECOND, ..moment() });
    assert!(worker.ledger.subject(&docker("d0")).unwrap().sealed_ns.is_some());
    let facts = (0..FLOOD).map(|n| seat(format!("new {n}"), "x", "hall")).collect();
    let taken_ns = failed_ns + 1;
    sits(&worker, &feed, Change::Present { group: "hall".into(), facts, taken_ns, blind_since: None, evidence: "eyes" });
    sits(&worker, &feed, Change::Holds { fact: seat("passed on", "bill", ""), at_ns: taken_ns + 1, evidence: "eyes" });
    turn(&mut worker, moment());
    assert!(worker.batch.evicted > 0 && worker.failing.is_some());

    worker.dir = place;
    turn(&mut worker, moment());
    assert!(worker.failing.is_none());
    turn(&mut worker, moment());
    assert!(worker.batch.is_empty());

    for rows in [kept(dir.path(), &PORTS), kept(dir.path(), &ADDRESSES)] {
        let [(_, Some(to_ns), reason)] = &rows[..] else { panic!("{rows:?}") };
        assert!(*to_ns >= failed_ns && *to_ns <= now() && reason == "unknown", "{rows:?}");
    }
    let seats = kept(dir.path(), &SEATS);
    let of = |desk: &str| seats.iter().filter(|(key, ..)| key == desk).map(|(_, to_ns, reason)| (*to_ns, &**reason)).collect::<Vec<_>>();
    assert!(matches!(of("left")[..], [(Some(to_ns), "unknown")] if to_ns >= failed_ns), "{:?}", of("left"));
    assert_eq!(of("passed on"), [(Some(taken_ns + 1), "unknown"), (None, "")], "where the next begins");
    assert_eq!(of("kept"), [(None, "")]);
    assert_eq!(going_on(kept(dir.path(), &SEATS)), FLOOD + 2, "what holds was written again, all of it");
    assert!(intervals(dir.path(), "d0").iter().all(|(_, is_open, ..)| !is_open));
    assert_eq!(gaps(dir.path(), "store_failed").len(), 1);

    let subjects = worker.writer.as_ref().unwrap().0.subjects().unwrap();
    let of_lanes: Vec<_> = subjects.iter().filter(|(name, _)| !name.starts_with("unix://")).map(|(name, _)| &**name).collect();
    let stale = |name: &&&str| name.contains("left") || name.contains("10.0.0.7") || name.contains("d0");
    assert_eq!(of_lanes.iter().find(stale), None, "the next recorder takes up nothing that is over");
    assert_eq!(of_lanes.iter().filter(|name| name.starts_with(SEATS.name)).count(), FLOOD + 2);
}

#[test]
fn a_long_list_loses_nothing_while_the_store_takes_it() {
    let dir = TempDir::new().unwrap();
    let mut worker = every_lane(dir.path());
    let feed = worker.shared.feeds.feed("docker", "");
    let facts = (0..FLOOD).map(|n| seat(format!("new {n}"), "x", "hall")).collect();
    sits(&worker, &feed, Change::Present { group: "hall".into(), facts, taken_ns: now(), blind_since: None, evidence: "eyes" });
    turn(&mut worker, moment());
    assert_eq!((worker.batch.evicted, kept(dir.path(), &SEATS).len()), (0, FLOOD));
}
