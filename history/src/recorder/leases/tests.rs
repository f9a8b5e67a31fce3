mod heard;
mod laws;

use std::time::Duration;

use super::{
    address::{FINAL_AFTER, Reason},
    *,
};
use crate::{
    container::ContainerKey,
    feed::Feed,
    lease::{HeldLease, LeaseAction, LeaseScope, LeaseSource, PresentLeases},
    sink::Received,
};

const SECOND: Nanos = 1_000_000_000;
/// Tests begin then.
const EPOCH: Nanos = 1_800_000_000 * SECOND;
const IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(172, 17, 0, 2));

/// A moment so many milliseconds after the epoch.
fn at(ms: i64) -> Moment {
    use std::sync::OnceLock;
    static START: OnceLock<Instant> = OnceLock::new();
    let after = Duration::from_millis(u64::try_from(ms).unwrap());
    Moment { at: *START.get_or_init(Instant::now) + after, wall_ns: ns(ms) }
}

fn ns(ms: i64) -> Nanos {
    EPOCH + ms * 1_000_000
}

fn container(id: &str) -> ContainerKey {
    ContainerKey { container_id: id.into(), runtime_namespace: "".into(), endpoint: "unix:///d".into() }
}

#[derive(Clone, Debug)]
enum Evidence {
    Event(Box<LeaseEvent>),
    Runs(ContainerKey, Vec<LeaseRun>),
}

fn event(ms: i64, source: LeaseSource, action: LeaseAction, channel: &str, mac: &str) -> LeaseEvent {
    let lease = Lease { ip_address: Some(IP), mac_address: Some(mac.into()), scope: LeaseScope::Client, ..Lease::default() };
    LeaseEvent { time_ns: ns(ms), action, source, channel: channel.into(), lease, until_ns: None, segment: None }
}

/// An interface of a namespace gets or loses the address.
fn netlink(ms: i64, action: LeaseAction, namespace: &str, mac: &str) -> Evidence {
    let mut event = event(ms, LeaseSource::Netlink, action, &format!("{namespace} eth0"), mac);
    event.lease.scope = LeaseScope::Container;
    event.lease.net_namespace = Some(namespace.into());
    event.segment = Some("docker0".into());
    Evidence::Event(Box::new(event))
}

/// A server on the wire, or its file, gives the address for so many seconds.
fn granted(ms: i64, source: LeaseSource, channel: &str, mac: &str, seconds: i64) -> Evidence {
    let mut event = event(ms, source, LeaseAction::Assigned, channel, mac);
    event.lease.lease_seconds = Some(seconds);
    event.until_ns = Some(ns(ms) + seconds * SECOND);
    event.segment = Some("br0".into());
    Evidence::Event(Box::new(event))
}

fn ended(ms: i64, source: LeaseSource, action: LeaseAction, channel: &str, mac: &str) -> Evidence {
    Evidence::Event(Box::new(event(ms, source, action, channel, mac)))
}

fn run(id: &str, from: i64, to: Option<i64>, namespace: Option<&str>, mac: &str) -> LeaseRun {
    LeaseRun {
        from_ns: ns(from),
        to_ns: to.map(ns),
        container: container(id),
        net_namespace: namespace.map(Into::into),
        ip_addresses: vec![IP.to_string()],
        mac_addresses: vec![mac.into()],
    }
}

fn runs(id: &str, from: i64, to: Option<i64>, namespace: Option<&str>, mac: &str) -> Evidence {
    Evidence::Runs(container(id), vec![run(id, from, to, namespace, mac)])
}

/// From, to (milliseconds), reason, evidence, container, MAC.
type Shown<'a> = (i64, Option<i64>, &'a str, &'a str, &'a str, &'a str);

#[derive(Debug, Default)]
struct Bench {
    reducer: Reducer,
    /// As the store would have it: start and scope give the rest.
    stored: std::collections::BTreeMap<(Nanos, String), Span>,
    told: Vec<LeaseEvent>,
}

