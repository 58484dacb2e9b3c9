//! The maximum segment size of TCP SYNs (RFC 9293 §3.7.1): lowered to what fits, so that hosts that
//! hear no ICMP find a size that passes.
//!
//! Only what a SYN announces is changed, never raised and never added: a SYN without the option
//! means 536 or 1220 bytes, which need no help.

use crate::packet::{Fragment, Packet, Version, protocol};
use crate::wire::checksum;
use crate::wire::{ipv4, ipv6, tcp};

/// The smallest size that a clamp writes, bytes: an IPv4 link carries packets of 68 bytes, and
/// what a host does with a smaller one than 64 nobody knows.
pub const LEAST: u16 = 64;

/// The segment size, bytes, that makes packets of at most `mtu` bytes, options apart (RFC 6691 §2).
#[must_use]
pub fn fitting(version: Version, mtu: u16) -> u16 {
    let headers = tcp::LENGTH
        + match version {
            Version::V4 => ipv4::LENGTH,
            Version::V6 => ipv6::LENGTH,
        };
    let headers = u16::try_from(headers).unwrap_or(u16::MAX);
    mtu.saturating_sub(headers).max(LEAST)
}

/// True when the packet `ip` with the descriptor `packet` is a SYN whose options all lie in it.
#[inline]
#[must_use]
pub fn is_syn(ip: &[u8], packet: &Packet) -> bool {
    const FLAGS: usize = 13;
    const SYN: u8 = 0x02;
    packet.protocol == protocol::TCP
        && packet.fragment != Fragment::Later
        && ip
            .get(usize::from(packet.upper_offset) + FLAGS)
            .is_some_and(|flags| flags & SYN != 0)
}

/// Lowers the segment size that a SYN announces to `limit` bytes, the checksum kept as right or as
/// wrong as it was. Says whether anything changed; what is no SYN stays as it is, and so does an
/// option list from where it cannot be read.
pub fn clamp(ip: &mut [u8], packet: &Packet, limit: u16) -> bool {
    if !is_syn(ip, packet) {
        return false;
    }
    let bounds = usize::from(packet.upper_offset)..usize::from(packet.length);
    ip.get_mut(bounds)
        .is_some_and(|segment| clamp_segment(segment, limit))
}

fn clamp_segment(segment: &mut [u8], limit: u16) -> bool {
    const DATA_OFFSET: usize = 12;
    const END: u8 = 0;
    const NOTHING: u8 = 1;
    const SEGMENT_SIZE: [u8; 2] = [2, 4];
    let words = segment.get(DATA_OFFSET).map_or(0, |byte| byte >> 4);
    let end = usize::from(words) * 4;
    if end > segment.len() {
        return false;
    }
    let mut changed = false;
    let mut at = tcp::LENGTH;
    // Every step moves on by a byte at least, and there are at most 40.
    while let Some(&kind) = segment.get(at).filter(|_| at < end) {
        match (kind, segment.get(at + 1)) {
            (END, _) => break,
            (NOTHING, _) => at += 1,
            (_, Some(&length)) if length >= 2 && at + usize::from(length) <= end => {
                // Twice in one list is nonsense; which of them a host takes is not ours to guess.
                if [kind, length] == SEGMENT_SIZE {
                    changed |= lower(segment, at + 2, limit);
                }
                at += usize::from(length);
            }
            _ => break,
        }
    }
    changed
}

/// Lowers the 16-bit number at `at`, which may be odd, and mends the checksum by the difference.
fn lower(segment: &mut [u8], at: usize, limit: u16) -> bool {
    let start = at & !1;
    let end = (at + 3) & !1;
    let Some(before) = word(segment, at).filter(|size| *size > limit) else {
        return false;
    };
    debug_assert!(before > limit, "never raised");
    // An odd place lies in two words of the sum.
    let old = [word(segment, start), word(segment, end - 2)];
    if let Some(field) = segment.get_mut(at..at + 2) {
        field.copy_from_slice(&limit.to_be_bytes());
    }
    let new = [word(segment, start), word(segment, end - 2)];
    let touched = if end - start == 2 { 1 } else { 2 };
    let Some(mut sum) = word(segment, tcp::CHECKSUM) else {
        return false;
    };
    for (old, new) in old.into_iter().zip(new).take(touched) {
        sum = checksum::update(sum, old.unwrap_or(0), new.unwrap_or(0));
    }
    if let Some(field) = segment.get_mut(tcp::CHECKSUM..tcp::CHECKSUM + 2) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
    true
}

