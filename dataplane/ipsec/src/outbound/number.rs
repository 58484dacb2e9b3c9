//! Takes the sequence number, which is used up whatever becomes of the packet (RFC 4303 §3.3.3).

use std::sync::atomic::Ordering::Relaxed;

use crate::outbound::{Context, Item, Verdict};
use crate::sa::Sa;
use crate::sa::state::SaState;
use crate::time::Time;
use crate::verdict::DropReason;

pub(super) fn run(batch: &mut [Item<'_>], context: &mut Context<'_, '_>) {
    for item in &mut *batch {
        if item.verdict != Verdict::Protect {
            continue;
        }
        let Some(sa) = item.sa.filter(|_| has_room(item)) else {
            item.verdict = Verdict::Drop(DropReason::NoFrame);
            continue;
        };
        let Some(state) = context.states.of(sa.slot) else {
            item.verdict = Verdict::Drop(DropReason::SaExpired);
            continue;
        };
        match decide(sa, state, context.now) {
            Ok(sequence) => {
                item.sequence = sequence;
                item.identification = state.identification();
                state.count(item.packet.length.into());
            }
            Err(reason) => item.verdict = Verdict::Drop(reason),
        }
    }
    publish(batch, context);
}

/// The packet's number. Asked again although `select` looked, since packets of the same batch may
/// have used up what there was.
//= T03 T04 T57 (RFC 4303 section 3.3.3)
fn decide(sa: &Sa, state: &mut SaState, now: Time) -> Result<u64, DropReason> {
    state.check_lifetime(&sa.parameters.lifetime, now)?;
    state.take(sa.published.reserved_end.load(Relaxed))
}

/// A number must not be spent on a packet that cannot be written.
#[inline]
fn has_room(item: &Item<'_>) -> bool {
    let room = item.destination.as_deref().map_or(0, <[u8]>::len);
    item.sealed != 0 && usize::from(item.sealed) <= room
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
