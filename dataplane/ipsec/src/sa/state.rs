//! What one owner changes about an SA, packet by packet.
//!
//! [`SaState`] belongs to one worker at a time and moves by value; nothing in it is shared.
//! [`States`] is a worker's arena of them, and adoption is how a state gets there.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::{Arc, PoisonError};

use crate::prefetch::{all, first_line};
use crate::sa::association::{Direction, NO_HOME, Published, Sa, SaParameters, SaSlot};
use crate::sa::lifetime::{Lifetime, Stage, Usage};
use crate::sa::replay::{Advance, SavedWindow, Window};
use crate::sa::sequence::{Counter, HalfMark};
use crate::time::{SECOND, Time};
use crate::verdict::DropReason;

/// Mutable state of one SA: belongs to one worker at a time, moves by value.
pub struct SaState {
    packets: u64,
    bytes: u64,
    born: Time,
    half: HalfMark,
    /// In: the highest authentic number refused because it was not reserved; 0: none.
    waiting: u64,
    held: Holding,
    numbers: Numbers,
}

/// In: since when packets wait for a reservation, and at which end of it they were refused.
#[derive(Clone, Copy)]
struct Holding {
    end: u64,
    since: Time,
}

impl Holding {
    const NOTHING: Self = Self {
        end: u64::MAX,
        since: Time(0),
    };
}

/// How long packets that wait may hold up those behind them: whoever keeps them has given them up
/// by then.
pub const HELD_AT_MOST: u64 = SECOND;

/// One cache line pair, which the processor fetches together; large windows keep their bitmap
/// elsewhere.
const _: () = assert!(size_of::<SaState>() <= 128);

/// The sequence numbers, by direction.
enum Numbers {
    Out {
        counter: Counter,
        /// Of the outer IPv4 header: the last one used.
        identification: u16,
    },
    In(Window),
}

/// Where the numbers of an SA go on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// The last number used (out), or the right edge up to which all counts as seen (in).
    pub sequence: u64,
    /// In, after a clean stop: the exact window. Ignored when its right edge is not `sequence`.
    pub window: Option<SavedWindow>,
    /// What the SA had carried, and its age, when it was last at work.
    pub usage: Usage,
}

/// Packets that were given to an SA and have not yet taken their numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ahead {
    /// How many.
    pub packets: u64,
    /// Their IP length, bytes.
    pub bytes: u64,
}

impl Start {
    /// Goes on behind `sequence`.
    #[must_use]
    pub const fn after(sequence: u64) -> Self {
        Self {
            sequence,
            window: None,
            usage: Usage {
                packets: 0,
                bytes: 0,
                seconds: 0,
            },
        }
    }
}

impl SaState {
    /// An SA is born when its state is created for the first time.
    #[must_use]
    pub fn new(parameters: &SaParameters, start: &Start, now: Time) -> Self {
        let numbers = match parameters.direction {
            Direction::Out => Numbers::Out {
                counter: Counter::new(start.sequence, parameters.esn),
                identification: low_half(start.sequence),
            },
            Direction::In => Numbers::In(window(parameters, start)),
        };
        Self {
            packets: start.usage.packets,
            bytes: start.usage.bytes,
            born: Time(
                now.0
                    .saturating_sub(start.usage.seconds.saturating_mul(SECOND)),
            ),
            half: HalfMark::default(),
            waiting: 0,
            held: Holding::NOTHING,
            numbers,
        }
    }

    /// Packets counted, those of earlier runs included.
    #[must_use]
    pub const fn packets(&self) -> u64 {
        self.packets
    }

    /// Bytes counted, those of earlier runs included.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// When the SA was born.
    #[must_use]
    pub const fn born(&self) -> Time {
        self.born
    }

    /// Last number used (out), highest accepted (in).
    #[must_use]
    pub const fn sequence(&self) -> u64 {
        match &self.numbers {
            Numbers::Out { counter, .. } => counter.last(),
            Numbers::In(window) => window.right(),
        }
    }

