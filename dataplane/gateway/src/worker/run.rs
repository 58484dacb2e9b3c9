//! A worker's life on its core: rounds over its lanes until it is told to stop, then the drain.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use ipsec::limits::BATCH;
use ipsec::time::{SECOND, Time};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::port::settings::Idle;
use crate::port::{Ledger, Port};
use crate::snapshot::Snapshot;
use crate::worker::host::Host;
use crate::worker::process::Worker;

/// How long an adaptive worker spins at most before it sleeps. About what a sleep and a wake-up
/// cost together, so that waiting never costs more than twice the best choice.
const SPIN: Duration = Duration::from_micros(20);

/// What it begins with where spinning had been given up.
const FIRST_SPIN: Duration = Duration::from_micros(2);

/// Longest sleep: lifetimes in seconds, aged fragments and keepalives want a look now and then.
const SLEEP: Duration = Duration::from_millis(100);

/// Longest sleep while packets wait for a neighbour or a reservation, dummies for room, or peers
/// for a look whether they want a keepalive.
const NAP: Duration = Duration::from_millis(1);

/// Longest drain: after that frames that the kernel still holds are given up (and reported).
const DRAIN: Duration = Duration::from_secs(2);

/// Where the time line of a running gateway begins: a century from zero, so that what was born
/// before the start has its place on it.
pub const ORIGIN: Time = Time(100 * 365 * 24 * 3600 * SECOND);

/// What all workers of a gateway share.
pub struct Shared {
    /// The current generation.
    pub snapshot: ArcSwap<Snapshot>,
    /// Set once: drain and end.
    pub stop: AtomicBool,
    /// Workers that take no more packets in: once it is all of them, no more parcels are sent.
    pub draining: AtomicUsize,
    /// Workers in all.
    pub workers: usize,
    /// Where the time line of all workers starts.
    pub start: Instant,
    /// Packets taken from a ring at once.
    pub batch: usize,
    /// What to do when no packet waits.
    pub idle: Idle,
}

impl Shared {
    /// Now, on the workers' time line.
    #[must_use]
    pub fn now(&self) -> Time {
        let elapsed = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Time(ORIGIN.0.saturating_add(elapsed))
    }
}

/// How long an adaptive worker spins, as its last waits teach: whoever shares the core with it gets
/// what spinning would waste.
struct Spin(Duration);

impl Spin {
    /// A wait ended after `waited`, asleep in the end: would spinning have met the packet?
    fn learn(&mut self, waited: Duration) {
        self.0 = if waited < SPIN {
            (self.0 * 2).clamp(FIRST_SPIN, SPIN)
        } else if self.0 > FIRST_SPIN {
            self.0 / 2
        } else {
            Duration::ZERO
        };
    }
}

/// What a worker leaves behind.
pub struct Farewell {
    /// The ledger of each of its lanes, after the drain.
    pub ledgers: Vec<Ledger>,
}

/// Runs the worker until `shared.stop` is set and everything has ended.
pub fn run<P: Port, H: Host>(mut worker: Worker<P, H>, shared: &Arc<Shared>) -> Farewell {
    let mut cache = arc_swap::Cache::new(&shared.snapshot);
    let mut idle_since: Option<Instant> = None;
    let mut spin = Spin(SPIN);
    loop {
        let now = shared.now();
        let snapshot: &Snapshot = cache.load();
        let limit = shared.batch.min(BATCH);
        let work = worker.round(limit, snapshot, now);
        let again = worker.end_round(snapshot, now) | worker.help(work, limit);
        if shared.stop.load(Ordering::Acquire) {
            worker.empty_rings(shared, snapshot);
            break;
        }
        if work > 0 || again {
            idle_since = None;
            continue;
        }
        let since = *idle_since.get_or_insert_with(Instant::now);
        match shared.idle {
            Idle::Spin => std::hint::spin_loop(),
            Idle::Adaptive if since.elapsed() < spin.0 => std::hint::spin_loop(),
            Idle::Adaptive | Idle::Sleep => {
                worker.sleep();
                spin.learn(since.elapsed());
                idle_since = None;
            }
        }
    }
    worker.drain(shared, &mut cache)
}

impl<P: Port, H: Host> Worker<P, H> {
    /// One round over all lanes and queues. Answers the number of packets served.
    pub fn round(&mut self, limit: usize, snapshot: &Snapshot, now: Time) -> usize {
        self.lender.begin_round(now);
        // What waited for a neighbour goes before what finds it known in this round.
        self.settle(snapshot, now);
        let mut work = self.take_back() + self.reap(snapshot, now);
        if self.lender.is_home() {
            // What waited for a reservation goes before what arrives now.
            self.retry_shelf(snapshot, now);
        }
        if self.takes_in(now) {
            work += self.serve_parcels(snapshot, now);
        }
        for lane in 0..self.lanes.len() {
            if self.takes_in(now) {
                work += self.serve(lane, limit, snapshot, now);
            }
        }
        work += self.keep_alive(snapshot, now);
        if self.lender.is_home() {
            work += self.serve_host_queue(limit, snapshot, now);
            return work + self.send_dummies(snapshot, now);
        }
        let nothing_came = work == 0;
        if nothing_came || !self.takes_in(now) {
            let worked = self.work_off();
            if nothing_came && !worked {
                self.lender.wait(now);
            }
        }
        // What is out is work, too.
        work.max(1)
    }

