//! One root and what is known of its accounts.

use std::{sync::Arc, time::Duration};

use mayfly_history::{
    Change, Fact, Nanos,
    account::{AccountEvent, Group, User},
    container::ContainerKey,
    now,
};
use tokio::time::Instant;

use super::{
    ATTEMPTS, BETWEEN_LOOKS, FIRST_PAUSE,
    book::{self, Book, Turn},
    root::{Look, Root, Written},
};
use crate::supervise::Site;

/// Who saw what is told here.
const EVIDENCE: &str = "accounts";

/// So much may the time of a file, which is that of the kernel's last tick, lie before what happened.
const COARSE: Nanos = 20_000_000;

/// A root that is watched.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) root: Arc<Root>,
    /// Of the container's first process: another one is another run. `None` for the host.
    pub(crate) pid: Option<i64>,
    /// As of the last look; `None` before the first.
    book: Option<Book>,
    /// A look is under way.
    looking: bool,
    /// Something happened since that look began: when, first.
    stirred_ns: Option<Nanos>,
    looked: Option<Instant>,
    /// When the last look whose result is known began.
    looked_ns: Nanos,
    attempts: u32,
    /// Since when it was not watched.
    lost_ns: Option<Nanos>,
    /// Lines that were none at the last look.
    rejected: u64,
}

impl Place {
    pub(crate) fn new(root: Root, pid: Option<i64>) -> Self {
        Self {
            root: Arc::new(root),
            pid,
            book: None,
            looking: false,
            stirred_ns: None,
            looked: None,
            looked_ns: 0,
            attempts: 0,
            lost_ns: None,
            rejected: 0,
        }
    }

    /// Something happened here.
    pub(crate) fn stir(&mut self, at_ns: Nanos) {
        self.stirred_ns.get_or_insert(at_ns);
    }

    /// Whether to look now, and after what pause; not while a look is under way.
    pub(crate) fn begin_look(&mut self) -> Option<Duration> {
        if self.looking {
            return None;
        }
        self.looking = true;
        if self.attempts > 0 && self.book.is_none() {
            return Some(FIRST_PAUSE * (1 << self.attempts.min(ATTEMPTS)));
        }
        let since = self.looked.filter(|_| self.pid.is_some()).map(|looked| looked.elapsed());
        Some(since.map_or(Duration::ZERO, |since| BETWEEN_LOOKS.saturating_sub(since)))
    }

    /// The look ended. Whether another is due.
    pub(crate) fn end_look(&mut self) -> bool {
        self.looking = false;
        self.looked = Some(Instant::now());
        self.stirred_ns.is_some() || (self.book.is_none() && (1..ATTEMPTS).contains(&self.attempts))
    }

    /// It is not watched any more; the look that may be under way is not waited for.
    pub(crate) fn lose(&mut self, at_ns: Nanos) {
        self.looking = false;
        self.lost_ns.get_or_insert(at_ns);
    }

    /// Whether a root that is not there yet is worth another look.
    pub(crate) fn may_try_again(&mut self) -> bool {
        self.attempts += 1;
        self.attempts < ATTEMPTS
    }

    /// It has no accounts that could be read.
    pub(crate) fn give_up(&mut self) {
        self.attempts = ATTEMPTS;
        self.stirred_ns = None;
    }

    /// Tells what a look that began at `at_ns` found. `source_ns`: since when the source listens. Answers since when it did not, before.
    pub(crate) fn tell(&mut self, site: &Site, look: Look, at_ns: Nanos, source_ns: Nanos) -> Option<Nanos> {
        if look.rejected > self.rejected {
            let name = self.root.key().container_id;
            site.feed.reject(format!("{} lines of passwd and group are none{}", look.rejected, of(&name)));
        }
        self.rejected = look.rejected;
        // What happened before this look began is in it; the first word of it is the best time that there is.
        let stirred_ns = self.stirred_ns.take_if(|stirred| *stirred <= at_ns);
        let last_ns = std::mem::replace(&mut self.looked_ns, at_ns);
        let Some(book) = &mut self.book else {
            let began = self.root.began().filter(|began| *began >= source_ns);
            let (taken_ns, evidence) = began.map_or((at_ns, "startup"), |began| (began, EVIDENCE));
            let blind_since = site.recorder.blind_since().filter(|_| began.is_none());
            self.book = Some(look.book);
            self.list(site, taken_ns, blind_since, evidence);
            return self.lost_ns.take();
        };
        // It may also have happened while the look was under way.
        let heard_ns = stirred_ns.or(self.stirred_ns).unwrap_or(at_ns);
        let lost_ns = self.lost_ns.take();
        // Of what happened while nobody watched, a file's time tells only the last of it.
        let happened_ns = |written: Option<Nanos>| if lost_ns.is_some() { at_ns } else { dated(written, last_ns, heard_ns) };
        let Written { passwd, group, shadow } = look.written;
        let (of_users, of_groups) = (happened_ns(passwd), happened_ns(group));
        let passwords = book::password_events(book, &look.book.passwords, happened_ns(shadow));
        book.passwords = look.book.passwords;
        let (users, groups) = (book.turn_users(look.book.users), book.turn_groups(look.book.groups));
        let told = users.iter().filter_map(|turn| book::user_event(turn, of_users));
        let told = told.chain(groups.iter().filter_map(|turn| book::group_event(turn, of_groups))).chain(passwords);
        let told: Vec<_> = told.collect();
        // The intervals go first, so that whoever sees an event finds them.
        let sinks = site.recorder.sinks();
        if lost_ns.is_some() {
            self.list(site, at_ns, lost_ns, EVIDENCE);
        } else {
            users.into_iter().flat_map(|turn| changes(turn, of_users)).for_each(|change| sinks.of().push(&site.feed, change));
            groups.into_iter().flat_map(|turn| changes(turn, of_groups)).for_each(|change| sinks.of().push(&site.feed, change));
        }
        let events = sinks.of::<AccountEvent>();
        told.into_iter().for_each(|event| events.push(&site.feed, event));
        lost_ns
    }

