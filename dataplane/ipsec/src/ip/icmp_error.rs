//! ICMP errors: those that a gateway makes (RFC 792, RFC 4443), and the packet that one quotes.
//!
//! When an error may be made at all (RFC 1122 §3.2.2, RFC 1812 §4.3.2.7, RFC 4443 §2.4 (e)) is
//! decided here, except for what the addresses do not show: a directed broadcast, and the rate.

use std::net::IpAddr;

use crate::packet::{Fragment, Packet, Upper, Version, address_bits, parse_quote, protocol};
use crate::wire::checksum::{Sum, pseudo_v6};
use crate::wire::icmp::{self, kind_v4, kind_v6};
use crate::wire::{ipv4, ipv6};

/// Longest ICMP error of IPv4, bytes (RFC 1812 §4.3.2.3).
pub const LENGTH_MAXIMUM_V4: usize = 576;

/// Longest ICMPv6 error, bytes (RFC 4443 §2.4 (c)).
pub const LENGTH_MAXIMUM_V6: usize = 1280;

/// Writes the error that says that `quoted`, an IP packet as received with the descriptor `packet`,
/// is too big for its way, with the `mtu` that would do, and says how long the error is.
///
/// `None` if no error may be made about this packet, if `from` is of another family, or if `out` is
/// too short; [`LENGTH_MAXIMUM_V6`] bytes always suffice.
//= T61 (RFC 4301 section 8.2.1)
#[must_use]
pub fn too_big(
    quoted: &[u8],
    packet: &Packet,
    from: IpAddr,
    mtu: u16,
    out: &mut [u8],
) -> Option<usize> {
    let header = match packet.version {
        Version::V4 => icmp::Header {
            kind: kind_v4::UNREACHABLE,
            code: FRAGMENTATION_NEEDED,
            rest: mtu.into(),
        },
        Version::V6 => icmp::Header {
            kind: kind_v6::TOO_BIG,
            code: 0,
            rest: mtu.into(),
        },
    };
    write(header, quoted, packet, from, out)
}

/// Writes the error that says that the hop limit of `quoted` was used up in transit; otherwise as
/// [`too_big`].
#[must_use]
pub fn time_exceeded(
    quoted: &[u8],
    packet: &Packet,
    from: IpAddr,
    out: &mut [u8],
) -> Option<usize> {
    let kind = match packet.version {
        Version::V4 => kind_v4::TIME_EXCEEDED,
        Version::V6 => kind_v6::TIME_EXCEEDED,
    };
    let header = icmp::Header {
        kind,
        code: 0,
        rest: 0,
    };
    write(header, quoted, packet, from, out)
}

/// Why an outbound packet cannot be protected, or must not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// Policy discards it.
    Prohibited,
    /// No way leads to the peer.
    Peer,
}

/// Writes the error that says that `quoted` is not let through to the unprotected side; otherwise
/// as [`too_big`].
//= T118 (RFC 4301 section 5.1.1)
#[must_use]
pub fn unreachable(
    quoted: &[u8],
    packet: &Packet,
    from: IpAddr,
    why: Unreachable,
    out: &mut [u8],
) -> Option<usize> {
    let (kind, code) = match (packet.version, why) {
        (Version::V4, Unreachable::Prohibited) => (kind_v4::UNREACHABLE, 13),
        (Version::V4, Unreachable::Peer) => (kind_v4::UNREACHABLE, 1),
        (Version::V6, Unreachable::Prohibited) => (kind_v6::UNREACHABLE, 1),
        (Version::V6, Unreachable::Peer) => (kind_v6::UNREACHABLE, 3),
    };
    let rest = 0;
    let header = icmp::Header { kind, code, rest };
    write(header, quoted, packet, from, out)
}

/// The packet that the ICMP error `ip` with the descriptor `packet` quotes, as far as it can be
/// seen: the caller compares it with policy, addresses and ports swapped (RFC 4301 §6.2).
///
/// `None` if `packet` is no ICMP error, is a fragment, or quotes nothing that can be read.
#[must_use]
pub fn quoted_packet(ip: &[u8], packet: &Packet) -> Option<Packet> {
    let is_error = match (packet.version, packet.upper) {
        (Version::V4, Upper::Icmp(kind)) => icmp::is_error_v4(kind.to_be_bytes()[0]),
        (Version::V6, Upper::Icmp(kind)) => icmp::is_error_v6(kind.to_be_bytes()[0]),
        _ => false,
    };
    if !is_error || packet.fragment != Fragment::Whole {
        return None;
    }
    let message = ip.get(packet.upper_offset.into()..packet.length.into())?;
    let quoted = parse_quote(message.get(icmp::LENGTH..)?)?;
    (quoted.version == packet.version).then_some(quoted)
}

