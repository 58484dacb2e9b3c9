//! ICMP (RFC 792) and ICMPv6 (RFC 4443): message types and the header of error messages.

use crate::wire::checksum::Sum;

/// Length of an error message's header, in front of the packet that it quotes, bytes.
pub const LENGTH: usize = 8;

/// ICMP message types of IPv4.
pub mod kind_v4 {
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 3;
    /// Source quench (deprecated by RFC 6633).
    pub const SOURCE_QUENCH: u8 = 4;
    /// Redirect.
    pub const REDIRECT: u8 = 5;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 11;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 12;
}

/// ICMPv6 message types.
pub mod kind_v6 {
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 1;
    /// Packet too big.
    pub const TOO_BIG: u8 = 2;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 3;
    /// The first type that is no error (RFC 4443 §2.1).
    pub const INFORMATIONAL: u8 = 128;
    /// Router solicitation, the first type of neighbour discovery (RFC 4861).
    pub const ROUTER_SOLICITATION: u8 = 133;
    /// Redirect, the last type of neighbour discovery (RFC 4861).
    pub const REDIRECT: u8 = 137;
}

/// Whether an ICMP message of IPv4 is an error that quotes a packet; redirects are none.
#[inline]
#[must_use]
pub const fn is_error_v4(kind: u8) -> bool {
    matches!(
        kind,
        kind_v4::UNREACHABLE
            | kind_v4::SOURCE_QUENCH
            | kind_v4::TIME_EXCEEDED
            | kind_v4::PARAMETER_PROBLEM
    )
}

/// Whether an ICMPv6 message is an error, and so quotes a packet.
#[inline]
#[must_use]
pub const fn is_error_v6(kind: u8) -> bool {
    kind < kind_v6::INFORMATIONAL
}

/// The header of an error message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// The 32 bits behind the checksum: an MTU, or zero.
    pub rest: u32,
}

impl Header {
    /// The header as bytes, in front of `quoted`. `pseudo` is the pseudo-header's sum in ICMPv6,
    /// nothing in ICMP.
    #[must_use]
    pub fn to_bytes(self, pseudo: Sum, quoted: &[u8]) -> [u8; LENGTH] {
        let [e, f, g, h] = self.rest.to_be_bytes();
        let sum = pseudo.bytes(&[self.kind, self.code, 0, 0, e, f, g, h]);
        let [c, d] = sum.bytes(quoted).checksum().to_be_bytes();
        [self.kind, self.code, c, d, e, f, g, h]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_and_the_rest() {
        let errors: Vec<u8> = (0..=255).filter(|kind| is_error_v4(*kind)).collect();
        assert_eq!(errors, [3, 4, 11, 12]);
        assert!((0..128).all(is_error_v6));
        assert!(!(128..=255).any(is_error_v6));
    }

    #[test]
    fn the_checksum_covers_header_quote_and_pseudo_header() {
        let header = Header {
            kind: 2,
            code: 0,
            rest: 1280,
        };
        let quoted = [0x60, 1, 2, 3, 4];
        let pseudo = Sum::ZERO.word(0x1234);
        let bytes = header.to_bytes(pseudo, &quoted);
        assert_eq!([bytes[0], bytes[1], bytes[6], bytes[7]], [2, 0, 5, 0]);
        assert!(pseudo.bytes(&bytes).bytes(&quoted).holds());
    }
}