    /// As of the last look; `None` before the first.
    pub(crate) fn book(&self) -> Option<&Book> {
        self.book.as_ref()
    }

    /// The container is gone, and its accounts with it.
    pub(crate) fn end(mut self, site: &Site) {
        if self.book.take().is_some() {
            self.list(site, now(), None, EVIDENCE);
        }
    }

    /// Tells all that there is.
    fn list(&self, site: &Site, taken_ns: Nanos, blind_since: Option<Nanos>, evidence: &'static str) {
        list(site, self.root.key(), self.book.clone().unwrap_or_default(), (taken_ns, blind_since, evidence));
    }
}

/// When what differs from the last look happened: when its file was written, which tells it however late we heard of it; but what lies
/// before the last look, such as the time of an old file that is mounted over the other, tells nothing.
fn dated(written: Option<Nanos>, last_ns: Nanos, heard_ns: Nanos) -> Nanos {
    let written = written.filter(|written| (last_ns - COARSE..=now()).contains(written));
    written.map_or(heard_ns, |written| written.max(last_ns))
}

/// A container that ran when the recorder stopped is gone: nobody knows since when, and nobody can look.
pub(crate) fn lost(site: &Site, container: ContainerKey) {
    list(site, container, Book::default(), (now(), site.recorder.blind_since(), EVIDENCE));
}

fn list(site: &Site, container: ContainerKey, book: Book, (taken_ns, blind_since, evidence): (Nanos, Option<Nanos>, &'static str)) {
    let group = User { container, ..User::default() }.group().into_owned();
    let users: Vec<User> = book.users.into_values().collect();
    let groups: Vec<Group> = book.groups.into_values().collect();
    let sinks = site.recorder.sinks();
    sinks.of().push(&site.feed, Change::Present { group: group.clone(), facts: users, taken_ns, blind_since, evidence });
    sinks.of().push(&site.feed, Change::Present { group, facts: groups, taken_ns, blind_since, evidence });
}

fn of(container: &str) -> String {
    if container.is_empty() { String::new() } else { format!(" in container {container}") }
}

/// What a turn does to the intervals.
fn changes<S: Fact>(turn: Turn<S>, at_ns: Nanos) -> Vec<Change<S>> {
    let ended = |fact: &S, reason| {
        let (key, scope) = (fact.key().into_owned(), fact.scope().into_owned());
        Change::Ended { key, scope, at_ns, reason, evidence: EVIDENCE }
    };
    match turn {
        Turn { before: Some(before), after: None } => vec![ended(&before, "removed")],
        Turn { before, after: Some(after) } => {
            // The same key and scope is one interval that ends as the other begins; another id is another key.
            let moved = before.filter(|before| (before.key(), before.scope()) != (after.key(), after.scope()));
            let ended = moved.iter().map(|before| ended(before, "changed"));
            ended.chain([Change::Holds { fact: after.clone(), at_ns, evidence: EVIDENCE }]).collect()
        }
        Turn { before: None, after: None } => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_has_the_time_of_its_file_unless_that_cannot_be() {
        let last_ns = now() - 1_000_000_000;
        let (in_between, heard_ns) = (last_ns + 5, last_ns + 9);
        assert_eq!(dated(Some(in_between), last_ns, heard_ns), in_between);
        assert_eq!(dated(Some(last_ns - 1), last_ns, heard_ns), last_ns, "the clock of files is coarse");
        for other in [None, Some(0), Some(Nanos::MIN), Some(last_ns - COARSE - 1), Some(now() + 60_000_000_000)] {
            assert_eq!(dated(other, last_ns, heard_ns), heard_ns, "{other:?}");
        }
    }
}
