//! One SA over two cores: what a helper brings, beside one worker alone and two workers with an SA
//! each, and what it costs where it is not needed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use ipsec::limits::BATCH;
use ipsec::sa::association::Direction;
use ipsec::time::Time;
use xipsec::counters::{Cell, Tally};
use xipsec::route::PortIndex;
use xipsec::snapshot::Snapshot;
use xipsec::worker::handoff::Exchange;
use xipsec::worker::host::NoHost;
use xipsec::worker::{Lane, Worker};

use crate::cycles::now;
use crate::endless::{Endless, EndlessFrame};
use crate::fixture::{End, Fixture, LAN, SuiteName, WAN, plain_frame, settings};
use crate::wire::pin;

/// Different packets that arrive in turns inbound; each has a number of its own.
const DIFFERENT: usize = 256;

/// What arrives.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// The SAs' suite.
    pub suite: SuiteName,
    /// Which way.
    pub direction: Direction,
    /// Length of the inner IP packet, bytes.
    pub size: usize,
    /// Packets that wait at once, at most.
    pub supply: usize,
}

type Crewman = Worker<Endless, NoHost>;
type Desks = Arc<Exchange<EndlessFrame>>;

/// A gateway with an endless supply of packets at one of its ports.
struct Gateway {
    fixture: Fixture,
    frames: Vec<Vec<u8>>,
    load: Load,
}

impl Gateway {
    fn new(load: Load) -> Self {
        let (end, frames) = match load.direction {
            Direction::Out => (End::Near, vec![plain_frame(load.size)]),
            Direction::In => (End::Far, sealed(load)),
        };
        Self {
            fixture: Fixture::with_replays(load.suite, end),
            frames,
            load,
        }
    }

    /// Worker `number`; packets arrive at worker 0.
    fn worker(&self, number: u16, exchange: &Desks) -> Crewman {
        let (
            Load {
                direction, size, ..
            },
            room,
        ) = (self.load, self.load.size + 512);
        let (from, to) = match direction {
            Direction::Out => (LAN, WAN),
            Direction::In => (WAN, LAN),
        };
        let port = |index: usize| {
            if index == from && number == 0 {
                Endless::new(&self.frames, self.load.supply, room)
            } else {
                Endless::silent(room)
            }
        };
        let lane = |index: u16| Lane {
            port: port(index.into()),
            index: PortIndex(index),
            complete_checksums: false,
        };
        let mut lanes = vec![lane(0), lane(1)];
        debug_assert!(size >= 28 && to < lanes.len());
        if direction == Direction::Out {
            lanes[to].port.expect_rising();
        }
        let settings = settings(&self.fixture.snapshot, self.fixture.sas.len(), number);
        Worker::new(settings, lanes, NoHost, Arc::clone(exchange))
    }
}

/// Frames that the far end opens.
fn sealed(load: Load) -> Vec<Vec<u8>> {
    let near = Fixture::with_replays(load.suite, End::Near);
    let mut worker = near.worker();
    let plain = plain_frame(load.size);
    let mut frames = Vec::new();
    while frames.len() < DIFFERENT {
        assert!(worker.lanes_mut()[LAN].port.inject(&plain), "a free frame");
        worker.round(BATCH, &near.snapshot, Time(1));
        worker.end_round(&near.snapshot, Time(1));
        let wan = &mut worker.lanes_mut()[WAN].port;
        let sealed = wan.collect(<[u8]>::to_vec);
        frames.push(sealed.expect("every packet leaves"));
    }
    for frame in &mut frames {
        frame[..6].copy_from_slice(&near.snapshot.ports[WAN].mac);
    }
    frames
}

/// A home with more than it can do and a helper, in one thread: every other batch is helped with.
pub struct Pair {
    gateway: Gateway,
    workers: [Crewman; 2],
}

impl Pair {
    /// Both, with nothing lent yet.
    ///
    /// # Panics
    /// When no event descriptor is left.
    #[must_use]
    pub fn new(load: Load) -> Self {
        let gateway = Gateway::new(load);
        let desks = Arc::new(Exchange::new(2).expect("an event descriptor"));
        let workers = [0, 1].map(|number| gateway.worker(number, &desks));
        Self { gateway, workers }
    }

    /// One round of each. Answers the batches that were lent so far.
    pub fn round(&mut self) -> u64 {
        let [home, helper] = &mut self.workers;
        helper.help(0, BATCH);
        home.round(BATCH, &self.gateway.fixture.snapshot, Time(1));
        home.end_round(&self.gateway.fixture.snapshot, Time(1));
        home.tally().of(Cell::Lent)
    }
}

/// How the workers stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crew {
    /// One worker.
    Alone,
    /// Two workers of one gateway, one SA, all packets at one of them.
    Lending,
    /// Two gateways of one worker each.
    Two,
}

/// What a run brought.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Packets a second.
    pub rate: f64,
    /// Batches: lent, taken back.
    pub batches: [u64; 2],
}

