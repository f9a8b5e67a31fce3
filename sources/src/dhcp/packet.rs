//! From an IP packet to the DHCP message in it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const UDP: u8 = 17;
const UDP_HEADER: usize = 8;

/// A UDP datagram and who sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Datagram<'p> {
    pub(super) from: IpAddr,
    pub(super) to_port: u16,
    pub(super) payload: &'p [u8],
}

/// Reads a whole packet that begins with its IP header. `None`: it is no UDP, a fragment, or cut.
pub(super) fn datagram(packet: &[u8]) -> Option<Datagram<'_>> {
    match packet.first()? >> 4 {
        4 => {
            let header = packet.first_chunk::<20>()?;
            let [length, fragment] = [[2, 3], [6, 7]].map(|[high, low]| u16::from_be_bytes([header[high], header[low]]));
            if header[9] != UDP || fragment & 0x3fff != 0 {
                return None;
            }
            let rest = packet.get(usize::from(header[0] & 0xf) * 4..usize::from(length))?;
            udp(Ipv4Addr::new(header[12], header[13], header[14], header[15]).into(), rest)
        }
        6 => {
            let (header, rest) = packet.split_first_chunk::<40>()?;
            let source: [u8; 16] = *header[8..].first_chunk()?;
            let length = u16::from_be_bytes([header[4], header[5]]);
            if header[6] != UDP {
                return None;
            }
            udp(Ipv6Addr::from(source).into(), rest.get(..usize::from(length))?)
        }
        _ => None,
    }
}

fn udp(from: IpAddr, segment: &[u8]) -> Option<Datagram<'_>> {
    let header = segment.first_chunk::<UDP_HEADER>()?;
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let payload = segment.get(UDP_HEADER..length)?;
    Some(Datagram { from, to_port: u16::from_be_bytes([header[2], header[3]]), payload })
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A packet as a kernel sends it; checksums are the card's affair.
    pub(crate) fn packet(from: IpAddr, to_port: u16, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len() + UDP_HEADER).unwrap();
        let mut udp = [to_port ^ 1, to_port, length, 0].map(u16::to_be_bytes).concat();
        udp.extend_from_slice(payload);
        let mut packet = match from {
            IpAddr::V4(from) => {
                let mut header = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, UDP, 0, 0];
                header[2..4].copy_from_slice(&(length + 20).to_be_bytes());
                header.extend(from.octets());
                header.extend([255; 4]);
                header
            }
            IpAddr::V6(from) => {
                let mut header = vec![0x60, 0, 0, 0, 0, 0, UDP, 64];
                header[4..6].copy_from_slice(&length.to_be_bytes());
                header.extend(from.octets());
                header.extend([0xff; 16]);
                header
            }
        };
        packet.extend(udp);
        packet
    }

    proptest! {
        #[test]
        fn a_datagram_comes_back_as_it_was_sent(payload in prop::collection::vec(any::<u8>(), 0..600), port: u16, four: bool, cut in 0usize..28) {
            let from: IpAddr = if four { [10, 0, 0, 1].into() } else { [0xfe80, 0, 0, 0, 0, 0, 0, 1].into() };
            let mut bytes = packet(from, port, &payload);
            prop_assert_eq!(datagram(&bytes), Some(Datagram { from, to_port: port, payload: &payload }));
            // What follows a packet is padding.
            bytes.extend([0; 9]);
            prop_assert_eq!(datagram(&bytes).map(|d| d.payload), Some(&*payload));
            bytes.truncate(bytes.len() - 10 - cut);
            prop_assert_eq!(datagram(&bytes), None);
        }

        #[test]
        fn any_bytes_are_a_datagram_or_none(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = datagram(&bytes);
        }
    }

    #[test]
    fn a_fragment_is_no_datagram() {
        let mut bytes = packet([10, 0, 0, 1].into(), 67, b"x");
        bytes[6] = 0x20;
        assert_eq!(datagram(&bytes), None);
    }
}
