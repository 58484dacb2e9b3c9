//! Plaintext to protected wire (RFC 4303 §3.3, RFC 4301 §5.1).
//!
//! Three doors. [`select`] asks policy and the SA's lifetime, counter and hop limit; then the
//! caller routes what will be sent and fills in `mtu`; [`fit`] judges the size; then the caller
//! provides a buffer of the egress port, and [`protect`] numbers, encapsulates and seals.
//!
//! A packet is refused in this order: policy, lifetime and sequence, hop limit, size. Pieces of a
//! packet that `fit` wanted cut go through [`Item::piece`] and back to `fit`; policy has counted
//! them once, as the whole.

// Arithmetic first, then the stages in their order; none imports another.
mod select;

mod fit;

mod number;

mod encapsulate;

mod seal;

// Beside the stages.
mod keepalive;

use std::sync::atomic::Ordering::Relaxed;

use arrayvec::ArrayVec;

use crate::crypto::iv::RandomIvs;
use crate::ip::transport;
use crate::limits::{BATCH, OVERHEAD, PACKET};
use crate::packet::{self, Packet, Version, protocol};
use crate::policy::{Memory, PolicyIndex};
use crate::sa::association::Mode;
use crate::sa::shape::Shape;
use crate::sa::state::States;
use crate::sa::{Sa, SaSlot};
use crate::tables::{Count, Tables};
use crate::time::Time;
use crate::verdict::DropReason;

pub use fit::largest_inner;
pub use seal::{Sealing, Task};

/// What is known of a packet's fate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Protected by `sa`: after `select` wants its `mtu`, after `fit` its destination buffer.
    Protect,
    /// In clear by policy: forwarded as received (hop limit and size are the caller's).
    Bypass,
    /// Dropped, counted once.
    Drop(DropReason),
    /// To the machine itself, as received.
    Host,
    /// The SA's state lives on that worker: hand the packet over, nothing was changed or counted.
    Elsewhere(u16),
    /// Too long and not to be fragmented: counts as `too_big`; an ICMP error tells this MTU.
    TooBig(u16),
    /// Too long, IPv4 without DF: cut into fragments of at most this many bytes and offer each
    /// again.
    Fragment(u16),
    /// `destination[..length]` holds the packet to send, from its outer IP header on.
    Sealed(u16),
}

/// One packet of a burst from a protected port or from the machine itself.
pub struct Item<'a> {
    /// The IP packet as received, cut to its length. `protect` lowers its hop limit.
    pub source: &'a mut [u8],
    /// Its descriptor.
    pub packet: Packet,
    /// The machine's own packet: its hop limit is left alone (T115).
    pub from_host: bool,
    /// An ICMP error of our own: the caller counts its policy, and only if it leaves.
    pub own: bool,
    /// The first SA of a bundle, once chosen: it protects the packet, and `sa` the result.
    pub inner_sa: Option<&'a Sa>,
    /// The SA, once chosen; of a bundle the last, whose header goes in front.
    pub sa: Option<&'a Sa>,
    /// MTU of the way that the sealed packet takes, bytes. Given by the caller before `fit`.
    pub mtu: u16,
    /// Set by `select`: the policy looks at ports, so the SA must carry no later fragment.
    whole_only: bool,
    /// Set by `fit`: the sealed packet is longer than `mtu` and the caller cuts it (RFC 2473
    /// §7.1). Its DF bit is clear then.
    pub fragment_outer: bool,
    /// Set by `fit`: length of the sealed packet, bytes. 0: it was not asked, or the packet is
    /// longer than IP can say.
    sealed: u16,
    /// Set by `fit`: of which bytes that hide the packet's length (RFC 4303 §2.7).
    hiding: u16,
    /// Where the sealed packet goes, from the outer IP header on. At least
    /// [`Self::sealed_length`] bytes. Given by the caller before `protect`.
    pub destination: Option<&'a mut [u8]>,
    /// The policy that decided, for its counters.
    pub policy: Option<PolicyIndex>,
    /// The fate so far.
    pub verdict: Verdict,
    /// The sequence number, once taken.
    sequence: u64,
    /// Of the outer IPv4 header.
    identification: u16,
    /// Transport mode: bytes of headers that stay in front, else 0.
    front: u16,
    /// The protocol of what is protected.
    next_header: u8,
}

impl<'a> Item<'a> {
    /// A packet that has just been parsed; `source` is cut to its length.
    #[inline(always)]
    #[must_use]
    pub const fn new(source: &'a mut [u8], packet: Packet, from_host: bool) -> Self {
        Self {
            source,
            packet,
            from_host,
            own: false,
            inner_sa: None,
            sa: None,
            mtu: 0,
            whole_only: false,
            fragment_outer: false,
            sealed: 0,
            hiding: 0,
            destination: None,
            policy: None,
            verdict: Verdict::Protect,
            sequence: 0,
            identification: 0,
            front: 0,
            next_header: match packet.version {
                Version::V4 => protocol::IPV4,
                Version::V6 => protocol::IPV6,
            },
        }
    }

