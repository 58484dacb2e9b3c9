//! What a change costs while packets flow: how long control takes to build and publish the next
//! snapshot, and how long a worker under load is held up meanwhile.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use ipsec::limits::BATCH;
use ipsec::policy::PolicyParameters;
use ipsec::sa::Sa;
use ipsec::time::Time;
use xipsec::snapshot::Snapshot;
use xipsec::worker::handoff::Exchange;

use crate::cycles::{now, per_second};
use crate::fixture::{LAN, SuiteName, WAN};
use crate::fleet::{Fleet, successor, tables};
use crate::pipeline::{BURST, Order};
use crate::wire::pin;

/// Frames that are made beforehand, at most; the worker's load goes round them.
const FRAMES: usize = 4096;

/// Bursts before anything is measured: every frame's SA has found its home.
const WARM: usize = 2 * FRAMES / BURST;

/// What changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// One SA gets another key and SPI.
    Rekey,
    /// One policy goes.
    Reconfigure,
}

/// Times of one kind of change.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// The SAD's part of a rekey alone, seconds.
    pub sad: f64,
    /// The whole next snapshot, seconds: least of all.
    pub build: f64,
    /// Storing it where workers look, seconds: longest of all.
    pub store: f64,
    /// Between two bursts that left, seconds: the longest while nothing was published.
    pub quiet: f64,
    /// The same while snapshots were published.
    pub busy: f64,
    /// How often one was.
    pub publications: usize,
}

/// Measures a change of the SA or policy number 0, `publications` times, under load on all others.
///
/// # Panics
/// With fewer than two SAs: some must carry the load.
#[must_use]
pub fn measure(fleet: &Fleet, suite: SuiteName, change: Change, publications: usize) -> Times {
    assert!(fleet.scale().sas > 1, "an SA for the load");
    let first = generation(&fleet.snapshot, fleet, &fleet.sas, &fleet.policies);
    let shared = Arc::new(ArcSwap::from_pointee(first));
    let mut times = Times {
        publications,
        build: f64::INFINITY,
        ..Times::default()
    };
    let worker = UnderLoad::default();
    thread::scope(|scope| {
        scope.spawn(|| worker.run(fleet, &shared));
        while worker.warming.load(Ordering::Acquire) < WARM {
            thread::sleep(Duration::from_millis(1));
        }
        pin(0);
        worker.longest.store(0, Ordering::Release);
        thread::sleep(Duration::from_millis(300));
        times.quiet = worker.longest.swap(0, Ordering::AcqRel) as f64 / per_second();
        for number in 0..publications {
            publish(fleet, suite, change, number, &shared, &mut times);
            // The worker takes it up and lets the last one go before the next comes.
            thread::sleep(Duration::from_millis(20));
        }
        times.busy = worker.longest.swap(0, Ordering::AcqRel) as f64 / per_second();
        worker.stop.store(true, Ordering::Release);
    });
    times
}

/// One change, as control makes it.
fn publish(
    fleet: &Fleet,
    suite: SuiteName,
    change: Change,
    number: usize,
    shared: &ArcSwap<Snapshot>,
    times: &mut Times,
) {
    let (mut sas, mut policies) = (fleet.sas.clone(), fleet.policies.clone());
    match change {
        Change::Rekey => {
            let slot = sas[0].slot;
            let next = if number.is_multiple_of(2) {
                successor(suite, 0, slot)
            } else {
                Arc::clone(&sas[0])
            };
            let present = shared.load();
            let begin = Instant::now();
            let sad = present
                .tables
                .sad
                .with(std::slice::from_ref(&next), &[slot]);
            times.sad = times.sad.max(begin.elapsed().as_secs_f64());
            black_box(sad.is_ok());
            sas[0] = next;
        }
        Change::Reconfigure if number.is_multiple_of(2) => {
            policies.remove(0);
        }
        Change::Reconfigure => {}
    }
    let begin = Instant::now();
    let next = Arc::new(generation(&shared.load(), fleet, &sas, &policies));
    times.build = times.build.min(begin.elapsed().as_secs_f64());
    let begin = Instant::now();
    shared.store(next);
    times.store = times.store.max(begin.elapsed().as_secs_f64());
}

/// The next snapshot: the tables anew, the rest as it was.
fn generation(
    present: &Snapshot,
    fleet: &Fleet,
    sas: &[Arc<Sa>],
    policies: &[PolicyParameters],
) -> Snapshot {
    Snapshot {
        generation: present.generation + 1,
        tables: Arc::new(tables(sas, policies)),
        fib: Arc::clone(&fleet.snapshot.fib),
        neighbors: Arc::clone(&fleet.snapshot.neighbors),
        ports: Arc::clone(&fleet.snapshot.ports),
        first_protected: fleet.snapshot.first_protected,
    }
}

/// A worker with more to do than it can.
#[derive(Default)]
struct UnderLoad {
    stop: AtomicBool,
    /// Bursts so far, until [`WARM`].
    warming: AtomicUsize,
    /// Cycles between two bursts that left, the most so far.
    longest: AtomicU64,
}

impl UnderLoad {
    fn run(&self, fleet: &Fleet, shared: &ArcSwap<Snapshot>) {
        pin(1);
        let exchange = Arc::new(Exchange::new(1).expect("an event descriptor"));
        let mut worker = fleet.worker(0, &exchange);
        // Policy 0 may go and SA 0 may change: the load is on the others.
        let mut order = Order::new(fleet.scale().policies - 1, 0, 1);
        let frames = (0..order.count().min(FRAMES)).map(|_| {
            let mut frame = Vec::new();
            fleet.frame(order.take() + 1, 64, &mut frame);
            frame
        });
        let frames: Vec<Vec<u8>> = frames.collect();
        let mut cache = arc_swap::Cache::new(shared);
        let (mut at, mut last) = (0, now());
        while !self.stop.load(Ordering::Acquire) {
            for _ in 0..BURST {
                worker.lanes_mut()[LAN].port.inject(&frames[at]);
                at = (at + 1) % frames.len();
            }
            let snapshot: &Arc<Snapshot> = cache.load();
            worker.round(BATCH, snapshot, Time(1));
            worker.end_round(snapshot, Time(1));
            let mut left = 0;
            while worker.lanes_mut()[WAN].port.collect(<[u8]>::len).is_some() {
                left += 1;
            }
            if left == BURST {
                let time = now();
                self.longest.fetch_max(time - last, Ordering::AcqRel);
                last = time;
                if self.warming.load(Ordering::Relaxed) < WARM {
                    self.warming.fetch_add(1, Ordering::AcqRel);
                }
            }
        }
    }
}