    /// The stage before the next packet.
    #[must_use]
    pub const fn stage(&self, lifetime: &Lifetime, now: Time) -> Stage {
        lifetime.stage(Usage {
            packets: self.packets,
            bytes: self.bytes,
            seconds: now.since(self.born) / SECOND,
        })
    }

    /// Refuses a packet of an SA that has reached a hard limit.
    ///
    /// # Errors
    /// [`DropReason::SaExpired`].
    //= T57 (RFC 4301 section 4.4.2.1)
    #[inline]
    pub const fn check_lifetime(&self, lifetime: &Lifetime, now: Time) -> Result<(), DropReason> {
        let usage = Usage {
            packets: self.packets,
            bytes: self.bytes,
            seconds: now.since(self.born) / SECOND,
        };
        if lifetime.is_over(usage) {
            Err(DropReason::SaExpired)
        } else {
            Ok(())
        }
    }

    /// Out: whether the SA can carry one packet more behind those `ahead`, by its limits and its
    /// numbers; reservations come and go and are not asked about.
    ///
    /// # Errors
    /// [`DropReason::SaExpired`] or [`DropReason::SequenceExhausted`].
    //= T04 T57 (RFC 4303 section 3.3.3, RFC 4301 section 4.4.2.1)
    pub const fn check_ahead(
        &self,
        lifetime: &Lifetime,
        ahead: Ahead,
        now: Time,
    ) -> Result<(), DropReason> {
        let usage = Usage {
            packets: self.packets.saturating_add(ahead.packets),
            bytes: self.bytes.saturating_add(ahead.bytes),
            seconds: now.since(self.born) / SECOND,
        };
        if lifetime.is_over(usage) {
            return Err(DropReason::SaExpired);
        }
        match &self.numbers {
            Numbers::Out { counter, .. } => counter.check_ahead(ahead.packets),
            Numbers::In(_) => Ok(()),
        }
    }

    /// Out: whether [`Self::take`] would give a number. Changes nothing.
    ///
    /// # Errors
    /// As [`Counter::check`]; [`DropReason::WrongDirection`] for an inbound SA.
    pub const fn check_outbound(&self, reserved_end: u64) -> Result<(), DropReason> {
        match &self.numbers {
            Numbers::Out { counter, .. } => counter.check(reserved_end),
            Numbers::In(_) => Err(DropReason::WrongDirection),
        }
    }

    /// Out: the next packet's 64-bit number, used up by this call.
    ///
    /// # Errors
    /// As [`Self::check_outbound`]; nothing has then changed.
    pub fn take(&mut self, reserved_end: u64) -> Result<u64, DropReason> {
        match &mut self.numbers {
            Numbers::Out { counter, .. } => counter.take(reserved_end),
            Numbers::In(_) => Err(DropReason::WrongDirection),
        }
    }

    /// Out: the next identification for an outer IPv4 header; none repeats within 65 535 packets.
    /// 0 for an inbound SA.
    //= T134 (RFC 6864 section 4.3)
    pub const fn identification(&mut self) -> u16 {
        match &mut self.numbers {
            Numbers::Out { identification, .. } => {
                *identification = identification.wrapping_add(1);
                *identification
            }
            Numbers::In(_) => 0,
        }
    }

    /// In: the 64-bit number behind the 32 bits on the wire. Changes nothing.
    ///
    /// # Errors
    /// As [`Window::check`]; [`DropReason::WrongDirection`] for an outbound SA.
    pub fn check_inbound(&self, low: u32) -> Result<u64, DropReason> {
        match &self.numbers {
            Numbers::In(window) => window.check(low),
            Numbers::Out { .. } => Err(DropReason::WrongDirection),
        }
    }