/// Runs the workers as fast as they go, each on a core of its own, for `window`.
///
/// # Panics
/// When packets are dropped, or leave out of order.
#[must_use]
pub fn run(load: Load, crew: Crew, window: Duration) -> Outcome {
    let exchange = |workers| Arc::new(Exchange::new(workers).expect("an event descriptor"));
    let gateways: Vec<Gateway> = match crew {
        Crew::Alone | Crew::Lending => vec![Gateway::new(load)],
        Crew::Two => vec![Gateway::new(load), Gateway::new(load)],
    };
    let workers: Vec<(Crewman, &Snapshot)> = match crew {
        Crew::Lending => {
            let desks = exchange(2);
            let gateway = &gateways[0];
            let worker = |number| (gateway.worker(number, &desks), &gateway.fixture.snapshot);
            vec![worker(0), worker(1)]
        }
        Crew::Alone | Crew::Two => {
            let worker = |it: &'_ Gateway| it.worker(0, &exchange(1));
            gateways
                .iter()
                .map(|it| (worker(it), &it.fixture.snapshot))
                .collect()
        }
    };
    let (stop, barrier) = (&AtomicBool::new(false), &Barrier::new(workers.len() + 1));
    let ends: Vec<(f64, Tally)> = thread::scope(|scope| {
        let threads: Vec<_> = (0..)
            .zip(workers)
            .map(|(core, worker)| scope.spawn(move || work(worker, core, barrier, stop)))
            .collect();
        barrier.wait();
        thread::sleep(window);
        stop.store(true, Ordering::Relaxed);
        let joined = threads.into_iter().map(thread::ScopedJoinHandle::join);
        joined.map(|end| end.expect("a worker ended")).collect()
    });
    let mut tally = Tally::new(2);
    for (_, own) in &ends {
        tally.merge(own);
    }
    assert_eq!(tally.dropped(), 0, "every packet leaves");
    Outcome {
        rate: ends.iter().map(|(rate, _)| rate).sum(),
        batches: [Cell::Lent, Cell::TakenBack].map(|cell| tally.of(cell)),
    }
}

/// A worker's rounds until the stop. Answers the packets a second that it sent.
fn work(
    (mut worker, snapshot): (Crewman, &Snapshot),
    core: usize,
    barrier: &Barrier,
    stop: &AtomicBool,
) -> (f64, Tally) {
    pin(core);
    // Every frame is touched, and the SA has its home.
    let birth = Instant::now();
    while birth.elapsed() < Duration::from_millis(5) {
        round(&mut worker, snapshot, birth);
    }
    barrier.wait();
    let (start, before) = (Instant::now(), sent(&mut worker));
    while !stop.load(Ordering::Relaxed) {
        round(&mut worker, snapshot, birth);
    }
    let rate = (sent(&mut worker) - before) as f64 / start.elapsed().as_secs_f64();
    // What this one lent may still be elsewhere: all go on until each is through.
    let until = Instant::now() + Duration::from_millis(20);
    while Instant::now() < until {
        worker.help(0, BATCH);
    }
    (rate, worker.tally().clone())
}

fn round(worker: &mut Crewman, snapshot: &Snapshot, birth: Instant) {
    let now = Time(u64::try_from(birth.elapsed().as_nanos()).unwrap_or(u64::MAX));
    let work = worker.round(BATCH, snapshot, now);
    worker.end_round(snapshot, now);
    worker.help(work, BATCH);
}

fn sent(worker: &mut Crewman) -> u64 {
    worker.lanes_mut().iter().map(|lane| lane.port.sent).sum()
}

/// What it costs that one could lend, where one worker suffices: cycles a packet without and with
/// an idle worker beside, the least of many bursts in turns.
///
/// # Panics
/// When a packet is dropped or lent.
#[must_use]
pub fn unneeded(load: Load, bursts: usize) -> [f64; 2] {
    let exchange = |workers| Arc::new(Exchange::new(workers).expect("an event descriptor"));
    let gateways = [Gateway::new(load), Gateway::new(load)];
    let desks = [exchange(1), exchange(2)];
    let mut idle = gateways[1].worker(1, &desks[1]);
    idle.help(0, BATCH);
    let mut workers = [0, 1].map(|index| gateways[index].worker(0, &desks[index]));
    let (mut least, birth) = ([f64::INFINITY; 2], Instant::now());
    for burst in 0..bursts {
        for index in [burst % 2, (burst + 1) % 2] {
            let (worker, snapshot) = (&mut workers[index], &gateways[index].fixture.snapshot);
            let (start, before) = (now(), sent(worker));
            for _ in 0..8 {
                round(worker, snapshot, birth);
            }
            let packets = sent(worker) - before;
            least[index] = least[index].min((now() - start) as f64 / packets as f64);
        }
    }
    for worker in &workers {
        let lent = worker.tally().of(Cell::Lent) + worker.tally().of(Cell::TakenBack);
        assert_eq!((worker.tally().dropped(), lent), (0, 0));
    }
    least
}
