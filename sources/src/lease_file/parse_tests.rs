use proptest::prelude::*;

use super::*;

const DNSMASQ: &str = include_str!("../../../fuzz/corpus/lease_file/dnsmasq");
const DHCPD: &str = include_str!("../../../fuzz/corpus/lease_file/dhcpd");
const DHCPD6: &str = include_str!("../../../fuzz/corpus/lease_file/dhcpd6");
const DHCLIENT: &str = include_str!("../../../fuzz/corpus/lease_file/dhclient");
const DHCLIENT6: &str = include_str!("../../../fuzz/corpus/lease_file/dhclient6");
const KEA: &str = include_str!("../../../fuzz/corpus/lease_file/kea");
const KEA6: &str = include_str!("../../../fuzz/corpus/lease_file/kea6");
const NETWORKD: &str = include_str!("../../../fuzz/corpus/lease_file/networkd");

/// 2026-11-27 11:33:10: when dhcpd's file begins.
const BEGIN: i64 = 1_795_779_190;
const DUID: &str = "00:01:00:01:32:9c:27:5e:96:b0:4a:74:20:39";

/// What a file says of its only address.
fn only(text: &str) -> Vec<Entry> {
    let parsed = parse(text);
    assert_eq!(parsed.faults, []);
    assert_eq!(parsed.page.len(), 1, "{parsed:?}");
    parsed.page.into_values().flatten().collect()
}

fn of<'p>(parsed: &'p Parsed, ip: &str) -> &'p [Entry] {
    parsed.page.get(&ip.parse().unwrap()).map_or(&[], Vec::as_slice)
}

/// Since when and until when, in seconds after the beginning; and whether it is over.
fn times(entries: &[Entry]) -> Vec<(Option<i64>, Option<i64>, bool)> {
    let after = |at: Option<Nanos>| at.map(|at| at / SECOND - BEGIN);
    entries.iter().map(|entry| (after(entry.since_ns), after(entry.until_ns), entry.is_over)).collect()
}

#[test]
fn reads_dnsmasq_with_both_families() {
    let parsed = parse(DNSMASQ);
    assert_eq!((parsed.faults.len(), parsed.page.len()), (0, 2));
    let [four] = of(&parsed, "10.215.0.73") else { panic!("one lease") };
    assert_eq!((four.mac.as_deref(), four.hostname.as_deref()), (Some("02:00:00:00:00:01"), Some("host1")));
    assert_eq!((four.client_id.as_deref(), four.until_ns), (Some("01:02:00:00:00:00:01"), Some(1_795_779_426 * SECOND)));
    let [six] = of(&parsed, "fd15::75") else { panic!("one lease") };
    assert_eq!((six.mac.as_deref(), six.hostname.as_deref()), (None, None));
    assert_eq!(six.client_id.as_deref(), Some("00:01:00:01:32:9c:27:6a:96:b0:4a:74:20:39"));
    assert_eq!(only("0 02:00:00:00:00:0b 10.0.0.11 * *\n")[0].until_ns, None, "for ever");
}

#[test]
fn reads_a_journal_of_dhcpd() {
    let parsed = parse(DHCPD);
    assert_eq!((parsed.faults.len(), parsed.page.len()), (0, 2));
    let expired = of(&parsed, "10.215.0.50");
    assert_eq!(times(expired), [(Some(0), Some(6), false), (Some(0), Some(6), true)]);
    assert_eq!((expired[0].client_id.as_deref(), expired[0].hostname.as_deref()), (Some("01:02:00:00:00:00:01"), Some("host1")));
    // Renewed, given back, given again, expired: the last four words.
    let last = [(Some(13), Some(19), false), (Some(13), Some(16), true), (Some(16), Some(22), false), (Some(16), Some(22), true)];
    assert_eq!(times(of(&parsed, "10.215.0.51")), last);
}

#[test]
fn reads_a_journal_of_dhcpd_for_version_six() {
    let entries = only(DHCPD6);
    // What was given back ended when the client said so.
    assert_eq!(times(&entries), [(Some(105), Some(113), false), (Some(109), Some(117), false), (Some(114), Some(114), true)]);
    assert!(entries.iter().all(|e| e.client_id.as_deref() == Some(DUID) && !e.is_own), "{entries:?}");
}

#[test]
fn reads_the_hosts_own_leases() {
    let entries = only(DHCLIENT);
    assert_eq!(times(&entries), [(None, Some(16), false), (None, Some(22), false)]);
    let last = &entries[1];
    assert_eq!((last.interface.as_deref(), last.server, last.prefix_length), (Some("lan0"), "10.215.0.1".parse().ok(), Some(24)));
    assert_eq!((last.lease_seconds, last.is_own), (Some(6), true));
    let entries = only(DHCLIENT6);
    assert_eq!(times(&entries), [(Some(109), Some(117), false), (Some(109), None, true)]);
    assert!(entries.iter().all(|e| e.is_own && e.client_id.as_deref() == Some(DUID) && e.interface.as_deref() == Some("lan0")));
}

