//! Where transport mode puts the ESP or AH header, and the headers in front of it (RFC 4303
//! §3.1.1, RFC 4302 §3.1.1).

use crate::limits::EXTENSION_HEADERS;
use crate::packet::{Packet, Version};
use crate::wire::checksum::Sum;
use crate::wire::extension::{self, DESTINATION_OPTIONS, FRAGMENT};
use crate::wire::{ipv4, ipv6};

/// Offset of the protocol in an IPv4 header.
const V4_PROTOCOL: usize = 9;

/// Offset of the next header in an IPv6 header.
const V6_NEXT_HEADER: usize = 6;

/// The bytes of a packet that stay in front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Front {
    /// How many they are.
    pub length: u16,
    /// The protocol of what stands behind them.
    pub protocol: u8,
}

/// What stays in front of a header that transport mode inserts into `packet`, whose bytes are
/// `ip`: the IPv4 header with its options; of IPv6 all up to the last of hop-by-hop options,
/// routing and fragment header, and so destination options in front of a routing header.
///
/// `None` if the extension headers are none.
//= T01 T08 (RFC 4303 section 3.1.1)
//= T88 (RFC 4302 section 3.1.1)
#[must_use]
pub fn front(ip: &[u8], packet: &Packet) -> Option<Front> {
    if packet.version == Version::V4 {
        return Some(Front {
            length: packet.upper_offset,
            protocol: packet.protocol,
        });
    }
    let mut front = Front {
        length: 40,
        protocol: *ip.get(V6_NEXT_HEADER)?,
    };
    let mut chain = Chain::new(ip)?;
    while chain.offset < usize::from(packet.upper_offset) {
        let kind = chain.kind;
        chain.step(ip)?;
        if kind != DESTINATION_OPTIONS {
            front.length = u16::try_from(chain.offset).ok()?;
            front.protocol = chain.kind;
        }
    }
    Some(front)
}

/// Makes the headers in `ip[..front]`, which may name another protocol and length, those of a
/// packet of `total` bytes in which `protocol` stands behind them. IPv4: checksum included.
///
/// `None` if they are no headers or the length cannot be said.
//= T01 T08 (RFC 4303 sections 3.1.1, 3.3)
//= T39 (RFC 4302 section 3.1.1)
#[must_use]
pub fn refit(ip: &mut [u8], front: usize, protocol: u8, total: usize) -> Option<()> {
    if *ip.first()? >> 4 == 4 {
        let header = ip.get_mut(..front)?;
        if front < ipv4::LENGTH {
            return None;
        }
        let length = u16::try_from(total).ok()?;
        header[2..4].copy_from_slice(&length.to_be_bytes());
        header[V4_PROTOCOL] = protocol;
        header[10..12].fill(0);
        let checksum = Sum::ZERO.bytes(header).checksum();
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        return Some(());
    }
    let length = u16::try_from(total.checked_sub(ipv6::LENGTH)?).ok()?;
    let mut chain = Chain::new(ip)?;
    while chain.offset < front {
        chain.step(ip)?;
    }
    if chain.offset != front {
        return None;
    }
    *ip.get_mut(chain.named_at)? = protocol;
    ip.get_mut(4..6)?.copy_from_slice(&length.to_be_bytes());
    Some(())
}

/// Takes an IPv6 fragment header that is left over (offset 0, nothing to follow) out of the
/// headers in `ip[..front]`: what stands behind it up to `front` moves 8 bytes to the front, the
/// header in front of it names what it named. The payload length is left to [`refit`]. Answers how
/// many bytes it took out, 0 where there was none.
//= T93 (RFC 4302 appendix A2)
#[must_use]
pub fn take_out_fragment_header(ip: &mut [u8], front: usize) -> usize {
    take_out(ip, front).unwrap_or(0)
}

