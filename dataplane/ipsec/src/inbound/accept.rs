//! After authentication, in order of arrival: the window moves and the SA counts (RFC 4303
//! §3.4.3).

use std::sync::atomic::Ordering::Relaxed;

use crate::inbound::{Context, Item, Kind, Verdict};
use crate::ip::icmp_error::names_one_node;
use crate::packet::{Upper, protocol};
use crate::sa::Sa;
use crate::sa::association::{Mode, Protocol};
use crate::sa::peer::Place;
use crate::sa::replay::Advance;
use crate::sa::shape::ESP_TRAILER;
use crate::sa::state::SaState;
use crate::tables::Tables;
use crate::time::Time;
use crate::verdict::DropReason;
use crate::wire::ipv6;

pub(super) fn run(batch: &mut [Item<'_>], context: &mut Context<'_, '_>) {
    for item in &mut *batch {
        let (Verdict::Continue, Some(sa)) = (item.verdict, item.sa) else {
            continue;
        };
        let Some(state) = context.states.of(sa.slot) else {
            item.verdict = Verdict::Drop(DropReason::SaExpired);
            continue;
        };
        let reserved_end = sa.published.reserved_end.load(Relaxed);
        let end = state.acceptable_end(reserved_end, context.now);
        match decide(sa, state, item.sequence, end, context.now) {
            Ok(advance) => {
                state.count(carried(item, sa));
                if advance == Advance::Right {
                    follow(item, sa, context.tables, context.now);
                }
            }
            Err(DropReason::NoReservation) => {
                state.hold_up(end, context.now);
                item.verdict = Verdict::Held(end);
            }
            Err(reason) => item.verdict = Verdict::Drop(reason),
        }
    }
    publish(batch, context);
}

/// Whether an authentic packet is still allowed, and the mark that its number was seen.
//= T28 T29 T57 T82 (RFC 4303 section 3.4.3)
fn decide(
    sa: &Sa,
    state: &mut SaState,
    sequence: u64,
    reserved_end: u64,
    now: Time,
) -> Result<Advance, DropReason> {
    state.check_lifetime(&sa.parameters.lifetime, now)?;
    state.accept(sequence, reserved_end)
}

/// The newest packet so far tells where its sender is now, if it came in UDP.
//= T160 (RFC 7296 section 2.23)
fn follow(item: &Item<'_>, sa: &Sa, tables: &Tables, now: Time) {
    let packet = &item.packet;
    let (Some(peer), Kind::EspInUdp(_), Upper::Ports { source: port, .. }) =
        (&sa.peer, item.kind, packet.upper)
    else {
        return;
    };
    let (version, address) = (packet.version, packet.source);
    let seen = Place { address, port };
    // No NAT writes a source that nobody can have; who did wants our packets to go astray.
    let is_possible =
        || port != 0 && names_one_node(version, address) && !tables.is_local(version, address);
    if seen != peer.place() && is_possible() {
        peer.follow(seen, now);
    }
}

/// Length of the plaintext packet: in tunnel mode as its own header states it, 0 for what is none.
fn carried(item: &Item<'_>, sa: &Sa) -> u64 {
    let front = usize::from(item.front);
    let text = item.destination.as_deref().and_then(|it| it.get(front..));
    let text = text.and_then(|text| text.get(..item.plaintext.into()));
    let text = text.unwrap_or(&[]);
    let (next_header, content) = match (sa.parameters.protocol, text) {
        (Protocol::Ah, _) => (item.next_header, text.len()),
        (Protocol::Esp, [.., padding, next_header]) => {
            let around = ESP_TRAILER + usize::from(*padding);
            (*next_header, text.len().saturating_sub(around))
        }
        (Protocol::Esp, _) => (protocol::NONE, 0),
    };
    match (sa.parameters.mode, sa.parameters.protocol, next_header) {
        (Mode::Tunnel, ..) => stated(next_header, text),
        (Mode::Transport, Protocol::Esp, protocol::NONE) => 0,
        (Mode::Transport, ..) => (front + content) as u64,
    }
}

/// Length of the IP packet at the start of `text`, as its header states it; 0 for what is none.
fn stated(next_header: u8, text: &[u8]) -> u64 {
    let stated = match (next_header, text) {
        (protocol::IPV4, [_, _, high, low, ..]) => usize::from(u16::from_be_bytes([*high, *low])),
        (protocol::IPV6, [_, _, _, _, high, low, ..]) => {
            ipv6::LENGTH + usize::from(u16::from_be_bytes([*high, *low]))
        }
        _ => 0,
    };
    stated.min(text.len()) as u64
}

/// Shows the counters of the SAs that the batch used and notes which want more numbers reserved;
/// runs of one SA are looked at once.
fn publish(batch: &[Item<'_>], context: &mut Context<'_, '_>) {
    let mut shown = None;
    for sa in batch.iter().filter_map(|item| item.sa) {
        if shown == Some(sa.slot) {
            continue;
        }
        shown = Some(sa.slot);
        if let Some(state) = context.states.of(sa.slot) {
            state.publish(&sa.published);
            let reserved_end = sa.published.reserved_end.load(Relaxed);
            if !context.wanted.is_full() && state.wants_reservation(reserved_end) {
                context.wanted.push(sa.slot);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_what_the_inner_header_states() {
        let mut text = [0; 64];
        text[3] = 50;
        assert_eq!(stated(4, &text), 50);
        text[2] = 1;
        assert_eq!(stated(4, &text), 64);
        assert_eq!(stated(59, &text), 0);
        assert_eq!(stated(41, &text), 40);
        assert_eq!(stated(4, &[]), 0);
        assert_eq!(stated(4, &[4]), 0);
    }
}
