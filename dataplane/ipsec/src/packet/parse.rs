//! The one look at a packet's headers: bytes in, [`Packet`] or the reason for none out.

use crate::limits;
use crate::packet::{Fragment, Packet, Upper, Version, protocol};
use crate::verdict::DropReason;
use crate::wire::{extension, ipv4, ipv6};

/// Parses the IP packet at the start of `bytes`, which may be longer than the packet.
///
/// # Errors
/// [`DropReason::Malformed`] for a version other than 4 and 6, an IHL below 5, a length beyond
/// `bytes` or shorter than the header, a wrong IPv4 header checksum, an extension header beyond the
/// end, more than [`limits::EXTENSION_HEADERS`] of them, a jumbogram (RFC 2675), ports or an ICMP
/// type that a packet which is no fragment ought to have and has not, and a first IPv6 fragment
/// without its whole header chain. [`DropReason::Unsupported`] for a packet without such a flaw
/// that is longer than [`limits::PACKET`].
#[inline]
pub fn parse(bytes: &[u8]) -> Result<Packet, DropReason> {
    let mut packet = Packet::nothing(Version::V4);
    parse_into(bytes, &mut packet)?;
    Ok(packet)
}

/// [`parse`] to where the descriptor stays: what a burst holds is not moved there. Of a packet that
/// is refused the descriptor means nothing.
///
/// # Errors
/// As [`parse`].
#[inline(always)]
pub fn parse_into(bytes: &[u8], packet: &mut Packet) -> Result<(), DropReason> {
    let parsed = match bytes.first().map(|first| first >> 4) {
        Some(4) => parse_v4(bytes, packet),
        Some(6) => parse_v6(bytes, packet),
        _ => None,
    };
    match parsed {
        Some(()) if usize::from(packet.length) <= limits::PACKET => Ok(()),
        Some(()) => Err(DropReason::Unsupported),
        None => Err(DropReason::Malformed),
    }
}

/// Parses the start of a packet as an ICMP error quotes it: it may be cut anywhere behind its IP
/// header, and a router on the way may have changed what the header checksum covers. What is cut
/// away is [`Upper::Opaque`].
///
/// `None` if the quote has no whole IP header or breaks off among the extension headers.
#[must_use]
pub fn parse_quote(bytes: &[u8]) -> Option<Packet> {
    match bytes.first()? >> 4 {
        4 => {
            let header = ipv4::Header::parse(bytes)?;
            let rest = bytes.get(header.length()..)?;
            let upper = upper(Version::V4, header.protocol(), fragment_v4(header).0, rest);
            Some(describe_v4(header, upper.unwrap_or(Upper::Opaque)))
        }
        6 => {
            let header = ipv6::Header::parse(bytes)?;
            let chain = extension::walk(bytes, header.next_header(), ipv6::LENGTH)?;
            let rest = bytes.get(chain.offset..)?;
            let upper = upper(Version::V6, chain.protocol, fragment_v6(chain).0, rest);
            describe_v6(header, chain, upper.unwrap_or(Upper::Opaque))
        }
        _ => None,
    }
}

#[inline(always)]
fn parse_v4(bytes: &[u8], packet: &mut Packet) -> Option<()> {
    let header = ipv4::Header::parse(bytes)?;
    let whole = bytes.get(..usize::from(header.total_length()))?;
    let rest = whole.get(header.length()..)?;
    if !header.checksum_holds() {
        return None;
    }

    let fragment = fragment_v4(header).0;
    let upper = match upper(Version::V4, header.protocol(), fragment, rest) {
        Some(upper) => upper,
        None if fragment == Fragment::First => Upper::Opaque,
        None => return None,
    };
    *packet = describe_v4(header, upper);
    Some(())
}

#[inline(never)]
fn parse_v6(bytes: &[u8], packet: &mut Packet) -> Option<()> {
    let header = ipv6::Header::parse(bytes)?;
    // A jumbogram has payload length 0 and so ends in front of its hop-by-hop header: the walk
    // refuses it.
    let length = usize::from(header.payload_length()).wrapping_add(ipv6::LENGTH);
    let whole = bytes.get(..length)?;
    let chain = extension::walk(whole, header.next_header(), ipv6::LENGTH)?;
    let rest = whole.get(chain.offset..)?;
    let fragment = fragment_v6(chain).0;
    //= T157 (RFC 7112 section 5)
    if fragment == Fragment::First && rest.len() < header_length(chain.protocol) {
        return None;
    }
    let upper = upper(Version::V6, chain.protocol, fragment, rest)?;
    *packet = describe_v6(header, chain, upper)?;
    Some(())
}

