//! Is the opened packet what its SA may carry (RFC 4301 §5.2 steps 4 and 5, §6.2)?

use arrayvec::ArrayVec;

use crate::inbound::{Context, Item, Verdict};
use crate::ip::icmp_error::quoted_packet;
use crate::limits::{BATCH, BUNDLE_DEPTH};
use crate::packet::{Fragment, Packet, Version};
use crate::policy::fragments::{Memory, Passage};
use crate::policy::selector::turned;
use crate::policy::{Action, Decision, Found, Policy, PolicyIndex, Spd};
use crate::sa::SaSlot;
use crate::tables::Count;
use crate::time::Time;
use crate::verdict::DropReason;
use crate::wire::ipv4;

pub(super) fn run(batch: &mut [Item<'_>], context: &mut Context<'_, '_>) {
    for batch in batch.chunks_mut(BATCH) {
        let found = find(batch, context);
        run_found(batch, &found, context);
    }
}

/// The inbound policy of each packet that was opened, and memory asked for what it says.
fn find(batch: &[Item<'_>], context: &Context<'_, '_>) -> Found {
    let spd = &context.tables.inbound;
    let mut inner: ArrayVec<&Packet, BATCH> = ArrayVec::new();
    for item in batch {
        inner.push(&item.inner);
    }
    let found = spd.find(&inner);
    if context.tables.is_large() {
        spd.prefetch(&found.first);
        for position in found.first.iter().flatten() {
            let policy = spd.policies().get(*position as usize);
            Count::prefetch(context.policies, policy.map(|policy| policy.index));
        }
    }
    found
}

fn run_found(batch: &mut [Item<'_>], found: &Found, context: &mut Context<'_, '_>) {
    let spd = &context.tables.inbound;
    let mut before: Option<Allowed> = None;
    for (place, (item, &first)) in batch.iter_mut().zip(&found.first).enumerate() {
        before = before.filter(|_| found.follows(place));
        let Some(sa) = item.sa else { continue };
        let inner = &item.inner;
        if item.verdict != Verdict::Continue || inner.is_nothing() {
            continue;
        }
        let is_plain = inner.fragment == Fragment::Whole && item.outer_sa.is_none();
        if let Some(allowed) = before.filter(|it| is_plain && it.sa == sa.slot) {
            item.policy = Some(allowed.policy);
            item.verdict = Verdict::Opened;
            context.count_policy(item.policy, inner.length);
            continue;
        }
        let bytes = item
            .destination
            .as_deref()
            .and_then(|plaintext| plaintext.get(..usize::from(inner.length)))
            .unwrap_or(&[]);
        let both: [SaSlot; BUNDLE_DEPTH];
        let through = match item.outer_sa {
            None => std::slice::from_ref(&sa.slot),
            Some(outer) => {
                both = [sa.slot, outer.slot];
                &both[..]
            }
        };
        let asked = (bytes, inner, first);
        match decide(spd, asked, through, context.memory, context.now) {
            Ok((index, by_selectors)) => {
                item.policy = Some(index);
                item.verdict = Verdict::Opened;
                context.count_policy(item.policy, inner.length);
                before = (is_plain && by_selectors).then_some(Allowed {
                    sa: sa.slot,
                    policy: index,
                });
            }
            Err(reason) => item.verdict = Verdict::Drop(reason),
        }
    }
}

/// A whole packet of a flow was allowed by its selectors: so are those behind it that came by the
/// same SA.
#[derive(Clone, Copy)]
struct Allowed {
    sa: SaSlot,
    policy: PolicyIndex,
}

/// The policy that allows `inner`, which came through these SAs, innermost first, and whether its
/// selectors do, not what it quotes. `first` is the first policy that takes it.
//= T53 T123 (RFC 4301 sections 5.2, 6.2)
//= T137 T139 (RFC 3948 sections 3.1.1, 5.1, 5.2): policy names SAs, never outer sources
fn decide(
    spd: &Spd,
    (bytes, inner, first): (&[u8], &Packet, Option<u32>),
    through: &[SaSlot],
    memory: &mut Memory,
    now: Time,
) -> Result<(PolicyIndex, bool), DropReason> {
    let reason = match spd.decide(inner, first, Passage::Opened, memory, now) {
        Decision::Policy(policy) if comes_by(policy, through) => {
            if policy.upper.opaque && may_hold_ports(bytes, inner) {
                return Err(DropReason::Fragment);
            }
            return Ok((policy.index, true));
        }
        Decision::Fragment => DropReason::Fragment,
        _ => DropReason::SelectorMismatch,
    };
    quoted_packet(bytes, inner)
        .and_then(|quoted| spd.first(&turned(&quoted)))
        .filter(|policy| comes_by(policy, through))
        .map(|policy| (policy.index, false))
        .ok_or(reason)
}

/// The least offset, bytes, of a later IPv4 fragment that a policy for hidden ports takes: an IPv4
/// header has 60 bytes at most and every link carries 68, so no ports lie as far behind (RFC 4301
/// appendix D.3 names this number).
const LATER_FRAGMENT_MINIMUM: u16 = 128;

/// True for a later IPv4 fragment that could overwrite the ports of a first one. Those of IPv6 tell
/// too little for such a check.
//= T124 (RFC 4301 section 7.2)
fn may_hold_ports(bytes: &[u8], inner: &Packet) -> bool {
    inner.version == Version::V4
        && inner.fragment == Fragment::Later
        && ipv4::Header::parse(bytes).is_none_or(|header| {
            (header.flags_and_offset() & ipv4::OFFSET) * 8 < LATER_FRAGMENT_MINIMUM
        })
}

/// True when the policy's packets come through exactly those SAs.
//= T50 T55 T111 (RFC 4301 sections 4.1, 4.3, 4.4.2)
fn comes_by(policy: &Policy, through: &[SaSlot]) -> bool {
    policy.action == Action::Protect && policy.bundles.iter().any(|bundle| **bundle == *through)
}
