//! Everything that needs the SA's state but no key: whose it is, lifetime, replay (RFC 4303
//! §3.4.3).

use crate::inbound::{Context, Item, Verdict};
use crate::sa::Sa;
use crate::sa::state::{Ownership, SaState, prefetch};
use crate::time::Time;
use crate::verdict::DropReason;

pub(super) fn run(batch: &mut [Item<'_>], context: &mut Context<'_, '_>) {
    if context.tables.is_large() {
        let sas = batch.iter().filter_map(|item| item.sa);
        prefetch(sas, context.states);
    }
    let mut last = None;
    for item in batch {
        let (Verdict::Continue, Some(sa)) = (item.verdict, item.sa) else {
            continue;
        };
        let ownership = match last {
            Some((slot, ownership)) if slot == sa.slot => ownership,
            _ => context.states.adopt(sa),
        };
        last = Some((sa.slot, ownership));
        item.verdict = match ownership {
            Ownership::Elsewhere(worker) => Verdict::Elsewhere(worker),
            Ownership::Gone => Verdict::Drop(DropReason::SaExpired),
            Ownership::Mine => match context.states.of(sa.slot) {
                None => Verdict::Drop(DropReason::SaExpired),
                Some(state) => match decide(sa, state, item.number, context.now) {
                    Ok(sequence) => {
                        item.sequence = sequence;
                        Verdict::Continue
                    }
                    Err(reason) => Verdict::Drop(reason),
                },
            },
        };
    }
}

/// The 64-bit number of a packet that may be new.
//= T26 T27 T30 (RFC 4303 section 3.4.3, appendix A2)
fn decide(sa: &Sa, state: &SaState, number: u32, now: Time) -> Result<u64, DropReason> {
    state.check_lifetime(&sa.parameters.lifetime, now)?;
    state.check_inbound(number)
}
