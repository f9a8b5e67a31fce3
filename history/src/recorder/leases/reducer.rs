//! All addresses that are known: takes reports, releases event rows, says which intervals follow. Knows no store and no clock of its own.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{
    address::{Address, FINAL_AFTER, LeaseRun, Point, Reason, Word, Written, concerns},
    claim::claims,
    timeline::{CONFLICT_AFTER, Span, TAKEN_DOWN, tenures},
};
use crate::{
    container::ContainerKey,
    feed::Feed,
    lease::{LeaseAction, LeaseEvent, LeaseReport, LeaseScope, PresentLeases},
    recorder::ledger::Moment,
    sink::Received,
    time::Nanos,
};

/// Addresses that are kept track of; what is said of more is rejected.
const MOST_ADDRESSES: usize = 65_536;
/// An event of a namespace waits this long for the container that it belongs to.
const WAIT_FOR_CONTAINER: Duration = Duration::from_secs(2);
/// And no more than this many wait at once.
const MOST_HELD: usize = 4096;

/// An event row, and whom it counts for.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) event: Box<LeaseEvent>,
    /// None for what the recorder found out itself.
    pub(super) feed: Option<Feed>,
}

#[derive(Debug)]
struct Held {
    due: Instant,
    told: Told,
}

/// The intervals of an address that the store lacks, and those that it should not have.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) put: Vec<Span>,
    /// Start and scope.
    pub(super) remove: Vec<(Nanos, String)>,
}

#[derive(Debug, Default)]
pub(super) struct Reducer {
    addresses: HashMap<IpAddr, Address>,
    /// By namespace, those that an interface in it has or had.
    in_namespace: HashMap<String, BTreeSet<IpAddr>>,
    runs: HashMap<ContainerKey, Vec<LeaseRun>>,
    members: HashMap<String, BTreeSet<ContainerKey>>,
    held: Vec<Held>,
    /// When an address changes by itself, in wall time.
    alarms: BinaryHeap<Reverse<(Nanos, IpAddr)>>,
    dirty: BTreeSet<IpAddr>,
    told: Vec<Told>,
}

impl Reducer {
    /// Takes up what an earlier recorder knew of an address.
    pub(super) fn restore(&mut self, ip: IpAddr, address: Address) {
        self.index(ip, &address);
        self.addresses.insert(ip, address);
        self.dirty.insert(ip);
    }

    fn index(&mut self, ip: IpAddr, address: &Address) {
        for namespace in address.namespaces() {
            if !self.in_namespace.get(namespace).is_some_and(|ips| ips.contains(&ip)) {
                self.in_namespace.entry(namespace.to_owned()).or_default().insert(ip);
            }
        }
    }

    /// Takes one report.
    pub(super) fn take(&mut self, received: Received<LeaseReport>, now: Moment) {
        match received.item {
            LeaseReport::Event(event) => self.take_event(event, received.feed, now),
            LeaseReport::Present(present) => self.take_present(&present, &received.feed),
        }
    }

    fn take_event(&mut self, event: Box<LeaseEvent>, feed: Feed, now: Moment) {
        if let Some(ip) = event.lease.ip_address
            && let Some(point) = Point::of(&event)
            && !self.learn(ip, point)
        {
            feed.count_rejected();
            feed.complain(format!("more than {MOST_ADDRESSES} addresses: of {ip} nothing is kept"));
            return;
        }
        let waits = event.lease.scope == LeaseScope::Container && event.lease.container.container_id.is_empty();
        let told = Told { event, feed: Some(feed) };
        if waits && self.held.len() < MOST_HELD {
            self.held.push(Held { due: now.at + WAIT_FOR_CONTAINER, told });
        } else {
            self.told.push(told);
        }
    }

    /// Takes a point; false: there are too many addresses.
    fn learn(&mut self, ip: IpAddr, point: Point) -> bool {
        if self.addresses.len() >= MOST_ADDRESSES && !self.addresses.contains_key(&ip) {
            return false;
        }
        let namespace = point.lease.net_namespace.clone().filter(|_| point.lease.scope == LeaseScope::Container);
        if self.addresses.entry(ip).or_default().learn(point) {
            self.dirty.insert(ip);
        }
        if let Some(namespace) = namespace
            && self.in_namespace.entry(namespace.clone()).or_default().insert(ip)
        {
            for container in self.members.get(&namespace).cloned().unwrap_or_default() {
                self.teach(ip, &container);
            }
        }
        true
    }

