//! The SA of what is protected, and the SPD's word on what is clear (RFC 4301 §5.2 steps 3a, 3b).

use crate::inbound::{Context, Item, Kind, Verdict};
use crate::packet::Packet;
use crate::policy::fragments::Passage;
use crate::policy::{Action, Decision, PolicyIndex};
use crate::sa::Sa;
use crate::sa::association::{Direction, Mode, Protocol};
use crate::tables::{Tables, Unmatched};
use crate::verdict::DropReason;
use crate::wire::esp;

/// Offset of the SPI in AH; its sequence number follows (RFC 4302 §2).
const AH_SPI: usize = 4;

/// Pad length and next header.
const ESP_TRAILER: usize = 2;

pub(super) fn run<'a>(batch: &mut [Item<'a>], context: &mut Context<'a, '_>) {
    for item in batch {
        if item.verdict != Verdict::Continue {
            continue;
        }
        if item.kind != Kind::Clear {
            match find(item, context.tables) {
                Ok(Some((sa, number))) => {
                    item.sa = Some(sa);
                    item.number = number;
                    continue;
                }
                Ok(None) => {}
                Err(reason) => {
                    item.verdict = Verdict::Drop(reason);
                    continue;
                }
            }
        }
        let (verdict, policy) = clear(item.source, &item.packet, context);
        item.verdict = verdict;
        item.policy = policy;
        context.count_policy(policy, item.packet.length);
    }
}

/// The SA that serves the packet and the number on the wire; `None` for clear transit.
fn find<'a>(item: &Item<'_>, tables: &'a Tables) -> Result<Option<(&'a Sa, u32)>, DropReason> {
    let protected = item
        .source
        .get(usize::from(item.header_offset)..usize::from(item.end))
        .unwrap_or(&[]);
    let (protocol, skip) = match item.kind {
        Kind::Ah => (Protocol::Ah, AH_SPI),
        _ => (Protocol::Esp, 0),
    };
    let Some(header) = protected.get(skip..).and_then(esp::Header::parse) else {
        return if tables.ends_here(&item.packet) {
            Err(DropReason::Malformed)
        } else {
            Ok(None)
        };
    };
    let packet = &item.packet;
    let found = tables
        .sad
        .lookup(header.spi, protocol, packet.version, packet.destination);
    let Some(sa) = found else {
        //= T23 (RFC 4303 section 3.4.2)
        return if !tables.is_local(packet.version, packet.destination) {
            Ok(None)
        } else if tables.is_outbound_spi(header.spi, protocol) {
            Err(DropReason::WrongDirection)
        } else {
            Err(DropReason::NoSa)
        };
    };
    serves(sa, item.kind)?;
    long_enough(sa, protected.len())?;
    Ok(Some((sa, header.sequence)))
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
    if parameters.protocol == Protocol::Ah || parameters.mode == Mode::Transport {
        return Err(DropReason::Unsupported);
    }
    Ok(())
}

/// Whether header, IV, trailer and ICV have room and the ciphertext is whole blocks.
//= T34
fn long_enough(sa: &Sa, length: usize) -> Result<(), DropReason> {
    let suite = &sa.parameters.suite;
    let around = esp::LENGTH + suite.iv_length() + suite.icv_length();
    let text = length.checked_sub(around).ok_or(DropReason::Malformed)?;
    if text < ESP_TRAILER || text % suite.alignment() != 0 {
        return Err(DropReason::Malformed);
    }
    Ok(())
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
    let decision = tables
        .inbound
        .decide(packet, Passage::Clear, context.memory, context.now);
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
