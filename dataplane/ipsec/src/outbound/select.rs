//! What the SPD says, which SA protects, and whether that SA still can (RFC 4301 §5.1, RFC 4303
//! §3.3.3).

use std::sync::atomic::Ordering::Relaxed;

use crate::ip::icmp_error::quoted_packet;
use crate::outbound::{Context, Item, Verdict};
use crate::packet::Packet;
use crate::policy::fragments::Passage;
use crate::policy::selector::turned;
use crate::policy::{Action, Decision, Policy};
use crate::sa::Sa;
use crate::sa::association::{Mode, Protocol};
use crate::sa::state::Ownership;
use crate::tables::{Tables, Unmatched};
use crate::verdict::DropReason;

pub(super) fn run<'a>(batch: &mut [Item<'a>], context: &mut Context<'a, '_>) {
    for item in batch {
        let found = consult(item, context);
        item.verdict = found.unwrap_or_else(Verdict::Drop);
        // The other worker asks again, and counts; what is our own may never come into being.
        if !item.own && !matches!(item.verdict, Verdict::Elsewhere(_)) {
            context.count_policy(item.policy, item.packet.length);
        }
    }
}

/// A packet's fate as far as policy and its SA's limits go.
fn consult<'a>(item: &mut Item<'a>, context: &mut Context<'a, '_>) -> Result<Verdict, DropReason> {
    let tables = context.tables;
    let packet = &item.packet;
    if let Some(index) = tables.builtin(item.source, packet) {
        item.policy = Some(index);
        // From the machine it is the machine's bypass; from the wire it is for the machine.
        return Ok(if item.from_host {
            Verdict::Bypass
        } else {
            Verdict::Host
        });
    }
    if tables.is_local(packet.version, packet.destination) {
        item.policy = Some(tables.local_index());
        return Ok(Verdict::Host);
    }
    let decision = tables
        .outbound
        .decide(packet, Passage::Outbound, context.memory, context.now);
    item.policy = decision.index();
    let policy = match decision {
        Decision::Policy(policy) => policy,
        Decision::Bypass(_) => return Ok(Verdict::Bypass),
        //= exception T118: the interface names the only ICMP errors that we make, hop limit and
        //= size; a sender learns of a policy from its operator, and a scan learns nothing
        Decision::Discard(_) => return Err(DropReason::PolicyDiscard),
        Decision::Fragment => return Err(DropReason::Fragment),
        Decision::Nothing => match quoting(tables, item.source, packet) {
            Some(policy) => policy,
            None => {
                item.policy = Some(tables.unmatched_index());
                return unmatched(packet, tables);
            }
        },
    };
    item.policy = Some(policy.index);
    match policy.action {
        Action::Bypass => return Ok(Verdict::Bypass),
        Action::Discard => return Err(DropReason::PolicyDiscard),
        Action::Protect => {}
    }
    let sa = tables.outbound_sa(policy, context.worker)?;
    carries(sa)?;
    item.sa = Some(sa);
    if let Verdict::Elsewhere(worker) = ready(sa, context)? {
        return Ok(Verdict::Elsewhere(worker));
    }
    //= T58 T115 (RFC 4301 section 5.1.2.1)
    if !item.from_host && packet.hop_limit <= 1 {
        return Err(DropReason::HopLimit);
    }
    Ok(Verdict::Protect)
}

//= T13 (RFC 4303 section 2.6)
pub(super) fn run_dummies(batch: &mut [Item<'_>], context: &mut Context<'_, '_>) {
    for item in batch {
        let Some(sa) = item.sa else { continue };
        let found = carries(sa).and_then(|()| ready(sa, context));
        item.verdict = found.unwrap_or_else(Verdict::Drop);
    }
}

/// Whether the SA is at home here and may send one packet more.
fn ready(sa: &Sa, context: &mut Context<'_, '_>) -> Result<Verdict, DropReason> {
    match context.states.adopt(sa) {
        Ownership::Elsewhere(worker) => return Ok(Verdict::Elsewhere(worker)),
        Ownership::Gone => return Err(DropReason::SaExpired),
        Ownership::Mine => {}
    }
    let state = context.states.of(sa.slot).ok_or(DropReason::SaExpired)?;
    //= T04 T57 (RFC 4303 section 3.3.3)
    state.check_lifetime(&sa.parameters.lifetime, context.now)?;
    state.check_outbound(sa.published.reserved_end.load(Relaxed))?;
    Ok(Verdict::Protect)
}

/// The protect policy of the traffic that an ICMP error answers.
//= T122 (RFC 4301 section 6.2)
fn quoting<'a>(tables: &'a Tables, ip: &[u8], packet: &Packet) -> Option<&'a Policy> {
    let quoted = quoted_packet(ip, packet)?;
    tables
        .outbound
        .first(&turned(&quoted))
        .filter(|policy| policy.action == Action::Protect)
}

//= T51 T100 (RFC 4301 sections 4.4.1, 5)
fn unmatched(packet: &Packet, tables: &Tables) -> Result<Verdict, DropReason> {
    if tables.unmatched == Unmatched::Kernel && !tables.outbound.touches(packet) {
        Ok(Verdict::Bypass)
    } else {
        Err(DropReason::NoPolicy)
    }
}

/// Whether this build can put a packet into the SA.
const fn carries(sa: &Sa) -> Result<(), DropReason> {
    match (sa.parameters.protocol, sa.parameters.mode) {
        (Protocol::Esp, Mode::Tunnel) => Ok(()),
        _ => Err(DropReason::Unsupported),
    }
}
