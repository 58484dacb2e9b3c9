//! One SA over many cores, in order, both ways: a home that has more than it can do lends the key's
//! work, burst by burst, to workers that have nothing to do.
//!
//! Outbound the home numbers and writes the packets, inbound it has looked at the window; then a
//! `Batch` owns their tokens and pins the generation of their SAs. It lies in the home's `Ring`,
//! where either side may claim it. The home fetches batches from the head alone: there the window
//! decides and packets leave. So the numbers on the wire rise, replay is decided in the order of
//! arrival, flows keep their order, and a slow helper delays but never reorders. What nobody has
//! claimed the home does itself.
//!
//! While batches are out, whatever else would number or open a packet waits until all are home.

pub(super) mod batch;

mod home;

mod idle;

mod ring;

mod worth;

/// What `ring` is built on; its model has others.
mod sync {
    pub(super) use std::sync::Mutex;
    pub(super) use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
}

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::utils::CachePadded;
use ipsec::limits::BATCH;
use ipsec::time::{MILLISECOND, Time};

use crate::port::{Buffer, Frame};
use crate::worker::frame::Arrival;

use batch::Batch;
use ring::Ring;
use worth::{Round, Worth};

/// Batches of one home that may be out at once. 16: seven helpers with one at work and one at hand
/// each, and two of the home's own; a thousand packets in all, a quarter of what a queue has of
/// frames each way by default.
const PLACES: usize = 16;

/// Full bursts in a row that make a backlog: what a home takes from one sleep to the next stays
/// below.
const BACKLOG: u32 = 2;

/// How long nothing is lent after a burst that could not be: such traffic would empty the pipeline
/// again and again.
const PAUSE: u64 = 10 * MILLISECOND;

/// How long a home that has nothing else to do waits for a helper until it takes it for one that
/// does not run: less than the kernel gives another thread on its core. Counts only if it is also
/// several times what the home itself takes for a batch.
const STUCK: u64 = 2 * MILLISECOND;

/// How long nothing is lent then: such a helper makes a home slower than it is alone.
const LONG_PAUSE: u64 = 100 * MILLISECOND;

/// What all workers share: each one's batches, and who has time.
pub(super) struct Lending<R, T> {
    rings: Vec<Ring<Box<Batch<R, T>>>>,
    free: Vec<CachePadded<AtomicBool>>,
}

impl<R, T> Lending<R, T> {
    pub(super) fn new(workers: usize) -> Self {
        Self {
            rings: (0..workers).map(|_| Ring::new(PLACES)).collect(),
            free: (0..workers).map(|_| CachePadded::default()).collect(),
        }
    }

    pub(super) fn ring_of(&self, worker: usize) -> &Ring<Box<Batch<R, T>>> {
        &self.rings[worker]
    }

    fn show_free(&self, worker: usize, free: bool) {
        self.free[worker].store(free, Ordering::Relaxed);
    }

    /// The workers but `own` that have time.
    pub(super) fn free(&self, own: usize) -> impl Iterator<Item = usize> {
        let free = self.free.iter().enumerate();
        free.filter(move |(worker, free)| *worker != own && free.load(Ordering::Relaxed))
            .map(|(worker, _)| worker)
    }
}

/// A packet that waits until all batches are home, copied behind an Ethernet header.
struct Waiting {
    frame: Vec<u8>,
    arrival: Arrival,
}

/// One worker's part in lending: as a home, and as a helper.
pub(super) struct Lender<R, T> {
    /// Position of the oldest batch that is out.
    head: usize,
    /// Position of the next one.
    tail: usize,
    /// Below it everything is claimed.
    claimed: usize,
    /// Batches that may be out at once.
    places: usize,
    /// Batches that nobody has claimed, at most, before the home does one.
    ahead: usize,
    unused: Vec<Box<Batch<R, T>>>,
    /// The batch that the current burst goes into.
    filling: Option<Box<Batch<R, T>>>,
    waiting: VecDeque<Waiting>,
    /// Rounds in a row that brought a full burst.
    full_rounds: u32,
    /// This round brought one.
    full: bool,
    /// Whether lending pays.
    worth: Worth,
    /// When this round began.
    began: Time,
    /// No batch was out then.
    began_at_home: bool,
    /// As many had come home by then as may be out at once, since there was one.
    began_steady: bool,
    /// The position from which on there has always been one.
    first: usize,
    /// A burst was asked for in this round.
    asked: bool,
    /// Packets of this round that were taken in.
    taken: usize,
    /// Packets of this round that came home.
    ended: usize,
    /// Nothing is lent before.
    paused_until: Time,
    /// Since when the home has had nothing to do but wait for a helper.
    waits_since: Option<Time>,
    /// What this worker usually takes for a batch of its own, nanoseconds; 0: not known yet.
    usual: u64,
    /// The worker takes no more in.
    stopped: bool,
    /// Packets of this round that went to their SA's home.
    handed_over: usize,
    /// What others were told last: this worker has time.
    shown_free: bool,
    /// How far the rings of the others have been looked at.
    cursors: Vec<usize>,
}

