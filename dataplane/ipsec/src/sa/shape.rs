//! How many bytes an SA puts around a packet (RFC 4303 §2, RFC 4302 §2): pure arithmetic.

use crate::crypto::suite::Suite;
use crate::sa::association::{Mode, Protocol, SaParameters};
use crate::wire::{ah, esp, ipv4, ipv6, udp};

/// Pad length and next header.
pub(crate) const ESP_TRAILER: usize = 2;

/// Lengths, in bytes, of what one SA writes around one packet; the packet's apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Headers of the packet that stay in front: 0 in tunnel mode.
    pub(crate) front: usize,
    /// Outer IP header: 0 in transport mode.
    pub(crate) ip: usize,
    /// UDP header of the encapsulation, or 0.
    pub(crate) udp: usize,
    /// ESP header and IV, or AH with its whole ICV field.
    pub(crate) header: usize,
    /// Behind padding: of ESP 2, of AH none.
    pub(crate) trailer: usize,
    /// What content, padding and trailer together are a multiple of: a power of two.
    pub(crate) alignment: usize,
    /// Integrity check value behind it all: none of AH.
    pub(crate) icv: usize,
}

/// A [`Shape`] without a front, as an SA keeps it: found once, in a byte each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    ip: u8,
    udp: u8,
    header: u8,
    trailer: u8,
    alignment: u8,
    icv: u8,
}

impl Sizes {
    /// Of an SA. Nothing that it writes in one piece is longer than 255 bytes.
    pub(crate) fn of(parameters: &SaParameters) -> Self {
        let shape = Shape::of(parameters);
        let byte = |length: usize| u8::try_from(length).unwrap_or(u8::MAX);
        Self {
            ip: byte(shape.ip),
            udp: byte(shape.udp),
            header: byte(shape.header),
            trailer: byte(shape.trailer),
            alignment: byte(shape.alignment),
            icv: byte(shape.icv),
        }
    }

    /// Around a packet of which transport mode leaves `front` bytes in front.
    #[inline]
    pub(crate) const fn behind(self, front: usize) -> Shape {
        let ip = self.ip as usize;
        Shape {
            front: if ip == 0 { front } else { 0 },
            ip,
            udp: self.udp as usize,
            header: self.header as usize,
            trailer: self.trailer as usize,
            alignment: self.alignment as usize,
            icv: self.icv as usize,
        }
    }
}

impl Shape {
    /// Around a packet of which nothing stays in front.
    fn of(parameters: &SaParameters) -> Self {
        let v4 = parameters.destination.is_ipv4();
        let outer = if v4 { ipv4::LENGTH } else { ipv6::LENGTH };
        let ip = match parameters.mode {
            Mode::Tunnel => outer,
            Mode::Transport => 0,
        };
        let udp = parameters.udp_encapsulation.map_or(0, |_| udp::LENGTH);
        let suite = &parameters.suite;
        match parameters.protocol {
            Protocol::Esp => Self {
                front: 0,
                ip,
                udp,
                header: esp::LENGTH + suite.iv_length(),
                trailer: ESP_TRAILER,
                //= T06 T07 (RFC 4303 section 2.4)
                alignment: suite.alignment(),
                icv: suite.icv_length(),
            },
            Protocol::Ah => Self {
                front: 0,
                ip,
                udp: 0,
                header: ah_length(suite, v4),
                trailer: 0,
                alignment: 1,
                icv: 0,
            },
        }
    }

    /// Where the ESP or AH header begins.
    pub(crate) const fn protected(&self) -> usize {
        self.front + self.ip + self.udp
    }

    /// Where the content begins: the inner packet, or what stood behind the headers in front.
    pub(crate) const fn content(&self) -> usize {
        self.protected() + self.header
    }

    /// Padding behind `length` bytes of packet and TFC bytes: the least that aligns.
    pub(crate) const fn padding(&self, length: usize) -> usize {
        let unaligned = length.saturating_sub(self.front) + self.trailer;
        // A division would cost more than all the rest of the arithmetic.
        unaligned.wrapping_neg() & (self.alignment - 1)
    }

    /// Bytes around the content and its padding.
    const fn around(&self) -> usize {
        self.content() + self.trailer + self.icv
    }

    /// Length of the sealed packet for `length` bytes of packet and TFC bytes.
    pub(crate) const fn sealed(&self, length: usize) -> usize {
        self.around() + length.saturating_sub(self.front) + self.padding(length)
    }

