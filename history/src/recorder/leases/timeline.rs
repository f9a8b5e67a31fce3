//! The one timeline of an address, worked out from its evidence: claims of several witnesses about one holder are one interval. Pure: the
//! same evidence gives the same intervals, in whatever order it came.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use super::{
    address::{Address, LeaseRun, Point, Reason, Word},
    claim::{Claim, End, claims},
};
use crate::{
    container::ContainerKey,
    lease::{Lease, LeaseScope, LeaseSource},
    recorder::heard::Heard,
    time::Nanos,
};

const SECOND: Nanos = 1_000_000_000;
/// Two witnesses of one holder see it come and go within this time of each other.
const TOLERANCE: Nanos = SECOND;
/// The network of a container is made this long before it starts, at most; an address that was there before is not its own.
const SET_UP: Nanos = 30 * SECOND;
/// And taken down this long after it ended, at most.
pub(super) const TAKEN_DOWN: Nanos = 5 * SECOND;
/// Two holders are a conflict once both had the address for this long.
pub(super) const CONFLICT_AFTER: Nanos = SECOND;

/// One interval of `ip_lease_history`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Span {
    pub(super) from_ns: Nanos,
    pub(super) to_ns: Option<Nanos>,
    pub(super) ended_reason: Option<Reason>,
    /// Comma-separated, sorted.
    pub(super) evidence: String,
    pub(super) lease: Lease,
}

impl Span {
    /// What tells intervals of one address that hold at once apart.
    pub(super) fn scope(&self) -> String {
        let lease = &self.lease;
        let text = |value: &Option<String>| value.as_deref().unwrap_or("-").to_owned();
        let ContainerKey { container_id, endpoint, .. } = &lease.container;
        let client = lease.mac_address.as_ref().or(lease.client_id.as_ref()).map_or("-", String::as_str);
        format!("{} {} {client} {endpoint} {container_id}", text(&lease.net_namespace), text(&lease.interface))
    }
}

/// One holder's time at the address, as all witnesses together tell it.
#[derive(Debug, Default)]
pub(super) struct Tenure<'a> {
    claims: Vec<Claim<'a>>,
    runs: Vec<&'a LeaseRun>,
}

/// How long two intervals overlap; negative: how far they are apart.
fn overlap(a: (Nanos, Option<Nanos>), b: (Nanos, Option<Nanos>)) -> Nanos {
    let end = |to: Option<Nanos>| to.unwrap_or(Nanos::MAX);
    end(a.1).min(end(b.1)).saturating_sub(a.0.max(b.0))
}

/// Every holder's time, in the order of their claims.
pub(super) fn tenures(address: &Address, now_ns: Nanos) -> Vec<Tenure<'_>> {
    let mut tenures: Vec<Tenure<'_>> = Vec::new();
    for claim in claims(&address.points, now_ns) {
        let extent = (claim.began_ns(), claim.ended_ns());
        match best(&tenures, extent, -TOLERANCE, |tenure| tenure.takes_claim(&claim)) {
            Some(at) => tenures[at].claims.push(claim),
            None => tenures.push(Tenure { claims: vec![claim], runs: Vec::new() }),
        }
    }
    for run in &address.runs {
        let extent = (run.from_ns, run.to_ns);
        // One that is only known to have been in the namespace must have been there then: inodes are used again within a second.
        let least = if run.ip_addresses.is_empty() { 1 } else { -TOLERANCE };
        match best(&tenures, extent, least, |tenure| tenure.takes_run(run)) {
            Some(at) => tenures[at].runs.push(run),
            None if run.ip_addresses.is_empty() => {}
            None => tenures.push(Tenure { claims: Vec::new(), runs: vec![run] }),
        }
    }
    tenures
}

/// Of those that fit, the one that overlaps longest with `extent`, at least for `least`.
fn best(tenures: &[Tenure<'_>], extent: (Nanos, Option<Nanos>), least: Nanos, fits: impl Fn(&Tenure<'_>) -> bool) -> Option<usize> {
    let scored = tenures.iter().enumerate().filter(|(_, t)| fits(t)).map(|(at, t)| (overlap(t.extent(), extent), at));
    scored.filter(|(score, _)| *score >= least).max_by_key(|(score, at)| (*score, Reverse(*at))).map(|(_, at)| at)
}