/// The word at `at`; a last byte alone stands in front of a zero.
fn word(segment: &[u8], at: usize) -> Option<u16> {
    let high = *segment.get(at)?;
    let low = segment.get(at + 1).copied().unwrap_or(0);
    Some(u16::from_be_bytes([high, low]))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::parse;
    use crate::wire::checksum::{Sum, pseudo_v4};

    const A: u32 = 0x0a01_0002;
    const B: u32 = 0x0a02_0002;

    /// An IPv4 TCP packet with `options` (filled up with zeros) and a right checksum.
    fn packet(flags: u8, options: &[u8], data: &[u8]) -> Vec<u8> {
        let padded = options.len().next_multiple_of(4);
        let offset = u8::try_from((20 + padded) / 4).unwrap() << 4;
        let mut segment = vec![
            0, 80, 1, 187, 0, 0, 0, 1, 0, 0, 0, 2, offset, flags, 255, 255, 0, 0, 0, 0,
        ];
        segment.extend(options);
        segment.resize(20 + padded, 0);
        segment.extend(data);
        let length = u16::try_from(segment.len()).unwrap();
        let sum = pseudo_v4(A, B, protocol::TCP, length).bytes(&segment);
        segment[16..18].copy_from_slice(&sum.checksum().to_be_bytes());
        let fields = ipv4::Fields {
            traffic_class: 0,
            total_length: length + 20,
            identification: 1,
            flags_and_offset: ipv4::DONT_FRAGMENT,
            hop_limit: 64,
            protocol: protocol::TCP,
            source: A,
            destination: B,
        };
        [&fields.to_bytes()[..], &segment].concat()
    }

    fn checksum_holds(ip: &[u8]) -> bool {
        let segment = &ip[20..];
        let length = u16::try_from(segment.len()).unwrap();
        let pseudo: Sum = pseudo_v4(A, B, protocol::TCP, length);
        pseudo.bytes(segment).holds()
    }

    fn clamped(ip: &[u8], limit: u16) -> (bool, Vec<u8>) {
        let mut changed = ip.to_vec();
        let packet = parse(ip).unwrap();
        (clamp(&mut changed, &packet, limit), changed)
    }

    const SYN: u8 = 2;
    const SYN_ACK: u8 = 0x12;
    const ACK: u8 = 0x10;

    #[test]
    fn a_syn_says_no_more_than_fits_and_nothing_else_changes() {
        for (flags, options, expected) in [
            (SYN, &[2, 4, 5, 0xb4][..], Some(&[2, 4, 4, 0xb0][..])),
            (
                SYN_ACK,
                &[2, 4, 5, 0xb4, 1, 3, 3, 7],
                Some(&[2, 4, 4, 0xb0, 1, 3, 3, 7]),
            ),
            // At an odd place.
            (SYN, &[1, 2, 4, 5, 0xb4], Some(&[1, 2, 4, 4, 0xb0])),
            (
                SYN,
                &[1, 1, 4, 2, 2, 4, 5, 0xb4],
                Some(&[1, 1, 4, 2, 2, 4, 4, 0xb0]),
            ),
            // Small enough already, no option, no SYN.
            (SYN, &[2, 4, 4, 0xb0], None),
            (SYN, &[2, 4, 0, 1], None),
            (SYN, &[1, 1, 1, 1], None),
            (SYN, &[], None),
            (ACK, &[2, 4, 5, 0xb4], None),
            // Lists that lie: behind the end, a length of 0 or 1, beyond the header, cut off.
            (SYN, &[0, 2, 4, 5, 0xb4], None),
            (SYN, &[3, 0, 2, 4, 5, 0xb4], None),
            (SYN, &[3, 1, 2, 4, 5, 0xb4], None),
            (SYN, &[3, 9, 2, 4, 5, 0xb4], None),
            (SYN, &[2, 3, 5, 0], None),
            (SYN, &[1, 1, 2, 4], None),
            (SYN, &[1, 1, 1, 2], None),
        ] {
            let before = packet(flags, options, b"data");
            let (changed, after) = clamped(&before, 1200);
            let expected = expected.map_or_else(|| before.clone(), |to| packet(flags, to, b"data"));
            assert_eq!(changed, expected != before, "{options:?}");
            assert_eq!(after, expected, "{options:?}");
            assert!(checksum_holds(&after));
        }
    }

    #[test]
    fn every_size_in_a_list_of_nothing_else_is_lowered() {
        let bomb = [2, 4, 0xff, 0xff].repeat(10);
        let (changed, after) = clamped(&packet(SYN, &bomb, b""), 1000);
        assert!(changed && checksum_holds(&after));
        assert_eq!(after[40..], [2, 4, 3, 0xe8].repeat(10));
    }

    #[test]
    fn a_header_that_reaches_beyond_the_packet_is_left_alone() {
        let whole = packet(SYN, &[2, 4, 5, 0xb4], b"");
        let mut cut = whole[..40].to_vec();
        cut[3] = 40;
        cut[10..12].fill(0);
        let sum = Sum::ZERO.bytes(&cut[..20]).checksum();
        cut[10..12].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(clamped(&cut, 1000), (false, cut.clone()));
        let later = Packet {
            fragment: Fragment::Later,
            ..parse(&whole).unwrap()
        };
        let mut whole = whole;
        assert!(!clamp(&mut whole, &later, 1000));
    }

    #[test]
    fn the_size_that_fits() {
        assert_eq!(fitting(Version::V4, 1446), 1406);
        assert_eq!(fitting(Version::V6, 1446), 1386);
        assert_eq!(fitting(Version::V4, 20), LEAST);
        assert_eq!(fitting(Version::V6, 0), LEAST);
    }

    proptest! {
        #[test]
        fn no_option_list_panics_or_breaks_a_checksum(
            flags: u8,
            options in prop::collection::vec(prop_oneof![0_u8..6, any::<u8>()], 0..=40),
            data in prop::collection::vec(any::<u8>(), 0..9),
            limit in LEAST..,
        ) {
            let before = packet(flags, &options, &data);
            let (changed, after) = clamped(&before, limit);
            prop_assert!(checksum_holds(&after));
            prop_assert_eq!(changed, before != after);
            prop_assert!(!changed || flags & SYN != 0);
            // Again changes nothing, and no byte outside of the options and the checksum moves.
            prop_assert_eq!(clamped(&after, limit), (false, after.clone()));
            // The list ends with the bytes that it was filled up with.
            let end = 40 + options.len().next_multiple_of(4);
            prop_assert_eq!(&before[..36], &after[..36]);
            prop_assert_eq!(&before[end..], &after[end..]);
        }
    }
}
