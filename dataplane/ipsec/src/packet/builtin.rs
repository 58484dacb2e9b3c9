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
    /// DHCP (RFC 2131) and DHCPv6 (RFC 8415) on the link, and between a client and a server of
    /// which one is the machine. What a relay passes on is somebody else's traffic: policy decides,
    /// also when the relay is the machine.
    Dhcp,
    /// A link-local source or destination.
    LinkLocal,
    /// A multicast destination.
    Multicast,
    /// The limited broadcast address.
    Broadcast,
    /// IKE: UDP port 500, or port 4500 with the marker of four zero bytes (RFC 3948 §2.2). To
    /// one of the machine's own addresses by the destination port alone, since anybody can send
    /// from port 500; from one of them by either.
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
}

/// The built-in entry that the packet `ip` with the descriptor `packet` falls under, if any;
/// `is_ours` tells the machine's own addresses, of the packet's version.
///
/// ESP in UDP and NAT keepalives are not IKE. Fragments behind the first show no ports.
#[inline]
#[must_use]
pub fn builtin(ip: &[u8], packet: &Packet, is_ours: impl Fn(u128) -> bool) -> Option<Builtin> {
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
            let on_link = by_address.is_some() || is_unspecified(packet);
            let ours = || (is_ours(packet.source), is_ours(packet.destination));
            match dhcp(packet.version, source, destination) {
                Some(_) if on_link => return Some(Builtin::Dhcp),
                Some(Dhcp::Client) if ours() != (false, false) => return Some(Builtin::Dhcp),
                Some(_) | None => {}
            }
            by_address.or_else(|| {
                let port = ike_port(source, destination, ours)?;
                (port == IKE || is_marked(ip, packet)).then_some(Builtin::Ike)
            })
        }
        Upper::Ports { .. } => by_address,
    }
}

/// True when [`builtin`] may answer differently for two whole packets of one flow: it looks at the
/// hop limit or behind the ports.
#[inline]
#[must_use]
pub const fn builtin_looks_inside(packet: &Packet) -> bool {
    match packet.upper {
        Upper::Opaque => false,
        Upper::Icmp(_) => matches!(packet.version, Version::V6),
        Upper::Ports {
            source,
            destination,
        } => source == IKE_BEHIND_NAT || destination == IKE_BEHIND_NAT,
    }
}

