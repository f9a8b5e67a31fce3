//! What one lease file said last, and what follows when it says something else.

use std::{collections::BTreeMap, net::IpAddr, path::Path, sync::Arc};

use mayfly_history::{
    Nanos,
    lease::{HeldLease, Lease, LeaseAction, LeaseEvent, LeaseScope, LeaseSource},
};

use super::parse::Entry;

const SECOND: Nanos = 1_000_000_000;

/// One file's leases.
#[derive(Debug, Default)]
pub(super) struct Book {
    channel: Arc<str>,
    given: BTreeMap<IpAddr, Entry>,
    read_ns: Nanos,
}

/// What a file says now: the leases that are given, and when those that are over ended, where it tells.
#[derive(Debug, Default)]
pub(super) struct Page {
    given: BTreeMap<IpAddr, Entry>,
    over: BTreeMap<IpAddr, Option<Nanos>>,
}

impl Page {
    /// Later entries override earlier ones.
    pub(super) fn of(entries: Vec<Entry>) -> Self {
        let mut page = Self::default();
        for entry in entries {
            let Some(ip) = entry.ip else { continue };
            if entry.is_over {
                page.given.remove(&ip);
                page.over.insert(ip, entry.until_ns);
            } else {
                page.given.insert(ip, entry);
            }
        }
        page
    }
}

impl Book {
    pub(super) fn new(path: &Path) -> Self {
        Self { channel: path.to_string_lossy().into(), ..Self::default() }
    }

    pub(super) fn channel(&self) -> &Arc<str> {
        &self.channel
    }

    /// Whether a lease that should still be given is not in the page at all: it may just be being written.
    pub(super) fn misses(&self, page: &Page, now_ns: Nanos) -> bool {
        let runs = |entry: &Entry| entry.until_ns.is_none_or(|until| until > now_ns + SECOND);
        self.given.iter().any(|(ip, entry)| runs(entry) && !page.given.contains_key(ip) && !page.over.contains_key(ip))
    }

    /// Takes the first page; gives what holds.
    pub(super) fn open(&mut self, page: Page, now_ns: Nanos) -> Vec<HeldLease> {
        self.given = page.given;
        self.read_ns = now_ns;
        let runs = self.given.iter().filter(|(_, entry)| entry.until_ns.is_none_or(|until| until > now_ns));
        runs.map(|(ip, entry)| HeldLease {
            channel: Arc::clone(&self.channel),
            lease: lease(*ip, entry),
            since_ns: entry.since_ns,
            until_ns: entry.until_ns,
            segment: None,
        })
        .collect()
    }

    /// Takes another page; gives what happened since the last.
    pub(super) fn turn(&mut self, page: Page, now_ns: Nanos) -> Vec<LeaseEvent> {
        // Files tell whole seconds, and clocks of servers may differ.
        let within = |told: Option<Nanos>| told.unwrap_or(now_ns).clamp(self.read_ns.min(now_ns), now_ns);
        let mut events = Vec::new();
        let mut tell = |time_ns, action, ip, entry: &Entry| {
            events.push(LeaseEvent {
                time_ns,
                action,
                source: LeaseSource::LeaseFile,
                channel: Arc::clone(&self.channel),
                lease: lease(ip, entry),
                until_ns: entry.until_ns,
                segment: None,
            });
        };
        for (ip, before) in &self.given {
            let ends_by_itself = before.until_ns.is_some_and(|until| until <= now_ns + SECOND);
            if !page.given.contains_key(ip) && !ends_by_itself {
                tell(within(page.over.get(ip).copied().flatten()), LeaseAction::Released, *ip, before);
            }
        }
        for (ip, entry) in &page.given {
            if entry.until_ns.is_some_and(|until| until <= now_ns) {
                continue;
            }
            match self.given.get(ip) {
                Some(before) if before == entry => {}
                Some(before) if is_same(before, entry) && before.until_ns.is_none_or(|until| until + SECOND >= now_ns) => {
                    tell(now_ns, LeaseAction::Renewed, *ip, entry);
                }
                _ => tell(within(entry.since_ns), LeaseAction::Assigned, *ip, entry),
            }
        }
        self.given = page.given;
        self.read_ns = now_ns;
        events
    }
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
mod tests {
    use super::*;

    fn entry(mac: &str, since: i64, until: i64) -> Entry {
        Entry {
            ip: "10.0.0.9".parse().ok(),
            mac: Some(mac.into()),
            since_ns: Some(since * SECOND),
            until_ns: Some(until * SECOND),
            ..Entry::default()
        }
    }

    fn told(events: &[LeaseEvent]) -> Vec<(&'static str, i64, &str)> {
        events.iter().map(|e| (e.action.as_str(), e.time_ns / SECOND, e.lease.mac_address.as_deref().unwrap_or(""))).collect()
    }

    #[test]
    fn tells_what_changed_between_two_looks() {
        let mut book = Book::new(Path::new("/leases"));
        assert_eq!(book.open(Page::of(vec![entry("a", 0, 60)]), 10 * SECOND).len(), 1);
        let renewed = book.turn(Page::of(vec![entry("a", 0, 60), entry("a", 30, 90)]), 30 * SECOND);
        assert_eq!(told(&renewed), [("renewed", 30, "a")]);
        let taken = book.turn(Page::of(vec![entry("b", 40, 100)]), 41 * SECOND);
        assert_eq!(told(&taken), [("assigned", 40, "b")]);
        let over = Entry { is_over: true, ..entry("b", 40, 50) };
        let released = book.turn(Page::of(vec![entry("b", 40, 100), over]), 51 * SECOND);
        assert_eq!(told(&released), [("released", 50, "b")]);
        assert!(book.turn(Page::default(), 52 * SECOND).is_empty());
    }

    #[test]
    fn what_ends_by_itself_is_no_release() {
        let mut book = Book::new(Path::new("/leases"));
        book.open(Page::of(vec![entry("a", 0, 60)]), 10 * SECOND);
        assert!(book.turn(Page::default(), 60 * SECOND).is_empty());
        assert!(book.turn(Page::of(vec![entry("a", 0, 60)]), 61 * SECOND).is_empty(), "nor is an old line a lease");
        assert_eq!(told(&book.turn(Page::of(vec![entry("a", 62, 120)]), 62 * SECOND)), [("assigned", 62, "a")]);
    }

    #[test]
    fn a_lease_that_is_nowhere_may_be_being_written() {
        let mut book = Book::new(Path::new("/leases"));
        book.open(Page::of(vec![entry("a", 0, 60)]), 10 * SECOND);
        assert!(book.misses(&Page::default(), 20 * SECOND));
        assert!(!book.misses(&Page::default(), 60 * SECOND));
        assert!(!book.misses(&Page::of(vec![Entry { is_over: true, ..entry("a", 0, 15) }]), 20 * SECOND));
    }
}
