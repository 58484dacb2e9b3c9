//! From authentic plaintext to an inner packet (RFC 4303 §3.4.4.1 steps 2 to 5, RFC 6040).

use crate::inbound::{Consumed, Context, Item, Verdict};
use crate::packet::{Packet, Version, parse, protocol};
use crate::verdict::DropReason;

/// Pad length and next header.
const TRAILER: usize = 2;

pub(super) fn run(batch: &mut [Item<'_>], context: &mut Context<'_, '_>) {
    for item in batch {
        if item.verdict != Verdict::Continue {
            continue;
        }
        let Some(destination) = item.destination.as_deref_mut() else {
            continue;
        };
        let outer = item.packet.traffic_class;
        match decide(destination, usize::from(item.plaintext), outer) {
            Ok(Content::Packet(inner)) => {
                item.inner = Some(inner);
                if let Some(sa) = item.sa {
                    context.count_bytes(sa, inner.length);
                }
            }
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

/// The content of the first `length` bytes of `plaintext`, with the outer header's ECN applied.
fn decide(plaintext: &mut [u8], length: usize, outer: u8) -> Result<Content, DropReason> {
    let (next_header, length) = trailer(plaintext.get(..length).unwrap_or(&[]))?;
    let version = match next_header {
        protocol::IPV4 => Version::V4,
        protocol::IPV6 => Version::V6,
        //= T13 T35 T75 (RFC 4303 section 2.6)
        protocol::NONE => return Ok(Content::Dummy),
        //= T36 (RFC 4301 section 5.2)
        _ => return Err(DropReason::InnerUnsupported),
    };
    let content = plaintext.get_mut(..length).unwrap_or(&mut []);
    //= T12 (RFC 4303 section 3.4.4.1 step 5)
    let mut inner = parse(content).map_err(|_| DropReason::BadPadding)?;
    if inner.version != version {
        return Err(DropReason::BadPadding);
    }
    Ok(Content::Packet(inner))
}

/// Next header, and the length of what stands in front of the padding.
//= T32 T33 T73 (RFC 4303 sections 2.4, 3.4.4.1 step 3)
fn trailer(plaintext: &[u8]) -> Result<(u8, usize), DropReason> {
    let Some((body, &[padding, next_header])) = plaintext.split_last_chunk::<TRAILER>() else {
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
