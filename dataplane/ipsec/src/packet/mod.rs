//! A packet, parsed once: what every later stage knows about it without looking again.

mod parse;

mod builtin;

pub mod checksum;

pub use builtin::{Builtin, builtin, builtin_looks_inside};
pub use parse::{parse, parse_into, parse_quote};

/// The IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Version {
    /// IPv4 (RFC 791).
    V4 = 4,
    /// IPv6 (RFC 8200).
    V6 = 6,
}

/// Whether a packet is a fragment, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fragment {
    /// Not fragmented; an IPv6 fragment header with offset 0 and nothing to follow counts as whole
    /// (RFC 6946).
    Whole,
    /// The first fragment: offset 0, more to follow. Ports are there.
    First,
    /// A later fragment: offset above 0. No ports, no ICMP type.
    Later,
}

/// What the selectors of RFC 4301 §4.4.1.1 can see of the next layer's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Upper {
    /// TCP, UDP, UDP-Lite, SCTP, DCCP: source and destination port.
    Ports {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
    },
    /// ICMP and ICMPv6: type × 256 + code.
    Icmp(u16),
    /// The fields are not there: another protocol, a later fragment, or a header cut short by a
    /// first fragment's end.
    Opaque,
}

/// One IP packet's descriptor. Offsets count from the first byte of the IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Source address; IPv4 as IPv4-mapped. Compare together with `version`, since a hostile IPv6
    /// packet may carry mapped addresses.
    pub source: u128,
    /// Destination address, as `source`.
    pub destination: u128,
    /// Length of the IP packet from its header to its end, bytes; what lies behind it in the frame
    /// is not part of it.
    pub length: u16,
    /// Offset of the header that `protocol` names: behind IPv4 options, and behind IPv6 extension
    /// headers 0, 43, 44 and 60.
    pub upper_offset: u16,
    /// Identification of a fragment (IPv4: 16 bits), 0 for what is whole.
    pub identification: u32,
    /// Ports or ICMP type, if they can be seen.
    pub upper: Upper,
    /// IP version.
    pub version: Version,
    /// The protocol behind the extension headers; ESP and AH count as the protocol (T107).
    pub protocol: u8,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// DSCP (upper 6 bits) and ECN (lower 2).
    pub traffic_class: u8,
    /// Whether this is a fragment.
    pub fragment: Fragment,
    /// IPv4 DF. True for IPv6, which routers never fragment, but for what the machine sent in
    /// fragments and we put together: that is cut anew in its stead.
    pub dont_fragment: bool,
}

impl Packet {
    /// What an ESP dummy carries (RFC 4303 §2.6): no packet at all.
    #[must_use]
    pub const fn nothing(version: Version) -> Self {
        Self {
            source: 0,
            destination: 0,
            length: 0,
            upper_offset: 0,
            identification: 0,
            upper: Upper::Opaque,
            version,
            protocol: protocol::NONE,
            hop_limit: 0,
            traffic_class: 0,
            fragment: Fragment::Whole,
            dont_fragment: false,
        }
    }

    /// True for a later fragment of IPv6 that names an extension header: what stands behind that
    /// is told by the datagram's first fragment alone, so selectors cannot see its protocol.
    #[inline]
    #[must_use]
    pub const fn hides_protocol(&self) -> bool {
        matches!(
            (self.fragment, self.version),
            (Fragment::Later, Version::V6)
        ) && crate::wire::extension::is_walked(self.protocol)
    }

    /// True for packets that every selector of the SPD takes alike (RFC 4301 §4.4.1.1), as far as
    /// they are whole.
    #[inline]
    #[must_use]
    pub fn is_of_the_flow_of(&self, other: &Self) -> bool {
        self.source == other.source
            && self.destination == other.destination
            && self.upper == other.upper
            && self.protocol == other.protocol
            && self.version == other.version
    }

    /// [`Self::nothing`]; every packet that was parsed has a length.
    #[must_use]
    pub const fn is_nothing(&self) -> bool {
        self.length == 0
    }
}

/// Protocol numbers that the pipeline names.
pub mod protocol {
    use crate::wire::extension;

    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = extension::HOP_BY_HOP;
    /// ICMP (RFC 792).
    pub const ICMP: u8 = 1;
    /// IPv4 in a tunnel.
    pub const IPV4: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP (RFC 768).
    pub const UDP: u8 = 17;
    /// DCCP.
    pub const DCCP: u8 = 33;
    /// IPv6 in a tunnel.
    pub const IPV6: u8 = 41;
    /// IPv6 routing header.
    pub const ROUTING: u8 = extension::ROUTING;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = extension::FRAGMENT;
    /// ESP (RFC 4303).
    pub const ESP: u8 = 50;
    /// AH (RFC 4302).
    pub const AH: u8 = 51;
    /// ICMPv6 (RFC 4443).
    pub const ICMPV6: u8 = 58;
    /// No next header: an ESP dummy (RFC 4303 §2.6).
    pub const NONE: u8 = 59;
    /// IPv6 destination options.
    pub const DESTINATION_OPTIONS: u8 = extension::DESTINATION_OPTIONS;
    /// SCTP.
    pub const SCTP: u8 = 132;
    /// UDP-Lite.
    pub const UDP_LITE: u8 = 136;
}

/// An address in the form that [`Packet`] keeps.
#[must_use]
pub const fn address_bits(address: std::net::IpAddr) -> u128 {
    match address {
        std::net::IpAddr::V4(address) => 0xffff_0000_0000 | address.to_bits() as u128,
        std::net::IpAddr::V6(address) => address.to_bits(),
    }
}

/// The reverse of [`address_bits`].
#[must_use]
pub fn address(version: Version, bits: u128) -> std::net::IpAddr {
    match version {
        Version::V4 => {
            let low = u32::try_from(bits & 0xffff_ffff).unwrap_or(0);
            std::net::Ipv4Addr::from_bits(low).into()
        }
        Version::V6 => std::net::Ipv6Addr::from_bits(bits).into(),
    }
}
