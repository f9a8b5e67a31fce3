//! What follows for containers: the addresses that no runtime tells of their runs.

use super::*;

/// A run of which a runtime, or the kernel, tells the namespace and no address.
fn silent(id: &str, from: i64, to: Option<i64>, namespace: &str) -> Evidence {
    let run = LeaseRun { ip_addresses: Vec::new(), mac_addresses: Vec::new(), ..run(id, from, to, Some(namespace), A) };
    Evidence::Runs(container(id), vec![run])
}

/// Container, start of its run, and whether it has the address.
fn found(bench: &mut Bench) -> Vec<(String, i64, bool)> {
    let findings = bench.reducer.take_findings().into_iter();
    let row = |found: Finding| {
        assert_eq!((found.heard.ip, found.heard.mac.as_deref()), (IP, Some(A)));
        (found.container.container_id.to_string(), (found.heard.run_ns - EPOCH) / 1_000_000, found.holds)
    };
    findings.map(row).collect()
}

fn then(bench: &mut Bench, evidence: Vec<Evidence>, now: i64) -> Vec<(String, i64, bool)> {
    evidence.into_iter().for_each(|one| bench.take(one, at(now)));
    bench.settle(at(now));
    found(bench)
}

#[test]
fn a_run_of_a_millisecond_has_the_address_of_its_namespace_until_its_runtime_tells_it() {
    for turned in [false, true] {
        let mut evidence = [netlink(1000, Added, "1", A), silent("c1", 1300, Some(1301), "1"), netlink(1500, Removed, "1", A)];
        if turned {
            evidence.reverse();
        }
        let mut bench = Bench::of(&evidence, 2000);
        assert_eq!(found(&mut bench), [("c1".to_owned(), 1300, true)]);
        assert_eq!(bench.spans(), [(1000, Some(1500), "die", "netlink", "c1", A)], "it is the kernel's word, not the runtime's");
        assert_eq!(then(&mut bench, Vec::new(), 2001), [], "it is told once");
        let told = then(&mut bench, vec![runs("c1", 1300, Some(1301), Some("1"), A)], 2002);
        assert_eq!(told, [("c1".to_owned(), 1300, false)]);
    }
}

#[test]
fn containers_that_share_a_namespace_all_have_it() {
    let evidence = [
        netlink(1000, Added, "1", A),
        runs("sandbox", 1100, None, Some("1"), A),
        silent("first", 1200, None, "1"),
        silent("second", 1300, Some(1400), "1"),
        silent("elsewhere", 1300, None, "2"),
    ];
    let mut bench = Bench::of(&evidence, 2000);
    assert_eq!(found(&mut bench), [("first".to_owned(), 1200, true), ("second".to_owned(), 1300, true)]);
}

#[test]
fn whose_namespace_came_back_as_anothers_has_it_no_more() {
    // Nobody has told yet that the first one ended.
    let mut bench = Bench::of(&[silent("c1", 1000, None, "1"), netlink(1500, Added, "1", A)], 1600);
    assert_eq!(found(&mut bench), [("c1".to_owned(), 1000, true)]);
    let told = then(&mut bench, vec![silent("c1", 1000, Some(1400), "1"), silent("c2", 1600, None, "1")], 1700);
    assert_eq!(told, [("c1".to_owned(), 1000, false), ("c2".to_owned(), 1600, true)]);
}

#[test]
fn what_was_found_stands_when_its_evidence_is_forgotten() {
    let evidence = [netlink(1000, Added, "1", A), silent("c1", 1300, Some(1301), "1"), netlink(1500, Removed, "1", A)];
    let mut bench = Bench::of(&evidence, 2000);
    assert_eq!(found(&mut bench).len(), 1);
    let later = 3000 + FINAL_AFTER / 1_000_000;
    bench.reducer.sweep(at(later));
    assert_eq!(then(&mut bench, Vec::new(), later), []);
}

#[test]
fn the_hosts_addresses_are_no_containers() {
    let Evidence::Event(mut event) = netlink(1000, Added, "1", A) else { panic!("it is an event") };
    event.lease.scope = LeaseScope::Host;
    let mut bench = Bench::of(&[Evidence::Event(event), silent("c1", 1300, None, "1")], 2000);
    assert_eq!(found(&mut bench), []);
}
