//! What the SPD says, which SA protects, and whether that SA still can (RFC 4301 §5.1, RFC 4303
//! §3.3.3).

use std::sync::atomic::Ordering::Relaxed;

use arrayvec::ArrayVec;

use crate::ip::icmp_error::quoted_packet;
use crate::ip::mutable::{End, cover};
use crate::ip::transport::front;
use crate::limits::{BATCH, PACKET};
use crate::outbound::{Context, Item, Verdict};
use crate::packet::{Fragment, Packet, Version, address_bits, builtin_looks_inside};
use crate::policy::fragments::Passage;
use crate::policy::selector::turned;
use crate::policy::{Action, Decision, Found, Policy, PolicyIndex};
use crate::sa::association::{Mode, Protocol};
use crate::sa::state::{Ahead, Ownership, prefetch};
use crate::sa::{Sa, SaSlot};
use crate::tables::{Count, Sas, Tables, Unmatched};
use crate::verdict::DropReason;

pub(super) fn run<'a>(batch: &mut [Item<'a>], context: &mut Context<'a, '_>) {
    let mut found = Found::NOTHING;
    let mut path: Option<Path<'_>> = None;
    for place in 0..batch.len() {
        if place % BATCH == 0 {
            found = find(&batch[place..], context);
            path = None;
        }
        let (before, rest) = batch.split_at_mut(place);
        let Some(item) = rest.first_mut() else { break };
        path = path.filter(|_| found.follows(place) && item.packet.fragment == Fragment::Whole);
        let answer = match &path {
            Some(path) => path.take(item),
            None => {
                let first = found.first[place % BATCH];
                consult(item, first, before, &mut path, context)
            }
        };
        item.verdict = answer.unwrap_or_else(Verdict::Drop);
        // The other worker asks again, and counts; what is our own may never come into being.
        if !item.own && !matches!(item.verdict, Verdict::Elsewhere(_)) {
            context.count_policy(item.policy, item.packet.length);
        }
    }
}

/// The way of a packet that those of its flow behind it in the batch go, too: nothing that was
/// asked of tables and states changes before they take their numbers.
struct Path<'a> {
    policy: PolicyIndex,
    whole_only: bool,
    sa: &'a Sa,
}

impl<'a> Path<'a> {
    /// `None` where more than the flow decided, or may decide about the next packet: fragments, a
    /// built-in policy that looks into the packet, a choice among SAs, headers in front.
    fn of(item: &Item<'a>, policy: &Policy) -> Option<Self> {
        let (Some(sa), None) = (item.sa, item.inner_sa) else {
            return None;
        };
        let is_plain = item.packet.fragment == Fragment::Whole
            && sa.parameters.mode == Mode::Tunnel
            && policy.bundles.len() == 1
            && !builtin_looks_inside(&item.packet);
        is_plain.then_some(Self {
            policy: policy.index,
            whole_only: item.whole_only,
            sa,
        })
    }

    #[inline]
    fn take(&self, item: &mut Item<'a>) -> Result<Verdict, DropReason> {
        item.policy = Some(self.policy);
        item.whole_only = self.whole_only;
        item.sa = Some(self.sa);
        last_hop(item)
    }
}

