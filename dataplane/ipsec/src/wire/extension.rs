//! IPv6 extension headers (RFC 8200 §4) and the bounded walk over them.
//!
//! Walked are hop-by-hop options, routing, fragment and destination options: the headers in front
//! of what selectors and IPsec call the protocol. AH and ESP end the walk.

use crate::limits::EXTENSION_HEADERS;

/// Hop-by-hop options.
pub const HOP_BY_HOP: u8 = 0;

/// Routing.
pub const ROUTING: u8 = 43;

/// Fragment.
pub const FRAGMENT: u8 = 44;

/// Destination options.
pub const DESTINATION_OPTIONS: u8 = 60;

/// Length of the fragment header, and of the shortest of the others, bytes.
pub const LENGTH: usize = 8;

/// The fragment header (RFC 8200 §4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentHeader {
    /// Offset in the fragmentable part, bytes (a multiple of 8).
    pub offset: u16,
    /// Whether fragments follow.
    pub more: bool,
    /// Identification.
    pub identification: u32,
}

impl FragmentHeader {
    /// The header as bytes, in front of `next_header`.
    #[inline]
    #[must_use]
    pub const fn to_bytes(self, next_header: u8) -> [u8; LENGTH] {
        let [high, low] = ((self.offset & 0xfff8) | self.more as u16).to_be_bytes();
        let [a, b, c, d] = self.identification.to_be_bytes();
        [next_header, 0, high, low, a, b, c, d]
    }

    /// The header that these bytes are, whatever it names as next.
    #[inline]
    #[must_use]
    pub const fn parse(bytes: [u8; LENGTH]) -> Self {
        let [_, _, high, low, a, b, c, d] = bytes;
        Self {
            offset: u16::from_be_bytes([high, low & 0xf8]),
            more: low & 1 != 0,
            identification: u32::from_be_bytes([a, b, c, d]),
        }
    }
}

/// What a walk over the extension headers found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The header that is none of ours to walk. Behind the fragment header of a later fragment:
    /// what that one names, whatever it is.
    pub protocol: u8,
    /// Its offset from the start of the packet, bytes; at most the length of the packet.
    pub offset: usize,
    /// The fragment header, if there is one.
    pub fragment: Option<FragmentHeader>,
}

//= T107 (RFC 4301 section 4.4.1.1)
/// Whether the walk steps over `next_header`.
#[inline]
#[must_use]
pub const fn is_walked(next_header: u8) -> bool {
    const WALKED: u64 = 1 << HOP_BY_HOP | 1 << ROUTING | 1 << FRAGMENT | 1 << DESTINATION_OPTIONS;
    next_header < 64 && (WALKED >> next_header) & 1 != 0
}

/// Walks the extension headers of `packet`, which ends where its IP length says, from `offset` on,
/// where the header `next_header` stands.
///
/// `None` if one of them reaches beyond the end, if there are more than [`EXTENSION_HEADERS`], or
/// if a second fragment header follows a first: no sender makes that, and no identification would
/// name it.
#[inline]
#[must_use]
pub fn walk(packet: &[u8], next_header: u8, offset: usize) -> Option<Chain> {
    let mut chain = Chain {
        protocol: next_header,
        offset,
        fragment: None,
    };
    for _ in 0..EXTENSION_HEADERS {
        if !is_walked(chain.protocol) {
            return Some(chain);
        }
        let rest = packet.get(chain.offset..)?;
        let fixed = *rest.first_chunk::<LENGTH>()?;
        let mut length = LENGTH;
        let mut later = false;
        if chain.protocol == FRAGMENT {
            if chain.fragment.is_some() {
                return None;
            }
            let fragment = FragmentHeader::parse(fixed);
            later = fragment.offset != 0;
            chain.fragment = Some(fragment);
        } else {
            length = usize::from(fixed[1]).wrapping_add(1).wrapping_mul(8);
        }
        if length > rest.len() {
            return None;
        }
        chain.protocol = fixed[0];
        chain.offset = chain.offset.wrapping_add(length);
        if later {
            return Some(chain);
        }
    }
    (!is_walked(chain.protocol)).then_some(chain)
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may fail by panic")]
mod tests {
    use super::*;

    const FRAGMENT_HEADER: FragmentHeader = FragmentHeader {
        offset: 0x1230,
        more: true,
        identification: 0x0102_0304,
    };

    #[test]
    fn the_fragment_header_as_bytes() {
        let bytes = FRAGMENT_HEADER.to_bytes(50);
        assert_eq!(bytes, [50, 0, 0x12, 0x31, 1, 2, 3, 4]);
        assert_eq!(FragmentHeader::parse(bytes), FRAGMENT_HEADER);
    }

    //= test T107 (RFC 4301 section 4.4.1.1)
    #[test]
    fn the_walk_ends_inside_the_packet_or_not_at_all() {
        let mut packet = vec![ROUTING, 1];
        packet.resize(16, 0);
        packet.extend([FRAGMENT, 0, 0, 0, 0, 0, 0, 0]);
        packet.extend(FRAGMENT_HEADER.to_bytes(DESTINATION_OPTIONS));
        let chain = Chain {
            protocol: DESTINATION_OPTIONS,
            offset: packet.len(),
            fragment: Some(FRAGMENT_HEADER),
        };
        assert_eq!(walk(&packet, HOP_BY_HOP, 0), Some(chain));
        for end in 0..packet.len() {
            assert_eq!(walk(&packet[..end], HOP_BY_HOP, 0), None, "{end}");
        }
        let none = Chain {
            protocol: 6,
            offset: 99,
            fragment: None,
        };
        assert_eq!(walk(&packet, 6, 99), Some(none));
        assert_eq!(walk(&packet, HOP_BY_HOP, 99), None);
        let options = [6, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert!(walk(&options, DESTINATION_OPTIONS, 0).is_some());
        assert_eq!(walk(&options[..15], DESTINATION_OPTIONS, 0), None);
        let walked: Vec<u8> = (0..=255).filter(|kind| is_walked(*kind)).collect();
        assert_eq!(walked, [0, 43, 44, 60]);
    }
}
