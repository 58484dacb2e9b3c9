//! Protected wire to plaintext (RFC 4303 §3.4, RFC 4301 §5.2).
//!
//! Two halves. [`admit`] decides everything that needs no key; then the caller provides each
//! packet that goes on with a buffer of the port by which it will probably leave; [`open`] does
//! the rest. What the caller then does with an opened packet (host, hop limit, size, route) is
//! forwarding, not IPsec.
//!
//! Order of refusal: direction and length, lifetime, replay, ICV, replay again (an earlier packet
//! of the batch may have had the number), reservation, trailer, inner header, ECN, policy.

// The stages in their order; none imports another.
mod classify;

mod lookup;

mod precheck;

mod decrypt;

mod accept;

mod decapsulate;

mod verify;

use arrayvec::ArrayVec;

use crate::limits::BATCH;
use crate::packet::{Packet, protocol};
use crate::policy::{Memory, PolicyIndex};
use crate::sa::state::States;
use crate::sa::{Sa, SaSlot};
use crate::tables::{Count, Tables};
use crate::time::Time;
use crate::verdict::DropReason;

pub use decrypt::{Opening, Task};

/// An authentic packet that carries nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consumed {
    /// ESP with next header 59 (RFC 4303 §2.6).
    Dummy,
    /// A NAT keepalive (RFC 3948 §2.3).
    Keepalive,
}

/// What is known of a packet's fate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Still on its way: after `admit`, wants a destination buffer.
    Continue,
    /// Dropped, counted once.
    Drop(DropReason),
    /// To the machine itself, as received.
    Host,
    /// Clear transit that policy bypasses: forwarded as received.
    Forward,
    /// The SA's state lives on that worker: hand the packet over, nothing was changed.
    Elsewhere(u16),
    /// Authentic, but beyond what is reserved on disk: keep the packet as received and offer it
    /// again when the reservation has grown beyond this end, a second at most. The window did not
    /// move. Of a bundle see [`Item::held_behind`].
    Held(u64),
    /// Authentic and done with.
    Consumed(Consumed),
    /// `destination[..inner.length]` holds an inner packet that its policy allows.
    Opened,
}

/// What stands in front of the upper-layer header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Clear,
    Esp,
    /// Behind a UDP header with that destination port.
    EspInUdp(u16),
    Ah,
}

/// One packet of a burst from an unprotected port.
pub struct Item<'a> {
    /// The IP packet as received, cut to its length.
    pub source: &'a [u8],
    /// Its descriptor.
    pub packet: Packet,
    /// The SA, once found; of nested ones the last, which gave `inner`.
    pub sa: Option<&'a Sa>,
    /// The SA by which a packet that was protected twice arrived.
    outer_sa: Option<&'a Sa>,
    /// Offset of the ESP or AH header in `source`.
    pub header_offset: u16,
    /// The sequence number, 64 bits as the window derived it.
    pub sequence: u64,
    /// Where the plaintext goes; at least `source.len()` bytes. Given by the caller before `open`.
    pub destination: Option<&'a mut [u8]>,
    /// The opened packet's descriptor, until then nothing's: not an option, whose undefined half
    /// would be copied with the rest.
    pub inner: Packet,
    /// The policy that decided, for its counters.
    pub policy: Option<PolicyIndex>,
    /// The fate so far.
    pub verdict: Verdict,
    kind: Kind,
    /// The sequence number on the wire.
    number: u32,
    /// End of the ESP or AH packet in `source`.
    end: u16,
    /// Length of the decrypted text, padding and trailer included.
    plaintext: u16,
    /// Transport mode: bytes of headers in front of that text, else 0.
    front: u16,
    /// AH: the protocol of that text.
    next_header: u8,
}

impl<'a> Item<'a> {
    /// A packet that has just been parsed; `source` is cut to its length.
    #[inline(always)]
    #[must_use]
    pub const fn new(source: &'a [u8], packet: Packet) -> Self {
        Self {
            source,
            packet,
            sa: None,
            outer_sa: None,
            header_offset: 0,
            sequence: 0,
            destination: None,
            inner: Packet::nothing(packet.version),
            policy: None,
            verdict: Verdict::Continue,
            kind: Kind::Clear,
            number: 0,
            end: 0,
            plaintext: 0,
            front: 0,
            next_header: 0,
        }
    }

    /// What came out of the SA `outer` and waited for the next one, see [`Self::held_behind`].
    #[must_use]
    pub const fn resumed(source: &'a [u8], packet: Packet, outer: &'a Sa) -> Self {
        let mut item = Self::new(source, packet);
        item.outer_sa = Some(outer);
        item
    }

    /// Of a packet at [`Verdict::Held`] that one SA has given already: that SA. What waits is then
    /// `destination[..inner.length]`, and goes on as [`Self::resumed`] with [`resume`].
    #[must_use]
    pub fn held_behind(&self) -> Option<SaSlot> {
        let is_new = matches!(self.verdict, Verdict::Held(_)) && !self.inner.is_nothing();
        self.outer_sa.filter(|_| is_new).map(|sa| sa.slot)
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
    /// Room for a packet between two SAs: [`crate::limits::PACKET`] bytes.
    pub bundle: &'w mut [u8],
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
            bundle: &mut [],
            now: self.now,
        };
        (&mut *self.bundle, rest)
    }

    /// A policy decided the fate of a packet of `length` bytes.
    fn count_policy(&self, policy: Option<PolicyIndex>, length: u16) {
        Count::add(self.policies, policy, length);
    }
}