fn take_out(ip: &mut [u8], front: usize) -> Option<usize> {
    if *ip.first()? >> 4 != 6 {
        return None;
    }
    let mut chain = Chain::new(ip)?;
    while chain.offset < front {
        if chain.kind == FRAGMENT {
            let named = *ip.get(chain.offset)?;
            *ip.get_mut(chain.named_at)? = named;
            let behind = chain.offset + extension::LENGTH;
            if behind > front || front > ip.len() {
                return None;
            }
            ip.copy_within(behind..front, chain.offset);
            return Some(extension::LENGTH);
        }
        chain.step(ip)?;
    }
    None
}

/// A place among the extension headers of a packet.
struct Chain {
    /// What stands here.
    kind: u8,
    offset: usize,
    /// Offset of the byte that names it.
    named_at: usize,
    steps: usize,
}

impl Chain {
    fn new(ip: &[u8]) -> Option<Self> {
        Some(Self {
            kind: *ip.get(V6_NEXT_HEADER)?,
            offset: ipv6::LENGTH,
            named_at: V6_NEXT_HEADER,
            steps: 0,
        })
    }

    fn step(&mut self, ip: &[u8]) -> Option<()> {
        self.steps += 1;
        if !extension::is_walked(self.kind) || self.steps > EXTENSION_HEADERS {
            return None;
        }
        let [next, words, ..] = *ip
            .get(self.offset..)?
            .first_chunk::<{ extension::LENGTH }>()?;
        let length = match self.kind {
            FRAGMENT => extension::LENGTH,
            _ => (usize::from(words) + 1) * 8,
        };
        self.named_at = self.offset;
        self.offset += length;
        self.kind = next;
        (self.offset <= ip.len()).then_some(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::{parse, protocol};

    const HOP: u8 = protocol::HOP_BY_HOP;
    const ROUTING: u8 = protocol::ROUTING;
    const OPTIONS: u8 = protocol::DESTINATION_OPTIONS;

    /// An IPv6 packet with extension headers of these kinds and lengths, then UDP.
    fn v6(kinds: &[(u8, usize)]) -> Vec<u8> {
        let mut behind = Vec::new();
        for (at, (kind, length)) in kinds.iter().enumerate() {
            let next = kinds.get(at + 1).map_or(protocol::UDP, |(kind, _)| *kind);
            let mut header = vec![0; *length];
            header[0] = next;
            if *kind != FRAGMENT {
                header[1] = u8::try_from(length / 8 - 1).unwrap();
            }
            if matches!(*kind, HOP | OPTIONS) {
                header[2..4].copy_from_slice(&[1, u8::try_from(length - 4).unwrap()]);
            }
            behind.extend(header);
        }
        behind.extend([0x12, 0x34, 0, 80, 0, 12, 0, 0, 1, 2, 3, 4]);
        let fields = ipv6::Fields {
            traffic_class: 0xb9,
            flow_label: 0x12345,
            payload_length: u16::try_from(behind.len()).unwrap(),
            next_header: kinds.first().map_or(protocol::UDP, |(kind, _)| *kind),
            hop_limit: 9,
            source: 1,
            destination: 2,
        };
        [&fields.to_bytes()[..], &behind].concat()
    }

    fn front_of(ip: &[u8]) -> (u16, u8) {
        let front = front(ip, &parse(ip).unwrap()).unwrap();
        (front.length, front.protocol)
    }

    //= test T01
    //= test T08
    //= test T88
    #[test]
    fn the_header_goes_behind_what_routers_look_at() {
        assert_eq!(front_of(&v6(&[])), (40, protocol::UDP));
        assert_eq!(front_of(&v6(&[(HOP, 8)])), (48, protocol::UDP));
        assert_eq!(front_of(&v6(&[(OPTIONS, 16)])), (40, OPTIONS));
        let all = [
            (HOP, 8),
            (OPTIONS, 16),
            (ROUTING, 24),
            (FRAGMENT, 8),
            (OPTIONS, 8),
        ];
        assert_eq!(front_of(&v6(&all)), (96, OPTIONS));
        assert_eq!(front_of(&v6(&all[..2])), (48, OPTIONS));
        assert_eq!(front_of(&v6(&all[1..3])), (80, protocol::UDP));
        assert_eq!(front_of(&v6(&all[3..])), (48, OPTIONS));
    }

    //= test T01
    //= test T08
    #[test]
    fn an_ipv4_header_keeps_its_options() {
        let mut ip = [0; 44];
        let fields = ipv4::Fields {
            traffic_class: 3,
            total_length: 44,
            identification: 7,
            flags_and_offset: ipv4::DONT_FRAGMENT,
            hop_limit: 9,
            protocol: protocol::UDP,
            source: 0x0a00_0001,
            destination: 0x0a00_0002,
        };
        ip[..20].copy_from_slice(&fields.to_bytes());
        ip[0] = 0x47;
        ip[20..24].copy_from_slice(&[0x94, 4, 0, 0]);
        ip[24..28].copy_from_slice(&[1, 1, 1, 0]);
        ip[28..36].copy_from_slice(&[0x12, 0x34, 0, 80, 0, 16, 0, 0]);
        refit(&mut ip, 28, protocol::UDP, 44).unwrap();
        let packet = parse(&ip).unwrap();
        assert_eq!(front_of(&ip), (28, protocol::UDP));
        let before = ip;
        refit(&mut ip, 28, protocol::ESP, 30).unwrap();
        let sealed = parse(&ip[..30]).unwrap();
        assert_eq!(
            (sealed.protocol, sealed.length, sealed.upper_offset),
            (protocol::ESP, 30, packet.upper_offset)
        );
        refit(&mut ip, 28, protocol::UDP, 44).unwrap();
        assert_eq!(ip, before);
        assert_eq!(refit(&mut ip, 19, 6, 44), None);
        assert_eq!(refit(&mut ip, 28, 6, 65_536), None);
        assert_eq!(refit(&mut [], 0, 6, 20), None);
    }

    //= test T08
    #[test]
    fn an_ipv6_packet_says_what_was_put_in() {
        let mut ip = v6(&[(HOP, 16), (ROUTING, 8), (OPTIONS, 8)]);
        let before = ip.clone();
        let total = ip.len();
        refit(&mut ip, 64, protocol::AH, total + 24).unwrap();
        assert_eq!((ip[6], ip[40], ip[56]), (HOP, ROUTING, protocol::AH));
        let length = u16::try_from(total + 24 - 40).unwrap();
        assert_eq!(ip[4..6], length.to_be_bytes());
        refit(&mut ip, 64, OPTIONS, total).unwrap();
        assert_eq!(ip, before);
        assert_eq!(refit(&mut ip, 63, OPTIONS, total), None);
        assert_eq!(refit(&mut ip, 40, OPTIONS, 39), None);
    }

    //= test T93
    #[test]
    fn a_fragment_header_left_over_is_taken_out() {
        let mut ip = v6(&[(HOP, 8), (FRAGMENT, 8), (OPTIONS, 16)]);
        let mut without = v6(&[(HOP, 8), (OPTIONS, 16)]);
        assert_eq!(take_out_fragment_header(&mut ip, 72), 8);
        // The payload length is refit's, and the last 8 bytes in front of the rest are free.
        without[4..6].copy_from_slice(&ip[4..6]);
        assert_eq!(ip[..64], without[..64]);
        assert_eq!(take_out_fragment_header(&mut ip, 64), 0);
        assert_eq!(take_out_fragment_header(&mut v6(&[]), 40), 0);
        assert_eq!(take_out_fragment_header(&mut [0x45; 40], 20), 0);
        assert_eq!(take_out_fragment_header(&mut [], 0), 0);
        let mut cut = v6(&[(FRAGMENT, 8)]);
        assert_eq!(take_out_fragment_header(&mut cut[..44], 48), 0);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            mut ip in prop::collection::vec(any::<u8>(), 0..200), front in 0..250_usize, six: bool,
        ) {
            if let Some(first) = ip.first_mut() && six {
                *first = 0x60;
            }
            if let Some(next) = ip.get_mut(6) {
                *next = [0, 43, 44, 60][usize::from(*next) % 4];
            }
            if let Ok(packet) = parse(&ip) {
                let _ = super::front(&ip, &packet);
            }
            let _ = take_out_fragment_header(&mut ip, front);
            let _ = refit(&mut ip, front, 6, 1000);
        }
    }
}
