//! Netlink's messages about links, addresses and namespaces, as far as they are used. Attributes that are not known are passed over.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{DecodeError, NetlinkBuffer, NlasIterator};

pub(super) const NEW_LINK: u16 = 16;
pub(super) const DEL_LINK: u16 = 17;
pub(super) const GET_LINK: u16 = 18;
pub(super) const NEW_ADDRESS: u16 = 20;
pub(super) const DEL_ADDRESS: u16 = 21;
pub(super) const GET_ADDRESS: u16 = 22;
pub(super) const NEW_NSID: u16 = 88;
pub(super) const DEL_NSID: u16 = 89;
pub(super) const GET_NSID: u16 = 90;
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// Set in a dump during which something changed.
const INTERRUPTED: u16 = 0x10;
/// Of an IPv6 address: not to be used (yet), because another host may have it, or has it.
const TENTATIVE: u32 = 0x40;
const DAD_FAILED: u32 = 0x08;

/// Longest name of an interface, with its end.
const MAX_NAME: usize = 16;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    /// Of six bytes, and not only zeros.
    pub(super) mac: Option<[u8; 6]>,
    /// The bridge, or other link, that it is a port of.
    pub(super) master: Option<u32>,
    /// The other end of a pair, in the namespace of that id.
    pub(super) peer: Option<(u32, i32)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) link: u32,
    pub(super) ip: IpAddr,
    pub(super) prefix_length: u8,
    /// False while it is only tried.
    pub(super) is_held: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    NewLink(Link),
    DelLink {
        index: u32,
    },
    NewAddress(Address),
    DelAddress(Address),
    NewNsid(i32),
    DelNsid(i32),
    /// Also an acknowledgement: 0.
    Error(i32),
    Done,
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) sequence: u32,
    pub(super) interrupted: bool,
    pub(super) body: Body,
}

/// The messages of one datagram. The first that cannot be read ends it: nobody knows where the next begins.
pub(super) fn messages(datagram: &[u8]) -> impl Iterator<Item = Result<Message, DecodeError>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let decoded = NetlinkBuffer::new_checked(rest).and_then(|buffer| {
            let length = usize::try_from(buffer.length()).unwrap_or(usize::MAX);
            let message = decode(&buffer);
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            message
        });
        if decoded.is_err() {
            rest = &[];
        }
        Some(decoded)
    })
}

fn decode(buffer: &NetlinkBuffer<&[u8]>) -> Result<Message, DecodeError> {
    let payload = buffer.payload();
    let body = match buffer.message_type() {
        NEW_LINK => Body::NewLink(link(payload)?),
        DEL_LINK => Body::DelLink { index: number(payload.get(4..))? },
        NEW_ADDRESS => address(payload)?.map_or(Body::Other, Body::NewAddress),
        DEL_ADDRESS => address(payload)?.map_or(Body::Other, Body::DelAddress),
        NEW_NSID => Body::NewNsid(namespace(payload)?),
        DEL_NSID => Body::DelNsid(namespace(payload)?),
        ERROR => Body::Error(number(Some(payload))?.cast_signed()),
        DONE => Body::Done,
        _ => Body::Other,
    };
    Ok(Message { sequence: buffer.sequence_number(), interrupted: buffer.flags() & INTERRUPTED != 0, body })
}

/// A number in the kernel's byte order, at the beginning.
fn number(bytes: Option<&[u8]>) -> Result<u32, DecodeError> {
    let chunk = bytes.and_then(<[u8]>::first_chunk).ok_or_else(|| DecodeError::from("a number is cut off"))?;
    Ok(u32::from_ne_bytes(*chunk))
}

fn attributes(payload: &[u8], header: usize) -> Result<NlasIterator<&[u8]>, DecodeError> {
    Ok(NlasIterator::new(payload.get(header..).ok_or_else(|| DecodeError::from("a header is cut off"))?))
}

