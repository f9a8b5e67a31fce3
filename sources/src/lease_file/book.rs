//! What one lease file said last, and what follows when it says something else.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
    sync::Arc,
};

use mayfly_history::{
    Nanos,
    lease::{HeldLease, Lease, LeaseAction, LeaseEvent, LeaseScope, LeaseSource},
};

use super::parse::{Entry, Page, SECOND};

/// One file's leases.
#[derive(Debug, Default)]
pub(super) struct Book {
    channel: Arc<str>,
    /// The last word about each address, that it is over included.
    last: BTreeMap<IpAddr, Entry>,
    read_ns: Nanos,
}

impl Book {
    /// A file of which nothing is known, or that was not there at `read_ns`.
    pub(super) fn new(path: &Path, read_ns: Nanos) -> Self {
        Self { channel: path.to_string_lossy().into(), read_ns, ..Self::default() }
    }

    pub(super) fn channel(&self) -> &Arc<str> {
        &self.channel
    }

    /// Whether a lease that should still be given is not in the page at all: it may just be being written.
    pub(super) fn misses(&self, page: &Page, now_ns: Nanos) -> bool {
        let runs = |entry: &Entry| !entry.is_over && !ends_by(entry, now_ns);
        self.last.iter().any(|(ip, entry)| runs(entry) && !page.contains_key(ip))
    }

    /// Takes the first page; gives what holds.
    pub(super) fn open(&mut self, page: Page, now_ns: Nanos) -> Vec<HeldLease> {
        self.last = page.into_iter().filter_map(|(ip, mut entries)| Some((ip, entries.pop()?))).collect();
        self.read_ns = now_ns;
        let runs = self.last.iter().filter(|(_, entry)| !entry.is_over && entry.until_ns.is_none_or(|until| until > now_ns));
        runs.map(|(ip, entry)| HeldLease {
            channel: Arc::clone(&self.channel),
            lease: lease(*ip, entry),
            since_ns: entry.since_ns,
            until_ns: entry.until_ns,
            segment: None,
        })
        .collect()
    }

    /// Takes another page, of a file that was changed at `changed_ns`; gives what happened since the last.
    pub(super) fn turn(&mut self, mut page: Page, changed_ns: Nanos, now_ns: Nanos) -> Vec<LeaseEvent> {
        let clock = Clock { read_ns: self.read_ns.min(now_ns), changed_ns: changed_ns.clamp(self.read_ns.min(now_ns), now_ns), now_ns };
        let mut events = Vec::new();
        let addresses: BTreeSet<IpAddr> = self.last.keys().chain(page.keys()).copied().collect();
        for ip in addresses {
            let told = page.remove(&ip).unwrap_or_default();
            let before = self.last.get(&ip).cloned();
            for (action, time_ns, entry) in story(before.as_ref(), &told, clock) {
                events.push(self.event(ip, action, time_ns, entry));
            }
            match told.last() {
                Some(last) if before.as_ref() == Some(last) => {}
                Some(last) => drop(self.last.insert(ip, last.clone())),
                None => drop(self.last.remove(&ip)),
            }
        }
        self.read_ns = now_ns;
        events
    }

    fn event(&self, ip: IpAddr, action: LeaseAction, time_ns: Nanos, entry: &Entry) -> LeaseEvent {
        LeaseEvent {
            time_ns,
            action,
            source: LeaseSource::LeaseFile,
            channel: Arc::clone(&self.channel),
            lease: lease(ip, entry),
            // It was given within the second that the file tells, and ends within that second too.
            until_ns: entry.until_ns.map(|until| if until % SECOND == 0 { until.saturating_add(time_ns % SECOND) } else { until }),
            segment: None,
        }
    }
}

/// When the file was read before, when it was changed last, and now.
#[derive(Clone, Copy, Debug)]
struct Clock {
    read_ns: Nanos,
    changed_ns: Nanos,
    now_ns: Nanos,
}

