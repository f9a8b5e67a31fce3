//! Who may hold how much of a ring.

use proptest::prelude::*;

use super::{queue::MOST_EXCESSES, *};

#[derive(Debug, Default)]
struct Item {
    key: u64,
    number: u64,
    is_trifle: bool,
    mends: bool,
    weight: usize,
}

impl Pushed for Item {
    fn share(&self) -> u64 {
        self.key
    }

    fn is_trifle(&self) -> bool {
        self.is_trifle
    }

    fn mends(&self) -> bool {
        self.mends
    }

    fn weight(&self) -> usize {
        self.weight
    }
}

proptest! {
    #[test]
    fn keeps_the_newest_and_counts_the_rest(capacity in 1usize..64, keys in prop::collection::vec((0u64..50, any::<bool>()), 0..512)) {
        let (sink, feed) = (Sink::new(capacity, Bell::default()), Feed::new("docker", ""));
        for (number, &(key, is_trifle)) in (0..).zip(&keys) {
            sink.push(&feed, Item { key, number, is_trifle, ..Item::default() });
        }
        let kept = sink.drain(usize::MAX);
        let status = feed.status();
        prop_assert_eq!(status.received, keys.len() as u64);
        prop_assert_eq!(status.received, kept.len() as u64 + status.evicted + status.rejected);
        prop_assert!(kept.len() <= capacity);
        prop_assert!(kept.windows(2).all(|pair| pair[0].item.number < pair[1].item.number), "in order");
        let share = (capacity / 8).max(1);
        for (key, _) in &keys {
            prop_assert!(kept.iter().filter(|r| r.item.key == *key).count() <= share);
        }
        let excesses = sink.take_excesses();
        prop_assert_eq!(excesses.iter().map(|e| e.events).sum::<u64>(), status.rejected, "each key is told what it lost");
        prop_assert!(sink.take_excesses().is_empty());
        prop_assert!(sink.lock().is_empty(), "what was drained gave its share back");
    }
}

#[test]
fn a_storm_of_one_key_evicts_nobody_else() {
    let (sink, quiet, noisy) = (Sink::new(64, Bell::default()), Feed::new("docker", "quiet"), Feed::new("docker", "noisy"));
    sink.push(&quiet, Item { key: 1, number: 0, is_trifle: true, ..Item::default() });
    for number in 0..10_000 {
        sink.push(&noisy, Item { key: 2, number, is_trifle: true, ..Item::default() });
    }
    assert_eq!((quiet.status().evicted, noisy.status().rejected), (0, 10_000 - 8));
    assert_eq!(sink.take_excesses().iter().map(|e| (e.first.key, e.events)).collect::<Vec<_>>(), [(2, 10_000 - 8)]);
    assert_eq!(sink.drain(1)[0].item.key, 1);
}

#[test]
fn what_is_no_trifle_takes_the_place_of_its_own_keys_oldest_trifle() {
    let (sink, feed) = (Sink::new(64, Bell::default()), Feed::new("docker", ""));
    sink.push(&feed, Item { key: 1, number: 0, is_trifle: true, ..Item::default() });
    for number in 1..100 {
        sink.push(&feed, Item { key: 2, number, is_trifle: true, ..Item::default() });
    }
    for number in 100..110 {
        sink.push(&feed, Item { key: 2, number, is_trifle: false, ..Item::default() });
    }
    let kept: Vec<_> = sink.drain(usize::MAX).iter().map(|r| r.item.number).collect();
    assert_eq!(kept, [0, 100, 101, 102, 103, 104, 105, 106, 107], "past its share it has nothing to displace");
    let status = feed.status();
    assert_eq!((status.received, status.evicted, status.rejected), (110, 0, 101));
    assert_eq!(sink.take_excesses().iter().map(|e| e.events).sum::<u64>(), 101);
}

#[test]
fn what_shares_reject_is_remembered_of_a_bounded_number_of_keys() {
    let (sink, feed) = (Sink::new(8, Bell::default()), Feed::new("docker", ""));
    for number in 0..1000 {
        sink.push(&feed, Item { key: number / 2, number, is_trifle: true, ..Item::default() });
    }
    assert_eq!((sink.take_excesses().len(), feed.status().rejected), (MOST_EXCESSES, 500));
}

#[test]
fn a_flood_of_one_feed_evicts_its_own_and_nobody_elses() {
    let (sink, quiet, loud) = (Sink::new(64, Bell::default()), Feed::new("podman", "root's"), Feed::new("podman", "a user's"));
    for number in 0..20 {
        sink.push(&quiet, Item { key: number, number, ..Item::default() });
    }
    for number in 20..10_000 {
        sink.push(&loud, Item { key: number, number, ..Item::default() });
    }
    assert_eq!((quiet.status().evicted, loud.status().evicted), (0, 10_000 - 64));
    let kept: Vec<_> = sink.drain(usize::MAX).iter().map(|r| r.item.number).collect();
    assert_eq!(kept, (0..20).chain(10_000 - 44..10_000).collect::<Vec<_>>(), "in the order of arrival");
}

#[test]
fn what_is_heavy_is_bounded_by_its_bytes() {
    let (sink, feed) = (Sink::new(4096, Bell::default()), Feed::new("docker", ""));
    for number in 0..1000 {
        sink.push(&feed, Item { key: number, number, weight: MOST_BYTES / 100, ..Item::default() });
    }
    assert_eq!(feed.status().evicted, 900);
    sink.push(&feed, Item { key: 1000, weight: 2 * MOST_BYTES, ..Item::default() });
    assert_eq!((sink.drain(usize::MAX).len(), feed.status().evicted), (1, 1000), "what is too heavy for any ring is there alone");
}

#[test]
fn what_mends_a_loss_is_not_lost_itself() {
    let (sink, feed) = (Sink::new(8, Bell::default()), Feed::new("docker", ""));
    sink.push(&feed, Item { key: 0, mends: true, ..Item::default() });
    for number in 1..100 {
        sink.push(&feed, Item { key: number, number, ..Item::default() });
    }
    assert!(sink.drain(1)[0].item.mends);
}
