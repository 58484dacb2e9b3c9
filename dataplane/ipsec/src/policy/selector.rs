//! Whether one selector takes one packet (RFC 4301 §4.4.1.1): a pure function.
//!
//! `Any` takes also what cannot be seen; a list of ports or an ICMP range takes only what can be
//! seen, so never a later fragment, unless the list says OPAQUE.

use crate::packet::{Packet, Upper, Version};
use crate::policy::{AddressRange, AddressSelector, PortSelector, Selector, UpperUse};
use crate::sa::association::Direction;

/// A packet's addresses as a policy of one direction sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sides {
    /// The protected side's address.
    pub local: u128,
    /// The other side's.
    pub remote: u128,
}

impl Sides {
    /// The addresses of `packet`, which goes in `direction`.
    #[must_use]
    pub const fn of(packet: &Packet, direction: Direction) -> Self {
        match direction {
            Direction::Out => Self {
                local: packet.source,
                remote: packet.destination,
            },
            Direction::In => Self {
                local: packet.destination,
                remote: packet.source,
            },
        }
    }
}

/// The packet with source and destination, addresses and ports, swapped: the traffic that an ICMP
/// error about `packet` answers (RFC 4301 §6.2).
#[must_use]
pub const fn turned(packet: &Packet) -> Packet {
    Packet {
        source: packet.destination,
        destination: packet.source,
        upper: match packet.upper {
            Upper::Ports {
                source,
                destination,
            } => Upper::Ports {
                source: destination,
                destination: source,
            },
            other => other,
        },
        ..*packet
    }
}

/// True when every selector takes the packet.
//= T54 T108 (RFC 4301 section 4.4.1.1)
#[must_use]
pub fn matches(selector: &Selector, packet: &Packet, direction: Direction) -> bool {
    matches_blind(selector, packet, direction) && matches_upper(selector, packet, direction)
}

/// As [`matches`], but without a look at ports and ICMP type: what a later fragment shows.
#[must_use]
pub fn matches_blind(selector: &Selector, packet: &Packet, direction: Direction) -> bool {
    let sides = Sides::of(packet, direction);
    takes_address(&selector.local, packet.version, sides.local)
        && takes_address(&selector.remote, packet.version, sides.remote)
        && selector
            .protocol
            .is_none_or(|wanted| wanted == packet.protocol)
}

/// True when ports and ICMP type, seen or not, are taken.
//= T64 T104 T105 (RFC 4301 sections 4.4.1.1, 7.1)
fn matches_upper(selector: &Selector, packet: &Packet, direction: Direction) -> bool {
    let (local, remote, icmp) = match packet.upper {
        Upper::Ports {
            source,
            destination,
        } => match direction {
            Direction::Out => (Some(source), Some(destination), None),
            Direction::In => (Some(destination), Some(source), None),
        },
        Upper::Icmp(number) => (None, None, Some(number)),
        Upper::Opaque => (None, None, None),
    };
    takes_port(&selector.local_port, local)
        && takes_port(&selector.remote_port, remote)
        && selector.icmp.is_none_or(|(first, last)| {
            icmp.is_some_and(|number| first <= number && number <= last)
        })
}

/// True when the selector looks at ports or ICMP type at all: "0-65535" does, `any` does not.
#[must_use]
pub const fn sees_upper(selector: &Selector) -> bool {
    !matches!(selector.local_port, PortSelector::Any)
        || !matches!(selector.remote_port, PortSelector::Any)
        || selector.icmp.is_some()
}

/// True when the policy names what hides its ports as its own (RFC 4301 §7.2).
const fn takes_opaque(selector: &Selector) -> bool {
    matches!(selector.local_port, PortSelector::List { opaque: true, .. })
        || matches!(
            selector.remote_port,
            PortSelector::List { opaque: true, .. }
        )
}

impl UpperUse {
    /// What that selector looks at.
    #[must_use]
    pub const fn of(selector: &Selector) -> Self {
        Self {
            sees: sees_upper(selector),
            opaque: takes_opaque(selector),
        }
    }
}

fn takes_address(selector: &AddressSelector, version: Version, address: u128) -> bool {
    match selector {
        AddressSelector::Any => true,
        AddressSelector::Ranges(ranges) => ranges.iter().any(|range| {
            range.version == version && range.first <= address && address <= range.last
        }),
    }
}

fn takes_port(selector: &PortSelector, port: Option<u16>) -> bool {
    match (selector, port) {
        (PortSelector::Any, _) => true,
        (PortSelector::List { ranges, .. }, Some(port)) => ranges
            .iter()
            .any(|&(first, last)| first <= port && port <= last),
        (PortSelector::List { opaque, .. }, None) => *opaque,
    }
}

impl AddressRange {
    /// Every address of a family.
    #[must_use]
    pub const fn whole(version: Version) -> Self {
        let (first, last) = match version {
            Version::V4 => (0xffff_0000_0000, 0xffff_ffff_ffff),
            Version::V6 => (0, u128::MAX),
        };
        Self {
            version,
            first,
            last,
        }
    }
}

