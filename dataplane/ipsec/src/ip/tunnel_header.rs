//! The outer header of tunnel mode (RFC 4301 §5.1.2) and congestion marks through a tunnel
//! (RFC 6040).
//!
//! What an SA's configuration leaves open (`copy`) is resolved by the functions here into the
//! values that [`TunnelHeader`] writes. The outer header never has options or extension headers.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;

use crate::packet::{Fragment, Packet, Upper, Version};
use crate::verdict::DropReason;
use crate::wire::{checksum, ipv4, ipv6};

/// An outer header, all decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelHeader {
    /// IP version of the outer packet.
    pub version: Version,
    /// Outer source, in [`Packet`]'s form.
    pub source: u128,
    /// Outer destination, in [`Packet`]'s form.
    pub destination: u128,
    /// What follows: ESP, AH or UDP.
    pub protocol: u8,
    /// DSCP (upper 6 bits) and ECN, see [`traffic_class`].
    pub traffic_class: u8,
    /// Outer TTL or hop limit.
    pub hop_limit: u8,
    /// IPv4: the DF bit, see [`dont_fragment`].
    pub dont_fragment: bool,
    /// IPv4: the next value of the sender's counter (RFC 6864 §4.3).
    pub identification: u16,
    /// IPv6: see [`flow_label`], or 0.
    pub flow_label: u32,
}

impl TunnelHeader {
    /// Length of the header, bytes: 20 or 40.
    #[inline]
    #[must_use]
    pub const fn length(&self) -> usize {
        match self.version {
            Version::V4 => ipv4::LENGTH,
            Version::V6 => ipv6::LENGTH,
        }
    }

    /// Writes the header in front of `payload_length` bytes to the start of `out`, and says how
    /// long it is. `None`, and nothing written, if `out` is shorter or the packet longer than its
    /// length field can say.
    //= T58 (RFC 4301 section 5.1.2.1)
    //= T59 (RFC 4301 section 5.1.2.2)
    #[inline]
    pub fn write(&self, payload_length: usize, out: &mut [u8]) -> Option<usize> {
        match self.version {
            Version::V4 => {
                let total_length = u16::try_from(payload_length.checked_add(ipv4::LENGTH)?).ok()?;
                let fields = ipv4::Fields {
                    traffic_class: self.traffic_class,
                    total_length,
                    identification: self.identification,
                    flags_and_offset: if self.dont_fragment {
                        ipv4::DONT_FRAGMENT
                    } else {
                        0
                    },
                    hop_limit: self.hop_limit,
                    protocol: self.protocol,
                    source: (self.source & 0xffff_ffff) as u32,
                    destination: (self.destination & 0xffff_ffff) as u32,
                };
                *out.first_chunk_mut()? = fields.to_bytes();
            }
            Version::V6 => {
                let fields = ipv6::Fields {
                    traffic_class: self.traffic_class,
                    flow_label: self.flow_label,
                    payload_length: u16::try_from(payload_length).ok()?,
                    next_header: self.protocol,
                    hop_limit: self.hop_limit,
                    source: self.source,
                    destination: self.destination,
                };
                fields.write(out.first_chunk_mut()?);
            }
        }
        Some(self.length())
    }
}

/// The outer traffic class: the DSCP of `inner`, its traffic class, or a fixed one (0 to 63); its
/// ECN with `copy_ecn` (RFC 6040's normal mode), else Not-ECT (compatibility mode).
//= T63 T116 (RFC 4301 section 5.1.2.1)
//= T141 (RFC 6040 section 4.1)
#[inline]
#[must_use]
pub const fn traffic_class(inner: u8, fixed_dscp: Option<u8>, copy_ecn: bool) -> u8 {
    let dscp = match fixed_dscp {
        Some(dscp) => dscp << 2,
        None => inner & !ECN,
    };
    if copy_ecn { dscp | (inner & ECN) } else { dscp }
}

/// The outer DF bit: that of the inner packet (set, if it is IPv6) or a fixed one.
//= T60 (RFC 4301 section 8.1)
#[inline]
#[must_use]
pub fn dont_fragment(inner: &Packet, fixed: Option<bool>) -> bool {
    fixed.unwrap_or(inner.dont_fragment)
}

/// A flow label of the gateway's own, 20 bits, never 0, the same for all packets of an inner flow:
/// addresses, protocol and ports, without ports where fragments are about (RFC 6438 §3).
///
/// `seed` should be random, so that outsiders cannot aim flows at one path.
//= T117 (RFC 4301 section 5.1.2.2)
#[inline]
#[must_use]
pub fn flow_label(inner: &Packet, seed: u64) -> u32 {
    let mut hasher = FixedState::with_seed(seed).build_hasher();
    hasher.write_u128(inner.source);
    hasher.write_u128(inner.destination);
    let ports = match inner.upper {
        Upper::Ports {
            source,
            destination,
        } if inner.fragment == Fragment::Whole => u64::from(source) << 16 | u64::from(destination),
        _ => 0,
    };
    hasher.write_u64(ports << 8 | u64::from(inner.protocol));
    let label = (hasher.finish() >> 44) as u32;
    label.max(1)
}

