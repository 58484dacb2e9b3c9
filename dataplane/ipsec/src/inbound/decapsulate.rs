//! From authentic plaintext to an inner packet (RFC 4303 §3.4.4.1 steps 2 to 5, RFC 6040).

use crate::inbound::{Consumed, Item, Verdict};
use crate::ip::tunnel_header::ecn_decapsulate;
use crate::packet::{Packet, Version, parse, protocol};
use crate::verdict::DropReason;
use crate::wire::{ipv4, ipv6};

/// Pad length and next header.
const TRAILER: usize = 2;

pub(super) fn run(batch: &mut [Item<'_>]) {
    for item in batch {
        if item.verdict != Verdict::Continue {
            continue;
        }
        let text = item.destination.as_deref_mut();
        let text = text.and_then(|text| text.get_mut(..usize::from(item.plaintext)));
        match decide(text.unwrap_or(&mut []), item.packet.traffic_class) {
            Ok(Content::Packet(inner)) => item.inner = Some(inner),
            Ok(Content::Dummy) => item.verdict = Verdict::Consumed(Consumed::Dummy),
            Err(reason) => item.verdict = Verdict::Drop(reason),
        }
    }
}

/// What a tunnel carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Packet(Packet),
    Dummy,
}

/// The content of a decrypted text, its mark of congestion merged with that of the outer header,
/// whose traffic class is `outer`.
fn decide(text: &mut [u8], outer: u8) -> Result<Content, DropReason> {
    let (next_header, length) = trailer(text)?;
    let version = match next_header {
        protocol::IPV4 => Version::V4,
        protocol::IPV6 => Version::V6,
        //= T13 T35 T75 (RFC 4303 section 2.6)
        protocol::NONE => return Ok(Content::Dummy),
        //= T36 (RFC 4301 section 5.2)
        //= exception T69: IP-TFS (AGGFRAG, protocol 144) is not built, its packets are counted here
        _ => return Err(DropReason::InnerUnsupported),
    };
    let content = text.get_mut(..length).unwrap_or(&mut []);
    //= T12 (RFC 4303 section 3.4.4.1 step 5): the inner length cuts what hides it
    let inner = parse(content).map_err(|_| DropReason::BadPadding)?;
    if inner.version != version {
        return Err(DropReason::BadPadding);
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
    Ok(Content::Packet(Packet {
        traffic_class: marked.unwrap_or(inner.traffic_class),
        ..inner
    }))
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
        fn no_text_panics(mut text in prop::collection::vec(any::<u8>(), 0..300), outer: u8) {
            if let Ok(Content::Packet(inner)) = decide(&mut text, outer) {
                prop_assert!(usize::from(inner.length) <= text.len());
            }
        }

        /// Texts that come further than random ones do.
        #[test]
        fn no_inner_header_panics(
            header in prop::collection::vec(any::<u8>(), 0..120),
            first in prop_oneof![Just(0x45_u8), Just(0x60), any::<u8>()],
            next in prop_oneof![Just(4_u8), Just(41), any::<u8>()],
            outer: u8,
        ) {
            let mut text = vec![first];
            text.extend(header);
            text.extend([0, next]);
            let _ = decide(&mut text, outer);
        }
    }
}
