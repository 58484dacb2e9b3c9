//! Unfinished TCP and UDP checksums (design: "Checksums").
//!
//! A sender whose device promised to compute them (Linux: `CHECKSUM_PARTIAL`) leaves the folded sum
//! of the pseudo-header, not complemented, in the field. XDP sees such packets and cannot see the
//! promise, so the value itself is what tells.

use crate::packet::{Fragment, Packet, Version, protocol};
use crate::wire::checksum::{Sum, pseudo_v4, pseudo_v6};
use crate::wire::{tcp, udp};

/// Completes the checksum of an unfragmented TCP or UDP packet whose field holds the folded sum of
/// its pseudo-header, and says whether it did.
///
/// A finished checksum that by chance has that value is right again afterwards, bit for bit: it
/// is not zero, and a computed zero is written as `FFFF`, which in TCP says the same and in UDP is
/// the rule. IPv6 packets with segments left in a routing header are not recognised: their sum has
/// another destination.
pub fn complete(ip: &mut [u8], packet: &Packet) -> bool {
    completed(ip, packet).is_some()
}

fn completed(ip: &mut [u8], packet: &Packet) -> Option<()> {
    if packet.fragment != Fragment::Whole {
        return None;
    }
    let segment = ip.get_mut(packet.upper_offset.into()..packet.length.into())?;
    let field = match packet.protocol {
        protocol::TCP if segment.len() >= tcp::LENGTH => tcp::CHECKSUM,
        protocol::UDP if usize::from(udp::Header::parse(segment)?.length) == segment.len() => {
            udp::CHECKSUM
        }
        _ => return None,
    };
    let length = packet.length.checked_sub(packet.upper_offset)?;
    let pseudo = pseudo_header(packet, length).fold();
    let found = segment.get(field..)?.first_chunk::<2>()?;
    if u16::from_be_bytes(*found) != pseudo {
        return None;
    }

    // The field itself contributes the pseudo-header.
    let checksum = udp::sent_checksum(Sum::ZERO.bytes(segment).checksum());
    *segment.get_mut(field..)?.first_chunk_mut::<2>()? = checksum.to_be_bytes();
    Some(())
}

/// Makes the checksum of an unfragmented TCP or UDP packet that of its headers, whose addresses
/// changed on the way. A UDP checksum that was not computed (IPv4) stays so.
//= T68 (RFC 3948 section 3.1.2)
pub fn renew(ip: &mut [u8], packet: &Packet) {
    let _ = renewed(ip, packet);
}

fn renewed(ip: &mut [u8], packet: &Packet) -> Option<()> {
    if packet.fragment != Fragment::Whole {
        return None;
    }
    let segment = ip.get_mut(packet.upper_offset.into()..packet.length.into())?;
    let (field, length) = match packet.protocol {
        protocol::TCP if segment.len() >= tcp::LENGTH => (tcp::CHECKSUM, segment.len()),
        protocol::UDP => (
            udp::CHECKSUM,
            usize::from(udp::Header::parse(segment)?.length),
        ),
        _ => return None,
    };
    let segment = segment.get_mut(..length)?;
    let found = segment.get_mut(field..)?.first_chunk_mut::<2>()?;
    if packet.protocol == protocol::UDP && packet.version == Version::V4 && *found == [0, 0] {
        return None;
    }
    *found = [0, 0];
    let pseudo = pseudo_header(packet, u16::try_from(length).ok()?);
    let sum = pseudo.bytes(segment).checksum();
    let sum = match packet.protocol {
        protocol::UDP => udp::sent_checksum(sum),
        _ => sum,
    };
    *segment.get_mut(field..)?.first_chunk_mut::<2>()? = sum.to_be_bytes();
    Some(())
}

fn pseudo_header(packet: &Packet, length: u16) -> Sum {
    match packet.version {
        Version::V4 => {
            let (source, destination) = (low_32(packet.source), low_32(packet.destination));
            pseudo_v4(source, destination, packet.protocol, length)
        }
        Version::V6 => pseudo_v6(
            packet.source,
            packet.destination,
            packet.protocol,
            length.into(),
        ),
    }
}

