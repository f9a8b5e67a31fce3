//! DHCPv4's messages.

use dhcproto::{
    Decodable, Decoder,
    error::DecodeError,
    v4::{DhcpOption, HType, Message as Dhcp, MessageType, OptionCode},
};

use super::dialogue::{Message, Says, given, hex};

/// Header and cookie; then come the options.
const HEADER: usize = 240;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Names of server and file, which say nothing of addresses.
const NAMES: std::ops::Range<usize> = 44..236;
const LONGEST_HARDWARE: u8 = 16;

/// Reads a message.
///
/// # Errors
/// The bytes are none.
pub(super) fn decode(payload: &[u8]) -> Result<Message, DecodeError> {
    let plain = plain(payload).ok_or(DecodeError::NotEnoughBytes)?;
    let dhcp = Dhcp::decode(&mut Decoder::new(&plain))?;
    let option = |code| dhcp.opts().get(code);
    let requested = match option(OptionCode::RequestedIpAddress) {
        Some(DhcpOption::RequestedIpAddress(address)) => given(*address),
        _ => None,
    };
    let lease = match option(OptionCode::AddressLeaseTime) {
        Some(DhcpOption::AddressLeaseTime(seconds)) => Some(*seconds),
        _ => None,
    };
    let server = match option(OptionCode::ServerIdentifier) {
        Some(DhcpOption::ServerIdentifier(address)) => given(*address),
        _ => None,
    };
    let (says, address) = match dhcp.opts().msg_type() {
        Some(MessageType::Discover) => (Some(Says::Discover), requested),
        Some(MessageType::Offer) => (Some(Says::Offer), given(dhcp.yiaddr())),
        Some(MessageType::Request) => (Some(Says::Request), requested.or(given(dhcp.ciaddr()))),
        // Without an address it answers DHCPINFORM, and grants nothing.
        Some(MessageType::Ack) => (given(dhcp.yiaddr()).map(|_| Says::Ack), given(dhcp.yiaddr())),
        Some(MessageType::Nak) => (Some(Says::Nak), None),
        Some(MessageType::Decline) => (Some(Says::Decline), requested),
        Some(MessageType::Release) => (Some(Says::Release), given(dhcp.ciaddr())),
        _ => (None, None),
    };
    let hardware = dhcp.chaddr();
    Ok(Message {
        transaction: [&dhcp.xid().to_be_bytes(), hardware].concat(),
        says,
        addresses: address.map(|address| (address, lease)).into_iter().collect(),
        has_it: given(dhcp.ciaddr()).is_some(),
        mac_address: (dhcp.htype() == HType::Eth && hardware.len() == 6).then(|| hex(hardware)),
        client_id: match option(OptionCode::ClientIdentifier) {
            Some(DhcpOption::ClientIdentifier(id)) => Some(hex(id)),
            _ => None,
        },
        hostname: match option(OptionCode::Hostname) {
            Some(DhcpOption::Hostname(name)) => Some(name.clone()),
            _ => None,
        },
        server_address: server,
        server_id: server.map(|server| server.to_string()),
    })
}

/// The message without what is of no interest here: the library panics at some options that are not as they should be.
fn plain(payload: &[u8]) -> Option<Vec<u8>> {
    let (header, mut options) = payload.split_at_checked(HEADER)?;
    if header[2] > LONGEST_HARDWARE || !header.ends_with(&COOKIE) {
        return None;
    }
    let mut plain = header.to_vec();
    plain[NAMES].fill(0);
    while let [code, rest @ ..] = options {
        match code {
            0 => options = rest,
            255 => break,
            _ => {
                let (length, rest) = rest.split_first()?;
                let (value, rest) = rest.split_at_checked((*length).into())?;
                if is_wanted(*code, value) {
                    plain.extend([*code, *length]);
                    plain.extend_from_slice(value);
                }
                options = rest;
            }
        }
    }
    plain.push(255);
    Some(plain)
}

/// Whether it is an option that [`decode`] reads, in its form: host name, address, time, type of message, server, client.
fn is_wanted(code: u8, value: &[u8]) -> bool {
    match code {
        12 => std::str::from_utf8(value).is_ok(),
        50 | 51 | 54 => value.len() == 4,
        53 => value.len() == 1,
        61 => true,
        _ => false,
    }
}