    /// A packet that carries nothing, made by us for `sa` (RFC 4303 §2.6): begins with
    /// [`select_dummies`].
    #[must_use]
    pub const fn dummy(sa: &'a Sa) -> Self {
        let version = if sa.parameters.destination.is_ipv4() {
            Version::V4
        } else {
            Version::V6
        };
        let mut item = Self::new(&mut [], Packet::nothing(version), true);
        item.sa = Some(sa);
        //= T13 T75 (RFC 4303 section 2.6)
        item.next_header = protocol::NONE;
        item
    }

    /// Length of the sealed packet, bytes, once `fit` has passed it.
    #[inline]
    #[must_use]
    pub const fn sealed_length(&self) -> u16 {
        self.sealed
    }

    /// Finds how long the sealed packet is; of a bundle the one behind both SAs.
    #[inline]
    fn measure(&mut self) {
        let Some(sa) = self.sa else { return };
        let length = usize::from(self.packet.length);
        let sealed = match self.inner_sa {
            None => {
                let shape = self.shape(sa);
                let hiding = shape.tfc(length, sa.parameters.tfc_pad_to, self.mtu);
                self.hiding = u16::try_from(hiding).unwrap_or(0);
                shape.sealed(length + hiding)
            }
            Some(inner) => {
                let first = self.shape(inner);
                let second = sa.shape.behind(first.front + first.ip);
                let room = second.largest_inner(self.mtu);
                let length = length + first.tfc(length, inner.parameters.tfc_pad_to, room);
                let length = first.sealed(length);
                second.sealed(length + second.tfc(length, sa.parameters.tfc_pad_to, self.mtu))
            }
        };
        self.sealed = u16::try_from(sealed).unwrap_or(0);
    }

    /// What `sa` puts around the packet.
    #[inline]
    fn shape(&self, sa: &Sa) -> Shape {
        sa.shape.behind(self.front.into())
    }

    /// The longest packet with these headers that leaves whole.
    fn limit(&self) -> Option<u16> {
        let Some(inner) = self.inner_sa else {
            return Some(self.shape(self.sa?).largest_inner(self.mtu));
        };
        let first = self.shape(inner);
        let second = self.sa?.shape.behind(first.front + first.ip);
        Some(first.largest_inner(second.largest_inner(self.mtu)))
    }

    /// A piece of a packet that `select` gave to `sa` and `fit` wanted cut: goes on with `fit`. Of
    /// a bundle the caller sets `inner_sa` too.
    #[must_use]
    pub const fn piece(
        source: &'a mut [u8],
        packet: Packet,
        from_host: bool,
        sa: &'a Sa,
        mtu: u16,
    ) -> Self {
        let mut item = Self::new(source, packet, from_host);
        item.sa = Some(sa);
        item.mtu = mtu;
        item
    }
}

/// What the stages read, and what they own while a batch runs.
pub struct Context<'a, 'w> {
    /// The generation that the batch works with.
    pub tables: &'a Tables,
    /// The worker's SA states.
    pub states: &'w mut States,
    /// The worker's memory of first fragments.
    pub memory: &'w mut Memory,
    /// The worker's policy counters, by [`PolicyIndex`]; [`Tables::policy_count`] of them.
    pub policies: &'w [Count],
    /// SAs that want more sequence numbers reserved; the caller empties it.
    pub wanted: &'w mut ArrayVec<SaSlot, BATCH>,
    /// The worker's source of IVs for CBC.
    pub ivs: &'w mut RandomIvs,
    /// Random, the same for all workers: keys the outer flow labels.
    pub flow_label_seed: u64,
    /// Room for what the first SA of a bundle makes: [`BUNDLE_ROOM`] bytes.
    pub bundle: &'w mut [u8],
    /// This worker's number, by which `per_worker` SAs are chosen.
    pub worker: u16,
    /// When the batch began.
    pub now: Time,
}

impl Context<'_, '_> {
    /// The room between two SAs, and the context without it.
    fn split(&mut self) -> (&mut [u8], Context<'_, '_>) {
        let rest = Context {
            tables: self.tables,
            states: &mut *self.states,
            memory: &mut *self.memory,
            policies: self.policies,
            wanted: &mut *self.wanted,
            ivs: &mut *self.ivs,
            flow_label_seed: self.flow_label_seed,
            bundle: &mut [],
            worker: self.worker,
            now: self.now,
        };
        (&mut *self.bundle, rest)
    }

    /// A policy decided the fate of a packet of `length` bytes.
    fn count_policy(&self, policy: Option<PolicyIndex>, length: u16) {
        Count::add(self.policies, policy, length);
    }
}

