//! From authentic plaintext to an inner packet or, in transport mode, to the packet as it was (RFC
//! 4303 §3.4.4.1 steps 2 to 5, RFC 6040, RFC 3948 §3.1.2).

use crate::inbound::{Consumed, Item, Verdict};
use crate::ip::transport::refit;
use crate::ip::tunnel_header::{ecn_decapsulate, marks};
use crate::packet::{Packet, Version, checksum, parse, parse_into, protocol};
use crate::sa::association::{Mode, Protocol};
use crate::verdict::DropReason;
use crate::wire::{ipv4, ipv6};

/// Pad length and next header.
const TRAILER: usize = 2;

pub(super) fn run(batch: &mut [Item<'_>]) {
    for item in batch {
        if item.verdict != Verdict::Continue {
            continue;
        }
        item.verdict = match decide(item) {
            Ok(Content::Packet) => Verdict::Continue,
            Ok(Content::Dummy) => Verdict::Consumed(Consumed::Dummy),
            Err(reason) => {
                item.inner = Packet::nothing(item.packet.version);
                Verdict::Drop(reason)
            }
        };
    }
}

/// The content of an authentic packet; `inner` describes it.
#[inline(always)]
fn decide(item: &mut Item<'_>) -> Result<Content, DropReason> {
    let sa = item.sa.ok_or(DropReason::NoFrame)?;
    let front = usize::from(item.front);
    let whole = item.destination.as_deref_mut();
    let whole = whole.and_then(|it| it.get_mut(..front + usize::from(item.plaintext)));
    let whole = whole.ok_or(DropReason::NoFrame)?;
    let text = whole.get(front..).unwrap_or(&[]);
    let (next_header, length) = match sa.parameters.protocol {
        Protocol::Esp => trailer(text)?,
        Protocol::Ah => (item.next_header, text.len()),
    };
    //= T13 T35 T75 (RFC 4303 section 2.6)
    if next_header == protocol::NONE && sa.parameters.protocol == Protocol::Esp {
        return Ok(Content::Dummy);
    }
    let whole = whole.get_mut(..front + length).unwrap_or(&mut []);
    match sa.parameters.mode {
        //= T138 (RFC 3948 section 3.1.2): what is wrong in a tunnel stays wrong
        Mode::Tunnel => {
            let outer = item.packet.traffic_class;
            tunnelled(whole, next_header, outer, &mut item.inner)?;
        }
        Mode::Transport => {
            let behind_nat = sa.parameters.udp_encapsulation.is_some();
            item.inner = transported(whole, front, next_header, behind_nat)?;
        }
    }
    Ok(Content::Packet)
}

/// A packet whose own headers stand in front of what was opened.
//= T08 T36 (RFC 4303 section 3.1.1, RFC 4301 section 5.2)
fn transported(
    whole: &mut [u8],
    front: usize,
    next_header: u8,
    behind_nat: bool,
) -> Result<Packet, DropReason> {
    let total = whole.len();
    refit(whole, front, next_header, total).ok_or(DropReason::BadPadding)?;
    let packet = parse(whole).map_err(|_| DropReason::BadPadding)?;
    //= T68 (RFC 3948 section 3.1.2)
    if behind_nat {
        checksum::renew(whole, &packet);
    }
    Ok(packet)
}

/// What an SA carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Packet,
    Dummy,
}

/// The inner packet at the start of `content`, its mark of congestion merged with that of the outer
/// header, whose traffic class is `outer`; `inner` describes it.
#[inline(always)]
fn tunnelled(
    content: &mut [u8],
    next_header: u8,
    outer: u8,
    inner: &mut Packet,
) -> Result<(), DropReason> {
    let version = match next_header {
        protocol::IPV4 => Version::V4,
        protocol::IPV6 => Version::V6,
        //= T36 (RFC 4301 section 5.2)
        //= exception T69: IP-TFS (AGGFRAG, protocol 144) is not built, its packets are counted here
        _ => return Err(DropReason::InnerUnsupported),
    };
    //= T12 (RFC 4303 section 3.4.4.1 step 5): the inner length cuts what hides it
    parse_into(content, inner).map_err(|_| DropReason::BadPadding)?;
    if inner.version != version {
        return Err(DropReason::BadPadding);
    }
    if !marks(outer) {
        return Ok(());
    }
    let content = content
        .get_mut(..usize::from(inner.length))
        .unwrap_or(&mut []);
    //= T63 T142 (RFC 6040 section 4.2)
    ecn_decapsulate(outer, content)?;
    let marked = match version {
        Version::V4 => ipv4::Header::parse(content).map(ipv4::Header::traffic_class),
        Version::V6 => ipv6::Header::parse(content).map(ipv6::Header::traffic_class),
    };
    inner.traffic_class = marked.unwrap_or(inner.traffic_class);
    Ok(())
}

/// Next header, and the length of what stands in front of the padding.
//= T32 T33 T73 (RFC 4303 sections 2.4, 3.4.4.1 step 3)
fn trailer(text: &[u8]) -> Result<(u8, usize), DropReason> {
    let Some((body, &[padding, next_header])) = text.split_last_chunk::<TRAILER>() else {
        return Err(DropReason::BadPadding);
    };
    let length = body
        .len()
        .checked_sub(usize::from(padding))
        .ok_or(DropReason::BadPadding)?;
    let counts = body
        .get(length..)
        .unwrap_or(&[])
        .iter()
        .zip(1_u8..=255)
        .all(|(&found, wanted)| found == wanted);
    if counts {
        Ok((next_header, length))
    } else {
        Err(DropReason::BadPadding)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    //= test T32
    //= test T33
    #[test]
    fn a_trailer_counts_from_one() {
        let bad = Err(DropReason::BadPadding);
        assert_eq!(trailer(&[9, 0, 4]), Ok((4, 1)));
        assert_eq!(trailer(&[9, 1, 2, 2, 41]), Ok((41, 1)));
        assert_eq!(trailer(&[1, 1, 59]), Ok((59, 0)));
        assert_eq!(trailer(&[1, 2, 59]), bad);
        assert_eq!(trailer(&[2, 1, 59]), bad);
        assert_eq!(trailer(&[4]), bad);
        assert_eq!(trailer(&[]), bad);
        let longest: Vec<u8> = (1..=255).chain([255, 4]).collect();
        assert_eq!(trailer(&longest), Ok((4, 0)));
    }

    proptest! {
        #[test]
        fn no_text_panics(
            mut text in prop::collection::vec(any::<u8>(), 0..300), next: u8, outer: u8,
            front in 0..80_usize,
        ) {
            let mut inner = Packet::nothing(Version::V4);
            if tunnelled(&mut text, next, outer, &mut inner).is_ok() {
                prop_assert!(usize::from(inner.length) <= text.len());
            }
            if let Ok(packet) = transported(&mut text, front, next, outer > 127) {
                prop_assert!(usize::from(packet.length) <= text.len());
            }
            let _ = trailer(&text);
        }

        /// Texts that come further than random ones do.
        #[test]
        fn no_inner_header_panics(
            header in prop::collection::vec(any::<u8>(), 0..120),
            first in prop_oneof![Just(0x45_u8), Just(0x60), any::<u8>()],
            next in prop_oneof![Just(4_u8), Just(41), any::<u8>()],
            outer: u8,
            front in prop_oneof![Just(20_usize), Just(40), 0..120_usize],
        ) {
            let mut text = vec![first];
            text.extend(header);
            let mut inner = Packet::nothing(Version::V4);
            let _ = tunnelled(&mut text.clone(), next, outer, &mut inner);
            let _ = transported(&mut text, front, next, true);
        }
    }
}
