//! Does the packet fit the way out once it is sealed (RFC 4301 §8.2.1, RFC 2473 §7.1)?

use crate::limits::{IPV4_MTU_MINIMUM, IPV6_MTU_MINIMUM};
use crate::outbound::{Item, Verdict};
use crate::packet::{Packet, Version};
use crate::sa::Sa;
use crate::sa::association::Mode;
use crate::wire::{ipv4, ipv6};

#[inline]
pub(super) fn run(batch: &mut [Item<'_>]) {
    for item in batch {
        if item.verdict != Verdict::Protect {
            continue;
        }
        item.measure();
        if item.inner_sa.is_none() && item.sealed != 0 && item.sealed <= item.mtu {
            continue;
        }
        let (Some(first), Some(limit)) = (item.inner_sa.or(item.sa), item.limit()) else {
            continue;
        };
        let whole_only = item.whole_only || first.parameters.mode == Mode::Transport;
        match decide(&item.packet, whole_only, limit) {
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

/// The longest packet, bytes, that leaves through the SAs of a bundle (innermost first, or a single
/// one) as one packet of at most `mtu` bytes; in transport mode one without options or extension
/// headers.
#[must_use]
pub fn largest_inner(bundle: &[&Sa], mtu: u16) -> u16 {
    bundle.iter().rev().fold(mtu, |mtu, sa| {
        let front = if sa.parameters.destination.is_ipv4() {
            ipv4::LENGTH
        } else {
            ipv6::LENGTH
        };
        sa.shape.behind(front).largest_inner(mtu)
    })
}

//= T61 (RFC 4301 section 8.2.1)
//= T132 (RFC 2473 section 7.1)
fn decide(packet: &Packet, whole_only: bool, limit: u16) -> Fit {
    let minimum = match packet.version {
        Version::V4 => IPV4_MTU_MINIMUM,
        Version::V6 => IPV6_MTU_MINIMUM,
    };
    let told = limit.max(u16::try_from(minimum).unwrap_or(u16::MAX));
    if packet.length <= limit {
        Fit::Whole
    } else if packet.length <= told {
        Fit::OuterFragments
    } else if packet.dont_fragment {
        Fit::TooBig(told)
    } else if whole_only {
        //= T14 T15 T125 (RFC 4303 section 3.3.4, RFC 4301 section 7.3): it is cut behind the SA
        Fit::OuterFragments
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
        let v4 = |length, limit| decide(&packet(Version::V4, length, false), false, limit);
        let v4_df = |length, limit| decide(&packet(Version::V4, length, true), false, limit);
        let v6 = |length, limit| decide(&packet(Version::V6, length, true), false, limit);
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

    //= test T14
    //= test T15
    //= test T125
    #[test]
    fn what_an_sa_takes_whole_alone_is_cut_behind_it() {
        let decide = |version, length, dont_fragment| {
            let packet = packet(version, length, dont_fragment);
            decide(&packet, true, 1400)
        };
        assert_eq!(decide(Version::V4, 1400, false), Fit::Whole);
        assert_eq!(decide(Version::V4, 1401, false), Fit::OuterFragments);
        assert_eq!(decide(Version::V4, 1401, true), Fit::TooBig(1400));
        assert_eq!(decide(Version::V6, 1401, true), Fit::TooBig(1400));
    }
}