impl<R: Frame, T: Buffer> Lender<R, T> {
    /// Of a worker among `workers` whose ports have at least `frames` frames each way.
    pub(super) fn new(workers: usize, frames: u64) -> Self {
        // The other half is for what is on its way in and out.
        let places = usize::try_from(frames).unwrap_or(usize::MAX) / (2 * BATCH);
        Self {
            head: 0,
            tail: 0,
            claimed: 0,
            places: places.clamp(1, PLACES),
            ahead: (2 * workers).saturating_sub(1),
            unused: Vec::new(),
            filling: None,
            waiting: VecDeque::new(),
            full_rounds: 0,
            full: false,
            worth: Worth::new(),
            began: Time(0),
            began_at_home: true,
            began_steady: false,
            first: 0,
            asked: false,
            taken: 0,
            ended: 0,
            paused_until: Time(0),
            waits_since: None,
            usual: 0,
            stopped: false,
            handed_over: 0,
            shown_free: false,
            cursors: vec![0; workers],
        }
    }

    /// No batch is out.
    pub(super) const fn is_home(&self) -> bool {
        self.head == self.tail
    }

    /// One batch more may go out.
    pub(super) const fn has_room(&self) -> bool {
        self.tail.wrapping_sub(self.head) < self.places
    }

    /// A round begins.
    pub(super) fn begin_round(&mut self, now: Time) {
        self.worth.ended(now.since(self.began), self.last_round());
        self.began = now;
        self.began_at_home = self.is_home();
        if self.began_at_home {
            self.first = self.tail;
        }
        self.began_steady = self.head.wrapping_sub(self.first) >= self.places;
        self.full_rounds = if self.full { self.full_rounds + 1 } else { 0 };
        self.full = false;
        self.asked = false;
        (self.handed_over, self.taken, self.ended) = (0, 0, 0);
    }

    /// What the round that has just ended says about whether lending pays.
    fn last_round(&self) -> Round {
        match (self.began_at_home, self.is_home()) {
            (true, true) if self.full => Round::Alone(self.taken as u64),
            // It asks for nothing while too much is out.
            (false, false) if self.began_steady && (self.full || !self.asked) => {
                Round::Lent(self.ended as u64)
            }
            _ => Round::Other,
        }
    }

    /// A burst of `count` packets was taken; `full`: as much as was asked for.
    pub(super) const fn saw_burst(&mut self, count: usize, full: bool) {
        self.full |= full;
        self.asked = true;
        self.taken += count;
    }

    /// Nothing is lent for a while, and what is out comes home first.
    pub(super) fn pause(&mut self, now: Time, time: u64) {
        self.paused_until = Time(now.0.saturating_add(time));
    }

    /// There is nothing to do but to wait for a helper.
    pub(super) fn wait(&mut self, now: Time) {
        let waited = now.since(*self.waits_since.get_or_insert(now));
        if waited > STUCK && waited > 3 * self.usual {
            self.pause(now, LONG_PAUSE);
        }
    }

    /// A batch was done here in `time` nanoseconds. Follows what is faster at once and what is
    /// slower step by step, since this worker may be preempted, too.
    pub(super) fn took(&mut self, time: u64) {
        let slower = self.usual + self.usual / 8 + 1;
        self.usual = if self.usual == 0 {
            time
        } else {
            time.min(slower)
        };
    }

    /// A packet went to its SA's home.
    pub(super) const fn count_handed_over(&mut self) {
        self.handed_over += 1;
    }

    /// Nothing more is lent: the worker stops.
    pub(super) const fn stop(&mut self) {
        self.stopped = true;
    }
}
