use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dhcproto::{
    Encodable,
    v4::{self, DhcpOption as V4, MessageType},
    v6::{self, DhcpOption as V6, IAAddr, IANA},
};
use mayfly_history::lease::{LeaseAction, LeaseEvent, LeaseScope};
use proptest::prelude::*;

use super::{dialogue::Dialogues, packet::tests::packet, *};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 50);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

fn client(kind: MessageType, xid: u32, has: Option<Ipv4Addr>, options: impl IntoIterator<Item = V4>) -> Vec<u8> {
    let zero = Ipv4Addr::UNSPECIFIED;
    let mut message = v4::Message::new_with_id(xid, has.unwrap_or(zero), zero, zero, zero, &MAC);
    message.opts_mut().insert(V4::MessageType(kind));
    message.opts_mut().insert(V4::Hostname("laptop".into()));
    message.opts_mut().insert(V4::ClientIdentifier(vec![1, 2]));
    options.into_iter().for_each(|option| drop(message.opts_mut().insert(option)));
    packet(zero.into(), 67, &message.to_vec().unwrap())
}

fn server(kind: MessageType, xid: u32, given: Ipv4Addr) -> Vec<u8> {
    let zero = Ipv4Addr::UNSPECIFIED;
    let mut message = v4::Message::new_with_id(xid, zero, given, SERVER, zero, &MAC);
    message.set_opcode(v4::Opcode::BootReply);
    message.opts_mut().insert(V4::MessageType(kind));
    message.opts_mut().insert(V4::ServerIdentifier(SERVER));
    message.opts_mut().insert(V4::AddressLeaseTime(3600));
    packet(SERVER.into(), 68, &message.to_vec().unwrap())
}

/// What is told of these packets, each a nanosecond after the other.
fn told(packets: &[Vec<u8>]) -> Vec<LeaseEvent> {
    let mut dialogues = Dialogues::default();
    let mut time_ns = 0;
    let hear = |packet: &Vec<u8>| {
        time_ns += 1;
        dialogues.hear(message(packet).unwrap(), "lan0", Some("02:00:00:00:00:01"), time_ns)
    };
    packets.iter().flat_map(hear).collect()
}

fn actions(packets: &[Vec<u8>]) -> Vec<LeaseAction> {
    told(packets).iter().map(|event| event.action).collect()
}

#[test]
fn a_lease_has_the_name_of_whoever_asked_and_the_time_that_the_server_gave() {
    let events = told(&[
        client(MessageType::Discover, 1, None, []),
        server(MessageType::Offer, 1, ADDRESS),
        client(MessageType::Request, 1, None, [V4::RequestedIpAddress(ADDRESS)]),
        server(MessageType::Ack, 1, ADDRESS),
    ]);
    assert_eq!(
        events.iter().map(|e| (e.action, e.lease.ip_address)).collect::<Vec<_>>(),
        [
            (LeaseAction::Discover, None),
            (LeaseAction::Offer, Some(ADDRESS.into())),
            (LeaseAction::Request, Some(ADDRESS.into())),
            (LeaseAction::Assigned, Some(ADDRESS.into())),
        ]
    );
    let granted = &events[3];
    assert_eq!(granted.until_ns, Some(4 + 3600 * 1_000_000_000));
    let lease = &granted.lease;
    assert_eq!((lease.mac_address.as_deref(), lease.hostname.as_deref()), (Some("02:00:00:00:00:07"), Some("laptop")));
    assert_eq!((lease.client_id.as_deref(), lease.server_address, lease.scope), (Some("01:02"), Some(SERVER.into()), LeaseScope::Client));
}