    /// In, after authentication only: counts `number` as seen and moves the window.
    ///
    /// # Errors
    /// [`DropReason::Replay`]: accepted meanwhile, for instance earlier in the batch.
    /// [`DropReason::NoReservation`]: above `reserved_end`; the packet may be held and offered
    /// again, and [`Self::needed`] tells how far to reserve. The window has then not moved.
    //= T28 T29 (RFC 4303 section 3.4.3)
    pub fn accept(&mut self, number: u64, reserved_end: u64) -> Result<Advance, DropReason> {
        match &mut self.numbers {
            Numbers::In(window) if number <= reserved_end || !window.is_on() => {
                window.accept(number)
            }
            Numbers::In(window) => {
                window.recheck(number)?;
                self.waiting = self.waiting.max(number);
                Err(DropReason::NoReservation)
            }
            Numbers::Out { .. } => Err(DropReason::WrongDirection),
        }
    }

    /// In: how far numbers may be accepted when `reserved_end` is on disk. While packets wait that
    /// were refused at an earlier end, no further than that: what comes behind them must not
    /// overtake them because a reservation was granted in between.
    #[must_use]
    pub const fn acceptable_end(&self, reserved_end: u64, now: Time) -> u64 {
        if reserved_end > self.held.end && now.since(self.held.since) < HELD_AT_MOST {
            self.held.end
        } else {
            reserved_end
        }
    }

    /// In: a packet waits from `now` on, since numbers were acceptable up to `end` alone.
    pub const fn hold_up(&mut self, end: u64, now: Time) {
        self.held = Holding { end, since: now };
    }

    /// In: what waits is about to be offered again, or waits no more.
    pub const fn offer_again(&mut self) {
        self.held = Holding::NOTHING;
    }

    /// Counts a packet sent (out), or authentic and new (in). `bytes`: the IP length of its
    /// plaintext packet.
    pub const fn count(&mut self, bytes: u64) {
        self.packets = self.packets.wrapping_add(1);
        self.bytes = self.bytes.wrapping_add(bytes);
    }

    /// The number that reservations must cover: [`Self::sequence`], or beyond it the highest
    /// authentic one that [`Self::accept`] refused for want of a reservation, since a peer that
    /// restarted goes on further ahead than any lead of ours.
    #[must_use]
    pub fn needed(&self) -> u64 {
        self.sequence().max(self.waiting)
    }

    /// True when a reservation up to [`Self::needed`] and beyond should be asked for: once at half
    /// of each block, and when a number beyond it is waited for.
    pub fn wants_reservation(&mut self, reserved_end: u64) -> bool {
        let needed = self.needed();
        self.half.is_due(needed, reserved_end)
    }

    /// In: the exact window, for a clean stop. `None` for an outbound SA.
    #[must_use]
    pub fn export(&self) -> Option<SavedWindow> {
        match &self.numbers {
            Numbers::In(window) => Some(window.export()),
            Numbers::Out { .. } => None,
        }
    }

    /// Shows the counters to others; once a batch.
    pub fn publish(&self, published: &Published) {
        published.packets.store(self.packets, Relaxed);
        published.bytes.store(self.bytes, Relaxed);
        published.sequence.store(self.sequence(), Relaxed);
        published.needed.store(self.needed(), Relaxed);
        published.born.store(self.born.0, Relaxed);
    }
}

impl std::fmt::Debug for SaState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SaState")
            .field("packets", &self.packets)
            .field("bytes", &self.bytes)
            .field("sequence", &self.sequence())
            .finish_non_exhaustive()
    }
}

fn window(parameters: &SaParameters, start: &Start) -> Window {
    match &start.window {
        Some(saved) if saved.right == start.sequence => {
            Window::restored(parameters.replay_window, parameters.esn, saved)
        }
        _ => Window::new(parameters.replay_window, parameters.esn, start.sequence),
    }
}

const fn low_half(sequence: u64) -> u16 {
    let [.., high, low] = sequence.to_be_bytes();
    u16::from_be_bytes([high, low])
}

/// The states that one worker owns, by slot.
#[derive(Debug)]
pub struct States {
    worker: u16,
    slots: Vec<Option<Box<SaState>>>,
}

