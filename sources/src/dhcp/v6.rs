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
/// And so long identifiers.
const LONGEST_DUID: usize = 130;

/// Reads a message that came from `from`.
///
/// # Errors
/// The bytes are none.
pub(super) fn decode(payload: &[u8], from: IpAddr) -> Result<Message, DecodeError> {
    let mut payload = payload;
    for relays in 0..=MOST_RELAYS {
        if !matches!(payload.first().map(|kind| MessageType::from(*kind)), Some(MessageType::RelayForw | MessageType::RelayRepl)) {
            // A relay's address is not the server's.
            let plain = plain(payload).ok_or(DecodeError::NotEnoughBytes)?;
            return Ok(message(&Dhcp::decode(&mut Decoder::new(&plain))?, (relays == 0).then_some(from)));
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

const CLIENT_ID: u16 = 1;
const SERVER_ID: u16 = 2;
const IA_NA: u16 = 3;
const IA_TA: u16 = 4;
const IA_ADDRESS: u16 = 5;
/// An address and its two lifetimes.
const ADDRESS: usize = 24;

/// The message without what is of no interest here: the library subtracts from the lengths of some options unchecked.
fn plain(payload: &[u8]) -> Option<Vec<u8>> {
    let (header, options) = payload.split_at_checked(4)?;
    let mut plain = header.to_vec();
    each_option(options, |code, value| {
        let of_association = |head: usize| {
            let (own, within) = value.split_at_checked(head)?;
            let mut association = own.to_vec();
            each_option(within, |code, value| {
                put(&mut association, code, value.get(..ADDRESS).filter(|_| code == IA_ADDRESS).unwrap_or_default());
                Some(())
            })?;
            Some(association)
        };
        match code {
            CLIENT_ID | SERVER_ID => put(&mut plain, code, value),
            IA_NA => put(&mut plain, code, &of_association(12)?),
            IA_TA => put(&mut plain, code, &of_association(4)?),
            _ => {}
        }
        Some(())
    })?;
    Some(plain)
}

/// Hands out code and value of each option. `None`: they are cut.
fn each_option(mut options: &[u8], mut take: impl FnMut(u16, &[u8]) -> Option<()>) -> Option<()> {
    while !options.is_empty() {
        let (head, rest) = options.split_first_chunk::<4>()?;
        let [code, length] = [[head[0], head[1]], [head[2], head[3]]].map(u16::from_be_bytes);
        let (value, rest) = rest.split_at_checked(length.into())?;
        take(code, value)?;
        options = rest;
    }
    Some(())
}

/// Adds an option; one without a value is left out.
fn put(message: &mut Vec<u8>, code: u16, value: &[u8]) {
    if let (false, Ok(length)) = (value.is_empty(), u16::try_from(value.len())) {
        message.extend(code.to_be_bytes());
        message.extend(length.to_be_bytes());
        message.extend_from_slice(value);
    }
}

fn message(dhcp: &Dhcp, from: Option<IpAddr>) -> Message {
    let id = |code| match dhcp.opts().get(code) {
        Some(DhcpOption::ClientId(duid) | DhcpOption::ServerId(duid)) => duid.get(..LONGEST_DUID).unwrap_or(duid),
        _ => &[],
    };
    let (duid, server) = (id(OptionCode::ClientId), id(OptionCode::ServerId));
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
        server_id: (!server.is_empty()).then(|| hex(server)),
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
