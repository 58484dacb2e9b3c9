//! The SA of what is protected, and the SPD's word on what is clear (RFC 4301 §5.2 steps 3a, 3b).

use std::sync::Arc;

use arrayvec::ArrayVec;

use crate::inbound::{Context, Item, Kind, Verdict};
use crate::ip::mutable::{End, cover};
use crate::limits::BATCH;
use crate::packet::Packet;
use crate::policy::fragments::Passage;
use crate::policy::{Action, Decision, PolicyIndex};
use crate::sa::Sa;
use crate::sa::association::{Direction, Protocol};
use crate::sa::database::Key;
use crate::tables::{Tables, Unmatched};
use crate::verdict::DropReason;
use crate::wire::{ah, esp};

/// Offset of the SPI in AH; its sequence number follows (RFC 4302 §2).
const AH_SPI: usize = 4;

/// Pad length and next header.
const ESP_TRAILER: usize = 2;

pub(super) fn run<'a>(batch: &mut [Item<'a>], context: &mut Context<'a, '_>) {
    for batch in batch.chunks_mut(BATCH) {
        let tables = context.tables;
        // Runs of packets of one SA ask once.
        let mut keys: ArrayVec<Key, BATCH> = ArrayVec::new();
        let mut asked = [0_u8; BATCH];
        for (item, asked) in batch.iter_mut().zip(&mut asked) {
            if item.verdict != Verdict::Continue || item.kind == Kind::Clear {
                continue;
            }
            match identify(item, tables) {
                Ok(Some((key, number))) => {
                    item.number = number;
                    if keys.last() != Some(&key) {
                        keys.push(key);
                    }
                    *asked = u8::try_from(keys.len()).unwrap_or(0);
                }
                Ok(None) => item.kind = Kind::Clear,
                Err(reason) => item.verdict = Verdict::Drop(reason),
            }
        }
        let mut found = [None; BATCH];
        tables.sad.find_batch(&keys, &mut found);
        for (item, asked) in batch.iter_mut().zip(asked) {
            if item.verdict != Verdict::Continue {
                continue;
            }
            let asked = usize::from(asked).checked_sub(1);
            if item.kind != Kind::Clear
                && let Some(place) = asked
                && let Some(key) = keys.get(place)
            {
                match judge(item, key, found[place], tables) {
                    Ok(Some(sa)) => item.sa = Some(sa),
                    Ok(None) => item.kind = Kind::Clear,
                    Err(reason) => item.verdict = Verdict::Drop(reason),
                }
            }
            if item.kind == Kind::Clear {
                let (verdict, policy) = clear(item.source, &item.packet, context);
                item.verdict = verdict;
                item.policy = policy;
                context.count_policy(policy, item.packet.length);
            }
        }
    }
}

/// What names the SA, and the number on the wire; `None` for clear transit.
//= T96 (RFC 4301 section 4.1): SPI, protocol and destination, nothing else
fn identify(item: &Item<'_>, tables: &Tables) -> Result<Option<(Key, u32)>, DropReason> {
    let (protocol, skip) = match item.kind {
        Kind::Ah => (Protocol::Ah, AH_SPI),
        _ => (Protocol::Esp, 0),
    };
    let packet = &item.packet;
    match protected(item).get(skip..).and_then(esp::Header::parse) {
        Some(header) => {
            let key = Key {
                destination: packet.destination,
                spi: header.spi,
                protocol,
                version: packet.version,
            };
            Ok(Some((key, header.sequence)))
        }
        None if tables.ends_here(packet) => Err(DropReason::Malformed),
        None => Ok(None),
    }
}

/// The SA that opens the packet; `None` for clear transit.
fn judge<'a>(
    item: &Item<'_>,
    key: &Key,
    found: Option<&'a Arc<Sa>>,
    tables: &Tables,
) -> Result<Option<&'a Sa>, DropReason> {
    let Some(sa) = found else {
        //= T23 (RFC 4303 section 3.4.2)
        return if !tables.is_local(key.version, key.destination) {
            Ok(None)
        } else if tables.is_outbound_spi(key.spi, key.protocol) {
            Err(DropReason::WrongDirection)
        } else {
            Err(DropReason::NoSa)
        };
    };
    serves(sa, item.kind)?;
    long_enough(sa, item)?;
    Ok(Some(sa))
}

/// The bytes from the ESP or AH header on.
fn protected<'i>(item: &Item<'i>) -> &'i [u8] {
    item.source
        .get(usize::from(item.header_offset)..usize::from(item.end))
        .unwrap_or(&[])
}