impl Selector {
    /// The selector that takes everything.
    #[must_use]
    pub const fn any() -> Self {
        Self {
            local: AddressSelector::Any,
            remote: AddressSelector::Any,
            protocol: None,
            local_port: PortSelector::Any,
            remote_port: PortSelector::Any,
            icmp: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Fragment, protocol};

    fn packet(upper: Upper, protocol: u8) -> Packet {
        Packet {
            source: 0xffff_0a01_0001,
            destination: 0xffff_0a02_0001,
            length: 60,
            upper_offset: 20,
            identification: 0,
            upper,
            version: Version::V4,
            protocol,
            hop_limit: 64,
            traffic_class: 0,
            fragment: Fragment::Whole,
            dont_fragment: false,
        }
    }

    fn udp(source: u16, destination: u16) -> Packet {
        packet(
            Upper::Ports {
                source,
                destination,
            },
            protocol::UDP,
        )
    }

    fn range(first: u128, last: u128) -> AddressSelector {
        AddressSelector::Ranges(vec![AddressRange {
            version: Version::V4,
            first,
            last,
        }])
    }

    fn ports(ranges: &[(u16, u16)]) -> PortSelector {
        PortSelector::List {
            opaque: false,
            ranges: ranges.to_vec(),
        }
    }

    #[test]
    fn local_is_the_source_outbound_and_the_destination_inbound() {
        let selector = Selector {
            local: range(0xffff_0a01_0000, 0xffff_0a01_ffff),
            remote: range(0xffff_0a02_0000, 0xffff_0a02_ffff),
            ..Selector::any()
        };
        let packet = udp(1, 2);
        assert!(matches(&selector, &packet, Direction::Out));
        assert!(!matches(&selector, &packet, Direction::In));
    }

    #[test]
    fn a_mapped_address_in_an_ipv6_packet_is_not_the_ipv4_address() {
        let selector = Selector {
            local: range(0xffff_0a01_0000, 0xffff_0a01_ffff),
            ..Selector::any()
        };
        let mut packet = udp(1, 2);
        packet.version = Version::V6;
        assert!(!matches(&selector, &packet, Direction::Out));
        assert!(matches(&Selector::any(), &packet, Direction::Out));
    }

    //= test T104
    #[test]
    fn ports_match_by_side_and_by_list() {
        let selector = Selector {
            local_port: ports(&[(443, 443), (1024, 2000)]),
            ..Selector::any()
        };
        assert!(matches(&selector, &udp(443, 9), Direction::Out));
        assert!(matches(&selector, &udp(2000, 9), Direction::Out));
        assert!(!matches(&selector, &udp(2001, 9), Direction::Out));
        assert!(!matches(&selector, &udp(443, 9), Direction::In));
        assert!(matches(&selector, &udp(9, 1024), Direction::In));
    }

    #[test]
    fn a_turned_packet_goes_back() {
        let packet = udp(1, 2);
        let back = turned(&packet);
        assert_eq!(back.source, packet.destination);
        assert_eq!(back.upper, udp(2, 1).upper);
        assert_eq!(turned(&back), packet);
    }

    //= test T64
    //= test T108
    #[test]
    fn what_cannot_be_seen_matches_any_and_opaque_alone() {
        let mut later = packet(Upper::Opaque, protocol::UDP);
        later.fragment = Fragment::Later;
        let all = Selector {
            remote_port: ports(&[(0, 65535)]),
            ..Selector::any()
        };
        assert!(matches(&Selector::any(), &later, Direction::Out));
        assert!(!matches(&all, &later, Direction::Out));
        assert!(matches_blind(&all, &later, Direction::Out));
        let opaque = Selector {
            remote_port: PortSelector::List {
                opaque: true,
                ranges: Vec::new(),
            },
            ..Selector::any()
        };
        assert!(matches(&opaque, &later, Direction::Out));
        assert!(!matches(&opaque, &udp(1, 2), Direction::Out));
    }

    //= test T105
    #[test]
    fn icmp_type_and_code_are_one_number() {
        let selector = Selector {
            protocol: Some(protocol::ICMP),
            icmp: Some((3 * 256 + 1, 4 * 256)),
            ..Selector::any()
        };
        let icmp = |kind: u16, code: u16| packet(Upper::Icmp(kind * 256 + code), protocol::ICMP);
        assert!(!matches(&selector, &icmp(3, 0), Direction::Out));
        assert!(matches(&selector, &icmp(3, 255), Direction::Out));
        assert!(matches(&selector, &icmp(4, 0), Direction::Out));
        assert!(!matches(&selector, &icmp(4, 1), Direction::Out));
        let opaque = packet(Upper::Opaque, protocol::ICMP);
        assert!(!matches(&selector, &opaque, Direction::Out));
    }
}
