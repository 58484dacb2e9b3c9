//! Lending between threads that nobody schedules: workers in their own loops on memory ports, some
//! slow whenever they touch a packet, flows of several SAs, both directions, orders in between,
//! and a stop in the midst. On every SA's wire the numbers must rise, every flow must keep its
//! order, every packet must be accounted for and every frame come home.
#![expect(clippy::cast_possible_truncation, reason = "test data is small")]

use std::cell::Cell as Local;
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::BorrowedFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::*;
use crate::port::memory::MemoryFrame;
use crate::port::settings::Idle;
use crate::port::{Burst, Frame, Ledger};
use crate::worker::run::{self, Farewell, Shared};

thread_local! {
    /// How slow this thread is whenever it touches a received packet: 0 is not at all.
    static SLOWNESS: Local<u32> = const { Local::new(0) };
    static DICE: Local<u64> = const { Local::new(1) };
}

fn dice(sides: u64) -> u64 {
    DICE.with(|dice| {
        let mut value = dice.get();
        value ^= value << 13;
        value ^= value >> 7;
        value ^= value << 17;
        dice.set(value);
        value % sides
    })
}

/// A received frame that some threads are slow to read.
struct Slow(MemoryFrame);

impl Frame for Slow {
    fn bytes(&self) -> &[u8] {
        let slowness = SLOWNESS.get();
        if slowness > 0 && dice(200) == 0 {
            match dice(20) {
                0 => std::thread::sleep(Duration::from_micros((slowness * 100).into())),
                _ => std::thread::yield_now(),
            }
        }
        self.0.bytes()
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self.0.bytes_mut()
    }
}

/// The wires of a port: what will arrive, and what was sent.
#[derive(Default)]
struct Wires {
    arriving: Mutex<VecDeque<Vec<u8>>>,
    sent: Mutex<Vec<Vec<u8>>>,
}

/// A memory port that feeds itself and takes what it sent off the wire.
struct Wired {
    port: MemoryPort,
    wires: Arc<Wires>,
}

impl Port for Wired {
    type Received = Slow;
    type Transmit = MemoryFrame;

    fn receive(&mut self, burst: &mut Burst<Slow>, limit: usize) {
        let mut arriving = self.wires.arriving.lock().unwrap();
        for _ in 0..limit {
            let Some(frame) = arriving.pop_front() else {
                break;
            };
            if !self.port.inject(&frame) {
                arriving.push_front(frame);
                break;
            }
        }
        let mut frames = Burst::new();
        self.port.receive(&mut frames, limit);
        burst.extend(frames.into_iter().map(Slow));
    }

    fn release(&mut self, frame: Slow) {
        self.port.release(frame.0);
    }

    fn allocate(&mut self, length: usize) -> Result<MemoryFrame, DropReason> {
        self.port.allocate(length)
    }

    fn discard(&mut self, buffer: MemoryFrame) {
        self.port.discard(buffer);
    }

    fn transmit(&mut self, buffer: MemoryFrame, length: usize) {
        self.port.transmit(buffer, length);
    }

    fn flush(&mut self) -> bool {
        let mut sent = self.wires.sent.lock().unwrap();
        while let Some(frame) = self.port.collect(<[u8]>::to_vec) {
            sent.push(frame);
        }
        false
    }