impl Bench {
    fn of(evidence: &[Evidence], until: i64) -> Self {
        let mut bench = Self::default();
        for one in evidence {
            bench.take(one.clone(), at(until));
        }
        bench.settle(at(until));
        bench
    }

    fn take(&mut self, evidence: Evidence, now: Moment) {
        match evidence {
            Evidence::Event(event) => {
                let feed = Feed::new("netlink", "");
                self.reducer.take(Received { item: LeaseReport::Event(event), feed, cursor: None }, now);
            }
            Evidence::Runs(key, runs) => self.reducer.take_runs(&key, runs, now),
        }
    }

    fn present(&mut self, ms: i64, leases: Vec<HeldLease>) {
        let channel = "".into();
        let present = PresentLeases { source: LeaseSource::Netlink, channel, taken_ns: ns(ms), blind_since: Some(ns(0)), leases };
        let item = LeaseReport::Present(Box::new(present));
        self.reducer.take(Received { item, feed: Feed::new("netlink", ""), cursor: None }, at(ms));
        self.settle(at(ms));
    }

    fn settle(&mut self, now: Moment) {
        self.reducer.settle(now);
        self.reducer.release(None);
        for ip in self.reducer.take_dirty() {
            let changes = self.reducer.changes(ip, now);
            for name in changes.remove {
                assert!(self.stored.remove(&name).is_some(), "what is removed was there");
            }
            self.stored.extend(changes.put.into_iter().map(|span| ((span.from_ns, span.scope()), span)));
        }
        self.told.extend(self.reducer.take_told().into_iter().map(|told| *told.event));
    }

    fn spans(&self) -> Vec<Shown<'_>> {
        let ms = |t: Nanos| (t - EPOCH) / 1_000_000;
        let row = |s: &'_ Span| (ms(s.from_ns), s.to_ns.map(ms), s.ended_reason.map_or("", Reason::as_str));
        self.stored
            .values()
            .map(|s| {
                let (from, to, reason) = row(s);
                (from, to, reason, &*s.evidence, &*s.lease.container.container_id, s.lease.mac_address.as_deref().unwrap_or(""))
            })
            .collect()
    }

    fn actions(&self) -> Vec<(&'static str, i64)> {
        self.told.iter().map(|e| (e.action.as_str(), (e.time_ns - EPOCH) / 1_000_000)).collect()
    }
}

use LeaseAction::{Added, Released, Removed, Renewed};
use LeaseSource::{Dhcp, LeaseFile};

const A: &str = "02:42:ac:11:00:02";
const B: &str = "02:42:ac:11:00:0b";

#[test]
fn what_four_witnesses_see_is_one_interval() {
    let evidence = [
        netlink(1000, Added, "4026532001", A),
        granted(990, Dhcp, "br0 10.0.0.1", A, 3600),
        granted(800, LeaseFile, "/leases", A, 3600),
        runs("c1", 1300, Some(5000), Some("4026532001"), A),
        ended(5050, Dhcp, Released, "br0 10.0.0.1", A),
        ended(5900, LeaseFile, Released, "/leases", A),
        netlink(5100, Removed, "4026532001", A),
    ];
    let bench = Bench::of(&evidence, 6000);
    assert_eq!(bench.spans(), [(1000, Some(5100), "released", "dhcp,lease_file,netlink,runtime", "c1", A)]);
    let span = bench.stored.values().next().unwrap();
    assert_eq!((span.lease.lease_seconds, span.lease.scope), (Some(3600), LeaseScope::Container), "each adds what it knows");
}

#[test]
fn a_lease_expires_by_itself_at_its_end() {
    let mut bench = Bench::of(&[granted(0, Dhcp, "br0 10.0.0.1", A, 60)], 10);
    assert_eq!(bench.spans(), [(0, None, "", "dhcp", "", A)]);
    assert_eq!(bench.reducer.next_alarm(at(10)), Some(at(60_000).at));
    bench.settle(at(60_000));
    assert_eq!(bench.spans(), [(0, Some(60_000), "expired", "dhcp", "", A)]);
    assert_eq!(bench.actions(), [("assigned", 0), ("expired", 60_000)]);
    bench.settle(at(70_000));
    assert_eq!(bench.actions().len(), 2, "told once");
}