/// Where the state of an SA is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Here: [`States::of`] gives it.
    Mine,
    /// With that worker.
    Elsewhere(u16),
    /// Nowhere: the SA was deleted.
    Gone,
}

impl States {
    /// An arena without states. `worker` must not be [`NO_HOME`].
    #[must_use]
    pub const fn new(worker: u16) -> Self {
        Self {
            worker,
            slots: Vec::new(),
        }
    }

    /// Makes room for slots below `count`, so that adoption need not allocate.
    pub fn reserve(&mut self, count: usize) {
        if self.slots.len() < count {
            self.slots.resize_with(count, || None);
        }
    }

    /// Finds who owns the state of `sa`; when nobody does, this worker does from now on.
    pub fn adopt(&mut self, sa: &Sa) -> Ownership {
        match sa.home.load(Acquire) {
            home if home == self.worker && self.holds(sa.slot) => Ownership::Mine,
            home if home == self.worker => self.unpark(sa),
            NO_HOME => match sa
                .home
                .compare_exchange(NO_HOME, self.worker, AcqRel, Acquire)
            {
                Ok(_) => self.unpark(sa),
                Err(home) => Ownership::Elsewhere(home),
            },
            home => Ownership::Elsewhere(home),
        }
    }

    /// The state in `slot`, if this worker owns it.
    pub fn of(&mut self, slot: SaSlot) -> Option<&mut SaState> {
        self.slots.get_mut(slot.index())?.as_deref_mut()
    }

    /// Gives the state in `slot` away: the SA was deleted, or moves to another worker.
    pub fn release(&mut self, slot: SaSlot) -> Option<Box<SaState>> {
        self.slots.get_mut(slot.index())?.take()
    }

    /// Parks the states of those of `sas` that are at home here, and leaves them without a home:
    /// the next worker that adopts one goes on where this one stopped. SAs that share a home must
    /// be given together.
    pub fn park_all(&mut self, sas: &[Arc<Sa>]) {
        let here = |sa: &&Arc<Sa>| sa.home.load(Acquire) == self.worker;
        let ours: Vec<&Arc<Sa>> = sas.iter().filter(here).collect();
        for sa in &ours {
            if let Some(state) = self.release(sa.slot) {
                *sa.parked.lock().unwrap_or_else(PoisonError::into_inner) = Some(state);
            }
        }
        for sa in ours {
            sa.home.store(NO_HOME, Release);
        }
    }

    /// Asks memory for where the state of an SA is noted.
    #[inline]
    fn prefetch_place(&self, slot: SaSlot) {
        self.slots.get(slot.index()).map(first_line);
    }

    /// Asks memory for the state itself, once the other has come.
    #[inline]
    fn prefetch_state(&self, slot: SaSlot) {
        if let Some(Some(state)) = self.slots.get(slot.index()) {
            all(&**state);
        }
    }

    fn holds(&self, slot: SaSlot) -> bool {
        matches!(self.slots.get(slot.index()), Some(Some(_)))
    }

    fn unpark(&mut self, sa: &Sa) -> Ownership {
        let parked = sa
            .parked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        self.reserve(sa.slot.index() + 1);
        // A slot may hold what an earlier SA left there.
        let found = parked.is_some();
        self.slots[sa.slot.index()] = parked;
        if found {
            Ownership::Mine
        } else {
            Ownership::Gone
        }
    }
}

/// Asks memory for these SAs, their states and their keys. `sas` is gone through several times:
/// each round asks for what the one before has found.
pub(crate) fn prefetch<'a>(sas: impl Iterator<Item = &'a Sa> + Clone, states: &States) {
    for sa in sas.clone() {
        all(sa);
    }
    for sa in sas.clone() {
        states.prefetch_place(sa.slot);
        sa.transform.prefetch();
    }
    for sa in sas {
        states.prefetch_state(sa.slot);
    }
}

#[cfg(test)]
mod tests;