/// Which ICMP errors are heeded, by type and for "fragmentation needed" by code too (RFC 4301
/// §6.1).
/// Redirects, which quote a packet but are no errors, are among them.
//= T65 T120 (RFC 4301 sections 6.1.1, 6.1.2)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heeded {
    v4: [u128; 2],
    v6: [u128; 2],
    fragmentation_needed: bool,
}

/// IPv4: the code of [`kind_v4::UNREACHABLE`] that says that a packet was too long.
const FRAGMENTATION_NEEDED: u8 = 4;

impl Heeded {
    /// Every one.
    pub const ALL: Self = Self {
        v4: [u128::MAX; 2],
        v6: [u128::MAX; 2],
        fragmentation_needed: true,
    };

    /// None.
    pub const NONE: Self = Self {
        v4: [0; 2],
        v6: [0; 2],
        fragmentation_needed: false,
    };

    /// Those that say that a packet was too long, too.
    #[must_use]
    pub const fn and_too_big(mut self) -> Self {
        self.fragmentation_needed = true;
        set(&mut self.v6, kind_v6::TOO_BIG);
        self
    }

    /// Those of a type of IPv4 and one of IPv6, too; "fragmentation needed" is not among them.
    #[must_use]
    pub const fn and_types(mut self, v4: u8, v6: u8) -> Self {
        set(&mut self.v4, v4);
        set(&mut self.v6, v6);
        self
    }

    /// Every message of a type by its number, whichever family, too.
    #[must_use]
    pub const fn and_number(mut self, kind: u8) -> Self {
        self.fragmentation_needed |= kind == kind_v4::UNREACHABLE;
        self.and_types(kind, kind)
    }

    /// True for a message that is heeded.
    #[must_use]
    pub const fn takes(&self, version: Version, kind: u8, code: u8) -> bool {
        match (version, kind, code) {
            (Version::V4, kind_v4::UNREACHABLE, FRAGMENTATION_NEEDED) => self.fragmentation_needed,
            (Version::V4, kind, _) => has(&self.v4, kind),
            (Version::V6, kind, _) => has(&self.v6, kind),
        }
    }

    /// False for an ICMP error or redirect that is not heeded; true for every other packet, and
    /// for a later fragment, whose type nobody can see before its first one was judged.
    #[must_use]
    pub const fn admits(&self, packet: &Packet) -> bool {
        let Upper::Icmp(number) = packet.upper else {
            return true;
        };
        let [kind, code] = number.to_be_bytes();
        let concerned = match packet.version {
            Version::V4 => icmp::is_error_v4(kind) || kind == kind_v4::REDIRECT,
            Version::V6 => icmp::is_error_v6(kind) || kind == kind_v6::REDIRECT,
        };
        !concerned || self.takes(packet.version, kind, code)
    }
}

const fn set(types: &mut [u128; 2], kind: u8) {
    types[(kind >> 7) as usize] |= 1 << (kind & 127);
}

const fn has(types: &[u128; 2], kind: u8) -> bool {
    types[(kind >> 7) as usize] >> (kind & 127) & 1 != 0
}

fn write(
    header: icmp::Header,
    quoted: &[u8],
    packet: &Packet,
    from: IpAddr,
    out: &mut [u8],
) -> Option<usize> {
    let same_family = from.is_ipv4() == (packet.version == Version::V4);
    if !same_family || !may_be_answered(packet) {
        return None;
    }
    let quoted = quoted.get(..packet.length.into())?;
    match packet.version {
        Version::V4 => write_v4(header, quoted, packet, address_bits(from), out),
        Version::V6 => write_v6(header, quoted, packet, address_bits(from), out),
    }
}

/// Outer TTL and hop limit of an error.
const HOP_LIMIT: u8 = 64;

