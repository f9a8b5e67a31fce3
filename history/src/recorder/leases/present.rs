//! What follows from a list of all that a source has now, compared with what was known.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use super::{
    address::{Address, Point, Reason, Word, concerns},
    claim::claims,
};
use crate::lease::{HeldLease, PresentLeases};

/// What goes on is said again only where its end is another; what is not there any more has ended some time before.
pub(super) fn points(addresses: &HashMap<IpAddr, Address>, present: &PresentLeases) -> Vec<(IpAddr, Point)> {
    let PresentLeases { source, channel: listed, taken_ns, leases, .. } = present;
    let mut points: Vec<(IpAddr, Point)> = Vec::new();
    let mut going_on = HashSet::new();
    for (ip, address) in addresses {
        let open = claims(&address.points, *taken_ns).into_iter().filter(|c| c.end.is_none() && c.source() == *source);
        for claim in open {
            let Some(lease) = claim.leases().next() else { continue };
            let channel = &claim.points[0].channel;
            if !listed.is_empty() && channel != listed {
                continue;
            }
            let is_it = |l: &HeldLease| l.lease.ip_address == Some(*ip) && l.channel == *channel && concerns(&l.lease, lease);
            let found = leases.iter().enumerate().find(|(_, held)| is_it(held));
            if let Some((at, held)) = found {
                going_on.insert(at);
                if held.until_ns == claim.until_ns() {
                    continue;
                }
            }
            let held = found.map(|(_, held)| held);
            let point = Point {
                time_ns: *taken_ns,
                source: *source,
                channel: channel.clone(),
                word: if held.is_some() { Word::Held { exact: false } } else { Word::Ended { reason: Reason::Unknown, exact: false } },
                lease: held.map_or(lease, |held| &held.lease).clone(),
                until_ns: held.and_then(|held| held.until_ns),
                segment: held.and_then(|held| held.segment.clone()),
            };
            points.push((*ip, point));
        }
    }
    for (_, held) in leases.iter().enumerate().filter(|(at, _)| !going_on.contains(at)) {
        let Some(ip) = held.lease.ip_address else { continue };
        let point = Point {
            // A lease may be older than what is told of it: files tell of the last renewal.
            time_ns: held.since_ns.map_or(*taken_ns, |since| since.min(*taken_ns)),
            source: *source,
            channel: held.channel.clone(),
            word: Word::Held { exact: false },
            lease: held.lease.clone(),
            until_ns: held.until_ns,
            segment: held.segment.clone(),
        };
        points.push((ip, point));
    }
    points
}