/// First door: policy, then the SA's lifetime and counter, then the hop limit.
pub fn select<'a>(batch: &mut [Item<'a>], context: &mut Context<'a, '_>) {
    select::run(batch, context);
}

/// First door of packets made with [`Item::dummy`], which no policy decides about: the SA's
/// lifetime and counter.
pub fn select_dummies(batch: &mut [Item<'_>], context: &mut Context<'_, '_>) {
    select::run_dummies(batch, context);
}

/// Second door, for what `select` left at [`Verdict::Protect`] and the caller gave its `mtu`.
#[inline]
pub fn fit(batch: &mut [Item<'_>]) {
    fit::run(batch);
}

/// Writes a NAT keepalive to the peer of `sa`, from its IP header on, and says how long it is.
/// `None` for an SA without UDP encapsulation, or where there is no room.
pub fn keepalive(sa: &Sa, out: &mut [u8]) -> Option<usize> {
    keepalive::write(sa, out)
}

/// Bytes that a packet may have between two SAs.
pub const BUNDLE_ROOM: usize = PACKET + OVERHEAD;

/// Third door, for what `fit` left at [`Verdict::Protect`] and the caller gave a destination.
/// Without one a packet ends as `no_frame`.
pub fn protect(batch: &mut [Item<'_>], context: &mut Context<'_, '_>) {
    for batch in batch.chunks_mut(BATCH) {
        write(batch, context);
        seal::run(batch);
    }
}

/// First half of the third door: numbers and encapsulates, and leaves packets with a
/// [`Item::task`] for [`seal`]. Those of bundles are sealed when it returns.
pub fn write(batch: &mut [Item<'_>], context: &mut Context<'_, '_>) {
    for item in &mut *batch {
        if let (Verdict::Protect, Some(inner), Some(sa)) = (item.verdict, item.inner_sa, item.sa) {
            item.verdict = twice(item, inner, sa, context).unwrap_or_else(Verdict::Drop);
        }
    }
    number::run(batch, context);
    encapsulate::run(batch, context);
}

/// Second half, for at most [`BATCH`] packets: keys alone, no state, so any thread may do it.
pub fn seal(batch: &mut [Sealing<'_>]) {
    seal::run_tasks(batch);
}

/// All of the third door for a packet that goes through one SA.
fn through_one(item: &mut Item<'_>, context: &mut Context<'_, '_>) {
    item.measure();
    let batch = std::slice::from_mut(item);
    number::run(batch, context);
    encapsulate::run(batch, context);
    seal::run(batch);
}

/// A packet through both SAs of a bundle, the first's result in between in a buffer of ours.
//= T50 (RFC 4302 section 3.1.1)
fn twice(
    item: &mut Item<'_>,
    inner: &Sa,
    sa: &Sa,
    context: &mut Context<'_, '_>,
) -> Result<Verdict, DropReason> {
    // The first must not spend a number on what the second refuses.
    let state = context.states.of(sa.slot).ok_or(DropReason::SaExpired)?;
    state.check_lifetime(&sa.parameters.lifetime, context.now)?;
    state.check_outbound(sa.published.reserved_end.load(Relaxed))?;
    let shape = item.shape(inner);
    let second = sa.shape.behind(shape.front + shape.ip);
    let destination = item.destination.as_deref_mut().ok_or(DropReason::NoFrame)?;
    if item.sealed == 0 || usize::from(item.sealed) > destination.len() {
        return Err(DropReason::NoFrame);
    }
    let (room, mut context) = context.split();
    let mut first = Item::piece(item.source, item.packet, item.from_host, inner, 0);
    first.mtu = second.largest_inner(item.mtu);
    first.fragment_outer = item.fragment_outer;
    first.front = item.front;
    first.next_header = item.next_header;
    first.destination = Some(room);
    through_one(&mut first, &mut context);
    let Verdict::Sealed(length) = first.verdict else {
        return Err(refusal(first.verdict));
    };
    let between = room.get_mut(..length.into()).ok_or(DropReason::NoFrame)?;
    let packet = packet::parse(between)?;
    // The hop is counted once.
    let mut last = Item::piece(between, packet, true, sa, item.mtu);
    last.fragment_outer = item.fragment_outer;
    if sa.parameters.mode == Mode::Transport {
        let front = transport::front(last.source, &packet).ok_or(DropReason::Malformed)?;
        last.front = front.length;
        last.next_header = front.protocol;
    }
    last.destination = Some(destination);
    through_one(&mut last, &mut context);
    match last.verdict {
        Verdict::Sealed(length) => Ok(Verdict::Sealed(length)),
        other => Err(refusal(other)),
    }
}

const fn refusal(verdict: Verdict) -> DropReason {
    match verdict {
        Verdict::Drop(reason) => reason,
        _ => DropReason::NoFrame,
    }
}