fn write_v4(
    header: icmp::Header,
    quoted: &[u8],
    packet: &Packet,
    from: u128,
    out: &mut [u8],
) -> Option<usize> {
    // RFC 1812 §4.3.2.5: precedence 6, internetwork control.
    const INTERNETWORK_CONTROL: u8 = 0xc0;
    const HEADERS: usize = ipv4::LENGTH + icmp::LENGTH;
    let quoted = quoted.get(..quoted.len().min(LENGTH_MAXIMUM_V4 - HEADERS))?;
    let length = HEADERS + quoted.len();
    let fields = ipv4::Fields {
        traffic_class: INTERNETWORK_CONTROL,
        total_length: u16::try_from(length).ok()?,
        // Atomic (RFC 6864 §4.1): its identification means nothing and may repeat.
        identification: 0,
        flags_and_offset: ipv4::DONT_FRAGMENT,
        hop_limit: HOP_LIMIT,
        protocol: protocol::ICMP,
        source: (from & 0xffff_ffff) as u32,
        destination: (packet.source & 0xffff_ffff) as u32,
    };
    let out = out.get_mut(..length)?;
    let (ip, message) = out.split_first_chunk_mut::<{ ipv4::LENGTH }>()?;
    let (icmp, quote) = message.split_first_chunk_mut::<{ icmp::LENGTH }>()?;
    *ip = fields.to_bytes();
    *icmp = header.to_bytes(Sum::ZERO, quoted);
    quote.copy_from_slice(quoted);
    Some(length)
}

//= T130 (RFC 4443 section 2.4)
fn write_v6(
    header: icmp::Header,
    quoted: &[u8],
    packet: &Packet,
    from: u128,
    out: &mut [u8],
) -> Option<usize> {
    const HEADERS: usize = ipv6::LENGTH + icmp::LENGTH;
    let quoted = quoted.get(..quoted.len().min(LENGTH_MAXIMUM_V6 - HEADERS))?;
    let length = HEADERS + quoted.len();
    let payload_length = u16::try_from(length - ipv6::LENGTH).ok()?;
    let fields = ipv6::Fields {
        traffic_class: 0,
        flow_label: 0,
        payload_length,
        next_header: protocol::ICMPV6,
        hop_limit: HOP_LIMIT,
        source: from,
        destination: packet.source,
    };
    let out = out.get_mut(..length)?;
    let (ip, message) = out.split_first_chunk_mut::<{ ipv6::LENGTH }>()?;
    let (icmp, quote) = message.split_first_chunk_mut::<{ icmp::LENGTH }>()?;
    let pseudo = pseudo_v6(from, packet.source, protocol::ICMPV6, payload_length.into());
    *ip = fields.to_bytes();
    *icmp = header.to_bytes(pseudo, quoted);
    quote.copy_from_slice(quoted);
    Some(length)
}

/// Whether any error may be made about `packet`.
//= T130 (RFC 4443 section 2.4)
//= T131 (RFC 792)
fn may_be_answered(packet: &Packet) -> bool {
    if packet.fragment == Fragment::Later {
        return false;
    }
    match packet.version {
        Version::V4 => {
            let source = (packet.source & 0xffff_ffff) as u32;
            let destination = (packet.destination & 0xffff_ffff) as u32;
            names_one_node_v4(source)
                && destination >> 28 != 0xe
                && destination != u32::MAX
                && !(packet.protocol == protocol::ICMP && is_unanswerable_v4(packet.upper))
        }
        Version::V6 => {
            names_one_node_v6(packet.source)
                && packet.destination >> 120 != 0xff
                && !(packet.protocol == protocol::ICMPV6 && is_unanswerable_v6(packet.upper))
        }
    }
}

/// An error, a redirect, or what may be one because its type cannot be seen.
const fn is_unanswerable_v4(upper: Upper) -> bool {
    let Upper::Icmp(kind_and_code) = upper else {
        return true;
    };
    let [kind, _] = kind_and_code.to_be_bytes();
    icmp::is_error_v4(kind) || kind == kind_v4::REDIRECT
}

/// An error, a redirect, or what may be one because its type cannot be seen.
const fn is_unanswerable_v6(upper: Upper) -> bool {
    let Upper::Icmp(kind_and_code) = upper else {
        return true;
    };
    let [kind, _] = kind_and_code.to_be_bytes();
    icmp::is_error_v6(kind) || kind == kind_v6::REDIRECT
}

/// Whether an address can be one node's.
pub(crate) const fn names_one_node(version: Version, address: u128) -> bool {
    match version {
        Version::V4 => names_one_node_v4((address & 0xffff_ffff) as u32),
        Version::V6 => names_one_node_v6(address),
    }
}

/// Not "this network", loopback, multicast, reserved or broadcast (RFC 1122 §3.2.2, §3.2.1.3).
const fn names_one_node_v4(address: u32) -> bool {
    let first = address >> 24;
    first != 0 && first != 127 && first < 224
}

/// Not unspecified, loopback, multicast, or an IPv4-mapped address, which no wire carries.
const fn names_one_node_v6(address: u128) -> bool {
    address > 1 && address >> 120 != 0xff && address >> 32 != 0xffff
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panic")]
mod tests;
