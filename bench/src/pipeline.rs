//! What the pipeline costs on memory ports: one burst after the other through a worker, with the
//! packet sizes, SAs and policies of a [`Case`], and beside it the two parts that are not ours: the
//! cipher alone over the same lengths, and the memory port alone.
//!
//! `own = whole − crypto − port`. The cipher is measured with one key, hot in the cache: what it
//! costs to fetch the keys of many SAs therefore counts as our own work.

use std::sync::Arc;

use arrayvec::ArrayVec;
use ipsec::crypto::{self, OpenJob, SealJob, Transform};
use ipsec::limits::BATCH;
use ipsec::sa::association::Direction;
use ipsec::time::Time;
use xipsec::port::memory::{MemoryFrame, MemoryPort};
use xipsec::port::{Burst, Frame, Port};
use xipsec::worker::Worker;
use xipsec::worker::handoff::Exchange;
use xipsec::worker::host::NoHost;

use crate::cycles::{now, quietest_median};
use crate::fixture::{LAN, WAN};
use crate::fleet::{Ends, MACS};

/// Packets of one burst: half a batch, as a busy ring gives them.
pub const BURST: usize = 32;

/// Where a frame has its UDP source port: behind Ethernet's header and that of IPv4.
const SOURCE_PORT: usize = 34;

/// Lengths of the packets of a burst, in turns, bytes of IP packet.
pub type Lengths = Vec<usize>;

/// The Internet mix: of twelve packets seven small, four middling, one as long as a tunnel takes
/// without fragments.
#[must_use]
pub fn imix() -> Lengths {
    vec![64, 576, 64, 64, 576, 64, 1420, 64, 576, 64, 576, 64]
}

/// Cycles per packet.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// The worker from burst to burst.
    pub whole: f64,
    /// Sealing or opening alone.
    pub crypto: f64,
    /// Receiving, allocating, transmitting and releasing alone.
    pub port: f64,
}

impl Cost {
    /// What is neither cipher nor port.
    #[must_use]
    pub fn own(&self) -> f64 {
        self.whole - self.crypto - self.port
    }
}

/// The order in which policies, and with them SAs, get packets: each once before any twice, at
/// random.
pub struct Order {
    places: Vec<u32>,
    at: usize,
}

impl Order {
    /// Over those of `count` policies that leave the rest `part` when divided by `parts`; over all
    /// when there are fewer than parts.
    #[must_use]
    pub fn new(count: usize, part: usize, parts: usize) -> Self {
        let all = 0..u32::try_from(count).unwrap_or(u32::MAX);
        let mut places: Vec<u32> = if count < parts {
            all.collect()
        } else {
            all.filter(|place| *place as usize % parts == part)
                .collect()
        };
        // xorshift64: the same order in every run.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for index in (1..places.len()).rev() {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let other = usize::try_from(state % (index as u64 + 1)).unwrap_or(0);
            places.swap(index, other);
        }
        Self { places, at: 0 }
    }

    /// Number of policies in it.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.places.len()
    }

    /// The next one.
    pub fn take(&mut self) -> usize {
        let place = self.places[self.at];
        self.at = (self.at + 1) % self.places.len();
        place as usize
    }
}

type MemoryWorker = Worker<MemoryPort, NoHost>;

/// Which way the packets go, and how long they are.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// Out: sealed. In: sealed by the far end and opened.
    pub direction: Direction,
    /// Of the packets in turns.
    pub lengths: Lengths,
}

/// A worker under test, and one of the far end that seals what it opens. The SAs' states live in
/// the two, so that each pair of ends serves one bench for each worker and no other after it.
pub struct Bench<'f> {
    ends: &'f Ends,
    number: u16,
    near: MemoryWorker,
    far: MemoryWorker,
    order: Order,
    turn: usize,
    /// Each packet is of another flow than the one before it, also where one policy takes all.
    many_flows: bool,
    frames: Vec<Vec<u8>>,
}

