//! DHCPv6's messages, those that relays wrap included.

use std::net::IpAddr;

use dhcproto::{
    Decodable, Decoder,
    error::DecodeError,
    v6::{DhcpOption, DhcpOptions, Message as Dhcp, MessageType, OptionCode},
};

use super::dialogue::{Message, Says, hex};

/// Relays that may have passed a message on; the standard allows eight.
const MOST_RELAYS: usize = 8;

/// Reads a message that came from `from`.
///
/// # Errors
/// The bytes are none.
pub(super) fn decode(payload: &[u8], from: IpAddr) -> Result<Message, DecodeError> {
    let mut payload = payload;
    for relays in 0..=MOST_RELAYS {
        if !matches!(payload.first().map(|kind| MessageType::from(*kind)), Some(MessageType::RelayForw | MessageType::RelayRepl)) {
            // A relay's address is not the server's.
            return Ok(message(&Dhcp::decode(&mut Decoder::new(payload))?, (relays == 0).then_some(from)));
        }
        match relayed(payload)? {
            Some(within) => payload = within,
            None => return Ok(Message::default()),
        }
    }
    Ok(Message::default())
}

/// The bytes of the message in a relay's.
fn relayed(payload: &[u8]) -> Result<Option<&[u8]>, DecodeError> {
    const HEADER: usize = 34;
    const RELAY_MESSAGE: u16 = 9;
    let mut options = Decoder::new(payload.get(HEADER..).unwrap_or_default());
    while let (Ok(code), Ok(length)) = (options.read_u16(), options.read_u16()) {
        let value = options.read_slice(length.into())?;
        if code == RELAY_MESSAGE {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

fn message(dhcp: &Dhcp, from: Option<IpAddr>) -> Message {
    let duid = match dhcp.opts().get(OptionCode::ClientId) {
        Some(DhcpOption::ClientId(duid)) => duid.as_slice(),
        _ => &[],
    };
    let addresses = addresses(dhcp.opts());
    let (says, has_it, is_servers) = match dhcp.msg_type() {
        MessageType::Solicit => (Some(Says::Discover), false, false),
        MessageType::Advertise => (Some(Says::Offer), false, true),
        MessageType::Request => (Some(Says::Request), false, false),
        MessageType::Renew | MessageType::Rebind => (Some(Says::Request), true, false),
        // One that grants nothing answers a release, a decline or a question for other things; one that takes an address away says so.
        MessageType::Reply if addresses.iter().any(|(_, seconds)| *seconds > Some(0)) => (Some(Says::Ack), false, true),
        MessageType::Reply if !addresses.is_empty() => (Some(Says::Nak), false, true),
        MessageType::Decline => (Some(Says::Decline), false, false),
        MessageType::Release => (Some(Says::Release), false, false),
        _ => (None, false, false),
    };
    Message {
        transaction: [&dhcp.xid()[..], duid].concat(),
        says,
        addresses: addresses.into_iter().filter(|(_, seconds)| says != Some(Says::Ack) || *seconds > Some(0)).collect(),
        has_it,
        mac_address: hardware(duid),
        client_id: (!duid.is_empty()).then(|| hex(duid)),
        hostname: None,
        server_address: from.filter(|_| is_servers),
    }
}

/// The addresses of all associations, each with the seconds that it is valid for.
fn addresses(options: &DhcpOptions) -> Vec<(IpAddr, Option<u32>)> {
    let of = |option: &DhcpOption| match option {
        DhcpOption::IANA(association) => Some(association.opts.clone()),
        DhcpOption::IATA(association) => Some(association.opts.clone()),
        _ => None,
    };
    let associations = options.iter().filter_map(of);
    let address = |option: &DhcpOption| match option {
        DhcpOption::IAAddr(address) => Some((IpAddr::V6(address.addr), Some(address.valid_life))),
        _ => None,
    };
    associations.flat_map(|within| within.iter().filter_map(address).collect::<Vec<_>>()).collect()
}

/// The Ethernet address in a DUID that is made of one.
fn hardware(duid: &[u8]) -> Option<String> {
    match duid {
        [0, 1, 0, 1, _, _, _, _, address @ ..] | [0, 3, 0, 1, address @ ..] if address.len() == 6 => Some(hex(address)),
        _ => None,
    }
}
