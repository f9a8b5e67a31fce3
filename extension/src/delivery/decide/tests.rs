use std::{collections::BTreeMap, convert::Infallible};

use proptest::prelude::*;

use super::*;

/// Events `from..=newest`, each numbered by its sequence, a second apart.
#[derive(Clone, Copy, Debug)]
struct Numbers {
    from: u64,
    newest: u64,
}

const NOW: Nanos = 99_000_000_000;

fn eid(sequence: u64) -> Eid {
    Eid { generation: 7, sequence }
}

impl Log for Numbers {
    type Error = Infallible;

    fn nth_after(&self, after: Option<Eid>, count: u32) -> Result<Option<Eid>, Infallible> {
        let before = after.map_or(0, |e| e.sequence).max(self.from - 1);
        let nth = (before + u64::from(count)).min(self.newest);
        Ok((nth > before).then(|| eid(nth)))
    }

    fn first_after(&self, after: Option<Eid>) -> Result<Option<Waiting>, Infallible> {
        let first = after.map_or(0, |e| e.sequence + 1).max(self.from);
        Ok((first <= self.newest).then(|| Waiting { eid: eid(first), time_ns: i64::try_from(first).unwrap() * 1_000_000_000 }))
    }

    fn newest(&self) -> Result<Option<Eid>, Infallible> {
        Ok((self.newest >= self.from).then(|| eid(self.newest)))
    }

    fn dropped(&self) -> Result<Option<Eid>, Infallible> {
        Ok((self.from > 1).then(|| eid(self.from - 1)))
    }
}

fn run(registration: u32, timestamp: u32, counter: u32) -> Run {
    Run { registration: registration.to_string(), timestamp: timestamp.to_string(), counter: counter.to_string() }
}

fn decided(last: Option<&Cursor>, run: Run, max_rows: u32, log: Numbers) -> Decision {
    let Ok(decision) = decide(last, run, Rules { start: Start::Oldest, max_rows }, NOW, &log);
    decision
}

fn range(cursor: &Cursor) -> (u64, u64) {
    (cursor.after.map_or(0, |e| e.sequence), cursor.upto.map_or(0, |e| e.sequence))
}

/// What osqueryd does with a run.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// Takes the rows and counts.
    Takes,
    /// The SQL fails, or WHERE matches nothing: no count.
    Refuses,
    /// Dies after it has counted, before or after the rows were logged.
    DiesLate,
    /// Dies before it counted.
    DiesEarly,
    /// Asks twice in one run, as a self-join does.
    AsksTwice,
}

fn fates() -> impl Strategy<Value = Vec<(Fate, u64)>> {
    let fate = prop_oneof![
        4 => Just(Fate::Takes),
        2 => Just(Fate::Refuses),
        1 => Just(Fate::DiesLate),
        1 => Just(Fate::DiesEarly),
        1 => Just(Fate::AsksTwice),
    ];
    proptest::collection::vec((fate, 0u64..30), 1..60)
}

proptest! {
    /// Simulates osqueryd over random fates: every event gets at least three offers or is taken, nothing is taken twice
    /// but what was in flight at a death, and the batches never skip an event.
    #[test]
    fn each_event_at_least_once_and_repeats_only_from_a_batch_in_flight(fates in fates(), max_rows in 1u32..40) {
        let mut log = Numbers { from: 1, newest: 0 };
        let mut cursor: Option<Cursor> = None;
        let (mut registration, mut counter) = (0, 0);
        let mut offered: BTreeMap<u64, u32> = BTreeMap::new();
        let mut taken: BTreeMap<u64, u32> = BTreeMap::new();
        let mut in_flight: Option<(u64, u64)> = None;
        for (second, (fate, arrived)) in (0u32..).zip(&fates) {
            log.newest += arrived;
            let decision = decided(cursor.as_ref(), run(registration, second, counter), max_rows, log);
            let (after, upto) = range(&decision.cursor);
            prop_assert!(upto - after <= u64::from(max_rows), "the cap bounds the range");
            prop_assert!((1..=after).all(|e| taken.contains_key(&e) || offered.get(&e).copied().unwrap_or(0) >= OFFERS), "passed over an event");
            prop_assert_eq!(decision.expired, None);
            if let Fate::AsksTwice = fate {
                log.newest += 1;
                let again = decided(Some(&decision.cursor), run(registration, second, counter), max_rows, log);
                prop_assert_eq!(again.verdict, Verdict::Same);
                prop_assert_eq!(range(&again.cursor), (after, upto));
            }
            for event in after + 1..=upto {
                *offered.entry(event).or_default() += 1;
                let takes = !matches!(fate, Fate::Refuses | Fate::DiesEarly);
                if takes {
                    let times = taken.entry(event).or_default();
                    *times += 1;
                    let excused = in_flight.is_some_and(|(from, to)| from < event && event <= to);
                    prop_assert!(*times == 1 || excused, "event {} was repeated and no batch was in flight", event);
                }
            }
            let empty = after == upto;
            in_flight = match fate {
                Fate::DiesLate | Fate::DiesEarly => Some((after, upto)),
                Fate::Refuses => in_flight,
                Fate::Takes | Fate::AsksTwice => None,
            };
            if matches!(fate, Fate::Takes | Fate::AsksTwice | Fate::DiesLate) && !empty {
                counter += 1;
            }
            if matches!(fate, Fate::DiesLate | Fate::DiesEarly) {
                registration += 1;
            }
            cursor = Some(decision.cursor);
        }
        // Whoever goes on to take everything has everything.
        for second in 1000..1000 + u32::try_from(log.newest).unwrap() + 2 {
            let decision = decided(cursor.as_ref(), run(registration, second, counter), max_rows, log);
            let (after, upto) = range(&decision.cursor);
            for event in after + 1..=upto {
                *taken.entry(event).or_default() += 1;
            }
            counter += 1;
            cursor = Some(decision.cursor);
        }
        prop_assert!((1..=log.newest).all(|e| taken.contains_key(&e) || offered[&e] >= OFFERS));
    }
}

