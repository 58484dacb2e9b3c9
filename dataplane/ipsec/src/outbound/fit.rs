//! Does the packet fit the way out once it is sealed (RFC 4301 §8.2.1, RFC 2473 §7.1)?

use crate::limits::{IPV4_MTU_MINIMUM, IPV6_MTU_MINIMUM};
use crate::outbound::shape::Shape;
use crate::outbound::{Item, Verdict};
use crate::packet::{Packet, Version};
use crate::sa::Sa;

pub(super) fn run(batch: &mut [Item<'_>]) {
    for item in batch {
        let Some(sa) = item.sa else { continue };
        if item.verdict != Verdict::Protect {
            continue;
        }
        match decide(&item.packet, largest_inner(sa, item.mtu)) {
            Fit::Whole => {}
            Fit::OuterFragments => item.fragment_outer = true,
            Fit::TooBig(mtu) => item.verdict = Verdict::TooBig(mtu),
            Fit::Fragment(limit) => item.verdict = Verdict::Fragment(limit),
        }
    }
}

/// What a packet's length means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    Whole,
    /// Sealed whole, and the sealed packet is cut.
    OuterFragments,
    TooBig(u16),
    Fragment(u16),
}

/// The longest inner packet, bytes, that leaves through `sa` as one packet of at most `mtu` bytes.
#[must_use]
pub fn largest_inner(sa: &Sa, mtu: u16) -> u16 {
    Shape::of(&sa.parameters).largest_inner(mtu)
}

//= T61 (RFC 4301 section 8.2.1)
//= T132 (RFC 2473 section 7.1)
fn decide(packet: &Packet, limit: u16) -> Fit {
    let minimum = match packet.version {
        Version::V4 => IPV4_MTU_MINIMUM,
        Version::V6 => IPV6_MTU_MINIMUM,
    };
    let told = limit.max(u16::try_from(minimum).unwrap_or(u16::MAX));
    if packet.length <= limit {
        Fit::Whole
    } else if packet.length <= told {
        Fit::OuterFragments
    } else if packet.version == Version::V6 || packet.dont_fragment {
        Fit::TooBig(told)
    } else {
        //= T15 (RFC 4303 section 3.3.4)
        Fit::Fragment(told)
    }
}