impl<'f> Bench<'f> {
    /// Worker `number` of `workers`, which share the exchanges of the near and of the far end.
    #[must_use]
    pub fn new(
        ends: &'f Ends,
        [number, workers]: [u16; 2],
        exchanges: &[Arc<Exchange<MemoryFrame>>; 2],
    ) -> Self {
        let policies = ends.near.scale().policies;
        Self {
            ends,
            number,
            near: ends.near.worker(number, &exchanges[0]),
            far: ends.far.worker(number, &exchanges[1]),
            order: Order::new(policies, number.into(), workers.into()),
            turn: 0,
            many_flows: false,
            frames: vec![Vec::new(); BURST],
        }
    }

    /// With packets of many flows: what one policy decides about one of them says nothing about the
    /// next.
    #[must_use]
    pub const fn of_many_flows(mut self) -> Self {
        self.many_flows = true;
        self
    }

    /// The only worker.
    ///
    /// # Panics
    /// When the system has no event descriptors.
    #[must_use]
    pub fn alone(ends: &'f Ends) -> Self {
        let exchange = || Arc::new(Exchange::new(1).expect("an event descriptor"));
        Self::new(ends, [0, 1], &[exchange(), exchange()])
    }

    /// The worker's number.
    #[must_use]
    pub const fn number(&self) -> u16 {
        self.number
    }

    /// Lets every SA of the order have a packet: states find their home, caches their size.
    pub fn warm_up(&mut self, traffic: &Traffic) {
        for _ in 0..self.order.count().div_ceil(BURST).max(8) {
            self.burst(traffic);
        }
    }

    /// One burst: cycles that the worker took for it and packets that left.
    pub fn burst(&mut self, traffic: &Traffic) -> (u64, usize) {
        let (into, out) = match traffic.direction {
            Direction::In => (WAN, LAN),
            Direction::Out => (LAN, WAN),
        };
        self.write_frames(traffic);
        for frame in &self.frames {
            self.near.lanes_mut()[into].port.inject(frame);
        }
        let snapshot = &self.ends.near.snapshot;
        let start = now();
        self.near.round(BATCH, snapshot, Time(1));
        self.near.end_round(snapshot, Time(1));
        let cycles = now() - start;
        let port = &mut self.near.lanes_mut()[out].port;
        let mut left = 0;
        while port.collect(<[u8]>::len).is_some() {
            left += 1;
        }
        (cycles, left)
    }

    /// Puts the next burst's frames in place, inbound sealed by the far end.
    fn write_frames(&mut self, traffic: &Traffic) {
        let inbound = traffic.direction == Direction::In;
        let (near, far) = (&self.ends.near, &self.ends.far);
        let sender = if inbound { far } else { near };
        for frame in &mut self.frames {
            let length = traffic.lengths[self.turn % traffic.lengths.len()];
            self.turn += 1;
            sender.frame(self.order.take(), length, frame);
            if self.many_flows {
                // Above all ports that a built-in policy knows.
                let port = 0x8000 | u16::try_from(self.turn % 0x8000).unwrap_or(0);
                frame[SOURCE_PORT..SOURCE_PORT + 2].copy_from_slice(&port.to_be_bytes());
            }
        }
        if !inbound {
            return;
        }
        for frame in &self.frames {
            self.far.lanes_mut()[LAN].port.inject(frame);
        }
        self.far.round(BATCH, &far.snapshot, Time(1));
        self.far.end_round(&far.snapshot, Time(1));
        let port = &mut self.far.lanes_mut()[WAN].port;
        for frame in &mut self.frames {
            let sealed = port.collect(|bytes| {
                frame.clear();
                frame.extend_from_slice(bytes);
                frame[..6].copy_from_slice(&MACS[0]);
            });
            assert!(sealed.is_some(), "the far end seals every packet");
        }
    }

    /// Cycles per packet over `bursts` bursts, the parts interleaved with the whole.
    ///
    /// # Panics
    /// When a packet does not leave.
    pub fn cost(&mut self, traffic: &Traffic, bursts: usize) -> Cost {
        self.warm_up(traffic);
        let lengths = traffic.lengths.iter().copied().cycle().take(BURST);
        let lengths: Vec<usize> = lengths.collect();
        let transform = &self.ends.near.sas[0].transform;
        let mut alone = Alone::new(transform, traffic.direction, &lengths);
        let mut port = MemoryPort::new(2 * BURST, 10 * 1024);
        let mut samples = [const { Vec::new() }; 3];
        let packets = BURST as f64;
        for _ in 0..bursts {
            let (cycles, left) = self.burst(traffic);
            assert_eq!(left, BURST, "every packet leaves: {:?}", self.near.tally());
            samples[0].push(cycles as f64 / packets);
            samples[1].push(alone.run() as f64 / packets);
            samples[2].push(through_port(&mut port, &self.frames) as f64 / packets);
        }
        let [whole, crypto, port] = samples.map(|samples| quietest_median(&samples));
        Cost {
            whole,
            crypto,
            port,
        }
    }
}