    /// The largest packet whose sealed form is at most `mtu` bytes long; 0 when none is.
    pub(crate) fn largest_inner(&self, mtu: u16) -> u16 {
        let room = usize::from(mtu).saturating_sub(self.content() + self.icv);
        let aligned = room & !(self.alignment - 1);
        if aligned < self.trailer.max(1) {
            return 0;
        }
        u16::try_from(self.front + aligned - self.trailer).unwrap_or(u16::MAX)
    }

    /// Bytes behind an inner packet of `length` that hide its length: up to `pad_to` in all, never
    /// beyond what `mtu` carries.
    //= T12 T77 (RFC 4303 section 2.7)
    //= T74 (RFC 4303 section 2.4): padding only aligns
    pub(crate) fn tfc(&self, length: usize, pad_to: u16, mtu: u16) -> usize {
        if self.trailer == 0 || pad_to == 0 {
            return 0;
        }
        let limit = pad_to.min(self.largest_inner(mtu));
        usize::from(limit).saturating_sub(length)
    }
}

/// Length of AH with its whole ICV field, brought to 4 bytes in IPv4 and to 8 in IPv6.
//= T39 T89 (RFC 4302 sections 2.2, 2.6, 3.3.3.2.1)
pub(crate) const fn ah_length(suite: &Suite, v4: bool) -> usize {
    let unit = if v4 { 4 } else { 8 };
    (ah::LENGTH + suite.icv_length()).next_multiple_of(unit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::crypto::suite::{Encryption, Integrity};

    const TUNNEL: Shape = Shape {
        front: 0,
        ip: 20,
        udp: 0,
        header: 16,
        trailer: 2,
        alignment: 4,
        icv: 16,
    };

    //= test T39
    //= test T89
    //= test T151
    #[test]
    fn an_ah_field_is_aligned_as_the_version_wants() {
        let lengths = Integrity::ALL.map(|integrity| {
            let suite = Suite {
                encryption: Encryption::Null,
                integrity: Some(integrity),
            };
            (ah_length(&suite, true), ah_length(&suite, false))
        });
        let twelve = (24, 24);
        let gmac = (36, 40);
        let expected = [
            twelve,
            twelve,
            (28, 32),
            (36, 40),
            (44, 48),
            twelve,
            twelve,
            gmac,
            gmac,
        ];
        assert_eq!(lengths, expected);
    }

    #[test]
    fn transport_leaves_headers_in_front() {
        let ah = Shape {
            front: 24,
            ip: 0,
            udp: 0,
            header: 24,
            trailer: 0,
            alignment: 1,
            icv: 0,
        };
        assert_eq!(
            (ah.protected(), ah.content(), ah.sealed(100)),
            (24, 48, 124)
        );
        assert_eq!((ah.padding(101), ah.tfc(50, 100, 1500)), (0, 0));
        assert_eq!(ah.largest_inner(1500), 1476);
        assert_eq!(ah.largest_inner(48), 0);
        let esp = Shape {
            front: 20,
            ip: 0,
            ..TUNNEL
        };
        // 20 + 8 + 8 + 80 + 2 of padding + 2 + 16
        assert_eq!((esp.padding(100), esp.sealed(100)), (2, 136));
        assert_eq!(esp.largest_inner(1500), 1466);
        assert_eq!(esp.sealed(1466), 1500);
    }

    //= test T06
    //= test T07
    #[test]
    fn known_shapes() {
        let gcm = Shape { ip: 20, ..TUNNEL };
        // 20 + 8 + 8 + 100 + 2 of padding + 2 + 16
        assert_eq!((gcm.padding(100), gcm.sealed(100)), (2, 156));
        assert_eq!(gcm.largest_inner(1500), 1446);
        let cbc = Shape {
            ip: 40,
            udp: 8,
            header: 24,
            alignment: 16,
            icv: 12,
            ..TUNNEL
        };
        assert_eq!((cbc.padding(100), cbc.sealed(100)), (10, 196));
        assert_eq!(cbc.largest_inner(1500), 1406);
        assert_eq!(cbc.largest_inner(80), 0);
    }

    proptest! {
        //= test T06
        #[test]
        fn the_least_padding_aligns(length in 0_usize..70_000, power in 2_u32..5) {
            let shape = Shape { alignment: 1 << power, ..TUNNEL };
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
            let shape = Shape { udp: 8, ..TUNNEL };
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