/// First half: from the packet as received to its SA, or to the fate of a clear one.
pub fn admit<'a>(batch: &mut [Item<'a>], context: &mut Context<'a, '_>) {
    classify::run(batch, context);
    lookup::run(batch, context);
    precheck::run(batch, context);
}

/// First half for packets made with [`Item::resumed`]: the outer SA has accepted them.
pub fn resume<'a>(batch: &mut [Item<'a>], context: &mut Context<'a, '_>) {
    classify::run(batch, context);
    for item in &mut *batch {
        match lookup::nested(item, context.tables) {
            Ok(true) => {}
            Ok(false) => item.verdict = Verdict::Drop(DropReason::SaExpired),
            Err(reason) => item.verdict = Verdict::Drop(reason),
        }
    }
    precheck::run(batch, context);
}

//= exception T84: opened packets lie where the egress frame wants them, behind 14 bytes of
//= Ethernet; they leave by DMA or copy, and no code of ours reads them by aligned loads
/// Second half, for what `admit` left at [`Verdict::Continue`] and the caller gave a destination.
/// Without one a packet ends as `no_frame`.
pub fn open<'a>(batch: &mut [Item<'a>], context: &mut Context<'a, '_>) {
    for batch in batch.chunks_mut(BATCH) {
        prepare(batch);
        decrypt::run(batch);
        accept(batch, context);
    }
}

/// First part of [`open`]: leaves packets with an [`Item::task`] for [`decrypt`].
pub fn prepare(batch: &mut [Item<'_>]) {
    decrypt::prepare(batch);
}

/// Second part of [`open`], for at most [`BATCH`] packets: keys alone, no state, so any thread may
/// do it.
pub fn decrypt(batch: &mut [Opening<'_>]) {
    decrypt::run_tasks(batch);
}

/// Third part of [`open`], for at most [`BATCH`] packets in the order of their arrival: replay is
/// decided here.
pub fn accept<'a>(batch: &mut [Item<'a>], context: &mut Context<'a, '_>) {
    accept::run(batch, context);
    decapsulate::run(batch);
    batch.iter_mut().for_each(|item| again(item, context));
    verify::run(batch, context);
}

/// Opens what came out of an SA and is still protected for us: `limits::BUNDLE_DEPTH` is two.
//= T50 (RFC 4302 section 3.1.1, RFC 4301 section 5.2)
fn again<'a>(item: &mut Item<'a>, context: &mut Context<'a, '_>) {
    if item.verdict != Verdict::Continue || item.outer_sa.is_some() {
        return;
    }
    let tables = context.tables;
    let may_be = match item.inner.protocol {
        protocol::ESP | protocol::AH => true,
        protocol::UDP => tables.has_bundles(),
        _ => false,
    };
    if !may_be || item.inner.is_nothing() || !tables.ends_here(&item.inner) {
        return;
    }
    let inner = item.inner;
    let (room, mut context) = context.split();
    let destination = item.destination.as_deref_mut().unwrap_or(&mut []);
    let length = usize::from(inner.length);
    let (Some(between), Some(bytes)) = (room.get_mut(..length), destination.get(..length)) else {
        return;
    };
    between.copy_from_slice(bytes);
    let mut second = Item::new(between, inner);
    let batch = std::slice::from_mut(&mut second);
    classify::run(batch, &context);
    match lookup::nested(&mut batch[0], tables) {
        Ok(true) => {}
        Ok(false) => return,
        Err(reason) => {
            item.verdict = Verdict::Drop(reason);
            return;
        }
    }
    batch[0].destination = Some(destination);
    precheck::run(batch, &mut context);
    decrypt::prepare(batch);
    decrypt::run(batch);
    accept::run(batch, &mut context);
    decapsulate::run(batch);
    let slot = second.sa.map(|sa| sa.slot);
    item.verdict = match second.verdict {
        // SAs of one bundle have one home; these two belong to no bundle that was there when the
        // first of them found its home.
        Verdict::Elsewhere(_) => Verdict::Drop(DropReason::HandoffFull),
        verdict => verdict,
    };
    item.inner = second.inner;
    item.sequence = second.sequence;
    if let Verdict::Held(_) = item.verdict {
        // The outer SA has accepted its number, so what it gave waits, not what arrived.
        item.inner = inner;
        let bytes = item.destination.as_deref_mut();
        if let Some(bytes) = bytes.and_then(|it| it.get_mut(..length)) {
            bytes.copy_from_slice(between);
        }
    }
    item.outer_sa = item.sa;
    item.sa = slot
        .and_then(|slot| tables.sad.by_slot(slot))
        .map(|sa| &**sa);
}
