//! How many bytes an SA puts around a packet (RFC 4303 §2): pure arithmetic.

use std::net::IpAddr;

use crate::crypto::suite::Suite;
use crate::sa::SaParameters;
use crate::wire::{esp, ipv4, ipv6, udp};

/// Pad length and next header.
pub(super) const ESP_TRAILER: usize = 2;

/// Lengths, in bytes, of what one SA writes; the inner packet's apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Outer IP header.
    pub(super) ip: usize,
    /// UDP header of the encapsulation, or 0.
    pub(super) udp: usize,
    /// Initialisation vector behind the ESP header.
    pub(super) iv: usize,
    /// What inner packet, padding and trailer together are a multiple of.
    pub(super) alignment: usize,
    /// Integrity check value.
    pub(super) icv: usize,
}

impl Shape {
    pub(super) fn of(parameters: &SaParameters) -> Self {
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
    pub(super) const fn esp(&self) -> usize {
        self.ip + self.udp
    }

    /// Where the inner packet begins.
    pub(super) const fn inner(&self) -> usize {
        self.esp() + esp::LENGTH + self.iv
    }

    /// Padding behind `length` bytes of inner packet and TFC bytes: the least that aligns.
    pub(super) const fn padding(&self, length: usize) -> usize {
        let unaligned = (length + ESP_TRAILER) % self.alignment;
        (self.alignment - unaligned) % self.alignment
    }

    /// Length of the sealed packet for `length` bytes of inner packet and TFC bytes.
    pub(super) const fn sealed(&self, length: usize) -> usize {
        self.inner() + length + self.padding(length) + ESP_TRAILER + self.icv
    }

    /// The largest inner packet whose sealed form is at most `mtu` bytes long; 0 when none is.
    pub(super) fn largest_inner(&self, mtu: u16) -> u16 {
        let room = usize::from(mtu).saturating_sub(self.inner() + self.icv);
        let aligned = room - room % self.alignment;
        u16::try_from(aligned.saturating_sub(ESP_TRAILER)).unwrap_or(u16::MAX)
    }

    /// Bytes behind an inner packet of `length` that hide its length: up to `pad_to` in all, never
    /// beyond what `mtu` carries.
    //= T12 T77 (RFC 4303 section 2.7)
    pub(super) fn tfc(&self, length: usize, pad_to: u16, mtu: u16) -> usize {
        let limit = pad_to.min(self.largest_inner(mtu));
        usize::from(limit).saturating_sub(length)
    }
}