    /// Compares what is there with what was known.
    fn take_present(&mut self, present: &PresentLeases, feed: &Feed) {
        let PresentLeases { source, channel: listed, taken_ns, leases, .. } = present;
        let mut points: Vec<(IpAddr, Point)> = Vec::new();
        let mut going_on = HashSet::new();
        for (ip, address) in &self.addresses {
            let open = claims(&address.points, *taken_ns).into_iter().filter(|c| c.end.is_none() && c.source() == *source);
            for claim in open {
                let Some(lease) = claim.leases().next() else { continue };
                let channel = &claim.points[0].channel;
                if !listed.is_empty() && channel != listed {
                    continue;
                }
                let is_it =
                    |l: &&crate::lease::HeldLease| l.lease.ip_address == Some(*ip) && l.channel == *channel && concerns(&l.lease, lease);
                let word = match leases.iter().position(|l| is_it(&l)) {
                    Some(at) => {
                        going_on.insert(at);
                        if leases[at].until_ns == claim.until_ns() {
                            continue;
                        }
                        Word::Held { exact: false }
                    }
                    None => Word::Ended { reason: Reason::Unknown, exact: false },
                };
                let listed = leases.iter().find(is_it);
                let point = Point {
                    time_ns: *taken_ns,
                    source: *source,
                    channel: channel.clone(),
                    word,
                    lease: listed.map_or_else(|| lease.clone(), |l| l.lease.clone()),
                    until_ns: listed.and_then(|l| l.until_ns),
                    segment: listed.and_then(|l| l.segment.clone()),
                };
                points.push((*ip, point));
            }
        }
        for held in leases.iter().enumerate().filter(|(at, _)| !going_on.contains(at)).map(|(_, held)| held) {
            let Some(ip) = held.lease.ip_address else { continue };
            let point = Point {
                time_ns: held.since_ns.map_or(*taken_ns, |since| since.min(*taken_ns)),
                source: *source,
                channel: held.channel.clone(),
                word: Word::Held { exact: held.since_ns.is_some() },
                lease: held.lease.clone(),
                until_ns: held.until_ns,
                segment: held.segment.clone(),
            };
            points.push((ip, point));
        }
        for (ip, point) in points {
            if !self.learn(ip, point) {
                feed.complain(format!("more than {MOST_ADDRESSES} addresses: of {ip} nothing is kept"));
            }
        }
    }

    /// Takes the runs of a container, all that are known; none: it is forgotten.
    pub(super) fn take_runs(&mut self, container: &ContainerKey, mut runs: Vec<LeaseRun>, now: Moment) {
        runs.retain(|run| run.to_ns.is_none_or(|to| to >= now.wall_ns - FINAL_AFTER));
        if self.runs.get(container).map_or(runs.is_empty(), |known| *known == runs) {
            return;
        }
        let before = self.runs.remove(container).unwrap_or_default();
        for namespace in before.iter().filter_map(|run| run.net_namespace.as_ref()) {
            if let Some(members) = self.members.get_mut(namespace) {
                members.remove(container);
                if members.is_empty() {
                    self.members.remove(namespace);
                }
            }
        }
        let mut concerned = BTreeSet::new();
        for run in before.iter().chain(&runs) {
            concerned.extend(run.ip_addresses.iter().filter_map(|ip| ip.parse::<IpAddr>().ok()));
            concerned.extend(run.net_namespace.iter().filter_map(|n| self.in_namespace.get(n)).flatten());
        }
        for namespace in runs.iter().filter_map(|run| run.net_namespace.clone()) {
            self.members.entry(namespace).or_default().insert(container.clone());
        }
        let is_forgotten = runs.is_empty();
        if !is_forgotten {
            self.runs.insert(container.clone(), runs);
            concerned.into_iter().for_each(|ip| self.teach(ip, container));
        }
    }

    /// Hands an address the runs of a container that bear on it.
    fn teach(&mut self, ip: IpAddr, container: &ContainerKey) {
        if self.addresses.len() >= MOST_ADDRESSES && !self.addresses.contains_key(&ip) {
            return;
        }
        let Some(runs) = self.runs.get(container) else { return };
        let address = self.addresses.entry(ip).or_default();
        let text = ip.to_string();
        let namespaces: HashSet<&str> = address.namespaces().collect();
        let mut taught = Vec::new();
        for run in runs {
            let names_it = run.ip_addresses.contains(&text);
            if names_it || run.net_namespace.as_deref().is_some_and(|n| namespaces.contains(n)) {
                taught.push(LeaseRun { ip_addresses: if names_it { vec![text.clone()] } else { Vec::new() }, ..run.clone() });
            }
        }
        if address.learn_runs(container, &taught) {
            self.dirty.insert(ip);
        }
    }

