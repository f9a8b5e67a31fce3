//! What one witness makes of an address: for how long which holder had it, worked out from the points of each channel.

use std::collections::BTreeMap;

use super::address::{Point, Reason, Word, concerns};
use crate::{
    lease::{Lease, LeaseSource},
    time::Nanos,
};

/// A client that renews this late had the lease all along: lease files tell whole seconds.
const LATE: Nanos = 1_000_000_000;

/// How something ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct End {
    pub(super) at_ns: Nanos,
    pub(super) reason: Reason,
    /// Not exact: it was over by then.
    pub(super) exact: bool,
}

/// One holder's time at an address, as one channel tells it.
#[derive(Clone, Debug)]
pub(super) struct Claim<'p> {
    /// By time; the first began it, the last that holds tells until when.
    pub(super) points: Vec<&'p Point>,
    pub(super) end: Option<End>,
    last: &'p Point,
}

impl<'p> Claim<'p> {
    fn begin(point: &'p Point) -> Self {
        Self { points: vec![point], end: None, last: point }
    }

    fn first(&self) -> &'p Point {
        self.points[0]
    }

    pub(super) fn began_ns(&self) -> Nanos {
        self.first().time_ns
    }

    /// Whether it began then, and not before.
    pub(super) fn begins_exactly(&self) -> bool {
        self.first().word == Word::Held { exact: true }
    }

    pub(super) fn ended_ns(&self) -> Option<Nanos> {
        self.end.map(|end| end.at_ns)
    }

    pub(super) fn source(&self) -> LeaseSource {
        self.first().source
    }

    pub(super) fn is_of_channel(&self, other: &Self) -> bool {
        self.source() == other.source() && self.first().channel == other.first().channel
    }

    /// What is known of the lease, the newest first.
    pub(super) fn leases(&self) -> impl Iterator<Item = &'p Lease> {
        self.points.iter().rev().filter(|p| matches!(p.word, Word::Held { .. })).map(|p| &p.lease)
    }

    pub(super) fn segment(&self) -> Option<&'p str> {
        self.last.segment.as_deref()
    }

    /// When it ends unless it is renewed.
    pub(super) fn until_ns(&self) -> Option<Nanos> {
        self.last.until_ns
    }

    fn expire(&mut self, now_ns: Nanos) {
        if self.end.is_none()
            && let Some(at_ns) = self.until_ns().filter(|until| *until <= now_ns)
        {
            self.end = Some(End { at_ns, reason: Reason::Expired, exact: true });
        }
    }

    fn close(&mut self, at_ns: Nanos, reason: Reason, exact: bool) {
        self.expire(at_ns);
        self.end.get_or_insert(End { at_ns, reason, exact });
    }
}

/// The claims of all channels, the better sources first, then by time.
pub(super) fn claims<'p>(points: impl IntoIterator<Item = &'p Point>, now_ns: Nanos) -> Vec<Claim<'p>> {
    let mut channels: BTreeMap<_, Vec<&Point>> = BTreeMap::new();
    for point in points {
        channels.entry((point.source, &point.channel)).or_default().push(point);
    }
    let mut claims = Vec::new();
    for points in channels.into_values() {
        let mut open: Option<Claim<'p>> = None;
        for point in points {
            let is_same = open.as_ref().is_some_and(|claim| concerns(&point.lease, &claim.last.lease));
            match point.word {
                Word::Held { .. } => {
                    if let Some(claim) = &mut open {
                        if is_same && claim.until_ns().is_none_or(|until| point.time_ns <= until.saturating_add(LATE)) {
                            claim.points.push(point);
                            claim.last = point;
                            continue;
                        }
                        claim.close(point.time_ns, Reason::Taken, true);
                    }
                    claims.extend(open.replace(Claim::begin(point)));
                }
                Word::Ended { reason, exact } => {
                    if let Some(mut claim) = open.take_if(|_| is_same) {
                        claim.points.push(point);
                        claim.close(point.time_ns, reason, exact);
                        claims.push(claim);
                    }
                }
            }
        }
        if let Some(mut claim) = open {
            claim.expire(now_ns);
            claims.push(claim);
        }
    }
    claims.sort_by_key(|claim| (claim.source(), claim.began_ns()));
    claims
}