/// Which fragment an IPv4 packet is, and its identification.
#[inline(always)]
fn fragment_v4(header: ipv4::Header<'_>) -> (Fragment, u32) {
    let flags_and_offset = header.flags_and_offset();
    if flags_and_offset & (ipv4::MORE_FRAGMENTS | ipv4::OFFSET) == 0 {
        (Fragment::Whole, 0)
    } else if flags_and_offset & ipv4::OFFSET == 0 {
        (Fragment::First, header.identification().into())
    } else {
        (Fragment::Later, header.identification().into())
    }
}

/// The descriptor of an IPv4 packet, made in one piece: it is copied nowhere while its fields are
/// still on their way to memory.
#[inline(always)]
fn describe_v4(header: ipv4::Header<'_>, upper: Upper) -> Packet {
    let (fragment, identification) = fragment_v4(header);
    Packet {
        source: mapped(header.source()),
        destination: mapped(header.destination()),
        length: header.total_length(),
        // Sixty at most.
        upper_offset: u16::try_from(header.length()).unwrap_or(u16::MAX),
        identification,
        upper,
        version: Version::V4,
        protocol: header.protocol(),
        hop_limit: header.hop_limit(),
        traffic_class: header.traffic_class(),
        fragment,
        dont_fragment: header.flags_and_offset() & ipv4::DONT_FRAGMENT != 0,
    }
}

/// Which fragment an IPv6 packet is, and its identification.
#[inline(always)]
const fn fragment_v6(chain: extension::Chain) -> (Fragment, u32) {
    match chain.fragment {
        //= T155 (RFC 6946 section 4)
        None => (Fragment::Whole, 0),
        Some(fragment) if fragment.offset != 0 => (Fragment::Later, fragment.identification),
        Some(fragment) if fragment.more => (Fragment::First, fragment.identification),
        Some(_) => (Fragment::Whole, 0),
    }
}

/// The descriptor of an IPv6 packet, as [`describe_v4`] makes it.
#[inline(always)]
fn describe_v6(header: ipv6::Header<'_>, chain: extension::Chain, upper: Upper) -> Option<Packet> {
    let (fragment, identification) = fragment_v6(chain);
    let length = u32::from(header.payload_length()).wrapping_add(40);
    Some(Packet {
        source: header.source(),
        destination: header.destination(),
        // What does not fit is longer than any packet that we carry.
        length: u16::try_from(length).unwrap_or(u16::MAX),
        upper_offset: u16::try_from(chain.offset).ok()?,
        identification,
        upper,
        version: Version::V6,
        protocol: chain.protocol,
        hop_limit: header.hop_limit(),
        traffic_class: header.traffic_class(),
        fragment,
        dont_fragment: true,
    })
}

/// What selectors see of the header of protocol `named` at the start of `rest`; `None` if it is cut
/// in front of the end of what they need. What a host would miss behind that is the host's
/// business.
#[inline(always)]
fn upper(version: Version, named: u8, fragment: Fragment, rest: &[u8]) -> Option<Upper> {
    //= T64 (RFC 4301 section 4.4.1.1)
    if fragment == Fragment::Later {
        return Some(Upper::Opaque);
    }
    match named {
        protocol::TCP | protocol::UDP | protocol::UDP_LITE | protocol::SCTP | protocol::DCCP => {
            let &[a, b, c, d] = rest.first_chunk::<4>()?;
            Some(Upper::Ports {
                source: u16::from_be_bytes([a, b]),
                destination: u16::from_be_bytes([c, d]),
            })
        }
        protocol::ICMP if version == Version::V4 => icmp(rest),
        protocol::ICMPV6 if version == Version::V6 => icmp(rest),
        _ => Some(Upper::Opaque),
    }
}

#[inline]
fn icmp(rest: &[u8]) -> Option<Upper> {
    let kind_and_code = rest.first_chunk::<2>()?;
    Some(Upper::Icmp(u16::from_be_bytes(*kind_and_code)))
}

/// The least length of the header of `protocol`, bytes; 0 where we know of none.
const fn header_length(protocol: u8) -> usize {
    match protocol {
        protocol::TCP => 20,
        protocol::SCTP | protocol::DCCP | protocol::AH => 12,
        protocol::UDP | protocol::UDP_LITE | protocol::ESP => 8,
        protocol::ICMPV6 => 4,
        _ => 0,
    }
}

/// An IPv4 address as IPv4-mapped IPv6 address.
#[inline]
const fn mapped(address: u32) -> u128 {
    0xffff_0000_0000 | address as u128
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panic")]
mod tests;