/// What was captured between udhcpc and Kea, and between dhclient and dhcpd.
#[test]
fn real_dialogues_are_read_in_both_families() {
    use LeaseAction::{Assigned, Discover, Offer, Released, Renewed, Request};
    macro_rules! captured {
        ($($name:literal),*) => { told(&[$(include_bytes!(concat!("../../../fuzz/corpus/dhcp_packet/", $name)).to_vec()),*]) };
    }
    let row = |e: &LeaseEvent| (e.action, e.lease.ip_address.map(|ip| ip.to_string()), e.lease.lease_seconds);
    let four = captured!("discover", "offer", "request", "ack", "release");
    let ip = || Some("10.215.0.60".to_owned());
    let expected =
        [(Discover, None, None), (Offer, ip(), Some(6)), (Request, ip(), None), (Assigned, ip(), Some(6)), (Released, ip(), None)];
    assert_eq!(four.iter().map(row).collect::<Vec<_>>(), expected);
    assert!(four.iter().all(|e| e.lease.mac_address.as_deref() == Some("02:00:00:00:00:01")), "{four:?}");
    assert_eq!((four[3].lease.hostname.as_deref(), &four[3].channel), (Some("host1"), &four[4].channel));
    let six = captured!("solicit6", "advertise6", "request6", "reply6", "renew6", "renewed6", "release6");
    let actions: Vec<_> = six.iter().map(|e| e.action).collect();
    assert_eq!(actions, [Discover, Offer, Request, Assigned, Request, Renewed, Released]);
    assert!(six[1..].iter().all(|e| e.lease.ip_address == "fd15::60".parse().ok()), "{six:?}");
    assert_eq!((six[3].lease.lease_seconds, &six[3].channel, &six[5].channel), (Some(8), &six[6].channel, &six[6].channel));
}

#[test]
fn an_answer_that_is_seen_twice_is_told_once_and_a_renewal_is_no_new_lease() {
    let packets = [
        client(MessageType::Request, 1, None, [V4::RequestedIpAddress(ADDRESS)]),
        server(MessageType::Ack, 1, ADDRESS),
        server(MessageType::Ack, 1, ADDRESS),
        client(MessageType::Request, 2, Some(ADDRESS), []),
        server(MessageType::Ack, 2, ADDRESS),
    ];
    assert_eq!(actions(&packets), [LeaseAction::Request, LeaseAction::Assigned, LeaseAction::Request, LeaseAction::Renewed]);
}

#[test]
fn two_servers_that_offer_are_both_told() {
    let other = Ipv4Addr::new(10, 0, 0, 2);
    let offer = |from: Ipv4Addr| {
        let zero = Ipv4Addr::UNSPECIFIED;
        let mut message = v4::Message::new_with_id(1, zero, ADDRESS, from, zero, &MAC);
        message.set_opcode(v4::Opcode::BootReply);
        message.opts_mut().insert(V4::MessageType(MessageType::Offer));
        message.opts_mut().insert(V4::ServerIdentifier(from));
        packet(from.into(), 68, &message.to_vec().unwrap())
    };
    let events = told(&[client(MessageType::Discover, 1, None, []), offer(SERVER), offer(other), offer(other)]);
    let servers: Vec<_> = events.iter().filter(|e| e.action == LeaseAction::Offer).map(|e| e.lease.server_address).collect();
    assert_eq!(servers, [Some(SERVER.into()), Some(other.into())]);
}

#[test]
fn what_is_refused_declined_or_given_back_names_its_address() {
    let packets = [
        client(MessageType::Request, 1, None, [V4::RequestedIpAddress(ADDRESS)]),
        server(MessageType::Nak, 1, Ipv4Addr::UNSPECIFIED),
        client(MessageType::Decline, 2, None, [V4::RequestedIpAddress(ADDRESS)]),
        client(MessageType::Release, 3, Some(ADDRESS), []),
        // It answers a question for settings, and grants nothing.
        server(MessageType::Ack, 4, Ipv4Addr::UNSPECIFIED),
    ];
    let events = told(&packets);
    let expected = [LeaseAction::Request, LeaseAction::Nak, LeaseAction::Declined, LeaseAction::Released];
    assert_eq!(events.iter().map(|e| e.action).collect::<Vec<_>>(), expected);
    assert!(events.iter().all(|e| e.lease.ip_address == Some(ADDRESS.into())), "{events:?}");
}

#[test]
fn the_hosts_own_lease_is_the_hosts() {
    let mut dialogues = Dialogues::default();
    let heard = message(&server(MessageType::Ack, 1, ADDRESS)).unwrap();
    let events = dialogues.hear(heard, "lan0", Some("02:00:00:00:00:07"), 1);
    assert_eq!(events[0].lease.scope, LeaseScope::Host);
}