    /// The container that an event in a namespace is about, where it is one and known. Its network is made before it starts, and taken down
    /// after it ended; and inodes are used again, so that who ended before another began is out of it.
    fn only_member(&self, event: &LeaseEvent) -> Option<&ContainerKey> {
        let namespace = event.lease.net_namespace.as_deref()?;
        let ended_after = if event.action == LeaseAction::Removed { event.time_ns - TAKEN_DOWN } else { event.time_ns };
        let may_be = |run: &&LeaseRun| {
            let began = event.action != LeaseAction::Removed || run.from_ns <= event.time_ns;
            run.net_namespace.as_deref() == Some(namespace) && began && run.to_ns.is_none_or(|to| to >= ended_after)
        };
        let runs: Vec<&LeaseRun> =
            self.members.get(namespace)?.iter().filter_map(|key| self.runs.get(key)).flatten().filter(may_be).collect();
        let is_past = |run: &LeaseRun| runs.iter().any(|later| run.to_ns.is_some_and(|to| to <= later.from_ns));
        let mut present = runs.iter().filter(|run| !is_past(run));
        let first = present.next()?;
        present.all(|run| run.container == first.container).then_some(&first.container)
    }

    /// When [`Reducer::settle`] has something to do without a new report.
    pub(super) fn next_alarm(&self, now: Moment) -> Option<Instant> {
        let of_events = self.held.iter().map(|held| held.due).min();
        let of_addresses = self.alarms.peek().map(|Reverse((at, _))| {
            let left = u64::try_from(at.saturating_sub(now.wall_ns)).unwrap_or(0);
            // A clock that is set meanwhile is noticed at the next heartbeat.
            now.at + Duration::from_nanos(left).min(Duration::from_secs(3600))
        });
        of_events.into_iter().chain(of_addresses).min()
    }

    /// Releases the rows that need not wait (longer), and looks at the addresses that change by themselves.
    pub(super) fn settle(&mut self, now: Moment) {
        while let Some(Reverse((at, _))) = self.alarms.peek()
            && *at <= now.wall_ns
        {
            if let Some(Reverse((_, ip))) = self.alarms.pop() {
                self.dirty.insert(ip);
            }
        }
        self.release(Some(now.at));
    }

    /// Releases events: those that know their container, and those due by `at`; `None`: all.
    pub(super) fn release(&mut self, at: Option<Instant>) {
        for mut held in std::mem::take(&mut self.held) {
            let event = &held.told.event;
            let container = self.only_member(event).cloned();
            if let Some(container) = container {
                held.told.event.lease.container = container;
            } else if at.is_some_and(|at| held.due > at) {
                self.held.push(held);
                continue;
            }
            self.told.push(held.told);
        }
    }

    /// The addresses whose intervals may have changed since the last call.
    pub(super) fn take_dirty(&mut self) -> BTreeSet<IpAddr> {
        std::mem::take(&mut self.dirty)
    }

    pub(super) fn address(&self, ip: IpAddr) -> Option<&Address> {
        self.addresses.get(&ip)
    }