impl<'a> Tenure<'a> {
    fn namespace(&self) -> Option<&'a str> {
        let of_claims = self.leases().find_map(|lease| lease.net_namespace.as_deref());
        of_claims.or_else(|| self.runs.iter().find_map(|run| run.net_namespace.as_deref()))
    }

    fn mac(&self) -> Option<&'a str> {
        self.leases().find_map(|lease| lease.mac_address.as_deref())
    }

    /// What the claims know, the better source first, of each the newest first.
    fn leases(&self) -> impl Iterator<Item = &'a Lease> {
        self.claims.iter().flat_map(Claim::leases)
    }

    fn has(&self, source: LeaseSource) -> bool {
        self.claims.iter().any(|claim| claim.source() == source)
    }

    fn takes_claim(&self, claim: &Claim<'_>) -> bool {
        let Some(lease) = claim.leases().next() else { return false };
        // What a channel tells apart is apart, unless the interface itself shows that it went on.
        if claim.source() == LeaseSource::Netlink
            || (!self.has(LeaseSource::Netlink) && self.claims.iter().any(|own| own.is_of_channel(claim)))
        {
            return false;
        }
        let own_id = || self.leases().find_map(|lease| lease.client_id.as_deref());
        match (self.mac(), lease.mac_address.as_deref()) {
            (Some(own), Some(other)) => own == other,
            _ => own_id().is_some_and(|own| lease.client_id.as_deref() == Some(own)),
        }
    }

    fn takes_run(&self, run: &LeaseRun) -> bool {
        match (self.namespace(), run.net_namespace.as_deref()) {
            (Some(own), Some(other)) => own == other,
            _ if run.ip_addresses.is_empty() => false,
            _ if self.claims.is_empty() => self.runs.iter().all(|own| own.container == run.container && overlaps(own, run)),
            _ => self.mac().is_some_and(|own| run.mac_addresses.iter().any(|mac| mac == own)),
        }
    }

    /// From when to when it is known of, before it is decided who is right.
    fn extent(&self) -> (Nanos, Option<Nanos>) {
        self.times().map_or((Nanos::MAX, None), |(from, end)| (from, end.map(|end| end.at_ns)))
    }

    /// Since when the holder had the address: as the best of those tells who saw it come, else the first who saw it there. The kernel's word carries no
    /// time, and may be read a little late: a container that started with the address had it then.
    fn began_ns(&self) -> Option<Nanos> {
        let started = self.runs.iter().filter(|run| !run.ip_addresses.is_empty()).map(|run| run.from_ns).min();
        let exact = self.claims.iter().filter(|c| c.begins_exactly()).min_by_key(|c| (c.source(), c.began_ns())).map(Claim::began_ns);
        let exact = exact.map(|told| started.filter(|at| (told - TOLERANCE..told).contains(at)).unwrap_or(told));
        let any = || self.claims.iter().map(Claim::began_ns).chain(self.runs.iter().map(|run| run.from_ns)).min();
        exact.or_else(any)
    }

    fn times(&self) -> Option<(Nanos, Option<End>)> {
        let from = self.began_ns()?;
        Some((from, self.end().map(|end| End { at_ns: end.at_ns.max(from), ..end })))
    }

    fn end(&self) -> Option<End> {
        let died = self.runs_ended();
        if let Some(own) =
            self.claims.iter().filter(|c| c.source() == LeaseSource::Netlink).max_by_key(|c| c.ended_ns().unwrap_or(Nanos::MAX))
        {
            let end = own.end?;
            let others = || self.claims.iter().filter(|c| c.source() != LeaseSource::Netlink).filter_map(|c| c.end);
            if end.exact {
                // The interface knows when, the others why.
                let near = |other: &End| other.exact && (other.at_ns - end.at_ns).abs() <= TAKEN_DOWN;
                let reason = others().chain(died).find(near).map_or(end.reason, |other| other.reason);
                return Some(End { reason, ..end });
            }
            return Some(others().chain(died).filter(|other| other.exact && other.at_ns <= end.at_ns).max().unwrap_or(end));
        }
        if self.claims.is_empty() {
            return died;
        }
        if let Some(told) = self.best(|end| end.exact && end.reason != Reason::Expired, |a, b| a < b) {
            return died.into_iter().chain([told]).min();
        }
        let all_over = self.claims.iter().all(|claim| claim.end.is_some());
        let last = || self.best(|end| end.exact, |a, b| a > b).or_else(|| self.best(|_| true, |a, b| a > b));
        died.or_else(|| last().filter(|_| all_over))
    }

    /// Of the ends that `counts`, the one before which none `precedes`; of several witnesses that tell about the same, the best knows when.
    fn best(&self, counts: impl Fn(&End) -> bool, precedes: impl Fn(Nanos, Nanos) -> bool) -> Option<End> {
        let ends = || self.claims.iter().filter_map(|claim| claim.end).filter(&counts);
        let most = ends().map(|end| end.at_ns).reduce(|a, b| if precedes(b, a) { b } else { a })?;
        ends().find(|end| (end.at_ns - most).abs() <= TOLERANCE)
    }

    /// When the last container ended, where all did.
    fn runs_ended(&self) -> Option<End> {
        let ends: Option<Vec<_>> = self.runs.iter().map(|run| run.to_ns).collect();
        let at_ns = ends?.into_iter().max()?;
        Some(End { at_ns, reason: Reason::Die, exact: true })
    }

    /// The intervals that follow: one, or where several containers share a namespace one for each.
    pub(super) fn spans(&self, ip: std::net::IpAddr, now_ns: Nanos) -> Vec<Span> {
        let Some((from_ns, end)) = self.times() else { return Vec::new() };
        let to_ns = end.map(|end| end.at_ns);
        let whole = Span { from_ns, to_ns, ended_reason: end.map(|end| end.reason), evidence: self.evidence(), lease: self.lease(ip) };
        let mut holders: BTreeMap<&ContainerKey, (Nanos, Option<Nanos>)> = BTreeMap::new();
        for run in &self.runs {
            let known = holders.entry(&run.container).or_insert((run.from_ns, run.to_ns));
            *known = (known.0.min(run.from_ns), known.1.zip(run.to_ns).map(|(a, b)| a.max(b)));
        }
        let Some(first) = holders.values().map(|(from, _)| *from).min() else { return vec![whole] };
        let last = holders.values().map(|(_, to)| to.unwrap_or(Nanos::MAX)).max().unwrap_or(Nanos::MAX);
        let made_for_it = first.saturating_sub(from_ns) <= SET_UP;
        let went_with_it = to_ns.unwrap_or(now_ns).saturating_sub(last) <= TAKEN_DOWN;
        let mut spans = Vec::new();
        if !made_for_it {
            spans.push(Span { to_ns: Some(first), ended_reason: Some(Reason::Changed), ..whole.clone() });
        }
        for (container, (began, ended)) in holders {
            let begins = if made_for_it && began == first { from_ns } else { began.max(from_ns) };
            let ends = match ended {
                Some(at) if at < last || !went_with_it => Some(to_ns.map_or(at, |to| to.min(at))),
                _ => to_ns,
            };
            let ended_reason = if ends == to_ns { whole.ended_reason } else { Some(Reason::Die) };
            let lease = Lease { container: container.clone(), scope: LeaseScope::Container, ..whole.lease.clone() };
            let to_ns = ends.map(|at| at.max(begins));
            spans.push(Span { from_ns: begins, to_ns, ended_reason, lease, evidence: whole.evidence.clone() });
        }
        if !went_with_it && to_ns.is_none_or(|to| last < to) {
            spans.push(Span { from_ns: last.max(from_ns), ..whole });
        }
        spans
    }

    /// The runs that had the address as the kernel tells it, where no runtime says so.
    pub(super) fn heard(&self, ip: std::net::IpAddr) -> impl Iterator<Item = (ContainerKey, Heard)> {
        let mac = self.mac();
        let heard = move |run: &LeaseRun| Heard { run_ns: run.from_ns, ip, mac: mac.map(ToOwned::to_owned) };
        let runs = self.runs.iter().filter(|run| self.has(LeaseSource::Netlink) && run.ip_addresses.is_empty());
        runs.map(move |run| (run.container.clone(), heard(run)))
    }

    fn evidence(&self) -> String {
        let mut seen: BTreeSet<&str> = self.claims.iter().map(|c| c.source().as_str()).collect();
        if self.runs.iter().any(|run| !run.ip_addresses.is_empty()) {
            seen.insert(LeaseSource::Runtime.as_str());
        }
        if self.claims.iter().any(|c| c.source() == LeaseSource::Netlink) && self.claims.iter().all(|c| !c.begins_exactly()) {
            seen.insert("startup");
        }
        seen.into_iter().collect::<Vec<_>>().join(",")
    }

    /// All that is known of the lease.
    fn lease(&self, ip: std::net::IpAddr) -> Lease {
        let mut known = Lease { ip_address: Some(ip), ..Lease::default() };
        let mut scopes = BTreeSet::new();
        for lease in self.leases() {
            known.prefix_length = known.prefix_length.or(lease.prefix_length);
            known.server_address = known.server_address.or(lease.server_address);
            known.lease_seconds = known.lease_seconds.or(lease.lease_seconds);
            fill(&mut known.mac_address, &lease.mac_address);
            fill(&mut known.interface, &lease.interface);
            fill(&mut known.net_namespace, &lease.net_namespace);
            fill(&mut known.hostname, &lease.hostname);
            fill(&mut known.client_id, &lease.client_id);
            scopes.insert(lease.scope);
        }
        // Who has the interface knows whose address it is.
        known.scope = scopes.first().copied().unwrap_or(LeaseScope::Container);
        for run in &self.runs {
            fill(&mut known.net_namespace, &run.net_namespace);
            if let [only] = &run.mac_addresses[..] {
                fill(&mut known.mac_address, &Some(only.clone()));
            }
        }
        known
    }

    /// When the intervals change without any more evidence.
    pub(super) fn next_change(&self, now_ns: Nanos) -> Option<Nanos> {
        let expiries = self.claims.iter().filter(|c| c.end.is_none()).filter_map(Claim::until_ns);
        let parted = self.runs_ended().filter(|_| self.end().is_none()).map(|end| end.at_ns.saturating_add(TAKEN_DOWN + 1));
        expiries.chain(parted).filter(|at| *at > now_ns).min()
    }

    /// Claims of the DHCP kind that ended by themselves: when, and who said until when.
    pub(super) fn expiries(&self) -> impl Iterator<Item = (Nanos, &Claim<'a>)> {
        self.claims.iter().filter_map(|c| c.end.filter(|end| end.reason == Reason::Expired).map(|end| (end.at_ns, c)))
    }

    /// Since when two holders have the address at once, on one link; `None` unless they do, or did for long enough.
    pub(super) fn conflicts_with(&self, other: &Self, now_ns: Nanos) -> Option<Nanos> {
        let segments: BTreeSet<_> = self.claims.iter().filter_map(Claim::segment).collect();
        let share_a_link = other.claims.iter().filter_map(Claim::segment).any(|s| segments.contains(s));
        let (ours, theirs) = (self.extent(), other.extent());
        let together = overlap((ours.0, Some(ours.1.unwrap_or(now_ns))), (theirs.0, Some(theirs.1.unwrap_or(now_ns))));
        let is_one_holder =
            self.mac().is_some() && self.mac() == other.mac() || self.namespace().is_some() && self.namespace() == other.namespace();
        (share_a_link && !is_one_holder && together >= 0).then(|| ours.0.max(theirs.0))
    }

    /// Its evidence, without the renewals between the first and the last; `None`: it was over before `floor_ns`.
    pub(super) fn remainder(&self, floor_ns: Nanos) -> Option<(Vec<Point>, Vec<LeaseRun>)> {
        if self.extent().1.is_some_and(|to| to < floor_ns) {
            return None;
        }
        let mut points = Vec::new();
        for claim in &self.claims {
            let held: Vec<_> = claim.points.iter().filter(|p| matches!(p.word, Word::Held { .. })).collect();
            for (at, point) in claim.points.iter().enumerate() {
                let is_held = matches!(point.word, Word::Held { .. });
                let mut point = Point::clone(point);
                match held[..] {
                    // The first stands for the renewals that are forgotten, so that the last is no new lease.
                    [_, .., before, _] if at == 0 => point = Point { time_ns: point.time_ns, word: point.word, ..Point::clone(before) },
                    [.., last] if at > 0 && is_held && point != **last => continue,
                    _ => {}
                }
                points.push(point);
            }
        }
        Some((points, self.runs.iter().map(|run| (*run).clone()).collect()))
    }
}

fn overlaps(a: &LeaseRun, b: &LeaseRun) -> bool {
    overlap((a.from_ns, a.to_ns), (b.from_ns, b.to_ns)) > 0
}

fn fill(known: &mut Option<String>, other: &Option<String>) {
    if known.is_none() {
        known.clone_from(other);
    }
}