#[test]
fn a_renewal_goes_on_and_a_late_one_begins_anew() {
    let renewed = |ms: i64| {
        let Evidence::Event(event) = granted(ms, Dhcp, "br0 10.0.0.1", A, 60) else { unreachable!() };
        Evidence::Event(Box::new(LeaseEvent { action: Renewed, ..*event }))
    };
    let evidence = [granted(0, Dhcp, "br0 10.0.0.1", A, 60), renewed(30_000), renewed(120_000)];
    let bench = Bench::of(&evidence, 130_000);
    assert_eq!(bench.spans(), [(0, Some(90_000), "expired", "dhcp", "", A), (120_000, None, "", "dhcp", "", A)]);
}

#[test]
fn a_server_that_gives_the_address_to_another_has_taken_it() {
    let evidence = [granted(0, Dhcp, "br0 10.0.0.1", A, 3600), granted(500, Dhcp, "br0 10.0.0.1", B, 3600)];
    let bench = Bench::of(&evidence, 5000);
    assert_eq!(bench.spans(), [(0, Some(500), "taken", "dhcp", "", A), (500, None, "", "dhcp", "", B)]);
    assert!(bench.actions().iter().all(|(action, _)| *action != "conflict"), "{:?}", bench.actions());
}

#[test]
fn two_holders_on_one_link_are_a_conflict_and_neither_is_overwritten() {
    let evidence = [granted(0, Dhcp, "br0 10.0.0.1", A, 3600), granted(500, Dhcp, "br0 10.0.0.9", B, 3600)];
    let mut bench = Bench::of(&evidence, 600);
    assert_eq!(bench.actions().len(), 2, "a moment is no conflict yet");
    bench.settle(at(1500));
    assert_eq!(bench.spans(), [(0, None, "", "dhcp", "", A), (500, None, "", "dhcp", "", B)]);
    assert_eq!(bench.actions()[2], ("conflict", 500));
    assert_eq!(bench.told[2].lease.mac_address.as_deref(), Some(B));
    bench.settle(at(9000));
    assert_eq!(bench.told.len(), 3, "told once");
}

#[test]
fn one_address_on_two_links_is_no_conflict() {
    let Evidence::Event(mut other) = granted(500, Dhcp, "br9 10.0.0.9", B, 3600) else { unreachable!() };
    other.segment = Some("br9".into());
    let bench = Bench::of(&[granted(0, Dhcp, "br0 10.0.0.1", A, 3600), Evidence::Event(other)], 9000);
    assert_eq!((bench.spans().len(), bench.told.len()), (2, 2));
}

#[test]
fn without_other_witnesses_an_address_goes_with_its_container() {
    let bench = Bench::of(&[runs("c1", 100, Some(900), None, A)], 1000);
    assert_eq!(bench.spans(), [(100, Some(900), "die", "runtime", "c1", A)]);
}

/// Docker gives the next container the same address, and with it the same MAC; the kernel the same inode.
#[test]
fn the_next_container_has_the_address_only_in_its_own_time() {
    let evidence = [
        netlink(1000, Added, "4026532001", A),
        netlink(2000, Removed, "4026532001", A),
        netlink(2300, Added, "4026532001", A),
        netlink(3000, Removed, "4026532001", A),
        runs("c1", 1500, Some(1900), Some("4026532001"), A),
        runs("c2", 2600, Some(2900), None, A),
    ];
    let bench = Bench::of(&evidence, 4000);
    let expected = [(1000, Some(2000), "die", "netlink,runtime", "c1", A), (2300, Some(3000), "die", "netlink,runtime", "c2", A)];
    assert_eq!(bench.spans(), expected);
}