fn link(payload: &[u8]) -> Result<Link, DecodeError> {
    let mut link = Link { index: number(payload.get(4..))?, ..Link::default() };
    let (mut peer, mut peer_nsid) = (None, None);
    for attribute in attributes(payload, 16)? {
        let attribute = attribute?;
        let value = attribute.value();
        match attribute.kind() {
            1 => link.mac = <[u8; 6]>::try_from(value).ok().filter(|mac| *mac != [0; 6]),
            3 => link.name = text(value),
            5 => peer = Some(number(Some(value))?),
            10 => link.master = Some(number(Some(value))?).filter(|index| *index != 0),
            37 => peer_nsid = Some(number(Some(value))?.cast_signed()),
            _ => {}
        }
    }
    link.peer = peer.zip(peer_nsid);
    Ok(link)
}

/// `None`: of another family.
fn address(payload: &[u8]) -> Result<Option<Address>, DecodeError> {
    let [family, prefix_length, flags, _scope, ..] = *payload else { return Err("an address is cut off".into()) };
    let link = number(payload.get(4..))?;
    let (mut address, mut local, mut flags) = (None, None, u32::from(flags));
    for attribute in attributes(payload, 8)? {
        let attribute = attribute?;
        let value = attribute.value();
        match attribute.kind() {
            1 => address = ip(family, value),
            2 => local = ip(family, value),
            8 => flags = number(Some(value))?,
            _ => {}
        }
    }
    // Of a point-to-point link the one is the other end's.
    let Some(ip) = local.or(address) else { return Ok(None) };
    let is_held = ip.is_ipv4() || flags & (TENTATIVE | DAD_FAILED) == 0;
    Ok(Some(Address { link, ip, prefix_length, is_held }))
}

fn ip(family: u8, value: &[u8]) -> Option<IpAddr> {
    match family {
        2 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?).into()),
        10 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?).into()),
        _ => None,
    }
}

fn namespace(payload: &[u8]) -> Result<i32, DecodeError> {
    // The header is one byte, aligned.
    for attribute in attributes(payload, 4)? {
        let attribute = attribute?;
        if attribute.kind() == 1 {
            return Ok(number(Some(attribute.value()))?.cast_signed());
        }
    }
    Err("a namespace without an id".into())
}

fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end.min(MAX_NAME)]).into_owned()
}

/// Decodes what may be a datagram; for fuzzing.
pub fn decode_datagram(bytes: &[u8]) {
    let _ = messages(bytes).count();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `ip addr add 10.9.0.2/24 dev eth0` in another namespace, as the kernel told it.
    const ADDED: [u8; 80] = [
        80, 0, 0, 0, 20, 0, 0, 0, 7, 0, 0, 0, 1, 2, 0, 0, // header: length, RTM_NEWADDR, sequence, port
        2, 24, 128, 0, 2, 0, 0, 0, // AF_INET, /24, IFA_F_PERMANENT, scope, index 2
        8, 0, 1, 0, 10, 9, 0, 2, // IFA_ADDRESS
        8, 0, 2, 0, 10, 9, 0, 2, // IFA_LOCAL
        9, 0, 3, 0, b'e', b't', b'h', b'0', 0, 0, 0, 0, // IFA_LABEL
        8, 0, 8, 0, 128, 0, 0, 0, // IFA_FLAGS
        20, 0, 6, 0, 255, 255, 255, 255, 255, 255, 255, 255, 1, 1, 0, 0, 1, 1, 0, 0, // IFA_CACHEINFO
    ];

    fn all(bytes: &[u8]) -> Vec<Result<Message, DecodeError>> {
        messages(bytes).collect()
    }

    #[test]
    fn reads_an_address() {
        let address = Address { link: 2, ip: "10.9.0.2".parse().unwrap(), prefix_length: 24, is_held: true };
        let twice: Vec<_> = all(&[ADDED, ADDED].concat()).into_iter().map(|m| m.unwrap().body).collect();
        assert_eq!(twice, [Body::NewAddress(address.clone()), Body::NewAddress(address)]);
    }

    #[test]
    fn what_is_cut_off_is_an_error_and_ends_the_datagram() {
        for end in 1..ADDED.len() {
            let decoded = all(&ADDED[..end]);
            assert_eq!(decoded.len(), 1);
            assert!(decoded[0].is_err(), "{end}");
        }
        let mut lies = ADDED;
        lies[24] = 200; // the first attribute is longer than the message
        assert!(all(&lies)[0].is_err());
    }
}
