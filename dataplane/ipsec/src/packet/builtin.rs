//! The built-in bypass entries that stand first in every SPD: what keeps the link and the key
//! exchange alive. Whether an address is the machine's own is the caller's knowledge.

use crate::packet::{Fragment, Packet, Upper, Version, protocol};
use crate::wire::icmp::kind_v6;
use crate::wire::udp;

/// A built-in bypass entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Builtin {
    /// IPv6 neighbour discovery (RFC 4861): hop limit 255, so it comes from the link.
    NeighborDiscovery,
    /// DHCP, and DHCPv6 (RFC 8415).
    Dhcp,
    /// A link-local source or destination.
    LinkLocal,
    /// A multicast destination.
    Multicast,
    /// The limited broadcast address.
    Broadcast,
    /// IKE: UDP port 500, or port 4500 with the marker of four zero bytes (RFC 3948 §2.2). Bypassed
    /// only from or to one of the machine's own addresses.
    Ike,
}

impl Builtin {
    /// Every entry, in the order in which they are matched.
    pub const ALL: [Self; 6] = [
        Self::NeighborDiscovery,
        Self::Dhcp,
        Self::LinkLocal,
        Self::Multicast,
        Self::Broadcast,
        Self::Ike,
    ];

    /// The name in `policy list`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NeighborDiscovery => "builtin-neighbor-discovery",
            Self::Dhcp => "builtin-dhcp",
            Self::LinkLocal => "builtin-link-local",
            Self::Multicast => "builtin-multicast",
            Self::Broadcast => "builtin-broadcast",
            Self::Ike => "builtin-ike",
        }
    }

    /// Whether the entry holds only from or to one of the machine's own addresses.
    #[must_use]
    pub const fn is_for_own_addresses(self) -> bool {
        matches!(self, Self::Ike)
    }
}

/// The built-in entry that the packet `ip` with the descriptor `packet` falls under, if any.
///
/// [`Builtin::Ike`] comes last, so what is not from or to the machine falls under no other entry
/// either. ESP in UDP and NAT keepalives are not IKE. Fragments behind the first show no ports.
#[inline]
#[must_use]
pub fn builtin(ip: &[u8], packet: &Packet) -> Option<Builtin> {
    let by_address = match packet.version {
        Version::V4 => by_address_v4(packet),
        Version::V6 => by_address_v6(packet),
    };
    match packet.upper {
        Upper::Opaque => by_address,
        Upper::Icmp(kind_and_code) => {
            let [kind, _] = kind_and_code.to_be_bytes();
            let discovery = packet.version == Version::V6
                && packet.hop_limit == 255
                && packet.fragment == Fragment::Whole
                && (kind_v6::ROUTER_SOLICITATION..=kind_v6::REDIRECT).contains(&kind);
            if discovery {
                Some(Builtin::NeighborDiscovery)
            } else {
                by_address
            }
        }
        Upper::Ports {
            source,
            destination,
        } if packet.protocol == protocol::UDP => {
            if is_dhcp(packet.version, source, destination) {
                return Some(Builtin::Dhcp);
            }
            by_address.or_else(|| is_ike(ip, packet, source, destination).then_some(Builtin::Ike))
        }
        Upper::Ports { .. } => by_address,
    }
}

#[inline]
const fn by_address_v4(packet: &Packet) -> Option<Builtin> {
    const LINK_LOCAL: u32 = 0xa9fe; // 169.254.0.0/16
    let source = (packet.source & 0xffff_ffff) as u32;
    let destination = (packet.destination & 0xffff_ffff) as u32;
    if source >> 16 == LINK_LOCAL || destination >> 16 == LINK_LOCAL {
        Some(Builtin::LinkLocal)
    } else if destination >> 28 == 0xe {
        Some(Builtin::Multicast)
    } else if destination == u32::MAX {
        Some(Builtin::Broadcast)
    } else {
        None
    }
}