#[test]
fn reads_what_networkd_and_network_manager_keep() {
    let [entry] = &only(NETWORKD)[..] else { panic!("one lease") };
    let id = "ff:35:fd:01:50:00:02:00:00:ab:11:00:33:bd:eb:f9:5e:19:2c";
    assert_eq!((entry.ip, entry.prefix_length, entry.client_id.as_deref()), ("10.215.0.50".parse().ok(), Some(24), Some(id)));
    assert_eq!((entry.lease_seconds, entry.until_ns), (Some(6), None), "it is not written again at a renewal");
    let [entry] = &only("# This is private data. Do not parse.\nADDRESS=10.215.0.50\n")[..] else { panic!("one lease") };
    assert!(entry.is_own);
}

#[test]
fn reads_kea_where_no_lifetime_is_a_release_at_an_unknown_time() {
    let parsed = parse(KEA);
    assert_eq!(parsed.faults, []);
    let expired = of(&parsed, "10.215.0.60");
    assert_eq!(times(expired), [(Some(50), Some(56), false), (Some(50), Some(56), true), (Some(50), None, true)]);
    assert_eq!((expired[0].hostname.as_deref(), expired[0].client_id.as_deref()), (Some("host1"), Some("01:02:00:00:00:00:01")));
    let given_back = of(&parsed, "10.215.0.61");
    assert_eq!(times(given_back).last(), Some(&(Some(64), None, true)));
}

#[test]
fn reads_kea_for_version_six_from_one_holder_to_the_next() {
    let entries = only(KEA6);
    // Renewed twice, given to another, expired there: the last four words.
    let last = [
        (Some(37_343), Some(37_351), false),
        (Some(37_346), Some(37_354), false),
        (Some(37_354), Some(37_362), false),
        (Some(37_354), None, true),
    ];
    assert_eq!(times(&entries), last);
    let [.., renewed, _, over] = &entries[..] else { panic!("four words") };
    assert_eq!(renewed.client_id.as_deref(), Some("00:01:00:01:32:9c:b8:d0:6e:41:ea:50:ef:d3"));
    assert_eq!([&renewed.mac, &over.mac].map(Option::as_deref), [Some("6e:41:ea:50:ef:d3"), Some("02:00:00:00:04:01")]);
}

#[test]
fn reads_kea_for_version_six_but_for_the_prefixes_of_routers() {
    let text = "address,duid,valid_lifetime,expire,subnet_id,pref_lifetime,lease_type,iaid,prefix_len,fqdn_fwd,fqdn_rev,hostname,hwaddr,state,\
                user_context,hwtype,hwaddr_source\n\
                fd15::7,00:01:00:01,600,1795779790,1,300,0,7,128,0,0,desk,02:00:00:00:00:0e,0,,1,2\n\
                fd15:1::,00:01:00:01,600,1795779790,1,300,2,7,48,0,0,desk,02:00:00:00:00:0e,0,,1,2\n";
    let [entry] = &only(text)[..] else { panic!("one lease") };
    assert_eq!((entry.ip, entry.client_id.as_deref()), ("fd15::7".parse().ok(), Some("00:01:00:01")));
    assert_eq!(times(&only(text)), [(Some(0), Some(600), false)]);
}

#[test]
fn blocks_within_a_lease_do_not_end_it() {
    let text =
        "lease 10.0.0.9 {\n  starts 5 2026/11/27 11:33:10;\n  on expiry {\n    set x = \"y\";\n  }\n  ends 5 2026/11/27 11:33:16;\n}\n";
    assert_eq!(times(&only(text)), [(Some(0), Some(6), false)]);
}

#[test]
fn of_a_long_journal_the_last_words_are_kept() {
    let line = |n: i64| format!("10.0.0.1,02:00:00:00:00:01,,60,{},1,0,0,,0,\n", BEGIN + n);
    let text = "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context\n".to_owned();
    let entries = only(&(0..1000).fold(text, |text, n| text + &line(n)));
    assert_eq!((entries.len(), entries.last().and_then(|e| e.until_ns)), (4, Some((BEGIN + 999) * SECOND)));
}

#[test]
fn tells_the_line_that_is_wrong_and_uses_the_rest() {
    let parsed = parse("1772533230 02:00:00:00:00:0a 10.0.0.10 * *\nnonsense\n1772533230 02:00:00:00:00:0b 10.0.0.11 * *\n17725");
    assert_eq!((parsed.page.len(), parsed.faults.iter().map(|(line, _)| *line).collect::<Vec<_>>()), (2, vec![2, 4]));
}

proptest! {
    #[test]
    fn a_file_that_is_cut_off_loses_only_its_end(which in 0..7usize, cut in 0..2000usize) {
        let text = [DNSMASQ, DHCPD, DHCPD6, DHCLIENT, DHCLIENT6, KEA, KEA6][which];
        let (whole, cut) = (parse(text).page, parse(&text[..cut.min(text.len())]).page);
        // The last line may still be growing; of a journal the last words are kept.
        let known = |ip, entry| whole.get(ip).is_some_and(|entries: &Vec<Entry>| entries.len() == MOST_ENTRIES || entries.contains(entry));
        let strangers = cut.iter().flat_map(|(ip, entries)| entries.iter().filter(move |entry| !known(ip, entry)));
        prop_assert!(strangers.count() <= 1, "{:?}", cut);
    }

    #[test]
    fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        decode_lease_file(&bytes);
    }
}