/// The first policy of each packet of a batch; memory is asked for what will be read of it.
fn find(batch: &[Item<'_>], context: &Context<'_, '_>) -> Found {
    let tables = context.tables;
    let mut packets: ArrayVec<&Packet, BATCH> = ArrayVec::new();
    for item in batch.iter().take(BATCH) {
        packets.push(&item.packet);
    }
    let found = tables.outbound.find(&packets);
    if tables.is_large() {
        prefetch_found(&found.first, context);
    }
    found
}

/// Each round asks for what the one before has found.
fn prefetch_found(found: &[Option<u32>], context: &Context<'_, '_>) {
    let tables = context.tables;
    tables.outbound.prefetch(found);
    let mut slots: ArrayVec<SaSlot, BATCH> = ArrayVec::new();
    for position in found.iter().flatten() {
        let Some(policy) = tables.outbound.policies().get(*position as usize) else {
            continue;
        };
        Count::prefetch(context.policies, Some(policy.index));
        let first = policy.choices(context.worker).next();
        if let Some(slot) = first.and_then(|bundle| bundle.last()) {
            slots.push(*slot);
            tables.sad.prefetch(*slot);
        }
    }
    let sas = slots.iter().filter_map(|slot| tables.sad.by_slot(*slot));
    prefetch(sas.map(|sa| &**sa), context.states);
}

/// A packet's fate as far as policy, the `first` that takes it, and its SA's limits go; `before`
/// are the packets of the batch that were asked about earlier. Notes the `path` of its flow.
fn consult<'a>(
    item: &mut Item<'a>,
    first: Option<u32>,
    before: &[Item<'a>],
    path: &mut Option<Path<'a>>,
    context: &mut Context<'a, '_>,
) -> Result<Verdict, DropReason> {
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
    //= T119 (RFC 4301 section 6): ICMP that is no error has no way of its own
    let spd = &tables.outbound;
    let decision = spd.decide(
        packet,
        first,
        Passage::Outbound,
        context.memory,
        context.now,
    );
    item.policy = decision.index();
    let policy = match decision {
        Decision::Policy(policy) => policy,
        Decision::Bypass(_) => return Ok(Verdict::Bypass),
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
    //= T125 (RFC 4301 section 7.3)
    item.whole_only = policy.upper.sees && !policy.upper.opaque;
    if let Verdict::Elsewhere(worker) = choose(item, before, policy, context)? {
        return Ok(Verdict::Elsewhere(worker));
    }
    *path = Path::of(item, policy);
    last_hop(item)
}

//= T58 T115 (RFC 4301 section 5.1.2.1)
#[inline]
const fn last_hop(item: &Item<'_>) -> Result<Verdict, DropReason> {
    if !item.from_host && item.packet.hop_limit <= 1 {
        return Err(DropReason::HopLimit);
    }
    Ok(Verdict::Protect)
}

//= T13 (RFC 4303 section 2.6)
pub(super) fn run_dummies(batch: &mut [Item<'_>], context: &mut Context<'_, '_>) {
    for item in batch {
        let Some(sa) = item.sa else { continue };
        let parameters = &sa.parameters;
        let found = if parameters.protocol == Protocol::Esp && parameters.mode == Mode::Tunnel {
            let sas = Sas {
                inner: None,
                outer: sa,
            };
            ready(sas, context)
        } else {
            Err(DropReason::Unsupported)
        };
        item.verdict = found.unwrap_or_else(Verdict::Drop);
    }
}

/// Enters the packet into the first of the policy's SAs that can still carry one, and says whether
/// they are at home here. Where none can, the answer is the first choice's.
//= T55 T70 (RFC 4301 section 4.1, RFC 9611)
fn choose<'a>(
    item: &mut Item<'a>,
    before: &[Item<'a>],
    policy: &'a Policy,
    context: &mut Context<'a, '_>,
) -> Result<Verdict, DropReason> {
    let (tables, worker) = (context.tables, context.worker);
    if policy.bundles.len() == 1 {
        let sas = tables.first_sas(policy, worker)?;
        enter(item, sas)?;
        return ready(sas, context);
    }
    let mut refused = None;
    for bundle in policy.choices(worker) {
        let sas = tables.sas(bundle)?;
        let carrying = match still_carry(sas, before, context) {
            Ok(()) => enter(item, sas).and_then(|()| ready(sas, context)),
            Err(reason) => Err(reason),
        };
        match carrying {
            Err(reason @ (DropReason::SaExpired | DropReason::SequenceExhausted)) => {
                refused.get_or_insert(reason);
            }
            other => return other,
        }
    }
    Err(refused.unwrap_or(DropReason::SaExpired))
}

/// Whether the SAs can carry one packet more behind those `before`. What is at home on another
/// worker is judged by what that one published, so that no packet goes there in vain.
fn still_carry(
    sas: Sas<'_>,
    before: &[Item<'_>],
    context: &mut Context<'_, '_>,
) -> Result<(), DropReason> {
    /// More than a batch can be.
    const AHEAD: Ahead = Ahead {
        packets: BATCH as u64,
        bytes: (BATCH * PACKET) as u64,
    };
    for sa in sas.iter() {
        let parameters = &sa.parameters;
        let Some(state) = context.states.of(sa.slot) else {
            sa.published
                .check(&parameters.lifetime, parameters.esn, context.now)?;
            continue;
        };
        let can = |ahead| state.check_ahead(&parameters.lifetime, ahead, context.now);
        if can(AHEAD).is_ok() {
            continue;
        }
        let same = before.iter().filter(|item| {
            let through = [item.inner_sa, item.sa];
            item.verdict == Verdict::Protect
                && through.iter().flatten().any(|it| it.slot == sa.slot)
        });
        let ahead = same.fold(Ahead::default(), |sum, item| Ahead {
            packets: sum.packets + 1,
            bytes: sum.bytes + u64::from(item.packet.length),
        });
        can(ahead)?;
    }
    Ok(())
}

/// Whether the SAs are at home here and may send one packet more.
fn ready(sas: Sas<'_>, context: &mut Context<'_, '_>) -> Result<Verdict, DropReason> {
    for sa in sas.iter() {
        match context.states.adopt(sa) {
            Ownership::Elsewhere(worker) => return Ok(Verdict::Elsewhere(worker)),
            Ownership::Gone => return Err(DropReason::SaExpired),
            Ownership::Mine => {}
        }
    }
    for sa in sas.iter() {
        let state = context.states.of(sa.slot).ok_or(DropReason::SaExpired)?;
        //= T04 T57 (RFC 4303 section 3.3.3)
        state.check_lifetime(&sa.parameters.lifetime, context.now)?;
        state.check_outbound(sa.published.reserved_end.load(Relaxed))?;
    }
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

/// Notes the SAs that the packet goes through and what the first leaves in front, if the first can
/// carry the packet and a second what the first makes of it.
//= T95 (RFC 4301 sections 3.3, 4.1)
fn enter<'a>(item: &mut Item<'a>, sas: Sas<'a>) -> Result<(), DropReason> {
    let first = sas.inner.unwrap_or(sas.outer);
    let packet = &item.packet;
    if first.parameters.mode == Mode::Transport {
        let ends = (packet.source, packet.destination);
        if ends != addresses(first) || packet.version != version(first) {
            return Err(DropReason::Unsupported);
        }
        //= T14 (RFC 4303 section 3.3.4)
        if packet.fragment != Fragment::Whole {
            return Err(DropReason::Fragment);
        }
        let front = front(item.source, packet).ok_or(DropReason::Malformed)?;
        item.front = front.length;
        item.next_header = front.protocol;
    }
    if let Some(inner) = sas.inner
        && sas.outer.parameters.mode == Mode::Transport
        && addresses(inner) != addresses(sas.outer)
    {
        return Err(DropReason::Unsupported);
    }
    let covers_headers =
        |sa: &Sa| sa.parameters.protocol == Protocol::Ah && sa.parameters.mode == Mode::Transport;
    if item.front > 0 && (covers_headers(first) || covers_headers(sas.outer)) {
        let headers = item.source.get(..item.front.into());
        headers
            .and_then(|headers| cover(headers, End::Sender, &mut |_| {}))
            .ok_or(DropReason::Malformed)?;
    }
    item.inner_sa = sas.inner;
    item.sa = Some(sas.outer);
    Ok(())
}

fn addresses(sa: &Sa) -> (u128, u128) {
    (address_bits(sa.parameters.source), sa.peer_place().address)
}

const fn version(sa: &Sa) -> Version {
    if sa.parameters.destination.is_ipv4() {
        Version::V4
    } else {
        Version::V6
    }
}