#[test]
fn version_six_tells_each_address_with_the_hardware_in_the_clients_id_through_relays_too() {
    let address = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x50);
    let duid = [vec![0, 3, 0, 1], MAC.to_vec()].concat();
    let with = |kind, seconds| {
        let mut message = v6::Message::new_with_id(kind, [1, 2, 3]);
        message.opts_mut().insert(V6::ClientId(duid.clone()));
        message.opts_mut().insert(V6::ServerId(vec![0, 3, 0, 1, 9]));
        let opts = [V6::IAAddr(IAAddr { addr: address, preferred_life: seconds, valid_life: seconds, opts: v6::DhcpOptions::new() })];
        message.opts_mut().insert(V6::IANA(IANA { id: 1, t1: 0, t2: 0, opts: opts.into_iter().collect() }));
        message.to_vec().unwrap()
    };
    let relayed = |inner: Vec<u8>| {
        let mut outer = vec![12, 0];
        outer.extend([0; 32]);
        outer.extend([0, 9]);
        outer.extend(u16::try_from(inner.len()).unwrap().to_be_bytes());
        outer.extend(inner);
        outer
    };
    let link: IpAddr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).into();
    let events = told(&[
        packet(link, 547, &relayed(with(v6::MessageType::Request, 0))),
        packet(link, 546, &with(v6::MessageType::Reply, 60)),
        packet(link, 547, &with(v6::MessageType::Renew, 0)),
        packet(link, 546, &with(v6::MessageType::Reply, 60)),
        packet(link, 547, &with(v6::MessageType::Release, 0)),
    ]);
    let expected = [LeaseAction::Request, LeaseAction::Assigned, LeaseAction::Request, LeaseAction::Renewed, LeaseAction::Released];
    assert_eq!(events.iter().map(|e| e.action).collect::<Vec<_>>(), expected);
    assert!(events.iter().all(|e| e.lease.ip_address == Some(address.into())), "{events:?}");
    assert_eq!((events[1].lease.mac_address.as_deref(), events[1].lease.server_address), (Some("02:00:00:00:00:07"), Some(link)));
    let channels: Vec<_> = events.iter().map(|e| &*e.channel).collect();
    assert_eq!(channels, ["lan0 00:03:00:01:09"; 5], "what is given back is given back to that server");
}

#[test]
fn questions_are_remembered_in_a_bounded_number() {
    let mut dialogues = Dialogues::default();
    for xid in 0..10_000 {
        dialogues.hear(message(&client(MessageType::Discover, xid, None, [])).unwrap(), "lan0", None, 1);
    }
    assert!(format!("{dialogues:?}").matches("Asked").count() <= 4096);
}

/// Options at which a decoder that reads them all would stumble, and one that is cut.
#[test]
fn hostile_options_hide_no_lease() {
    let whole = server(MessageType::Ack, 1, ADDRESS);
    let payload = datagram(&whole).unwrap().payload;
    for hostile in [&[121, 5, 99, 1, 1, 1, 1][..], &[152, 0], &[151, 0], &[81, 0], &[94, 1, 1], &[12, 2, 0xff, 0xfe], &[82, 3, 1, 9, 9]] {
        let mut bytes = payload.to_vec();
        bytes.splice(240..240, hostile.iter().copied());
        let heard = message(&packet(SERVER.into(), 68, &bytes)).unwrap();
        assert_eq!(heard.addresses, [(ADDRESS.into(), Some(3600))], "{hostile:?}");
    }
    let cut = [payload.get(..240).unwrap(), &[50, 4, 1]].concat();
    assert!(message(&packet(SERVER.into(), 68, &cut)).is_err());
}

proptest! {
    /// Bytes behind a header that is right reach the options.
    #[test]
    fn any_options_are_read_or_refused(options in prop::collection::vec(any::<u8>(), 0..300)) {
        let whole = server(MessageType::Ack, 1, ADDRESS);
        let bytes = [datagram(&whole).unwrap().payload.get(..240).unwrap(), &options].concat();
        let _ = message(&packet(SERVER.into(), 68, &bytes));
        let reply = [&[7, 1, 2, 3], &*options].concat();
        let _ = message(&packet(Ipv6Addr::LOCALHOST.into(), 546, &reply));
    }

    #[test]
    fn any_packet_is_a_message_or_an_error(payload in prop::collection::vec(any::<u8>(), 0..400), port in prop::sample::select(vec![67u16, 547]), kind: bool) {
        let from: IpAddr = if kind { SERVER.into() } else { Ipv6Addr::LOCALHOST.into() };
        if let Ok(message) = message(&packet(from, port, &payload)) {
            Dialogues::default().hear(message, "lan0", None, 1);
        }
    }
}