impl Clock {
    /// When something happened of which the file tells the second: files are written at once, and know better. `None`: before the last look,
    /// so that it must be the time of something else.
    fn when(self, told: Option<Nanos>) -> Option<Nanos> {
        let second = told?.div_euclid(SECOND);
        let within = if second == self.changed_ns.div_euclid(SECOND) { self.changed_ns } else { second * SECOND + SECOND / 2 };
        (within >= self.read_ns.saturating_sub(SECOND)).then(|| within.clamp(self.read_ns, self.now_ns))
    }
}

/// What happened to an address, each with the entry that it is about.
fn story<'e>(before: Option<&'e Entry>, told: &'e [Entry], clock: Clock) -> Vec<(LeaseAction, Nanos, &'e Entry)> {
    let mut holder = before.filter(|entry| !entry.is_over);
    let mut events = Vec::new();
    if told.is_empty() {
        let gone = holder.filter(|entry| !ends_by(entry, clock.now_ns));
        return gone.map(|entry| (LeaseAction::Released, clock.changed_ns, entry)).into_iter().collect();
    }
    // What comes after the last word that is known; of what was written anew, only the last word.
    let known = before.map(|before| told.iter().rposition(|entry| entry == before));
    let news = &told[known.map_or(0, |at| at.map_or(told.len() - 1, |at| at + 1))..];
    for (at, entry) in news.iter().enumerate() {
        // What is not told happened before the next thing did.
        let next = news.get(at + 1).and_then(|next| clock.when(next.since_ns));
        let when = |told| clock.when(told).or(next).unwrap_or(clock.changed_ns);
        // An old line, or the end of a lease, as dhclient writes it.
        let is_past = entry.until_ns.is_some_and(|until| until <= clock.now_ns) && clock.when(entry.since_ns).is_none();
        match holder {
            Some(held) if entry.is_over || (is_past && held.until_ns > entry.until_ns && is_same(held, entry)) => {
                let time_ns = when(entry.until_ns);
                if !ends_by(held, time_ns) {
                    events.push((LeaseAction::Released, time_ns, held));
                }
                holder = None;
            }
            _ if entry.is_over || is_past => holder = None,
            Some(held) if is_same(held, entry) && !ends_by(held, when(entry.since_ns).saturating_sub(2 * SECOND)) => {
                events.push((LeaseAction::Renewed, when(entry.since_ns), entry));
                holder = Some(entry);
            }
            _ => {
                events.push((LeaseAction::Assigned, when(entry.since_ns), entry));
                holder = Some(entry);
            }
        }
    }
    // Each is told after the one before, though the file was written once.
    for at in (1..events.len()).rev() {
        let next_ns = events[at].1;
        events[at - 1].1 = events[at - 1].1.min(next_ns - 1);
    }
    events
}

/// Whether it is over by itself then; files tell whole seconds.
fn ends_by(entry: &Entry, time_ns: Nanos) -> bool {
    entry.until_ns.is_some_and(|until| until <= time_ns.saturating_add(SECOND))
}

/// Whether both are of one client.
fn is_same(one: &Entry, other: &Entry) -> bool {
    match (&one.mac, &other.mac) {
        (Some(a), Some(b)) => a == b,
        _ => one.client_id == other.client_id,
    }
}

fn lease(ip: IpAddr, entry: &Entry) -> Lease {
    let lasts = entry.since_ns.zip(entry.until_ns).map(|(since, until)| (until - since) / SECOND);
    Lease {
        ip_address: Some(ip),
        prefix_length: entry.prefix_length,
        mac_address: entry.mac.clone(),
        interface: entry.interface.clone(),
        scope: if entry.is_own { LeaseScope::Host } else { LeaseScope::Client },
        hostname: entry.hostname.clone(),
        client_id: entry.client_id.clone(),
        server_address: entry.server,
        lease_seconds: entry.lease_seconds.or(lasts),
        ..Lease::default()
    }
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