#[test]
fn a_batch_that_is_never_taken_is_offered_three_times_with_the_newer_events() {
    let mut log = Numbers { from: 1, newest: 10 };
    let first = decided(None, run(1, 0, 0), 100, log);
    assert_eq!((first.verdict, range(&first.cursor)), (Verdict::New, (0, 10)));
    log.newest = 15;
    let second = decided(Some(&first.cursor), run(1, 1, 0), 100, log);
    assert_eq!((second.verdict, range(&second.cursor)), (Verdict::Again, (0, 15)));
    let third = decided(Some(&second.cursor), run(1, 2, 0), 100, log);
    assert_eq!((third.verdict, range(&third.cursor)), (Verdict::Again, (0, 15)));
    let fourth = decided(Some(&third.cursor), run(1, 3, 0), 100, log);
    assert_eq!((fourth.verdict, range(&fourth.cursor), fourth.cursor.given_up), (Verdict::GivenUp, (10, 15), 1));
}

#[test]
fn starts_at_the_oldest_or_now() {
    let log = Numbers { from: 5, newest: 9 };
    let begun = |start| {
        let Ok(decision) = decide(None, Run::default(), Rules { start, max_rows: 100 }, NOW, &log);
        range(&decision.cursor)
    };
    assert_eq!((begun(Start::Oldest), begun(Start::Now)), ((0, 9), (9, 9)));
}

#[test]
fn tells_what_expired_before_it_was_delivered() {
    let first = decided(None, run(1, 0, 0), 10, Numbers { from: 1, newest: 30 });
    assert_eq!(range(&first.cursor), (0, 10));
    let next = decided(Some(&first.cursor), run(1, 1, 1), 10, Numbers { from: 21, newest: 30 });
    assert_eq!(next.expired, Some(Expired { from_ns: 11_000_000_000, to_ns: Some(21_000_000_000) }));
    assert_eq!(range(&next.cursor), (10, 30), "twenty ids, of which ten are left");
    let calm = decided(Some(&first.cursor), run(1, 1, 1), 10, Numbers { from: 11, newest: 30 });
    assert_eq!(calm.expired, None, "what was delivered may go");
    let nothing = decided(Some(&first.cursor), run(1, 1, 1), 10, Numbers { from: 31, newest: 30 });
    assert_eq!(nothing.expired, Some(Expired { from_ns: 11_000_000_000, to_ns: None }));
    let all = decided(None, run(1, 0, 0), 100, Numbers { from: 1, newest: 30 });
    let unseen = decided(Some(&all.cursor), run(1, 1, 1), 100, Numbers { from: 81, newest: 90 });
    assert_eq!(unseen.expired, Some(Expired { from_ns: NOW, to_ns: Some(NOW) }), "came and went since it was looked");
}

#[test]
fn a_store_that_went_back_is_delivered_from_its_beginning() {
    let first = decided(None, run(1, 0, 0), 100, Numbers { from: 1, newest: 50 });
    let next = decided(Some(&first.cursor), run(1, 1, 1), 100, Numbers { from: 1, newest: 5 });
    assert_eq!(range(&next.cursor), (0, 5));
}
