//! Laws that hold whatever is said, and in whatever order.

use proptest::{prelude::*, sample::Index};

use super::*;

#[test]
fn however_often_a_lease_was_renewed_it_is_kept_from_its_first_word_to_its_last() {
    for renewals in 0..5 {
        let grants = (0..=renewals).map(|n| granted(n * 5000, Dhcp, "br0 10.0.0.1", A, 9));
        let mut bench = Bench::of(&grants.collect::<Vec<_>>(), renewals * 5000);
        let before = bench.stored.clone();
        assert!(bench.reducer.sweep(at(renewals * 5000)).is_empty());
        bench.settle(at(renewals * 5000));
        assert_eq!(bench.stored, before, "renewed {renewals} times");
        bench.take(ended(renewals * 5000 + 100, Dhcp, Released, "br0 10.0.0.1", A), at(renewals * 5000 + 100));
        bench.settle(at(renewals * 5000 + 100));
        assert_eq!(bench.spans(), [(0, Some(renewals * 5000 + 100), "released", "dhcp", "", A)], "renewed {renewals} times");
    }
}

fn any_evidence() -> impl Strategy<Value = Evidence> {
    let source = prop_oneof![Just(Dhcp), Just(LeaseFile)];
    let mac = prop_oneof![Just(A), Just(B)];
    let namespace = prop_oneof![Just("1"), Just("2")];
    prop_oneof![
        (0..50i64, namespace.clone(), mac.clone(), any::<bool>()).prop_map(|(t, n, m, add)| netlink(
            t * 100,
            if add { Added } else { Removed },
            n,
            m
        )),
        (0..50i64, source.clone(), mac.clone(), 1..4i64).prop_map(|(t, s, m, secs)| granted(t * 100, s, s.as_str(), m, secs)),
        (0..50i64, source, mac.clone()).prop_map(|(t, s, m)| ended(t * 100, s, Released, s.as_str(), m)),
    ]
}

fn any_runs() -> impl Strategy<Value = Evidence> {
    let namespace = prop_oneof![Just(None), Just(Some("1")), Just(Some("2"))];
    (0..4u8, 0..50i64, proptest::option::of(0..20i64), namespace, prop_oneof![Just(A), Just(B)])
        .prop_map(|(id, t, len, n, mac)| runs(&format!("c{id}"), t * 100, len.map(|l| (t + l) * 100), n, mac))
}

proptest! {
    #[test]
    fn the_order_in_which_evidence_comes_does_not_matter(
        evidence in prop::collection::vec(any_evidence(), 0..24),
        runs in prop::collection::vec(any_runs(), 0..4),
        order in prop::collection::vec(any::<Index>(), 32),
        settles in any::<[bool; 32]>(),
    ) {
        let mut evidence = evidence;
        let mut known = std::collections::BTreeSet::new();
        evidence.extend(runs.into_iter().filter(|r| matches!(r, Evidence::Runs(key, _) if known.insert(key.clone()))));
        let straight = Bench::of(&evidence, 60_000);
        let mut shuffled = Bench::default();
        let mut rest = evidence;
        for n in 0.. {
            if rest.is_empty() { break }
            let one = rest.remove(order[n % order.len()].index(rest.len()));
            shuffled.take(one, at(60_000));
            if settles[n % settles.len()] {
                shuffled.settle(at(60_000));
            }
        }
        shuffled.settle(at(60_000));
        prop_assert_eq!(&shuffled.stored, &straight.stored);
        // One interface has an address once at a time. Only two witnesses of a client elsewhere may contradict each other.
        let is_certain = |span: &&Span| span.lease.net_namespace.is_some() || !span.evidence.contains(',');
        let spans: Vec<&Span> = straight.stored.values().filter(is_certain).collect();
        for (i, a) in spans.iter().enumerate() {
            for b in &spans[i + 1..] {
                let apart = a.to_ns.is_some_and(|to| to <= b.from_ns) || b.to_ns.is_some_and(|to| to <= a.from_ns);
                prop_assert!(apart || a.scope() != b.scope() || a.evidence != b.evidence, "{:?} {:?}", a, b);
            }
        }
    }

    #[test]
    fn a_sweep_forgets_nothing_that_is_not_final(
        evidence in prop::collection::vec(any_evidence(), 0..24),
        sweeps in any::<[bool; 24]>(),
    ) {
        let on_the_wire = |one: &Evidence| if let Evidence::Event(event) = one { (event.source == Dhcp).then_some(event.time_ns) } else { None };
        let mut evidence: Vec<_> = evidence.into_iter().filter(|one| on_the_wire(one).is_some()).collect();
        evidence.sort_by_key(on_the_wire);
        evidence.dedup_by_key(|one| on_the_wire(one));
        let straight = Bench::of(&evidence, 60_000);
        let mut swept = Bench::default();
        for (one, is_swept) in evidence.into_iter().zip(sweeps) {
            swept.take(one, at(60_000));
            if is_swept {
                swept.settle(at(60_000));
                swept.reducer.sweep(at(60_000));
            }
        }
        swept.settle(at(60_000));
        prop_assert_eq!(&swept.stored, &straight.stored);
    }
}