/// Whether the SA opens what came this way.
//= T158 (RFC 7296 section 2.23)
fn serves(sa: &Sa, kind: Kind) -> Result<(), DropReason> {
    let parameters = &sa.parameters;
    if parameters.direction != Direction::In {
        return Err(DropReason::WrongDirection);
    }
    if let Kind::EspInUdp(port) = kind
        && parameters
            .udp_encapsulation
            .is_none_or(|udp| udp.destination_port != port)
    {
        return Err(DropReason::WrongDirection);
    }
    Ok(())
}

/// Whether header, IV, trailer and ICV have room and the ciphertext is whole blocks.
//= T34
fn long_enough(sa: &Sa, item: &Item<'_>) -> Result<(), DropReason> {
    let protected = protected(item);
    if sa.parameters.protocol == Protocol::Ah {
        let least = ah::LENGTH + sa.parameters.suite.icv_length();
        return well_formed(item, least, protected);
    }
    let shape = sa.shape.behind(0);
    let around = shape.header + shape.icv;
    let text = protected
        .len()
        .checked_sub(around)
        .ok_or(DropReason::Malformed)?;
    if text < ESP_TRAILER || text & (shape.alignment - 1) != 0 {
        return Err(DropReason::Malformed);
    }
    Ok(())
}

/// Whether AH has `least` bytes, lies in the packet, and what it covers in front makes sense.
//= T39 T89 (RFC 4302 sections 2.2, 2.6)
fn well_formed(item: &Item<'_>, least: usize, protected: &[u8]) -> Result<(), DropReason> {
    let header = ah::Header::parse(protected).ok_or(DropReason::Malformed)?;
    let length = usize::from(header.length);
    if length < least || length > protected.len() {
        return Err(DropReason::Malformed);
    }
    let headers = item.source.get(..item.header_offset.into());
    headers
        .and_then(|headers| cover(headers, End::Receiver, &mut |_| {}))
        .ok_or(DropReason::Malformed)
}

/// Whether what came out of an SA is protected by another one that opens it; notes that SA.
///
/// # Errors
/// [`DropReason::Malformed`] when that SA's packets cannot look so.
pub(super) fn nested<'a>(item: &mut Item<'a>, tables: &'a Tables) -> Result<bool, DropReason> {
    if item.verdict != Verdict::Continue || item.kind == Kind::Clear {
        return Ok(false);
    }
    let Ok(Some((key, number))) = identify(item, tables) else {
        return Ok(false);
    };
    let Some(sa) = tables.sad.find(&key) else {
        return Ok(false);
    };
    if serves(sa, item.kind).is_err() {
        return Ok(false);
    }
    long_enough(sa, item)?;
    item.number = number;
    item.sa = Some(sa);
    Ok(true)
}

/// A clear packet's fate and the policy that decided it.
//= T51 T52 (RFC 4301 section 5.2 step 3b)
fn clear(
    ip: &[u8],
    packet: &Packet,
    context: &mut Context<'_, '_>,
) -> (Verdict, Option<PolicyIndex>) {
    let tables = context.tables;
    if let Some(index) = tables.builtin(ip, packet) {
        return (Verdict::Host, Some(index));
    }
    let ours = tables.is_local(packet.version, packet.destination);
    let bypassed = if ours {
        Verdict::Host
    } else {
        Verdict::Forward
    };
    let spd = &tables.inbound;
    let first = spd.position(packet);
    let decision = spd.decide(packet, first, Passage::Clear, context.memory, context.now);
    let verdict = match decision {
        Decision::Policy(policy) => match policy.action {
            Action::Bypass => bypassed,
            Action::Protect => Verdict::Drop(DropReason::PlaintextRequiredProtection),
            Action::Discard => Verdict::Drop(DropReason::PolicyDiscard),
        },
        Decision::Bypass(_) => bypassed,
        Decision::Discard(_) => Verdict::Drop(DropReason::PolicyDiscard),
        Decision::Fragment => Verdict::Drop(DropReason::Fragment),
        Decision::Nothing if ours => return (Verdict::Host, Some(tables.local_index())),
        Decision::Nothing => return (unmatched(packet, tables), Some(tables.unmatched_index())),
    };
    (verdict, decision.index())
}

//= T100 (RFC 4301 section 4.4.1)
fn unmatched(packet: &Packet, tables: &Tables) -> Verdict {
    if tables.unmatched == Unmatched::Kernel && !tables.inbound.touches(packet) {
        Verdict::Forward
    } else {
        Verdict::Drop(DropReason::NoPolicy)
    }
}