/// The same inode, another address, within a second; and the next container is known only when it starts.
#[test]
fn a_namespace_whose_inode_is_used_again_is_the_next_containers() {
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(172, 17, 0, 9));
    let other = |ms, action| {
        let Evidence::Event(mut event) = netlink(ms, action, "4026532001", B) else { unreachable!() };
        event.lease.ip_address = Some(OTHER);
        Evidence::Event(event)
    };
    let mut next = run("c2", 2000, Some(2400), Some("4026532001"), B);
    next.ip_addresses = vec![OTHER.to_string()];
    let mut bench = Bench::default();
    bench.take(runs("c1", 600, Some(800), Some("4026532001"), A), at(800));
    for evidence in [netlink(500, Added, "4026532001", A), netlink(900, Removed, "4026532001", A), other(1700, Added)] {
        bench.take(evidence, at(1700));
    }
    bench.reducer.settle(at(1701));
    bench.told.extend(bench.reducer.take_told().into_iter().map(|told| *told.event));
    bench.take(Evidence::Runs(container("c2"), vec![next]), at(2400));
    bench.take(other(2500, Removed), at(2500));
    bench.settle(at(3000));
    let expected = [(500, Some(900), "die", "netlink,runtime", "c1", A), (1700, Some(2500), "die", "netlink,runtime", "c2", B)];
    assert_eq!(bench.spans(), expected);
    let told: Vec<_> = bench.told.iter().map(|e| (e.action.as_str(), &*e.lease.container.container_id)).collect();
    let of = |id: &str| told.iter().filter(|(_, container)| *container == id).map(|(action, _)| *action).collect::<Vec<_>>();
    assert_eq!((of("c1"), of("c2")), (vec!["added", "removed"], vec!["added", "removed"]), "{told:?}");
}

#[test]
fn a_container_has_its_address_from_its_start_though_the_kernel_is_heard_late() {
    let bench =
        Bench::of(&[netlink(1040, Added, "1", A), runs("c1", 1000, Some(1500), Some("1"), A), netlink(1600, Removed, "1", A)], 2000);
    assert_eq!(bench.spans(), [(1000, Some(1600), "die", "netlink,runtime", "c1", A)]);
}

#[test]
fn containers_that_share_a_namespace_are_all_named() {
    let bare = |id: &str, from, to| {
        let mut run = run(id, from, to, Some("4026532001"), A);
        run.ip_addresses.clear();
        Evidence::Runs(container(id), vec![run])
    };
    let evidence = [
        netlink(1000, Added, "4026532001", A),
        runs("pause", 1100, Some(9000), Some("4026532001"), A),
        bare("app", 2000, Some(5000)),
        netlink(9050, Removed, "4026532001", A),
    ];
    let bench = Bench::of(&evidence, 10_000);
    let expected = [(1000, Some(9050), "die", "netlink,runtime", "pause", A), (2000, Some(5000), "die", "netlink,runtime", "app", A)];
    assert_eq!(bench.spans(), expected);
}

/// The kernel tells of a container first, without its runtime; then it is the runtime's.
#[test]
fn what_turned_out_to_be_another_container_has_no_address() {
    let told_by_kernel = ContainerKey { endpoint: "".into(), ..container("c1") };
    let early = LeaseRun { container: told_by_kernel.clone(), ..run("c1", 1250, None, Some("4026532001"), A) };
    let mut bench = Bench::of(&[netlink(1000, Added, "4026532001", A), Evidence::Runs(told_by_kernel.clone(), vec![early])], 1300);
    assert_eq!(bench.spans().len(), 1);
    bench.reducer.withdraw(&told_by_kernel);
    bench.take(runs("c1", 1300, None, Some("4026532001"), A), at(1400));
    bench.settle(at(1400));
    assert_eq!(bench.spans(), [(1000, None, "", "netlink,runtime", "c1", A)]);
    assert_eq!(bench.stored.values().next().map(|span| &span.lease.container), Some(&container("c1")));
}

#[test]
fn an_address_that_outlives_its_container_is_nobodys() {
    let evidence = [netlink(1000, Added, "4026532001", A), runs("c1", 1100, Some(2000), Some("4026532001"), A)];
    let mut bench = Bench::of(&evidence, 3000);
    assert_eq!(bench.spans(), [(1000, None, "", "netlink,runtime", "c1", A)], "its network may be about to be taken down");
    bench.settle(at(8000));
    let expected = [(1000, Some(2000), "die", "netlink,runtime", "c1", A), (2000, None, "", "netlink,runtime", "", A)];
    assert_eq!(bench.spans(), expected);
}

