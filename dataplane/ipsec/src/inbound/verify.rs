//! Is the opened packet what its SA may carry (RFC 4301 §5.2 steps 4 and 5, §6.2)?

use arrayvec::ArrayVec;

use crate::inbound::{Context, Item, Verdict};
use crate::ip::icmp_error::quoted_packet;
use crate::limits::BUNDLE_DEPTH;
use crate::packet::Packet;
use crate::policy::fragments::{Memory, Passage};
use crate::policy::selector::turned;
use crate::policy::{Action, Decision, Policy, PolicyIndex, Spd};
use crate::sa::SaSlot;
use crate::time::Time;
use crate::verdict::DropReason;

pub(super) fn run(batch: &mut [Item<'_>], context: &mut Context<'_, '_>) {
    let spd = &context.tables.inbound;
    for item in batch {
        if item.verdict != Verdict::Continue {
            continue;
        }
        let (Some(sa), Some(inner)) = (item.sa, item.inner) else {
            continue;
        };
        let bytes = item
            .destination
            .as_deref()
            .and_then(|plaintext| plaintext.get(..usize::from(inner.length)))
            .unwrap_or(&[]);
        let both = [Some(sa), item.outer_sa];
        let through: ArrayVec<SaSlot, BUNDLE_DEPTH> =
            both.into_iter().flatten().map(|sa| sa.slot).collect();
        match decide(spd, bytes, &inner, &through, context.memory, context.now) {
            Ok(index) => {
                item.policy = Some(index);
                item.verdict = Verdict::Opened;
                context.count_policy(item.policy, inner.length);
            }
            Err(reason) => item.verdict = Verdict::Drop(reason),
        }
    }
}

/// The policy that allows `inner`, which came through these SAs, innermost first.
//= T53 T123 (RFC 4301 sections 5.2, 6.2)
//= T137 T139 (RFC 3948 sections 3.1.1, 5.1, 5.2): policy names SAs, never outer sources
fn decide(
    spd: &Spd,
    bytes: &[u8],
    inner: &Packet,
    through: &[SaSlot],
    memory: &mut Memory,
    now: Time,
) -> Result<PolicyIndex, DropReason> {
    let reason = match spd.decide(inner, Passage::Opened, memory, now) {
        Decision::Policy(policy) if comes_by(policy, through) => return Ok(policy.index),
        Decision::Fragment => DropReason::Fragment,
        _ => DropReason::SelectorMismatch,
    };
    quoted_packet(bytes, inner)
        .and_then(|quoted| spd.first(&turned(&quoted)))
        .filter(|policy| comes_by(policy, through))
        .map(|policy| policy.index)
        .ok_or(reason)
}

/// True when the policy's packets come through exactly those SAs.
//= T50 T55 T111 (RFC 4301 sections 4.1, 4.3, 4.4.2)
fn comes_by(policy: &Policy, through: &[SaSlot]) -> bool {
    policy.action == Action::Protect && policy.bundles.iter().any(|bundle| bundle == through)
}
