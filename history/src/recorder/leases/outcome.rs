//! What follows from the evidence of an address now: its intervals, the expiries and conflicts that nobody tells, and when it changes by itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    net::IpAddr,
};

use super::{
    address::{Address, FINAL_AFTER, Point, Reason},
    timeline::{CONFLICT_AFTER, Span, Tenure, tenures},
};
use crate::{
    container::ContainerKey,
    lease::{LeaseAction, LeaseEvent},
    recorder::heard::Heard,
    time::Nanos,
};

/// When something was found out, and whose affair it is: told once.
pub(super) type News = (Nanos, String);

#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) spans: Vec<Span>,
    pub(super) found: Vec<(News, LeaseEvent)>,
    pub(super) alarms: Vec<Nanos>,
    /// Runs that had the address by the kernel's word alone.
    pub(super) heard: BTreeSet<(ContainerKey, Heard)>,
}

impl Outcome {
    pub(super) fn of(ip: IpAddr, address: &Address, now_ns: Nanos) -> Self {
        let tenures: Vec<_> = tenures(address, now_ns).into_iter().map(|tenure| (tenure.spans(ip, now_ns), tenure)).collect();
        let mut outcome = Self { alarms: tenures.iter().filter_map(|(_, tenure)| tenure.next_change(now_ns)).collect(), ..Self::default() };
        for (at, (spans, tenure)) in tenures.iter().enumerate() {
            outcome.find_expiries(spans, tenure);
            for (others, other) in &tenures[at + 1..] {
                outcome.find_conflict(address, [(spans, tenure), (others, other)], now_ns);
            }
        }
        outcome.found.retain(|(news, _)| news.0 >= now_ns - FINAL_AFTER && !address.told.contains(news));
        outcome.heard = tenures.iter().flat_map(|(_, tenure)| tenure.heard(ip)).collect();
        outcome.spans = distinct(tenures.into_iter().flat_map(|(spans, _)| spans));
        outcome
    }

    fn find_expiries(&mut self, spans: &[Span], tenure: &Tenure<'_>) {
        let Some(over) = spans.iter().find(|span| span.ended_reason == Some(Reason::Expired)) else { return };
        for (at_ns, claim) in tenure.expiries() {
            let news = (at_ns, format!("expired {}", claim.points[0].channel));
            self.found.push((news, told(LeaseAction::Expired, at_ns, claim.points[0], over)));
        }
    }

    fn find_conflict(&mut self, address: &Address, pair: [(&Vec<Span>, &Tenure<'_>); 2], now_ns: Nanos) {
        let Some(since) = pair[0].1.conflicts_with(pair[1].1, now_ns) else { return };
        let confirmed = since.saturating_add(CONFLICT_AFTER);
        if confirmed > now_ns {
            self.alarms.push(confirmed);
            return;
        }
        let mut holders = pair.map(|(spans, _)| spans.first());
        holders.sort_by_key(|span| span.map(|s| (s.from_ns, s.scope())));
        let [Some(first), Some(second)] = holders else { return };
        let lasted = |span: &Span| span.to_ns.is_none_or(|to| to >= confirmed);
        if lasted(first) && lasted(second) {
            // The newcomer's row; the one before has its own interval.
            let point = address.points.iter().rev().find(|p| p.lease.mac_address == second.lease.mac_address);
            let Some(point) = point.or(address.points.first()) else { return };
            let news = (since, format!("conflict {} {}", first.scope(), second.scope()));
            self.found.push((news, told(LeaseAction::Conflict, since, point, second)));
        }
    }
}

/// The store has one interval of a name: of several that begin at once, the one that lasts longest.
fn distinct(spans: impl Iterator<Item = Span>) -> Vec<Span> {
    let lasts = |span: &Span| span.to_ns.unwrap_or(Nanos::MAX);
    let mut distinct: BTreeMap<(Nanos, String), Span> = BTreeMap::new();
    for span in spans {
        let name = (span.from_ns, span.scope());
        if distinct.get(&name).is_none_or(|known| lasts(&span) > lasts(known)) {
            distinct.insert(name, span);
        }
    }
    distinct.into_values().collect()
}

/// What the recorder found out itself, with the word that it follows from.
fn told(action: LeaseAction, time_ns: Nanos, point: &Point, span: &Span) -> LeaseEvent {
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

pub(super) fn digest(span: &Span) -> u64 {
    let mut hasher = DefaultHasher::new();
    span.hash(&mut hasher);
    hasher.finish()
}
