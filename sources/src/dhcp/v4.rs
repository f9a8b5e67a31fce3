//! DHCPv4's messages.

use dhcproto::{
    Decodable, Decoder,
    error::DecodeError,
    v4::{DhcpOption, HType, Message as Dhcp, MessageType, OptionCode},
};

use super::dialogue::{Message, Says, given, hex};

/// Reads a message.
///
/// # Errors
/// The bytes are none.
pub(super) fn decode(payload: &[u8]) -> Result<Message, DecodeError> {
    // The library trusts the length that is told of the hardware address, whose field has sixteen bytes.
    const HARDWARE: u8 = 16;
    if payload.get(2).is_some_and(|length| *length > HARDWARE) {
        return Err(DecodeError::NotEnoughBytes);
    }
    let dhcp = Dhcp::decode(&mut Decoder::new(payload))?;
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
    })
}