/// Merges the congestion mark of the outer header, given its traffic class, into the inner packet
/// (RFC 6040 §4.2, figure 4), keeping its IPv4 checksum right. The DSCP stays.
///
/// # Errors
/// [`DropReason::Ecn`] for CE on a packet that is not ECN-capable; [`DropReason::BadPadding`] if
/// `inner` is no IP packet. Nothing is changed then.
//= T63 T142 (RFC 6040 section 4.2)
//= exception T143: nothing is logged about the combinations that no sender makes, so there is
//= nothing to silence; the one that drops counts as `ecn` and stands in a capture of drops
//= T114 (RFC 4301 section 5.1.2)
#[inline]
pub fn ecn_decapsulate(outer: u8, inner: &mut [u8]) -> Result<(), DropReason> {
    let is_v4 = match inner.first().map(|first| first >> 4) {
        Some(4) => true,
        Some(6) => false,
        _ => return Err(DropReason::BadPadding),
    };
    // The codepoint lies in byte 1, 4 bits further left in IPv6.
    let shift = if is_v4 { 0 } else { 4 };
    let Some([first, second]) = inner.first_chunk_mut::<2>() else {
        return Err(DropReason::BadPadding);
    };
    let mark = (*second >> shift) & ECN;
    let merged = merge(mark, outer & ECN)?;
    if merged == mark {
        return Ok(());
    }

    let old = u16::from_be_bytes([*first, *second]);
    *second = (*second & !(ECN << shift)) | (merged << shift);
    let new = u16::from_be_bytes([*first, *second]);
    if is_v4 && let Some([.., high, low]) = inner.first_chunk_mut::<12>() {
        let sum = checksum::update(u16::from_be_bytes([*high, *low]), old, new);
        [*high, *low] = sum.to_be_bytes();
    }
    Ok(())
}

/// True for the outer traffic classes by which [`ecn_decapsulate`] may change or refuse a packet:
/// CE and ECT(1).
#[inline]
#[must_use]
pub const fn marks(outer: u8) -> bool {
    outer & ECT_1 != 0
}

/// The ECN bits of a traffic class.
const ECN: u8 = 0b11;

const NOT_ECT: u8 = 0b00;
const ECT_1: u8 = 0b01;
const ECT_0: u8 = 0b10;
const CE: u8 = 0b11;