#[test]
fn events_of_a_namespace_wait_for_their_container() {
    let mut bench = Bench::default();
    bench.take(netlink(0, Added, "4026532001", A), at(0));
    bench.reducer.settle(at(100));
    assert!(bench.reducer.take_told().is_empty());
    bench.take(runs("c1", 50, None, Some("4026532001"), A), at(120));
    bench.settle(at(130));
    assert_eq!(&*bench.told[0].lease.container.container_id, "c1");
    bench.take(netlink(1000, Added, "4026532002", B), at(1000));
    bench.reducer.settle(at(3000));
    let told = bench.reducer.take_told();
    assert_eq!(told.len(), 1, "but not for ever");
    assert!(told[0].event.lease.container.container_id.is_empty());
}

fn held(namespace: &str, mac: &str) -> HeldLease {
    let Evidence::Event(event) = netlink(0, Added, namespace, mac) else { unreachable!() };
    let LeaseEvent { channel, lease, segment, .. } = *event;
    HeldLease { channel, lease, since_ns: None, until_ns: None, segment }
}

#[test]
fn what_is_there_after_a_blind_time_goes_on_and_the_rest_ends_then() {
    let mut bench = Bench::of(&[netlink(0, Added, "1", A), netlink(0, Added, "2", B)], 100);
    bench.present(5000, vec![held("1", A), held("3", B)]);
    let expected =
        [(0, None, "", "netlink", "", A), (0, Some(5000), "unknown", "netlink", "", B), (5000, None, "", "netlink,startup", "", B)];
    assert_eq!(bench.spans(), expected);
    bench.take(runs("c2", 0, Some(3000), Some("2"), B), at(5100));
    bench.settle(at(5100));
    assert!(bench.spans().contains(&(0, Some(3000), "die", "netlink,runtime", "c2", B)), "a runtime may know when: {:?}", bench.spans());
}

#[test]
fn what_was_known_is_taken_up_again() {
    let bench = Bench::of(&[netlink(0, Added, "1", A), granted(0, Dhcp, "br0 10.0.0.1", B, 9)], 100);
    let kept = serde_json::to_vec(&Kept { ip: IP, address: bench.reducer.address(IP).unwrap() }).unwrap();
    let Kept { ip, address } = serde_json::from_slice::<Kept<Address>>(&kept).unwrap();
    let mut next = Bench { stored: bench.stored.clone(), ..Bench::default() };
    next.reducer.restore(ip, address);
    next.settle(at(200));
    assert_eq!(next.stored, bench.stored, "nothing is written twice");
    next.settle(at(9000));
    assert!(next.spans().contains(&(0, Some(9000), "expired", "dhcp", "", B)));
}

#[test]
fn what_is_over_is_forgotten_but_stays_in_the_store() {
    let mut evidence = vec![netlink(0, Added, "1", A), granted(0, Dhcp, "br0 10.0.0.1", B, 60)];
    evidence.extend((1..50).map(|n| granted(n * 30_000, LeaseFile, "/leases", "0a:00:00:00:00:01", 60)));
    let mut bench = Bench::of(&evidence, 61_000);
    let late = 49 * 30_000 + FINAL_AFTER / 1_000_000;
    bench.settle(at(late));
    let before = bench.stored.clone();
    assert!(bench.reducer.sweep(at(late)).is_empty(), "one goes on");
    bench.settle(at(late));
    assert_eq!(bench.stored, before, "nothing is removed or changed");
    assert!(bench.reducer.address(IP).unwrap().points.len() < 8, "{:?}", bench.reducer.address(IP));
    bench.take(netlink(late + 10, Removed, "1", A), at(late + 10));
    bench.settle(at(late + 10));
    assert_eq!(bench.reducer.sweep(at(2 * late)), [IP]);
    bench.settle(at(2 * late));
    assert_eq!(bench.stored.len(), before.len());
}
