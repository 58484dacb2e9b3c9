//! The packet that keeps a NAT's mapping alive (RFC 3948 §2.3).

use crate::ip::tunnel_header::TunnelHeader;
use crate::packet::{self, Version, address_bits, checksum, protocol};
use crate::sa::Sa;
use crate::sa::association::Dscp;
use crate::wire::udp;

/// All that a keepalive says.
const CONTENT: u8 = 0xff;

/// [`udp::LENGTH`] and [`CONTENT`].
const LENGTH: u16 = 9;

//= T136 (RFC 3948 section 2.3): the ports are those of the encapsulation
pub(super) fn write(sa: &Sa, out: &mut [u8]) -> Option<usize> {
    let parameters = &sa.parameters;
    let encapsulation = parameters.udp_encapsulation?;
    let peer = sa.peer_place();
    let header = TunnelHeader {
        version: if parameters.destination.is_ipv4() {
            Version::V4
        } else {
            Version::V6
        },
        source: address_bits(parameters.source),
        destination: peer.address,
        protocol: protocol::UDP,
        traffic_class: match parameters.dscp {
            Dscp::Copy => 0,
            Dscp::Fixed(dscp) => dscp << 2,
        },
        hop_limit: parameters.hop_limit,
        // With DF the identification means nothing (RFC 6864 §4.1).
        dont_fragment: true,
        identification: 0,
        flow_label: 0,
    };
    let start = header.length();
    let whole = out.get_mut(..start + usize::from(LENGTH))?;
    header.write(LENGTH.into(), whole)?;
    let ports = udp::Header {
        source: encapsulation.source_port,
        destination: peer.port,
        length: LENGTH,
        checksum: 0,
    };
    let (header, content) = whole.get_mut(start..)?.split_first_chunk_mut()?;
    *header = ports.to_bytes();
    content.fill(CONTENT);
    if parameters.destination.is_ipv6() {
        let outer = packet::parse(whole).ok()?;
        checksum::renew(whole, &outer);
    }
    Some(whole.len())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::sa::association::{Direction, UdpEncapsulation};
    use crate::sa::sample::{parameters, sa};
    use crate::wire::checksum::pseudo_v6;

    fn keepalive(source: &str, destination: &str, encapsulated: bool) -> Option<Vec<u8>> {
        let mut wanted = parameters(Direction::Out, 0x1001, destination);
        wanted.source = source.parse().unwrap();
        wanted.dscp = Dscp::Fixed(46);
        wanted.udp_encapsulation = encapsulated.then_some(UdpEncapsulation {
            source_port: 4501,
            destination_port: 60_000,
        });
        let mut out = [0xee; 60];
        let length = write(&sa(0, wanted), &mut out)?;
        Some(out[..length].to_vec())
    }

    //= test T136 (RFC 3948 section 2.3)
    #[test]
    fn a_keepalive_is_one_byte_between_the_ports_of_the_encapsulation() {
        let four = keepalive("192.0.2.1", "192.0.2.2", true).unwrap();
        assert_eq!(four[..2], [0x45, 46 << 2]);
        assert_eq!(four[12..20], [192, 0, 2, 1, 192, 0, 2, 2]);
        let datagram = [0x11, 0x95, 0xea, 0x60, 0, 9, 0, 0, 0xff];
        assert_eq!(four[20..], datagram, "without a checksum");
        let parsed = packet::parse(&four).unwrap();
        assert_eq!((parsed.length, parsed.protocol), (29, protocol::UDP));
        assert!(parsed.dont_fragment, "its identification says nothing");
        assert_eq!(keepalive("192.0.2.1", "192.0.2.2", false), None);

        let six = keepalive("2001:db8::1", "2001:db8::2", true).unwrap();
        let parsed = packet::parse(&six).unwrap();
        let pseudo = pseudo_v6(parsed.source, parsed.destination, protocol::UDP, 9);
        assert!(pseudo.bytes(&six[40..]).holds());
        assert_eq!((&six[40..46], six[48]), (&datagram[..6], 0xff));
    }
}