/// RFC 6040 §4.2: the more severe mark, but nothing for a packet that is not ECN-capable.
#[inline]
const fn merge(inner: u8, outer: u8) -> Result<u8, DropReason> {
    match (inner, outer) {
        (NOT_ECT, CE) => Err(DropReason::Ecn),
        (NOT_ECT, _) => Ok(NOT_ECT),
        (_, CE) => Ok(CE),
        (ECT_0, ECT_1) => Ok(ECT_1),
        (inner, _) => Ok(inner),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panic")]
mod tests {
    use super::*;
    use crate::packet::{parse, protocol};

    const HEADER: TunnelHeader = TunnelHeader {
        version: Version::V4,
        source: 0xffff_c000_0201,
        destination: 0xffff_c000_0202,
        protocol: protocol::ESP,
        traffic_class: 0xb9,
        hop_limit: 64,
        dont_fragment: true,
        identification: 0x1234,
        flow_label: 0xf_1234,
    };

    //= test T58 (RFC 4301 section 5.1.2.1)
    #[test]
    fn an_ipv4_header() {
        let mut out = [0xee; 30];
        assert_eq!(HEADER.write(10, &mut out), Some(20));
        let packet = parse(&out).unwrap();
        assert_eq!(
            (packet.source, packet.destination),
            (HEADER.source, HEADER.destination)
        );
        assert_eq!((packet.protocol, packet.upper_offset), (protocol::ESP, 20));
        assert_eq!((packet.traffic_class, packet.hop_limit), (0xb9, 64));
        assert_eq!((packet.length, packet.dont_fragment), (30, true));
        assert_eq!(out[4..6], [0x12, 0x34]);
        assert_eq!(out[20..], [0xee; 10]);

        let clear = TunnelHeader {
            dont_fragment: false,
            ..HEADER
        };
        assert_eq!(clear.write(10, &mut out), Some(20));
        assert!(!parse(&out).unwrap().dont_fragment);
        assert_eq!(HEADER.write(10, &mut out[..19]), None);
        assert_eq!(HEADER.write(65_516, &mut out), None);
        assert_eq!(HEADER.write(usize::MAX, &mut out), None);
    }

    //= test T59 T117 (RFC 4301 section 5.1.2.2)
    #[test]
    fn an_ipv6_header() {
        let header = TunnelHeader {
            version: Version::V6,
            source: (0x2001_0db8 << 96) + 1,
            destination: (0x2001_0db8 << 96) + 2,
            ..HEADER
        };
        let mut out = [0xee; 50];
        assert_eq!(header.write(10, &mut out), Some(40));
        let packet = parse(&out).unwrap();
        assert_eq!(
            (packet.source, packet.destination),
            (header.source, header.destination)
        );
        assert_eq!((packet.protocol, packet.upper_offset), (protocol::ESP, 40));
        assert_eq!((packet.traffic_class, packet.hop_limit), (0xb9, 64));
        assert_eq!(packet.length, 50);
        assert_eq!(ipv6::Header::parse(&out).unwrap().flow_label(), 0xf_1234);
        assert_eq!(header.write(10, &mut out[..39]), None);
        assert_eq!(header.write(65_536, &mut out), None);
    }

    //= test T63 T116 (RFC 4301 section 5.1.2.1)
    //= test T141 (RFC 6040 section 4.1)
    #[test]
    fn the_outer_traffic_class() {
        for inner in 0..=0xff {
            assert_eq!(traffic_class(inner, None, true), inner);
            assert_eq!(traffic_class(inner, None, false), inner & 0xfc);
            assert_eq!(traffic_class(inner, Some(46), true), 0xb8 | (inner & 3));
            assert_eq!(traffic_class(inner, Some(0), false), 0);
        }
    }

    //= test T60 (RFC 4301 section 8.1)
    //= test T117 (RFC 4301 section 5.1.2.2)
    #[test]
    fn the_outer_df_bit_and_flow_label() {
        let mut bytes = [9; 28];
        TunnelHeader {
            protocol: protocol::UDP,
            ..HEADER
        }
        .write(8, &mut bytes)
        .unwrap();
        let inner = parse(&bytes).unwrap();
        let open = Packet {
            dont_fragment: false,
            ..inner
        };
        for inner in [inner, open] {
            assert_eq!(dont_fragment(&inner, None), inner.dont_fragment);
            assert!(dont_fragment(&inner, Some(true)));
            assert!(!dont_fragment(&inner, Some(false)));
        }

        let mut labels = std::collections::BTreeSet::new();
        for source in 0..1000 {
            let upper = Upper::Ports {
                source,
                destination: 443,
            };
            let label = flow_label(&Packet { upper, ..inner }, 7);
            assert_eq!(
                label,
                flow_label(
                    &Packet {
                        upper,
                        hop_limit: 1,
                        ..inner
                    },
                    7
                )
            );
            assert!((1..1 << 20).contains(&label));
            labels.insert(label);
        }
        assert!(labels.len() > 990, "{} labels for 1000 flows", labels.len());
        let first = Packet {
            fragment: Fragment::First,
            ..inner
        };
        let later = Packet {
            fragment: Fragment::Later,
            upper: Upper::Opaque,
            ..inner
        };
        assert_eq!(flow_label(&first, 7), flow_label(&later, 7));
        assert_ne!(flow_label(&inner, 7), flow_label(&inner, 8));
    }

    /// RFC 6040, figure 4, in the order Not-ECT, ECT(0), ECT(1), CE.
    const FIGURE_4: [(u8, [Option<u8>; 4]); 4] = [
        (0b00, [Some(0b00), Some(0b00), Some(0b00), None]),
        (0b10, [Some(0b10), Some(0b10), Some(0b01), Some(0b11)]),
        (0b01, [Some(0b01), Some(0b01), Some(0b01), Some(0b11)]),
        (0b11, [Some(0b11), Some(0b11), Some(0b11), Some(0b11)]),
    ];

    //= test T63 T142 (RFC 6040 section 4.2)
    //= test T114 (RFC 4301 section 5.1.2)
    #[test]
    fn every_pair_of_marks() {
        for version in [Version::V4, Version::V6] {
            for (inner, row) in FIGURE_4 {
                for (outer, expected) in [0b00, 0b10, 0b01, 0b11].into_iter().zip(row) {
                    let header = TunnelHeader {
                        version,
                        traffic_class: 0x48 | inner,
                        ..HEADER
                    };
                    let mut packet = [0; 60];
                    header.write(20, &mut packet).unwrap();
                    let before = packet;
                    let result = ecn_decapsulate(0xfc | outer, &mut packet);
                    let is_changed = result.is_err() || packet != before;
                    assert!(marks(outer) || !is_changed, "{outer:02b} {inner:02b}");
                    let Some(mark) = expected else {
                        assert_eq!(result, Err(DropReason::Ecn));
                        assert_eq!(packet, before);
                        continue;
                    };
                    assert_eq!(result, Ok(()));
                    // The same header written with the new mark, checksum included.
                    let mut anew = before;
                    let header = TunnelHeader {
                        traffic_class: 0x48 | mark,
                        ..header
                    };
                    header.write(20, &mut anew).unwrap();
                    assert_eq!(
                        packet, anew,
                        "{version:?} inner {inner:02b} outer {outer:02b}"
                    );
                }
            }
        }
        for bytes in [&mut [][..], &mut [0x45], &mut [0x60], &mut [0x55; 40]] {
            assert_eq!(ecn_decapsulate(3, bytes), Err(DropReason::BadPadding));
        }
    }
}
