//! All addresses that are known: takes reports, releases event rows, says which intervals follow. Knows no store and no clock of its own.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, HashMap, HashSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{
    address::{Address, FINAL_AFTER, LeaseRun, Point, Written},
    members::{Members, Rows, Told},
    outcome::{Outcome, digest},
    present,
    timeline::{Span, tenures},
};
use crate::{
    container::ContainerKey,
    feed::Feed,
    lease::{LeaseEvent, LeaseReport, LeaseScope},
    recorder::{heard::Finding, ledger::Moment},
    sink::Received,
    time::Nanos,
};

/// Addresses that are kept track of; what is said of more is rejected.
const MOST_ADDRESSES: usize = 65_536;

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
    members: Members,
    rows: Rows,
    /// When an address changes by itself, in wall time.
    alarms: BinaryHeap<Reverse<(Nanos, IpAddr)>>,
    dirty: BTreeSet<IpAddr>,
    findings: Vec<Finding>,
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
            LeaseReport::Present(present) => {
                for (ip, point) in present::points(&self.addresses, &present) {
                    if !self.learn(ip, point) {
                        received.feed.complain(too_many(ip));
                    }
                }
            }
        }
    }

    fn take_event(&mut self, event: Box<LeaseEvent>, feed: Feed, now: Moment) {
        if let Some(ip) = event.lease.ip_address
            && let Some(point) = Point::of(&event)
            && !self.learn(ip, point)
        {
            feed.count_rejected();
            feed.complain(too_many(ip));
            return;
        }
        self.rows.take(Told { event, feed: Some(feed) }, now.at);
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
            let members: Vec<_> = self.members.of(&namespace).cloned().collect();
            members.iter().for_each(|container| self.teach(ip, container));
        }
        true
    }

    /// Takes the runs of a container, all that are known; none: it is forgotten.
    pub(super) fn take_runs(&mut self, container: &ContainerKey, mut runs: Vec<LeaseRun>, now: Moment) {
        runs.retain(|run| run.to_ns.is_none_or(|to| to >= now.wall_ns - FINAL_AFTER));
        if self.members.runs(container) == runs {
            return;
        }
        let is_forgotten = runs.is_empty();
        let before = self.members.set(container, runs);
        if is_forgotten {
            return;
        }
        let mut concerned = self.concerned(&before);
        concerned.append(&mut self.concerned(self.members.runs(container)));
        concerned.into_iter().for_each(|ip| self.teach(ip, container));
    }

    /// Takes back what was known of a container: it is another, which has its runs.
    pub(super) fn withdraw(&mut self, container: &ContainerKey) {
        let before = self.members.set(container, Vec::new());
        for ip in self.concerned(&before) {
            if let Some(address) = self.addresses.get_mut(&ip) {
                address.runs.retain(|run| run.container != *container);
                self.dirty.insert(ip);
            }
        }
    }

    /// The addresses that runs bear on.
    fn concerned(&self, runs: &[LeaseRun]) -> BTreeSet<IpAddr> {
        let named = runs.iter().flat_map(|run| &run.ip_addresses).filter_map(|ip| ip.parse::<IpAddr>().ok());
        let present = runs.iter().filter_map(|run| self.in_namespace.get(run.net_namespace.as_ref()?)).flatten();
        named.chain(present.copied()).collect()
    }

    /// Hands an address the runs of a container that bear on it.
    fn teach(&mut self, ip: IpAddr, container: &ContainerKey) {
        let runs = self.members.runs(container);
        if runs.is_empty() || (self.addresses.len() >= MOST_ADDRESSES && !self.addresses.contains_key(&ip)) {
            return;
        }
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

    /// When [`Reducer::settle`] has something to do without a new report.
    pub(super) fn next_alarm(&self, now: Moment) -> Option<Instant> {
        let of_events = self.rows.next_due();
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

    /// Releases the events that know their container, and those that waited until `at`; `None`: all.
    pub(super) fn release(&mut self, at: Option<Instant>) {
        self.rows.release(&self.members, at);
    }

    /// The addresses whose intervals may have changed since the last call.
    pub(super) fn take_dirty(&mut self) -> BTreeSet<IpAddr> {
        std::mem::take(&mut self.dirty)
    }

    pub(super) fn address(&self, ip: IpAddr) -> Option<&Address> {
        self.addresses.get(&ip)
    }

    /// Works out the intervals of an address, what nobody tells of it, and when to look again.
    pub(super) fn changes(&mut self, ip: IpAddr, now: Moment) -> Changes {
        let Some(address) = self.addresses.get_mut(&ip) else { return Changes::default() };
        let Outcome { spans, found, alarms, heard } = Outcome::of(ip, address, now.wall_ns);
        let written: Vec<_> =
            spans.iter().map(|span| Written { from_ns: span.from_ns, scope: span.scope(), digest: digest(span) }).collect();
        let names = |w: &Written| (w.from_ns, w.scope.clone());
        let wanted: HashSet<_> = written.iter().map(names).collect();
        let remove = address.written.iter().map(names).filter(|name| !wanted.contains(name)).collect();
        let is_fresh = written.iter().map(|w| !address.written.contains(w));
        let put = spans.into_iter().zip(is_fresh).filter_map(|(span, is_fresh)| is_fresh.then_some(span)).collect();
        address.written = written;
        self.findings.extend(address.hear(heard));
        for (news, event) in found {
            address.told.insert(news);
            self.rows.take_own(event);
        }
        self.alarms.extend(alarms.into_iter().map(|at| Reverse((at, ip))));
        Changes { put, remove }
    }

    /// What followed for containers since the last call.
    pub(super) fn take_findings(&mut self) -> Vec<Finding> {
        std::mem::take(&mut self.findings)
    }

    pub(super) fn take_told(&mut self) -> Vec<Told> {
        self.rows.take_told()
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

fn too_many(ip: IpAddr) -> String {
    format!("more than {MOST_ADDRESSES} addresses: of {ip} nothing is kept")
}
