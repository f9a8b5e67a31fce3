use super::*;

/// So many milliseconds.
const fn ms(n: i64) -> Nanos {
    n * 1_000_000
}

/// One address: its client, since when and until when, in seconds.
fn entry(mac: &str, since: i64, until: i64) -> Entry {
    Entry {
        ip: "10.0.0.9".parse().ok(),
        mac: Some(mac.into()),
        since_ns: Some(since * SECOND),
        until_ns: Some(until * SECOND),
        ..Entry::default()
    }
}

fn over(mac: &str, since: i64, until: i64) -> Entry {
    Entry { is_over: true, ..entry(mac, since, until) }
}

fn page(entries: &[Entry]) -> Page {
    entries.iter().filter_map(|entry| Some((entry.ip?, entries.to_vec()))).take(1).collect()
}

/// A file that said this at 10 s.
fn opened(entries: &[Entry]) -> Book {
    let mut book = Book::new(Path::new("/leases"), 0);
    book.open(page(entries), 10 * SECOND);
    book
}

/// What is told of a page that was written then, and is read 60 ms later.
fn told(book: &mut Book, entries: &[Entry], at_ms: i64) -> Vec<(&'static str, i64, String)> {
    let events = book.turn(page(entries), ms(at_ms), ms(at_ms + 60));
    events.iter().map(|e| (e.action.as_str(), e.time_ns / ms(1), e.lease.mac_address.clone().unwrap_or_default())).collect()
}

fn is(action: &'static str, at_ms: i64, mac: &str) -> (&'static str, i64, String) {
    (action, at_ms, mac.to_owned())
}

#[test]
fn tells_what_changed_between_two_looks() {
    let mut book = opened(&[entry("a", 0, 60)]);
    assert_eq!(told(&mut book, &[entry("a", 0, 60), entry("a", 30, 90)], 30_200), [is("renewed", 30_200, "a")]);
    assert_eq!(told(&mut book, &[entry("b", 40, 100)], 40_900), [is("assigned", 40_900, "b")]);
    assert_eq!(told(&mut book, &[entry("b", 40, 100), over("b", 40, 50)], 50_300), [is("released", 50_300, "b")]);
    assert_eq!(told(&mut book, &[], 52_000), []);
}

#[test]
fn what_ends_by_itself_is_no_release() {
    let mut book = opened(&[entry("a", 0, 60)]);
    assert_eq!(told(&mut book, &[entry("a", 0, 60), over("a", 0, 60)], 60_400), []);
    assert_eq!(told(&mut book, &[entry("a", 0, 60)], 61_000), [], "nor is an old line a lease");
    assert_eq!(told(&mut book, &[entry("a", 62, 120)], 62_000), [is("assigned", 62_000, "a")]);
}

#[test]
fn a_lease_that_is_nowhere_may_be_being_written() {
    let book = opened(&[entry("a", 0, 60)]);
    assert!(book.misses(&Page::new(), 20 * SECOND));
    assert!(!book.misses(&Page::new(), 60 * SECOND));
    assert!(!book.misses(&page(&[over("a", 0, 15)]), 20 * SECOND));
}

/// The file tells whole seconds; when it was written is known better.
#[test]
fn a_lease_begins_and_ends_within_the_second_that_the_file_tells() {
    let mut book = opened(&[]);
    let events = book.turn(page(&[entry("a", 20, 80)]), ms(20_700), ms(20_760));
    assert_eq!((events[0].time_ns, events[0].until_ns), (ms(20_700), Some(ms(80_700))));
    let late = book.turn(page(&[entry("a", 30, 90)]), ms(35_100), ms(35_160));
    assert_eq!((late[0].time_ns, late[0].until_ns), (ms(30_500), Some(ms(90_500))), "written late: the middle of it");
}

/// All that happened between two looks is told, in its order.
#[test]
fn a_journal_is_read_from_where_it_was_left() {
    let mut book = opened(&[entry("a", 0, 60)]);
    let journal = [entry("a", 0, 60), over("a", 0, 20), entry("b", 21, 81), over("b", 21, 23), entry("c", 24, 84)];
    let expected = [is("released", 20_500, "a"), is("assigned", 21_500, "b"), is("released", 23_500, "b"), is("assigned", 24_200, "c")];
    assert_eq!(told(&mut book, &journal, 24_200), expected);
    assert_eq!(told(&mut book, &journal[4..], 25_000), [], "cleaned up");
}

/// Kea says that a lease was given back, but not when.
#[test]
fn what_was_given_back_at_an_unknown_time_was_so_when_the_file_was_written_or_before_the_next_lease() {
    let unknown = || Entry { until_ns: None, ..over("a", 12, 0) };
    let mut book = opened(&[entry("a", 2, 62)]);
    assert_eq!(told(&mut book, &[entry("a", 2, 62), unknown()], 33_300), [is("released", 33_300, "a")]);
    let mut book = opened(&[entry("a", 2, 62)]);
    let expected = [is("released", 33_499, "a"), is("assigned", 33_500, "b")];
    assert_eq!(told(&mut book, &[entry("a", 2, 62), unknown(), entry("b", 33, 93)], 34_300), expected);
}

/// Otherwise what ended would have ended before it began.
#[test]
fn what_is_told_at_once_is_told_in_its_order() {
    let mut book = opened(&[]);
    let events = book.turn(page(&[entry("a", 20, 80), over("a", 20, 20)]), ms(20_700), ms(20_760));
    let told: Vec<_> = events.iter().map(|e| (e.action.as_str(), e.time_ns)).collect();
    assert_eq!(told, [("assigned", ms(20_700) - 1), ("released", ms(20_700))]);
}

/// dhclient writes the end of a lease that it gave back as its expiry, and no beginning.
#[test]
fn a_lease_that_ends_before_its_time_was_given_back() {
    let own = |until| Entry { is_own: true, since_ns: None, ..entry("a", 0, until) };
    let mut book = opened(&[own(60)]);
    assert_eq!(told(&mut book, &[own(60), own(33)], 33_300), [is("released", 33_300, "a")]);
    assert_eq!(told(&mut book, &[own(33), own(100)], 40_000), [is("assigned", 40_000, "a")]);
}

#[test]
fn what_came_and_went_between_two_looks_is_told() {
    let mut book = opened(&[]);
    let events = book.turn(page(&[entry("a", 20, 25)]), ms(20_700), ms(30_000));
    assert_eq!((events[0].action, events[0].time_ns, events[0].until_ns), (LeaseAction::Assigned, ms(20_700), Some(ms(25_700))));
}