/// Cycles of one burst's frames through a memory port with nothing done to them.
fn through_port(port: &mut MemoryPort, frames: &[Vec<u8>]) -> u64 {
    for frame in frames {
        port.inject(frame);
    }
    let start = now();
    let mut burst: Burst<MemoryFrame> = ArrayVec::new();
    port.receive(&mut burst, BATCH);
    for frame in burst {
        let length = frame.bytes().len();
        if let Ok(buffer) = port.allocate(length) {
            port.transmit(buffer, length);
        }
        port.release(frame);
    }
    port.flush();
    let cycles = now() - start;
    while port.collect(<[u8]>::len).is_some() {}
    cycles
}

/// The cipher alone.
pub struct Alone<'t> {
    transform: &'t Transform,
    direction: Direction,
    plain: Vec<Vec<u8>>,
    sealed: Vec<Vec<u8>>,
}

impl<'t> Alone<'t> {
    /// Over packets of these lengths, bytes of IP packet.
    ///
    /// # Panics
    /// When the cipher does not open what it sealed.
    #[must_use]
    pub fn new(transform: &'t Transform, direction: Direction, lengths: &[usize]) -> Self {
        let suite = transform.suite();
        let header = 8 + suite.iv_length();
        let plain: Vec<_> = lengths.iter().map(|length| vec![0x55; *length]).collect();
        let sealed = lengths.iter().map(|length| {
            let text = (length + 2).next_multiple_of(suite.alignment());
            vec![0; header + text + suite.icv_length()]
        });
        let sealed = sealed.collect();
        let mut alone = Self {
            transform,
            direction,
            plain,
            sealed,
        };
        alone.seal();
        for (plain, sealed) in alone.plain.iter_mut().zip(&alone.sealed) {
            plain.resize(sealed.len(), 0);
        }
        let opens = direction == Direction::Out || alone.open().1;
        assert!(opens, "what the cipher seals it opens");
        if direction == Direction::Out {
            for (plain, length) in alone.plain.iter_mut().zip(lengths) {
                plain.truncate(*length);
            }
        }
        alone
    }

    /// Cycles of one burst.
    pub fn run(&mut self) -> u64 {
        match self.direction {
            Direction::Out => self.seal(),
            Direction::In => self.open().0,
        }
    }

    fn seal(&mut self) -> u64 {
        let buffers = self.plain.iter().zip(&mut self.sealed);
        let jobs = buffers.map(|(source, destination)| SealJob {
            transform: self.transform,
            source,
            destination,
            sequence: 1,
            esn: true,
        });
        let mut jobs: ArrayVec<_, BATCH> = jobs.collect();
        let start = now();
        crypto::seal(&mut jobs);
        now() - start
    }

    fn open(&mut self) -> (u64, bool) {
        let buffers = self.sealed.iter().zip(&mut self.plain);
        let jobs = buffers.map(|(source, destination)| OpenJob {
            transform: self.transform,
            source,
            destination,
            sequence: 1,
            esn: true,
            authentic: false,
        });
        let mut jobs: ArrayVec<_, BATCH> = jobs.collect();
        let start = now();
        crypto::open(&mut jobs);
        let cycles = now() - start;
        (cycles, jobs.iter().all(|job| job.authentic))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_takes_each_once_before_any_twice_and_parts_do_not_overlap() {
        let mut seen = [0; 10];
        for part in 0..2 {
            let mut order = Order::new(10, part, 2);
            assert_eq!(order.count(), 5);
            (0..10).for_each(|_| seen[order.take()] += 1);
        }
        assert_eq!(seen, [2; 10]);
        assert_eq!(Order::new(1, 1, 2).take(), 0);
    }
}