    /// Takes in what still waits in the receive rings: the program is off the interface, so that
    /// there is an end to it.
    fn empty_rings(&mut self, shared: &Shared, snapshot: &Snapshot) {
        /// Rounds of a batch each: twice the largest ring's worth.
        const ROUNDS: usize = 256;
        self.lender.stop();
        self.help(0, BATCH);
        let until = Instant::now() + DRAIN;
        while !self.lender.is_home() && Instant::now() < until {
            self.work_off();
            self.reap(snapshot, shared.now());
        }
        for _ in 0..ROUNDS {
            let now = shared.now();
            if self.round(BATCH, snapshot, now) == 0 {
                return;
            }
            self.end_round(snapshot, now);
        }
    }

    /// Sleeps until a frame arrives, somebody rings, or something is due.
    fn sleep(&self) {
        let bell = Arc::clone(self.desk.bell());
        bell.prepare_to_sleep();
        if self.desk.has_mail() || self.host.is_waiting() || self.is_wanted() {
            bell.rise();
            return;
        }
        let waits = !self.pending.is_empty() || !self.shelf.is_empty();
        let busy = waits || self.order.is_some() || self.silence.is_amid_pass();
        let longest = if busy { NAP } else { SLEEP };
        let bell_descriptor = bell.as_fd();
        let mut descriptors: Vec<PollFd<'_>> = self
            .lanes
            .iter()
            .filter_map(|lane| lane.port.descriptor())
            .map(|descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::IN))
            .collect();
        descriptors.push(PollFd::from_borrowed_fd(bell_descriptor, PollFlags::IN));
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: longest.subsec_nanos().into(),
        };
        // An interrupted or failed poll is a short sleep: the next round looks anyway.
        let woken = poll(&mut descriptors, Some(&timeout));
        let rung = descriptors
            .last()
            .is_some_and(|own| own.revents().contains(PollFlags::IN));
        if woken.is_err() || rung {
            bell.awake();
        } else {
            bell.rise();
        }
    }

    /// Ends everything that is under way: handed-over frames come home, waits are ended, what is
    /// queued leaves.
    fn drain(
        mut self,
        shared: &Shared,
        cache: &mut arc_swap::Cache<&ArcSwap<Snapshot>, Arc<Snapshot>>,
    ) -> Farewell {
        let until = Instant::now() + DRAIN;
        shared.draining.fetch_add(1, Ordering::AcqRel);
        loop {
            let last = shared.draining.load(Ordering::Acquire) >= shared.workers;
            let now = shared.now();
            let snapshot = Arc::clone(cache.load());
            self.take_back();
            self.work_off();
            let mut served = self.reap(&snapshot, now);
            if self.lender.is_home() {
                served += self.serve_parcels(&snapshot, now);
                self.clear_shelf();
            }
            self.abandon_fragments();
            self.abandon_pending();
            let again = self.end_round(&snapshot, now);
            let away = self.desk.away() > 0 || self.desk.has_mail() || !self.lender.is_home();
            let queued = self.lanes.iter().any(|lane| lane.port.ledger().queued > 0);
            if (last && served == 0 && !again && !away && !queued) || Instant::now() > until {
                break;
            }
            std::thread::yield_now();
        }
        let snapshot = cache.load();
        let sas: Vec<_> = snapshot.tables.sad.iter().cloned().collect();
        self.states.park_all(&sas);
        Farewell {
            ledgers: self.lanes.iter().map(|lane| lane.port.ledger()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spinning_is_given_up_where_it_meets_no_packet_and_taken_up_where_it_would() {
        let mut spin = Spin(SPIN);
        let spins = |spin: &mut Spin, waited: u64, times: u32| {
            (0..times).for_each(|_| spin.learn(Duration::from_micros(waited)));
            spin.0
        };
        assert_eq!(spins(&mut spin, 5, 1), SPIN);
        assert_eq!(spins(&mut spin, 500, 1), SPIN / 2);
        assert_eq!(spins(&mut spin, 500, 10), Duration::ZERO);
        assert_eq!(spins(&mut spin, 5, 1), FIRST_SPIN);
        assert_eq!(spins(&mut spin, 5, 10), SPIN);
    }
}
