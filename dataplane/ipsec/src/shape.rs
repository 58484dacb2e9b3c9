//! How many bytes an SA puts around a packet (RFC 4303 §2): pure arithmetic.

use std::net::IpAddr;

use crate::crypto::suite::Suite;
use crate::sa::SaParameters;
use crate::wire::{esp, ipv4, ipv6, udp};

/// Pad length and next header.
pub(crate) const ESP_TRAILER: usize = 2;

/// Lengths, in bytes, of what one SA writes; the inner packet's apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Outer IP header.
    pub(crate) ip: usize,
    /// UDP header of the encapsulation, or 0.
    pub(crate) udp: usize,
    /// Initialisation vector behind the ESP header.
    pub(crate) iv: usize,
    /// What inner packet, padding and trailer together are a multiple of.
    pub(crate) alignment: usize,
    /// Integrity check value.
    pub(crate) icv: usize,
}

impl Shape {
    pub(crate) fn of(parameters: &SaParameters) -> Self {
        Self::new(
            &parameters.suite,
            parameters.destination,
            parameters.udp_encapsulation.is_some(),
        )
    }

    fn new(suite: &Suite, outer: IpAddr, udp: bool) -> Self {
        Self {
            ip: match outer {
                IpAddr::V4(_) => ipv4::LENGTH,
                IpAddr::V6(_) => ipv6::LENGTH,
            },
            udp: if udp { udp::LENGTH } else { 0 },
            iv: suite.iv_length(),
            //= T06 T07 (RFC 4303 section 2.4)
            alignment: suite.alignment(),
            icv: suite.icv_length(),
        }
    }

    /// Where the ESP header begins.
    pub(crate) const fn esp(&self) -> usize {
        self.ip + self.udp
    }

    /// Where the inner packet begins.
    pub(crate) const fn inner(&self) -> usize {
        self.esp() + esp::LENGTH + self.iv
    }

    /// Padding behind `length` bytes of inner packet and TFC bytes: the least that aligns.
    pub(crate) const fn padding(&self, length: usize) -> usize {
        let unaligned = (length + ESP_TRAILER) % self.alignment;
        (self.alignment - unaligned) % self.alignment
    }

    /// Length of the sealed packet for `length` bytes of inner packet and TFC bytes.
    pub(crate) const fn sealed(&self, length: usize) -> usize {
        self.inner() + length + self.padding(length) + ESP_TRAILER + self.icv
    }

    /// The largest inner packet whose sealed form is at most `mtu` bytes long; 0 when none is.
    pub(crate) fn largest_inner(&self, mtu: u16) -> u16 {
        let room = usize::from(mtu).saturating_sub(self.inner() + self.icv);
        let aligned = room - room % self.alignment;
        u16::try_from(aligned.saturating_sub(ESP_TRAILER)).unwrap_or(u16::MAX)
    }

    /// Bytes behind an inner packet of `length` that hide its length: up to `pad_to` in all, never
    /// beyond what `mtu` carries.
    //= T12 T77 (RFC 4303 section 2.7)
    //= T74 (RFC 4303 section 2.4): padding only aligns
    pub(crate) fn tfc(&self, length: usize, pad_to: u16, mtu: u16) -> usize {
        let limit = pad_to.min(self.largest_inner(mtu));
        usize::from(limit).saturating_sub(length)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    //= test T06
    //= test T07
    #[test]
    fn known_shapes() {
        let gcm = Shape {
            ip: 20,
            udp: 0,
            iv: 8,
            alignment: 4,
            icv: 16,
        };
        // 20 + 8 + 8 + 100 + 2 of padding + 2 + 16
        assert_eq!((gcm.padding(100), gcm.sealed(100)), (2, 156));
        assert_eq!(gcm.largest_inner(1500), 1446);
        let cbc = Shape {
            ip: 40,
            udp: 8,
            iv: 16,
            alignment: 16,
            icv: 12,
        };
        assert_eq!((cbc.padding(100), cbc.sealed(100)), (10, 196));
        assert_eq!(cbc.largest_inner(1500), 1406);
        assert_eq!(cbc.largest_inner(80), 0);
    }

    proptest! {
        //= test T06
        #[test]
        fn the_least_padding_aligns(length in 0_usize..70_000, power in 2_u32..5) {
            let shape = Shape { ip: 20, udp: 0, iv: 8, alignment: 1 << power, icv: 16 };
            let padding = shape.padding(length);
            prop_assert_eq!((length + padding + ESP_TRAILER) % shape.alignment, 0);
            prop_assert!(padding < shape.alignment);
        }

        //= test T12
        //= test T74
        //= test T77
        #[test]
        fn hiding_bytes_reach_the_aim_and_never_leave_the_mtu(
            length in 20_usize..2000, aim: u16, mtu in 1280_u16..2000,
        ) {
            let shape = Shape { ip: 20, udp: 8, iv: 8, alignment: 4, icv: 16 };
            let tfc = shape.tfc(length, aim, mtu);
            if tfc > 0 {
                prop_assert!(shape.sealed(length + tfc) <= mtu.into());
                let limit = shape.largest_inner(mtu);
                prop_assert_eq!(length + tfc, usize::from(aim.min(limit)));
            } else {
                prop_assert!(length >= usize::from(aim.min(shape.largest_inner(mtu))));
            }
        }
    }
}