#[inline]
const fn by_address_v6(packet: &Packet) -> Option<Builtin> {
    const LINK_LOCAL: u128 = 0xfe80 >> 6; // fe80::/10
    if packet.source >> 118 == LINK_LOCAL || packet.destination >> 118 == LINK_LOCAL {
        Some(Builtin::LinkLocal)
    } else if packet.destination >> 120 == 0xff {
        Some(Builtin::Multicast)
    } else {
        None
    }
}

/// Between client and server either way, or between relay and server.
#[inline]
const fn is_dhcp(version: Version, source: u16, destination: u16) -> bool {
    match version {
        Version::V4 => matches!((source, destination), (67 | 68, 67) | (67, 68)),
        Version::V6 => matches!((source, destination), (546 | 547, 547) | (547, 546)),
    }
}

#[inline]
fn is_ike(ip: &[u8], packet: &Packet, source: u16, destination: u16) -> bool {
    const IKE: u16 = 500;
    const IKE_BEHIND_NAT: u16 = 4500;
    if source == IKE || destination == IKE {
        return true;
    }
    if source != IKE_BEHIND_NAT && destination != IKE_BEHIND_NAT {
        return false;
    }
    let payload = usize::from(packet.upper_offset).saturating_add(udp::LENGTH);
    let data = ip.get(payload..packet.length.into());
    data.and_then(|data| data.first_chunk::<4>()) == Some(&[0; 4])
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panic")]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::packet::address_bits;

    fn at(source: &str, destination: &str) -> Packet {
        let source: IpAddr = source.parse().unwrap();
        let destination: IpAddr = destination.parse().unwrap();
        Packet {
            source: address_bits(source),
            destination: address_bits(destination),
            length: 60,
            upper_offset: if source.is_ipv4() { 20 } else { 40 },
            identification: 0,
            upper: Upper::Opaque,
            version: if source.is_ipv4() {
                Version::V4
            } else {
                Version::V6
            },
            protocol: protocol::NONE,
            hop_limit: 255,
            traffic_class: 0,
            fragment: Fragment::Whole,
            dont_fragment: false,
        }
    }

    fn udp(packet: Packet, source: u16, destination: u16) -> Packet {
        let upper = Upper::Ports {
            source,
            destination,
        };
        Packet {
            upper,
            protocol: protocol::UDP,
            ..packet
        }
    }

    fn icmp(packet: Packet, kind: u16) -> Packet {
        Packet {
            upper: Upper::Icmp(kind << 8),
            protocol: protocol::ICMPV6,
            ..packet
        }
    }

    const ONES: [u8; 60] = [1; 60];

    #[test]
    fn addresses_of_link_scope() {
        for (source, destination, expected) in [
            ("192.0.2.1", "198.51.100.1", None),
            ("169.254.0.1", "198.51.100.1", Some(Builtin::LinkLocal)),
            ("192.0.2.1", "169.254.255.255", Some(Builtin::LinkLocal)),
            ("192.0.2.1", "169.253.255.255", None),
            ("192.0.2.1", "223.255.255.255", None),
            ("192.0.2.1", "224.0.0.1", Some(Builtin::Multicast)),
            ("192.0.2.1", "239.255.255.255", Some(Builtin::Multicast)),
            ("192.0.2.1", "240.0.0.1", None),
            ("0.0.0.0", "255.255.255.255", Some(Builtin::Broadcast)),
            ("2001:db8::1", "2001:db8::2", None),
            ("fe80::1", "2001:db8::2", Some(Builtin::LinkLocal)),
            ("2001:db8::1", "febf::1", Some(Builtin::LinkLocal)),
            ("2001:db8::1", "fec0::1", None),
            ("2001:db8::1", "ff05::2", Some(Builtin::Multicast)),
            // No IPv4 rules for mapped addresses in an IPv6 packet.
            ("::ffff:169.254.0.1", "::ffff:224.0.0.1", None),
        ] {
            let packet = at(source, destination);
            assert_eq!(builtin(&ONES, &packet), expected, "{source} {destination}");
        }
    }

    #[test]
    fn neighbour_discovery_comes_from_the_link() {
        let base = at("2001:db8::1", "2001:db8::2");
        for kind in 0..=255 {
            let expected = (133..=137)
                .contains(&kind)
                .then_some(Builtin::NeighborDiscovery);
            assert_eq!(builtin(&ONES, &icmp(base, kind)), expected, "{kind}");
        }
        let routed = Packet {
            hop_limit: 254,
            ..icmp(base, 135)
        };
        assert_eq!(builtin(&ONES, &routed), None);
        let v4 = icmp(at("192.0.2.1", "198.51.100.1"), 135);
        assert_eq!(builtin(&ONES, &v4), None);
    }

    #[test]
    fn dhcp_of_both_versions() {
        let v4 = at("0.0.0.0", "255.255.255.255");
        let v6 = at("fe80::1", "ff02::1:2");
        for (source, destination) in [(68, 67), (67, 68), (67, 67)] {
            assert_eq!(
                builtin(&ONES, &udp(v4, source, destination)),
                Some(Builtin::Dhcp)
            );
        }
        for (source, destination) in [(546, 547), (547, 546), (547, 547)] {
            assert_eq!(
                builtin(&ONES, &udp(v6, source, destination)),
                Some(Builtin::Dhcp)
            );
        }
        assert_eq!(builtin(&ONES, &udp(v4, 546, 547)), Some(Builtin::Broadcast));
        assert_eq!(builtin(&ONES, &udp(v6, 68, 67)), Some(Builtin::LinkLocal));
        assert_eq!(
            builtin(&ONES, &udp(at("10.0.0.1", "10.0.0.2"), 68, 53)),
            None
        );
    }

    #[test]
    fn ike_and_its_marker() {
        for base in [
            at("192.0.2.1", "198.51.100.1"),
            at("2001:db8::1", "2001:db8::2"),
        ] {
            let data = usize::from(base.upper_offset) + 8;
            let mut marked = ONES;
            marked[data..data + 4].fill(0);
            for (source, destination) in [(500, 500), (500, 9), (9, 500)] {
                let packet = udp(base, source, destination);
                assert_eq!(builtin(&ONES, &packet), Some(Builtin::Ike));
            }
            for (source, destination) in [(4500, 4500), (4500, 9), (9, 4500)] {
                let packet = udp(base, source, destination);
                assert_eq!(builtin(&ONES, &packet), None);
                assert_eq!(builtin(&marked, &packet), Some(Builtin::Ike));
                // Cut behind the third zero, or what follows the packet in its frame.
                let length = u16::try_from(data + 3).unwrap();
                assert_eq!(builtin(&marked, &Packet { length, ..packet }), None);
                assert_eq!(builtin(&marked[..data + 3], &packet), None);
            }
            assert_eq!(builtin(&marked, &udp(base, 9, 10)), None);
            let tcp = Packet {
                protocol: protocol::TCP,
                ..udp(base, 500, 500)
            };
            assert_eq!(builtin(&marked, &tcp), None);
        }
    }

    #[test]
    fn ike_comes_last_so_that_its_condition_hides_nothing() {
        let link_local = udp(at("fe80::1", "fe80::2"), 500, 500);
        assert_eq!(builtin(&ONES, &link_local), Some(Builtin::LinkLocal));
        for entry in Builtin::ALL {
            assert_eq!(entry.is_for_own_addresses(), entry == Builtin::Ike);
        }
    }

    #[test]
    fn names_are_unique() {
        for entry in Builtin::ALL {
            assert!(entry.name().starts_with("builtin-"));
            let same = Builtin::ALL
                .iter()
                .filter(|other| other.name() == entry.name());
            assert_eq!(same.count(), 1);
        }
    }
}
