//! The evidence of one address: what was said of it, by whom, when. Kept as a set, so that the order in which it came does not matter.

use std::{collections::BTreeSet, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    container::ContainerKey,
    lease::{Lease, LeaseAction, LeaseEvent, LeaseScope, LeaseSource},
    recorder::heard::{Finding, Heard},
    time::Nanos,
};

/// Evidence older than this is final: nobody is later, and what it says of the past is in the store.
pub(super) const FINAL_AFTER: Nanos = 600_000_000_000;
/// Most points and runs that one address keeps; of more, the oldest half is forgotten before its time.
const MOST: usize = 512;

/// Why an interval ended: its `ended_reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Reason {
    Removed,
    Released,
    Declined,
    Nak,
    Expired,
    /// Its server, or its interface, gave it to somebody else.
    Taken,
    /// The container ended.
    Die,
    /// Went on under another name.
    Changed,
    /// It was gone when it could be seen again.
    Unknown,
}

impl Reason {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Removed => "removed",
            Self::Released => "released",
            Self::Declined => "declined",
            Self::Nak => "nak",
            Self::Expired => "expired",
            Self::Taken => "taken",
            Self::Die => "die",
            Self::Changed => "changed",
            Self::Unknown => "unknown",
        }
    }
}

/// What a point says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Word {
    /// Nobody of this channel has it any more, or the named holder.
    #[serde(rename = "e")]
    Ended { reason: Reason, exact: bool },
    /// The holder has it. Not exact: it may have had it before.
    #[serde(rename = "h")]
    Held { exact: bool },
}

/// One thing that a channel said of the address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Point {
    #[serde(rename = "t")]
    pub(super) time_ns: Nanos,
    #[serde(rename = "s")]
    pub(super) source: LeaseSource,
    #[serde(rename = "c")]
    pub(super) channel: Arc<str>,
    #[serde(rename = "w")]
    pub(super) word: Word,
    #[serde(rename = "l")]
    pub(super) lease: Lease,
    #[serde(rename = "u", default, skip_serializing_if = "Option::is_none")]
    pub(super) until_ns: Option<Nanos>,
    #[serde(rename = "g", default, skip_serializing_if = "Option::is_none")]
    pub(super) segment: Option<Arc<str>>,
}

impl Point {
    /// What an event says of who has the address; `None`: nothing.
    pub(super) fn of(event: &LeaseEvent) -> Option<Self> {
        use LeaseAction as A;
        let ended = |reason| Word::Ended { reason, exact: true };
        let word = match event.action {
            A::Added | A::Assigned => Word::Held { exact: true },
            A::Renewed => Word::Held { exact: false },
            A::Removed => ended(Reason::Removed),
            A::Nak => ended(Reason::Nak),
            A::Declined => ended(Reason::Declined),
            A::Released => ended(Reason::Released),
            A::Expired => ended(Reason::Expired),
            A::Discover | A::Offer | A::Request | A::Conflict => return None,
        };
        Some(Self {
            time_ns: event.time_ns,
            source: event.source,
            channel: Arc::clone(&event.channel),
            word,
            lease: event.lease.clone(),
            until_ns: event.until_ns,
            segment: event.segment.clone(),
        })
    }
}

/// A run of a container, as far as it bears on an address.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct LeaseRun {
    pub(super) from_ns: Nanos,
    /// `None` while it goes on.
    pub(super) to_ns: Option<Nanos>,
    pub(super) container: ContainerKey,
    pub(super) net_namespace: Option<String>,
    pub(super) ip_addresses: Vec<String>,
    pub(super) mac_addresses: Vec<String>,
}

/// An interval that is in the store: what names it, and a digest of what it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Written {
    pub(super) from_ns: Nanos,
    pub(super) scope: String,
    pub(super) digest: u64,
}

/// All evidence of one address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Address {
    pub(super) points: BTreeSet<Point>,
    pub(super) runs: BTreeSet<LeaseRun>,
    /// What was before this is final: its evidence is forgotten, more of it is ignored.
    pub(super) floor_ns: Option<Nanos>,
    pub(super) written: Vec<Written>,
    /// Expiries and conflicts that were told: when, and whose.
    pub(super) told: BTreeSet<(Nanos, String)>,
    /// Runs that are known to have had it by the kernel's word alone, as their containers were told.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) heard: BTreeSet<(ContainerKey, Heard)>,
}

impl Address {
    /// Takes a point; false: it is too old to change anything, or known.
    pub(super) fn learn(&mut self, point: Point) -> bool {
        if self.floor_ns.is_some_and(|floor| point.time_ns < floor) || !self.points.insert(point) {
            return false;
        }
        self.bound();
        true
    }

    /// Replaces what is known of a container's runs; false: it is known already.
    pub(super) fn learn_runs(&mut self, container: &ContainerKey, runs: &[LeaseRun]) -> bool {
        let floor = self.floor_ns.unwrap_or(Nanos::MIN);
        let told: BTreeSet<_> = runs.iter().filter(|run| run.to_ns.is_none_or(|to| to >= floor)).collect();
        if told.iter().copied().eq(self.runs.iter().filter(|run| run.container == *container)) {
            return false;
        }
        let told: Vec<_> = told.into_iter().cloned().collect();
        // What ended before is only forgotten: the id came back, or there were many.
        let first = told.iter().map(|run| run.from_ns).min().unwrap_or(Nanos::MAX);
        self.runs.retain(|run| run.container != *container || run.to_ns.is_some_and(|to| to <= first));
        self.runs.extend(told);
        self.bound();
        true
    }

    /// Takes which runs had it by the kernel's word alone; gives what is new, and what was told and is not so. What followed from evidence
    /// that is forgotten stands.
    pub(super) fn hear(&mut self, heard: BTreeSet<(ContainerKey, Heard)>) -> Vec<Finding> {
        let floor = self.floor_ns.unwrap_or(Nanos::MIN);
        let wrong = self.heard.difference(&heard).filter(|(_, heard)| heard.run_ns >= floor).map(|found| (found, false));
        let found = wrong.chain(heard.difference(&self.heard).map(|found| (found, true)));
        let found =
            found.map(|((container, heard), holds)| Finding { container: container.clone(), heard: heard.clone(), holds }).collect();
        self.heard = heard;
        found
    }

    /// The namespaces, but for the host's, in which an interface has, or had, the address.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = &str> {
        let of_containers = self.points.iter().filter(|point| point.lease.scope == LeaseScope::Container);
        of_containers.filter_map(|point| point.lease.net_namespace.as_deref())
    }

    fn bound(&mut self) {
        while self.points.len() > MOST {
            self.floor_ns = self.points.pop_first().map(|point| point.time_ns);
        }
        while self.runs.len() > MOST {
            self.runs.pop_first();
        }
    }

    /// Whether nothing is left to know.
    pub(super) fn is_over(&self) -> bool {
        self.points.is_empty() && self.runs.is_empty()
    }
}

/// Whether what is said of `one` is said of `other`: the same client, or a word about the channel's address whoever has it.
pub(super) fn concerns(one: &Lease, other: &Lease) -> bool {
    match (&one.mac_address, &other.mac_address, &one.client_id, &other.client_id) {
        (Some(a), Some(b), ..) => a == b,
        (.., Some(a), Some(b)) => a == b,
        _ => true,
    }
}