/// From a host that has no address yet.
#[inline]
const fn is_unspecified(packet: &Packet) -> bool {
    match packet.version {
        Version::V4 => packet.source & 0xffff_ffff == 0,
        Version::V6 => packet.source == 0,
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

/// Who talks DHCP.
#[derive(Clone, Copy)]
enum Dhcp {
    /// A client with a server or relay, either way.
    Client,
    /// A relay with a server or another relay.
    Relay,
}

#[inline]
const fn dhcp(version: Version, source: u16, destination: u16) -> Option<Dhcp> {
    match (version, source, destination) {
        (Version::V4, 68, 67) | (Version::V4, 67, 68) => Some(Dhcp::Client),
        (Version::V6, 546, 547) | (Version::V6, 547, 546) => Some(Dhcp::Client),
        (Version::V4, 67, 67) | (Version::V6, 547, 547) => Some(Dhcp::Relay),
        _ => None,
    }
}

const IKE: u16 = 500;
const IKE_BEHIND_NAT: u16 = 4500;

/// The port by which the packet is the machine's IKE, if it is; `ours` tells whether source and
/// destination are the machine's.
#[inline]
fn ike_port(source: u16, destination: u16, ours: impl Fn() -> (bool, bool)) -> Option<u16> {
    let known = |port: u16| matches!(port, IKE | IKE_BEHIND_NAT).then_some(port);
    let (by_source, by_destination) = (known(source), known(destination));
    by_source.or(by_destination)?;
    match ours() {
        // Port 500 says more than 4500, where a marker has to say the rest.
        (true, _) => by_source.into_iter().chain(by_destination).min(),
        (false, true) => by_destination,
        (false, false) => None,
    }
}

/// Whether four zero bytes stand where encapsulated ESP has its SPI.
#[inline]
fn is_marked(ip: &[u8], packet: &Packet) -> bool {
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

    /// Of a machine without addresses.
    fn builtin(ip: &[u8], packet: &Packet) -> Option<Builtin> {
        super::builtin(ip, packet, |_| false)
    }

    /// Of a machine with that address.
    fn builtin_at(own: &str, ip: &[u8], packet: &Packet) -> Option<Builtin> {
        let own = address_bits(own.parse().unwrap());
        super::builtin(ip, packet, |address| address == own)
    }

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
        let discover = at("0.0.0.0", "10.2.0.1");
        assert_eq!(builtin(&ONES, &udp(discover, 68, 67)), Some(Builtin::Dhcp));
    }

    /// A host's renewal, and what a relay passes on, may be for a network behind a tunnel.
    #[test]
    fn dhcp_in_transit_is_traffic_like_any_other() {
        for (one, other, client, server) in [
            ("10.1.0.9", "10.2.0.1", 68, 67),
            ("2001:db8:1::9", "2001:db8:2::1", 546, 547),
        ] {
            for (source, destination) in [(one, other), (other, one)] {
                let base = at(source, destination);
                for (source, destination) in [(client, server), (server, client)] {
                    let packet = udp(base, source, destination);
                    assert_eq!(builtin(&ONES, &packet), None);
                    let dhcp = Some(Builtin::Dhcp);
                    assert_eq!(builtin_at(one, &ONES, &packet), dhcp);
                    assert_eq!(builtin_at(other, &ONES, &packet), dhcp);
                }
                let relayed = udp(base, server, server);
                assert_eq!(builtin_at(one, &ONES, &relayed), None);
                let not_dhcp = udp(base, client, 53);
                assert_eq!(builtin_at(one, &ONES, &not_dhcp), None);
            }
        }
    }

    #[test]
    fn ike_and_its_marker() {
        let (both, out, nothing) = (&[true, true][..], &[true, false][..], &[false; 2][..]);
        for (own, peer) in [
            ("192.0.2.1", "198.51.100.1"),
            ("2001:db8::1", "2001:db8::2"),
        ] {
            let data = usize::from(at(own, peer).upper_offset) + 8;
            let mut marked = ONES;
            marked[data..data + 4].fill(0);
            // Ports, and whether that is IKE: from us, to us; unmarked, marked.
            for (source, destination, unmarked, with_marker) in [
                (500, 500, both, both),
                (500, 9, out, out),
                (9, 500, both, both),
                (4500, 4500, nothing, both),
                (4500, 9, nothing, out),
                (9, 4500, nothing, both),
                (4500, 500, both, both),
                (500, 4500, out, both),
                (9, 10, nothing, nothing),
            ] {
                let told = |bytes: &[u8], base: Packet| {
                    let packet = udp(base, source, destination);
                    builtin_at(own, bytes, &packet) == Some(Builtin::Ike)
                };
                for (bytes, expected) in [(&ONES, unmarked), (&marked, with_marker)] {
                    let found = [told(bytes, at(own, peer)), told(bytes, at(peer, own))];
                    assert_eq!(found, *expected, "{source} {destination}");
                    // Not ours at all.
                    assert_eq!(
                        builtin(bytes, &udp(at(own, peer), source, destination)),
                        None
                    );
                }
            }
            let packet = udp(at(peer, own), 4500, 4500);
            // Cut behind the third zero, or what follows the packet in its frame.
            let length = u16::try_from(data + 3).unwrap();
            let cut = Packet { length, ..packet };
            assert_eq!(builtin_at(own, &marked, &cut), None);
            assert_eq!(builtin_at(own, &marked[..data + 3], &packet), None);
            let tcp = Packet {
                protocol: protocol::TCP,
                ..udp(at(peer, own), 500, 500)
            };
            assert_eq!(builtin_at(own, &marked, &tcp), None);
        }
    }

    #[test]
    fn ike_hides_no_entry_that_holds_for_all() {
        let link_local = udp(at("fe80::1", "fe80::2"), 500, 500);
        assert_eq!(
            builtin_at("fe80::1", &ONES, &link_local),
            Some(Builtin::LinkLocal)
        );
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
