//! Does the packet fit the way out once it is sealed (RFC 4301 §8.2.1, RFC 2473 §7.1)?

use crate::limits::{IPV4_MTU_MINIMUM, IPV6_MTU_MINIMUM};
use crate::outbound::{Item, Verdict};
use crate::packet::{Packet, Version};
use crate::sa::Sa;
use crate::shape::Shape;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Fragment, Upper};

    fn packet(version: Version, length: u16, dont_fragment: bool) -> Packet {
        Packet {
            source: 1,
            destination: 2,
            length,
            upper_offset: 20,
            identification: 0,
            upper: Upper::Opaque,
            version,
            protocol: 17,
            hop_limit: 64,
            traffic_class: 0,
            fragment: Fragment::Whole,
            dont_fragment,
        }
    }

    //= test T15
    //= test T61
    //= test T132
    #[test]
    fn the_inner_packet_decides() {
        let v4 = |length, limit| decide(&packet(Version::V4, length, false), limit);
        let v4_df = |length, limit| decide(&packet(Version::V4, length, true), limit);
        let v6 = |length, limit| decide(&packet(Version::V6, length, true), limit);
        assert_eq!(v4(1400, 1400), Fit::Whole);
        assert_eq!(v4(1401, 1400), Fit::Fragment(1400));
        assert_eq!(v4_df(1400, 1400), Fit::Whole);
        assert_eq!(v4_df(1401, 1400), Fit::TooBig(1400));
        assert_eq!(v6(1401, 1400), Fit::TooBig(1400));
        assert_eq!(v6(1281, 1200), Fit::TooBig(1280));
        assert_eq!(v6(1280, 1200), Fit::OuterFragments);
        assert_eq!(v6(1200, 1200), Fit::Whole);
        assert_eq!(v4_df(68, 40), Fit::OuterFragments);
        assert_eq!(v4_df(69, 40), Fit::TooBig(68));
        assert_eq!(v4(68, 40), Fit::OuterFragments);
        assert_eq!(v4(69, 40), Fit::Fragment(68));
        assert_eq!(v6(1280, 0), Fit::OuterFragments);
    }
}