const fn low_32(address: u128) -> u32 {
    (address & 0xffff_ffff) as u32
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::parse;
    use crate::wire::{ipv4, ipv6};

    const SOURCE: u128 = 0x2001_0db8_0001_0000_0000_0000_0000_0002;
    const DESTINATION: u128 = 0x2001_0db8_0002_0000_0000_0000_0000_0003;

    fn packet(version: Version, protocol: u8, segment: &[u8]) -> Vec<u8> {
        let length = u16::try_from(segment.len()).unwrap();
        let v4 = ipv4::Fields {
            traffic_class: 0,
            total_length: length + 20,
            identification: 1,
            flags_and_offset: 0,
            hop_limit: 64,
            protocol,
            source: 0x0a01_0002,
            destination: 0x0a02_0003,
        };
        let v6 = ipv6::Fields {
            traffic_class: 0,
            flow_label: 0,
            payload_length: length,
            next_header: protocol,
            hop_limit: 64,
            source: SOURCE,
            destination: DESTINATION,
        };
        match version {
            Version::V4 => [&v4.to_bytes()[..], segment].concat(),
            Version::V6 => [&v6.to_bytes()[..], segment].concat(),
        }
    }

    /// Over pseudo-header and segment, as the receiver computes it.
    fn verifies(ip: &[u8], offset: usize) -> bool {
        let packet = parse(ip).unwrap();
        let length = u16::try_from(ip.len() - offset).unwrap();
        pseudo_header(&packet, length).bytes(&ip[offset..]).holds()
    }

    /// A segment with the unfinished checksum that Linux would leave in it.
    fn unfinished(version: Version, kind: u8, payload: &[u8]) -> (Vec<u8>, usize, usize) {
        let (header, field) = if kind == protocol::TCP {
            (20, 16)
        } else {
            (8, 6)
        };
        let mut segment = vec![0x30, 0x39, 0x01, 0xbb];
        segment.resize(header, 0);
        segment.extend(payload);
        if kind == protocol::UDP {
            let length = u16::try_from(segment.len()).unwrap();
            segment[4..6].copy_from_slice(&length.to_be_bytes());
        }
        let offset = if version == Version::V4 { 20 } else { 40 };
        let mut ip = packet(version, kind, &segment);
        let length = u16::try_from(segment.len()).unwrap();
        let pseudo = pseudo_header(&parse(&ip).unwrap(), length).fold();
        ip[offset + field..][..2].copy_from_slice(&pseudo.to_be_bytes());
        (ip, offset, offset + field)
    }

    #[test]
    fn bytes_that_linux_sent() {
        // 10.9.0.1:40000 → 10.9.0.2:9 "hello\n": the pseudo-header of a datagram of 14 bytes
        // sums to 0a09 + 0001 + 0a09 + 0002 + 0011 + 000e = 1434.
        let segment = [
            0x9c, 0x40, 0x00, 0x09, 0x00, 0x0e, 0x14, 0x34, b'h', b'e', b'l', b'l', b'o', b'\n',
        ];
        let mut ip = packet(Version::V4, protocol::UDP, &segment);
        ip[12..20].copy_from_slice(&[10, 9, 0, 1, 10, 9, 0, 2]);
        ip[10..12].fill(0);
        let sum = Sum::ZERO.bytes(&ip[..20]).checksum();
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        let parsed = parse(&ip).unwrap();
        assert!(complete(&mut ip, &parsed));
        assert!(verifies(&ip, 20));
        let once = ip.clone();
        assert!(!complete(&mut ip, &parsed));
        assert_eq!(ip, once);
    }

    #[test]
    fn a_sum_of_zero_is_written_as_ones() {
        for version in [Version::V4, Version::V6] {
            for kind in [protocol::TCP, protocol::UDP] {
                let (ip, offset, field) = unfinished(version, kind, &[0, 0]);
                let missing = Sum::ZERO.bytes(&ip[offset..]).checksum();
                let (mut ip, ..) = unfinished(version, kind, &missing.to_be_bytes());
                let parsed = parse(&ip).unwrap();
                assert!(complete(&mut ip, &parsed));
                assert_eq!(ip[field..field + 2], [0xff, 0xff]);
                assert!(verifies(&ip, offset));
            }
        }
    }

    #[test]
    fn others_are_left_alone() {
        let (ip, ..) = unfinished(Version::V4, protocol::UDP, b"abc");
        let packet = parse(&ip).unwrap();
        let first = Packet {
            fragment: Fragment::First,
            ..packet
        };
        let sctp = Packet {
            protocol: protocol::SCTP,
            ..packet
        };
        let mut short = ip.clone();
        short[25] -= 1; // the UDP length
        let mut none = ip.clone();
        none[26..28].fill(0); // no checksum at all
        for (bytes, packet) in [(&ip, first), (&ip, sctp), (&short, packet), (&none, packet)] {
            let mut after = bytes.clone();
            assert!(!complete(&mut after, &packet));
            assert_eq!(&after, bytes);
        }
        // A descriptor that does not belong to the bytes.
        assert!(!complete(&mut [0; 21], &packet));
    }

    proptest! {
        #[test]
        fn completed_packets_verify_and_finished_ones_stay(
            payload in proptest::collection::vec(any::<u8>(), 0..1400), v4: bool, tcp: bool,
            noise: u16,
        ) {
            let version = if v4 { Version::V4 } else { Version::V6 };
            let kind = if tcp { protocol::TCP } else { protocol::UDP };
            let (mut ip, offset, field) = unfinished(version, kind, &payload);
            let parsed = parse(&ip).unwrap();
            let pseudo = [ip[field], ip[field + 1]];
            prop_assert!(complete(&mut ip, &parsed));
            prop_assert!(verifies(&ip, offset));
            let finished = ip.clone();
            complete(&mut ip, &parsed);
            prop_assert_eq!(&ip, &finished);
            if noise.to_be_bytes() != pseudo {
                ip[field..field + 2].copy_from_slice(&noise.to_be_bytes());
                prop_assert!(!complete(&mut ip, &parsed));
            }
        }
    }
}
