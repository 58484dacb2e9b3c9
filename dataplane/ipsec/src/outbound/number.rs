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
        let Some(sa) = item.sa.filter(|sa| has_room(item, sa)) else {
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
        let reserved_end = sa.published.reserved_end.load(Relaxed);
        if !context.wanted.is_full() && state.wants_reservation(reserved_end) {
            context.wanted.push(sa.slot);
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
fn has_room(item: &Item<'_>, sa: &Sa) -> bool {
    let shape = item.shape(sa);
    let inner = usize::from(item.packet.length);
    let total = shape.sealed(inner + shape.tfc(inner, sa.parameters.tfc_pad_to, item.mtu));
    let room = item.destination.as_deref().map_or(0, <[u8]>::len);
    total <= room.min(usize::from(u16::MAX))
}

/// Shows the counters of the SAs that the batch used; runs of one SA are shown once.
fn publish(batch: &[Item<'_>], context: &mut Context<'_, '_>) {
    let mut shown = None;
    for sa in batch.iter().filter_map(|item| item.sa) {
        if shown == Some(sa.slot) {
            continue;
        }
        shown = Some(sa.slot);
        if let Some(state) = context.states.of(sa.slot) {
            state.publish(&sa.published);
        }
    }
}