    /// Works out the intervals of an address; tells what it finds on the way: expiries and conflicts. Sets the next alarm.
    pub(super) fn changes(&mut self, ip: IpAddr, now: Moment) -> Changes {
        let Some(address) = self.addresses.get(&ip) else { return Changes::default() };
        let now_ns = now.wall_ns;
        let tenures = tenures(address, now_ns);
        let mut changes = Changes::default();
        let mut found: Vec<((Nanos, String), LeaseEvent)> = Vec::new();
        let mut alarms: Vec<Nanos> = tenures.iter().filter_map(|t| t.next_change(now_ns)).collect();
        let is_news = |key: &(Nanos, String)| key.0 >= now_ns - FINAL_AFTER && !address.told.contains(key);
        for (at, tenure) in tenures.iter().enumerate() {
            let spans = tenure.spans(ip, now_ns);
            let is_over = spans.iter().any(|s| s.ended_reason == Some(Reason::Expired));
            for (at_ns, claim) in tenure.expiries().filter(|_| is_over) {
                let key = (at_ns, format!("expired {}", claim.points[0].channel));
                if is_news(&key) {
                    let event = told_by_us(LeaseAction::Expired, at_ns, claim.points[0], &spans[0]);
                    found.push((key, event));
                }
            }
            for other in &tenures[at + 1..] {
                let Some(since) = tenure.conflicts_with(other, now_ns) else { continue };
                let confirmed = since.saturating_add(CONFLICT_AFTER);
                if confirmed > now_ns {
                    alarms.push(confirmed);
                }
                let mut holders = [tenure, other].map(|t| t.spans(ip, now_ns).into_iter().next());
                holders.sort_by_key(|span| span.as_ref().map(|s| (s.from_ns, s.scope())));
                let [Some(first), Some(second)] = holders else { continue };
                let lasted = |span: &Span| span.to_ns.is_none_or(|to| to >= confirmed);
                let key = (since, format!("conflict {} {}", first.scope(), second.scope()));
                if confirmed <= now_ns && lasted(&first) && lasted(&second) && is_news(&key) {
                    // The newcomer's row; the one before has its own interval.
                    let point = address.points.iter().rev().find(|p| p.lease.mac_address == second.lease.mac_address);
                    let Some(point) = point.or(address.points.first()) else { continue };
                    found.push((key, told_by_us(LeaseAction::Conflict, since, point, &second)));
                }
            }
            changes.put.extend(spans);
        }
        let written: Vec<_> =
            changes.put.iter().map(|span| Written { from_ns: span.from_ns, scope: span.scope(), digest: digest(span) }).collect();
        let names = |w: &Written| (w.from_ns, w.scope.clone());
        let wanted: HashSet<_> = written.iter().map(names).collect();
        changes.remove = address.written.iter().map(names).filter(|name| !wanted.contains(name)).collect();
        let mut fresh = written.iter().map(|w| !address.written.contains(w));
        changes.put.retain(|_| fresh.next().unwrap_or(true));
        if let Some(address) = self.addresses.get_mut(&ip) {
            address.written = written;
            address.told.extend(found.iter().map(|(key, _)| key.clone()));
        }
        self.told.extend(found.into_iter().map(|(_, event)| Told { event: Box::new(event), feed: None }));
        self.alarms.extend(alarms.into_iter().map(|at| Reverse((at, ip))));
        changes
    }

    pub(super) fn take_told(&mut self) -> Vec<Told> {
        std::mem::take(&mut self.told)
    }

    /// Forgets the evidence of what ended a while ago. Gives the addresses of which nothing is left.
    pub(super) fn sweep(&mut self, now: Moment) -> Vec<IpAddr> {
        let floor = now.wall_ns - FINAL_AFTER;
        for (ip, address) in &mut self.addresses {
            if self.dirty.contains(ip) {
                continue;
            }
            let (mut points, mut runs, mut spans) = (BTreeSet::new(), BTreeSet::new(), HashSet::new());
            for tenure in tenures(address, now.wall_ns) {
                if let Some((of_points, of_runs)) = tenure.remainder(floor) {
                    points.extend(of_points);
                    runs.extend(of_runs);
                    spans.extend(tenure.spans(*ip, now.wall_ns).into_iter().map(|span| (span.from_ns, span.scope())));
                }
            }
            if points.len() < address.points.len() || runs.len() < address.runs.len() {
                address.points = points;
                address.runs = runs;
                address.written.retain(|w| spans.contains(&(w.from_ns, w.scope.clone())));
                address.told.retain(|(at, _)| *at >= floor);
                address.floor_ns = Some(floor);
                self.dirty.insert(*ip);
            }
        }
        let over: Vec<IpAddr> = self.addresses.iter().filter(|(_, a)| a.is_over()).map(|(ip, _)| *ip).collect();
        for ip in &over {
            self.addresses.remove(ip);
            self.dirty.remove(ip);
        }
        let addresses = &self.addresses;
        self.in_namespace.retain(|namespace, ips| {
            ips.retain(|ip| addresses.get(ip).is_some_and(|a| a.namespaces().any(|n| n == namespace)));
            !ips.is_empty()
        });
        over
    }

    /// Forgets what is in the store, because the store was lost.
    pub(super) fn forget_written(&mut self) {
        for (ip, address) in &mut self.addresses {
            address.written.clear();
            self.dirty.insert(*ip);
        }
    }
}

/// What the recorder found out itself, with the word that it follows from.
fn told_by_us(action: LeaseAction, time_ns: Nanos, point: &Point, span: &Span) -> LeaseEvent {
    LeaseEvent {
        time_ns,
        action,
        source: point.source,
        channel: point.channel.clone(),
        lease: span.lease.clone(),
        until_ns: None,
        segment: point.segment.clone(),
    }
}

fn digest(span: &Span) -> u64 {
    let mut hasher = DefaultHasher::new();
    span.hash(&mut hasher);
    hasher.finish()
}
