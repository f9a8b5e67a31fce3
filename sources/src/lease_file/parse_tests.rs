use proptest::prelude::*;

use super::*;

const DNSMASQ: &str =
    "1772533230 02:00:00:00:00:0a 10.0.0.10 printer 01:02:00:00:00:00:0a\n0 02:00:00:00:00:0b 10.0.0.11 * *\nduid 00:01\n";
const DHCPD: &str = r#"# The format of this file is documented in the dhcpd.leases(5) manual page.
authoring-byte-order little-endian;
lease 10.0.0.12 {
  starts 2 2026/03/03 10:10:30;
  ends 2 2026/03/03 10:20:30;
  cltt 2 2026/03/03 10:10:30;
  binding state active;
  next binding state free;
  hardware ethernet 02:00:00:00:00:0c;
  uid "\001\002\000\000\000\000\014";
  client-hostname "laptop";
}
lease 10.0.0.12 {
  starts 2 2026/03/03 10:10:30;
  ends 2 2026/03/03 10:15:00;
  binding state free;
  hardware ethernet 02:00:00:00:00:0c;
}
"#;
const DHCLIENT: &str = r#"lease {
  interface "eth0";
  fixed-address 10.0.0.13;
  option subnet-mask 255.255.255.0;
  option dhcp-lease-time 600;
  option dhcp-server-identifier 10.0.0.1;
  renew 2 2026/03/03 10:15:30;
  rebind 2 2026/03/03 10:19:15;
  expire 2 2026/03/03 10:20:30;
}
"#;
const KEA: &str = "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context,pool_id\n\
    10.0.0.14,02:00:00:00:00:0e,01:02:00:00:00:00:0e,600,1772533230,1,0,0,desk,0,,0\n\
    10.0.0.14,02:00:00:00:00:0e,01:02:00:00:00:00:0e,0,1772532700,1,0,0,desk,0,,0\n";
const NETWORKD: &str = "# This is private data. Do not parse.\nADDRESS=10.0.0.15\nNETMASK=255.255.0.0\nSERVER_ADDRESS=10.0.0.1\nLIFETIME=600\nCLIENTID=ff00aa\n";

/// 2026-03-03 10:20:30.
const END: Nanos = 1_772_533_230 * SECOND;

fn only(text: &str) -> Vec<Entry> {
    let parsed = parse(text);
    assert_eq!(parsed.faults, []);
    parsed.entries
}

#[test]
fn reads_dnsmasq() {
    let entries = only(DNSMASQ);
    assert_eq!(
        (entries[0].ip, entries[0].mac.as_deref(), entries[0].until_ns),
        ("10.0.0.10".parse().ok(), Some("02:00:00:00:00:0a"), Some(END))
    );
    assert_eq!((entries[0].hostname.as_deref(), entries[0].client_id.as_deref()), (Some("printer"), Some("01:02:00:00:00:00:0a")));
    assert_eq!((entries[1].until_ns, entries[1].hostname.as_deref()), (None, None));
}

#[test]
fn reads_a_journal_of_dhcpd() {
    let entries = only(DHCPD);
    assert_eq!((entries[0].since_ns, entries[0].until_ns, entries[0].is_over), (Some(END - 600 * SECOND), Some(END), false));
    assert_eq!((entries[0].client_id.as_deref(), entries[0].hostname.as_deref()), (Some("01:02:00:00:00:00:0c"), Some("laptop")));
    assert_eq!((entries[1].until_ns, entries[1].is_over), (Some(END - 330 * SECOND), true));
}

#[test]
fn reads_the_hosts_own_leases() {
    let [entry] = &only(DHCLIENT)[..] else { panic!("one lease") };
    assert_eq!((entry.interface.as_deref(), entry.server, entry.prefix_length), (Some("eth0"), "10.0.0.1".parse().ok(), Some(24)));
    assert_eq!((entry.until_ns, entry.is_own), (Some(END), true));
    let [entry] = &only(NETWORKD)[..] else { panic!("one lease") };
    assert_eq!((entry.ip, entry.prefix_length, entry.client_id.as_deref()), ("10.0.0.15".parse().ok(), Some(16), Some("ff:00:aa")));
}

#[test]
fn reads_kea_where_no_lifetime_is_a_release() {
    let entries = only(KEA);
    assert_eq!((entries[0].since_ns, entries[0].until_ns, entries[0].is_over), (Some(END - 600 * SECOND), Some(END), false));
    assert!(entries[1].is_over);
    assert_eq!(entries[0].hostname.as_deref(), Some("desk"));
}

#[test]
fn tells_the_line_that_is_wrong_and_uses_the_rest() {
    let parsed = parse("1772533230 02:00:00:00:00:0a 10.0.0.10 * *\nnonsense\n1772533230 02:00:00:00:00:0b 10.0.0.11 * *\n17725");
    assert_eq!((parsed.entries.len(), parsed.faults.iter().map(|(line, _)| *line).collect::<Vec<_>>()), (2, vec![2, 4]));
}

proptest! {
    #[test]
    fn a_file_that_is_cut_off_loses_only_its_end(which in 0..4usize, cut in 0..1000usize) {
        let text = [DNSMASQ, DHCPD, DHCLIENT, KEA][which];
        let whole = parse(text).entries;
        let cut = parse(&text[..cut.min(text.len())]).entries;
        prop_assert!(cut.len() <= whole.len());
        // The last line may still be growing.
        let finished = cut.len().saturating_sub(1);
        prop_assert_eq!(&cut[..finished], &whole[..finished]);
    }

    #[test]
    fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        decode_lease_file(&bytes);
    }
}