    fn ledger(&self) -> Ledger {
        self.port.ledger()
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

const KEYS: [u8; 3] = [21, 22, 23];
const OUT: [u32; 2] = [0x1001, 0x1002];
const IN: u32 = 0x2001;

/// Two SAs out, by remote net, and one in, with the smallest window that there is.
fn text() -> String {
    let nets = ["10.2.0.0/16", "10.3.0.0/16"];
    let window = "replay_window = 32\n";
    PORTS.to_owned()
        + PEER
        + &sa("one", OUT[0], "out", KEYS[0])
        + &sa("two", OUT[1], "out", KEYS[1])
        + &sa("in", IN, "in", KEYS[2])
        + window
        + &policy("out", [NETS[0], nets[0]], &protect("one"))
        + &policy("out", [NETS[0], nets[1]], &protect("two"))
            .replace("\"out\"\ndirec", "\"too\"\ndirec")
        + &policy("in", NETS, &protect("in"))
}

/// A packet of a flow: its number is in the payload.
fn of_flow(flow: u8, number: u32) -> Vec<u8> {
    let mut packet = match flow % 4 {
        0 | 1 => udp(NEAR, FAR, 9),
        2 => udp(NEAR, [10, 3, 0, 2], 9),
        _ => udp(FAR, NEAR, 9),
    };
    packet[20] = flow;
    packet[28..32].copy_from_slice(&number.to_be_bytes());
    packet
}

/// Flow and number of an IP packet in clear.
fn flow_of(ip: &[u8]) -> (u8, u32) {
    (ip[20], u32::from_be_bytes(ip[28..32].try_into().unwrap()))
}

/// What a worker sent, by port.
type Sent = [Vec<Vec<u8>>; 2];

struct Gateway {
    shared: Arc<Shared>,
    exchange: Arc<Exchange<Slow, MemoryFrame>>,
    blocks: Vec<Arc<Block>>,
    /// By worker, then by port.
    wires: Vec<[Arc<Wires>; 2]>,
    threads: Vec<JoinHandle<(Farewell, Tally)>>,
}

impl Gateway {
    fn start(workers: u16, seed: u64) -> Self {
        let (snapshot, sas) = generation(&text());
        let idle = [Idle::Adaptive, Idle::Sleep, Idle::Spin][seed as usize % 3];
        let shared = Arc::new(Shared {
            snapshot: ArcSwap::from_pointee(snapshot),
            stop: AtomicBool::new(false),
            draining: AtomicUsize::new(0),
            workers: workers.into(),
            start: Instant::now(),
            batch: [64, 33, 7][seed as usize / 3 % 3],
            idle,
        });
        let exchange = Arc::new(Exchange::new(workers.into()).unwrap());
        let mut gateway = Self {
            shared,
            exchange,
            blocks: Vec::new(),
            wires: Vec::new(),
            threads: Vec::new(),
        };
        for number in 0..workers {
            gateway.spawn(number, sas.len(), seed);
        }
        gateway
    }

    fn spawn(&mut self, number: u16, sas: usize, seed: u64) {
        let policies = self.shared.snapshot.load().tables.policy_count();
        let block = Arc::new(Block::new(2));
        self.blocks.push(Arc::clone(&block));
        let settings = WorkerSettings {
            number,
            ports: 2,
            sas,
            errors_per_second: 100,
            send_unreachable: false,
            heeded: Heeded::ALL,
            remembered_fragments: 16,
            fragment_timeout: SECOND,
            reassembly: BOUNDS,
            reassemble_udp: false,
            ivs: RandomIvs::seeded(&[0; 32], number.into()),
            flow_label_seed: 1,
            block: Arc::clone(&block),
            policies: (0..policies).map(|_| Count::default()).collect(),
            neighbor_requests: None,
            number_requests: None,
        };
        let wires = [Arc::default(), Arc::default()];
        let lanes = (0..2_u16).map(|index| Lane {
            port: Wired {
                port: MemoryPort::new(1024, 512),
                wires: Arc::clone(&wires[usize::from(index)]),
            },
            index: PortIndex(index),
            complete_checksums: false,
        });
        let worker = Worker::new(
            settings,
            lanes.collect(),
            NoHost,
            Arc::clone(&self.exchange),
        );
        self.wires.push(wires);
        let shared = Arc::clone(&self.shared);
        self.threads.push(std::thread::spawn(move || {
            // The last ones have no traffic of their own: helpers, from brisk to very slow.
            SLOWNESS.set(if number > 1 { (seed as u32 % 5) * 4 } else { 0 });
            DICE.set(seed * 97 + u64::from(number) + 1);
            let farewell = run::run(worker, &shared);
            (farewell, block.read())
        }));
    }

    fn feed(&self, worker: usize, port: usize, packets: impl IntoIterator<Item = Vec<u8>>) {
        let mac = self.shared.snapshot.load().ports[port].mac;
        let frame = |packet: Vec<u8>| [&mac[..], &[2, 0, 0, 0, 9, 9, 8, 0], &packet].concat();
        let mut arriving = self.wires[worker][port].arriving.lock().unwrap();
        arriving.extend(packets.into_iter().map(frame));
        drop(arriving);
        self.exchange.bell(worker).ring();
    }

    fn sum(&self) -> Tally {
        let sum = self
            .exchange
            .cuts()
            .sum(&self.blocks, 2, || self.exchange.wake());
        assert!(sum.balances(), "at every cut: {:?}", sum.sides());
        assert!(sum.of(Cell::Held) < u64::MAX / 2, "ended before it began");
        sum
    }

    fn stop(self) -> (Vec<Farewell>, Tally, Vec<Sent>) {
        self.shared.stop.store(true, Relaxed);
        self.exchange.wake();
        let mut tally = Tally::new(2);
        let ends = self.threads.into_iter().map(|it| it.join().unwrap());
        let farewells = ends.map(|(farewell, own)| {
            tally.merge(&own);
            farewell
        });
        let farewells = farewells.collect();
        let sent = |wires: &Arc<Wires>| -> Vec<Vec<u8>> {
            let sent = std::mem::take(&mut *wires.sent.lock().unwrap());
            sent.into_iter().map(|frame| frame[14..].to_vec()).collect()
        };
        let sent = self.wires.iter().map(|[wan, lan]| [sent(wan), sent(lan)]);
        (farewells, tally, sent.collect())
    }
}

/// The numbers of each flow rise; answers how many packets each has.
fn flows(packets: &[Vec<u8>]) -> BTreeMap<u8, u32> {
    let mut last = BTreeMap::new();
    let mut counts = BTreeMap::new();
    for packet in packets {
        let (flow, number) = flow_of(packet);
        let before = last.insert(flow, number);
        assert!(
            before.is_none_or(|before| before < number),
            "flow {flow}: {before:?}, {number}"
        );
        *counts.entry(flow).or_default() += 1;
    }
    counts
}

/// The wire's packets of one SA, in clear.
fn opened(spi: u32, key: u8, sealed: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let text = PORTS.to_owned()
        + &sa("peer", spi, "in", key)
        + &policy("in", ["any", "any"], &protect("peer"))
        + "[[route]]\nprefix = \"0.0.0.0/0\"\nport = \"lan0\"\nvia = \"10.1.0.2\"\n";
    let text = text
        .replace("192.0.2.1", "192.0.2.9")
        .replace("192.0.2.2\"", "192.0.2.1\"")
        .replace("192.0.2.9", "192.0.2.2");
    let mut world = World::with_ports(&text, 1, (sealed.len().max(1), 512));
    world.offer(0, WAN, sealed, Time(0));
    for _ in 0..sealed.len() / 64 {
        world.round(0, Time(0));
    }
    assert_eq!(
        world.tally().dropped(),
        0,
        "every packet is authentic and new"
    );
    world.sent(0, LAN)
}

/// What all workers sent on an SA: by one of them alone, in rising order.
fn of_sa(spi: u32, sent: &[Sent]) -> Vec<Vec<u8>> {
    let of = |packets: &Vec<Vec<u8>>| -> Vec<Vec<u8>> {
        let ours = packets.iter().filter(|it| it[20..24] == spi.to_be_bytes());
        ours.cloned().collect()
    };
    let mut all: Vec<_> = sent.iter().map(|[wan, _]| of(wan)).collect();
    all.retain(|packets| !packets.is_empty());
    assert!(all.len() <= 1, "one home");
    let all = all.pop().unwrap_or_default();
    let number = |packet: &Vec<u8>| u32::from_be_bytes(packet[24..28].try_into().unwrap());
    assert!(
        all.is_sorted_by(|a, b| number(a) < number(b)),
        "the numbers of {spi:x} rise"
    );
    all
}

/// One run: `whole` waits until all has ended, else the stop comes in the midst.
fn run_with(seed: u64, whole: bool) -> Tally {
    const PACKETS: u32 = 6000;
    DICE.set(seed + 1);
    let arriving: Vec<_> = (0..PACKETS).map(|number| of_flow(3, number)).collect();
    let arriving = sealed(IN, KEYS[2], &arriving);
    let gateway = Gateway::start(3, seed);
    // Each flow arrives at one worker; what opens and the first SA live on worker 0.
    gateway.feed(0, LAN, [of_flow(0, 0)]);
    gateway.feed(0, WAN, [arriving[0].clone()]);
    while gateway.sum().of(Cell::Tx) < 2 {}
    let mut done = 1;
    while done < PACKETS {
        let chunk = u32::try_from(1 + dice(900)).unwrap().min(PACKETS - done);
        let numbers = done..done + chunk;
        let of = |flow| numbers.clone().map(move |number| of_flow(flow, number));
        gateway.feed(0, LAN, of(0));
        gateway.feed(1, LAN, of(1).zip(of(2)).flat_map(|(one, two)| [one, two]));
        gateway.feed(
            0,
            WAN,
            arriving[numbers.start as usize..numbers.end as usize].to_vec(),
        );
        if dice(3) == 0 {
            // One more than may wait is refused, which is no matter here.
            let order = Order {
                slot: ipsec::sa::SaSlot(0),
                count: 5,
            };
            gateway.exchange.order(dice(3) as usize, order).ok();
        }
        done += chunk;
        match dice(4) {
            0 => std::thread::sleep(Duration::from_micros(dice(2000))),
            1 => drop(gateway.sum()),
            _ => {}
        }
    }
    let total = u64::from(PACKETS) * 4 - 2;
    let until = Instant::now() + Duration::from_secs(60);
    while whole && (gateway.sum().of(Cell::Rx) < total || gateway.sum().of(Cell::Held) > 0) {
        assert!(Instant::now() < until, "{:?}", gateway.sum());
    }
    let (farewells, tally, sent) = gateway.stop();
    let ledgers = farewells.iter().flat_map(|farewell| &farewell.ledgers);
    for ledger in ledgers {
        assert!(ledger.is_home() && ledger.queued == 0, "{ledger:?}");
    }
    assert_eq!(tally.of(Cell::Rx), total, "all was taken in");
    assert_eq!((tally.balances(), tally.of(Cell::Held)), (true, 0));
    assert_eq!(tally.drops(DropReason::Replay), 0, "accepted in order");
    let mut left = 0;
    for (spi, key) in OUT.into_iter().zip(KEYS) {
        let packets = of_sa(spi, &sent);
        left += packets.len();
        let clear = opened(spi, key, &packets);
        flows(&clear);
    }
    let inner: Vec<_> = sent.iter().flat_map(|[_, lan]| lan.clone()).collect();
    flows(&inner);
    assert_eq!((left + inner.len()) as u64, tally.of(Cell::Tx));
    tally
}

#[test]
fn order_and_accounts_hold_however_slow_the_helpers_are() {
    let mut sum = Tally::new(2);
    for seed in 0..15 {
        sum.merge(&run_with(seed, true));
    }
    let done = [Cell::Lent, Cell::TakenBack, Cell::Helped].map(|cell| sum.of(cell));
    assert!(
        done[0] > 0 && done[1] > 0,
        "neither side did it all: {done:?}"
    );
    assert_eq!(done[0], done[2], "who lends and who helps agree");
}

#[test]
fn a_stop_in_the_midst_of_lending_loses_no_frame_and_no_packet() {
    for seed in 20..30 {
        run_with(seed, false);
    }
}
