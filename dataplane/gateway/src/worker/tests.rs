//! Workers on memory ports, without a kernel: what only shows between bursts, rounds and workers.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crossbeam::queue::ArrayQueue;
use ipsec::crypto::iv::RandomIvs;
use ipsec::ip::icmp_error::Heeded;
use ipsec::ip::reassemble::Bounds;
use ipsec::sa::Sa;
use ipsec::tables::{Count, Unmatched};
use ipsec::time::{MILLISECOND, SECOND, Time};
use ipsec::verdict::DropReason;
use ipsec::wire::checksum::Sum;

use crate::assembly;
use crate::config::{self, Purpose};
use crate::counters::{Block, Cell, Tally};
use crate::port::Port;
use crate::port::memory::MemoryPort;
use crate::port::settings::Side;
use crate::route::PortIndex;
use crate::snapshot::{PortFacts, Snapshot};
use crate::worker::handoff::Exchange;
use crate::worker::host::NoHost;
use crate::worker::orders::Order;
use crate::worker::pending::NextHop;
use crate::worker::{Lane, Worker, WorkerSettings};

mod alternatives;
mod bundles;
mod errors;
mod fragments;
mod held;
mod keepalives;
mod own_fragments;

mod lending;

mod lending_threads;

const WAN: usize = 0;
const LAN: usize = 1;

const BOUNDS: Bounds = Bounds {
    packets: 16,
    bytes: 1 << 16,
    timeout_ns: SECOND,
};

const PORTS: &str = r#"
[dataplane]
state_dir = "unused"
[[port]]
name = "wan0"
side = "unprotected"
address = ["192.0.2.1/24"]
mac = "02:00:00:00:00:01"
[[port]]
name = "lan0"
side = "protected"
address = ["10.1.0.1/24"]
mac = "02:00:00:00:01:01"
[[neighbor]]
port = "lan0"
address = "10.1.0.2"
mac = "02:00:00:00:01:02"
"#;

const PEER: &str = r#"
[[neighbor]]
port = "wan0"
address = "192.0.2.2"
mac = "02:00:00:00:00:02"
"#;

fn sa(name: &str, spi: u32, direction: &str, key: u8) -> String {
    let (source, destination) = match direction {
        "out" => ("192.0.2.1", "192.0.2.2"),
        _ => ("192.0.2.2", "192.0.2.1"),
    };
    let key = format!("{key:02x}").repeat(20);
    format!(
        "[[sa]]\nname = \"{name}\"\ndirection = \"{direction}\"\nprotocol = \"esp\"\n\
         mode = \"tunnel\"\nspi = {spi}\nsource = \"{source}\"\ndestination = \"{destination}\"\n\
         encryption = \"aes128gcm16\"\nencryption_key = \"{key}\"\n"
    )
}

fn policy(direction: &str, [local, remote]: [&str; 2], fate: &str) -> String {
    format!(
        "[[policy]]\nname = \"{direction}\"\ndirection = \"{direction}\"\n\
         local = \"{local}\"\nremote = \"{remote}\"\npriority = 100\n{fate}\n"
    )
}

fn protect(sa: &str) -> String {
    format!("action = \"protect\"\nsa = [\"{sa}\"]")
}

/// A gateway of some workers.
struct World {
    workers: Vec<Worker<MemoryPort, NoHost>>,
    snapshot: Snapshot,
    sas: Vec<Arc<Sa>>,
    policies: Vec<Arc<[Count]>>,
    requests: Arc<ArrayQueue<NextHop>>,
    exchange: Arc<MemoryExchange>,
}

type MemoryExchange = Exchange<<MemoryPort as Port>::Received>;

/// What workers read, by a configuration's text.
fn generation(text: &str) -> (Snapshot, Vec<Arc<Sa>>) {
    let text = text.as_bytes().to_vec().into();
    let mut config = config::parse(Path::new("test.toml"), text, Purpose::Replay).unwrap();
    let parameters = std::mem::take(&mut config.sas);
    let starts = crate::state::unreserved(&parameters);
    let sas = assembly::sas(parameters, &config.policies, &starts, Time(0)).unwrap();
    let own = config.ports.iter().flat_map(|port| &port.addresses);
    let local = own.map(|own| own.address);
    let tables = assembly::tables(&sas, &config.policies, local, Unmatched::Discard).unwrap();
    let ports = config.ports.iter().map(|port| PortFacts {
        name: port.name.clone(),
        side: port.side,
        mac: port.mac.unwrap(),
        mtu: 1500,
        addresses: port.addresses.iter().map(|own| own.address).collect(),
        broadcasts: Vec::new(),
    });
    let snapshot = Snapshot {
        generation: 1,
        tables: Arc::new(tables),
        fib: Arc::new(assembly::static_fib(&config)),
        neighbors: Arc::new(assembly::static_neighbors(&config)),
        ports: ports.collect(),
        first_protected: PortIndex(1),
    };
    assert_eq!(snapshot.ports[LAN].side, Side::Protected);
    (snapshot, sas)
}

impl World {
    fn new(text: &str, workers: u16) -> Self {
        Self::with_frames(text, workers, 2048)
    }

    /// With ports whose frames have `room` bytes.
    fn with_frames(text: &str, workers: u16, room: usize) -> Self {
        Self::with_ports(text, workers, (128, room))
    }

    /// With ports of so many frames each way, and so many bytes in each.
    fn with_ports(text: &str, workers: u16, (frames, room): (usize, usize)) -> Self {
        let (snapshot, sas) = generation(text);
        let exchange = Arc::new(Exchange::new(usize::from(workers)).unwrap());
        let requests = Arc::new(ArrayQueue::new(16));
        let mut policies = Vec::new();
        let mut all = Vec::new();
        for number in 0..workers {
            let cells: Arc<[Count]> = (0..snapshot.tables.policy_count())
                .map(|_| Count::default())
                .collect();
            policies.push(Arc::clone(&cells));
            let settings = WorkerSettings {
                number,
                ports: 2,
                sas: sas.len(),
                errors_per_second: 100,
                send_unreachable: true,
                heeded: Heeded::ALL,
                remembered_fragments: 16,
                fragment_timeout: SECOND,
                reassembly: BOUNDS,
                reassemble_udp: false,
                ivs: RandomIvs::seeded(&[0; 32], 0),
                flow_label_seed: 1,
                block: Arc::new(Block::new(2)),
                policies: cells,
                neighbor_requests: Some(Arc::clone(&requests)),
                number_requests: None,
            };
            let lane = |index| Lane {
                port: MemoryPort::new(frames, room),
                index: PortIndex(index),
                complete_checksums: false,
            };
            let lanes = vec![lane(0), lane(1)];
            let exchange = Arc::clone(&exchange);
            all.push(Worker::new(settings, lanes, NoHost, exchange));
        }
        Self {
            workers: all,
            snapshot,
            sas,
            policies,
            requests,
            exchange,
        }
    }

    /// Packets that arrive at a worker's port in one burst, and that worker's round.
    fn offer(&mut self, worker: usize, port: usize, packets: &[Vec<u8>], now: Time) {
        let mac = self.snapshot.ports[port].mac;
        for packet in packets {
            let from = [2, 0, 0, 0, 9, 9];
            let frame = [&mac[..], &from, &ether_type(packet), packet].concat();
            let lanes = self.workers[worker].lanes_mut();
            assert!(lanes[port].port.inject(&frame));
        }
        self.round(worker, now);
    }

    fn round(&mut self, worker: usize, now: Time) {
        self.workers[worker].round(64, &self.snapshot, now);
        self.workers[worker].end_round(&self.snapshot, now);
        assert!(self.tally().balances(), "{:?}", self.tally().sides());
    }

    /// The IP packets that a worker sent by a port.
    fn sent(&mut self, worker: usize, port: usize) -> Vec<Vec<u8>> {
        let port = &mut self.workers[worker].lanes_mut()[port].port;
        std::iter::from_fn(|| port.collect(|frame| frame[14..].to_vec())).collect()
    }

    fn tally(&self) -> Tally {
        let mut sum = Tally::new(2);
        for worker in &self.workers {
            sum.merge(worker.tally());
        }
        sum
    }

    /// Packets that policies of the file decided, the worker's first.
    fn counted(&self, worker: usize) -> u64 {
        self.policies[worker].iter().map(|cell| cell.read().0).sum()
    }
}

fn ether_type(packet: &[u8]) -> [u8; 2] {
    if packet[0] >> 4 == 6 {
        [0x86, 0xdd]
    } else {
        [8, 0]
    }
}

fn udp(source: [u8; 4], destination: [u8; 4], hop_limit: u8) -> Vec<u8> {
    let mut ip = vec![
        0x45, 0, 0, 36, 0, 7, 0x40, 0, hop_limit, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    ip[12..16].copy_from_slice(&source);
    ip[16..20].copy_from_slice(&destination);
    let sum = Sum::ZERO.bytes(&ip).checksum();
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    ip.extend([0x13, 0x88, 0x13, 0x89, 0, 16, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    ip
}

const NEAR: [u8; 4] = [10, 1, 0, 2];
const FAR: [u8; 4] = [10, 2, 0, 2];
const NETS: [&str; 2] = ["10.1.0.0/16", "10.2.0.0/16"];

/// The packets sealed by the gateway at the other end of the SA with that number and key.
fn sealed(spi: u32, key: u8, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let text = PORTS.to_owned() + PEER + &sa("peer", spi, "out", key);
    // Seen from there, what is remote here is local.
    let text = text + &policy("out", ["any", "any"], &protect("peer"));
    let text = text
        .replace("192.0.2.1", "192.0.2.9")
        .replace("192.0.2.2\"", "192.0.2.1\"")
        .replace("192.0.2.9", "192.0.2.2");
    let mut world = World::with_ports(&text, 1, (packets.len().max(1), 2048));
    world.offer(0, LAN, packets, Time(0));
    for _ in 0..packets.len() / 64 {
        world.round(0, Time(0));
    }
    world.sent(0, WAN)
}

#[test]
fn an_error_of_our_own_counts_only_if_it_leaves() {
    // Clear transit whose hops are used up: the answer goes by the outbound policy.
    let transit = [udp(FAR, NEAR, 1)];
    let bypass = policy("in", NETS, "action = \"bypass\"");
    let own = ["any", "10.2.0.0/16"];
    let through = |sa: &str| policy("out", own, &protect(sa));
    let tunnel = sa("out", 0x1001, "out", 1);
    let cases = [
        // The neighbour, the route, the policy refuses; nothing does.
        (tunnel.clone() + &through("out"), 0),
        (
            tunnel.replace("192.0.2.2", "198.51.100.2") + &through("out"),
            0,
        ),
        (policy("out", own, "action = \"discard\""), 0),
        (PEER.to_owned() + &tunnel + &through("out"), 1),
    ];
    for (rest, created) in cases {
        let mut world = World::new(&(PORTS.to_owned() + &bypass + &rest), 1);
        world.offer(0, WAN, &transit, Time(0));
        world.round(0, Time(2 * SECOND));
        let tally = world.tally();
        assert_eq!(tally.drops(DropReason::HopLimit), 1);
        assert_eq!(
            (tally.dropped(), tally.of(Cell::Created)),
            (1, created),
            "{rest}"
        );
        assert_eq!(world.sent(0, WAN).len() as u64, created);
        // The transit packet itself was decided by the inbound policy.
        assert_eq!(world.counted(0), 1 + created, "{rest}");
        let sealed = world
            .sas
            .iter()
            .map(|sa| sa.published.packets.load(Relaxed));
        assert_eq!(sealed.sum::<u64>(), created);
    }
}

#[test]
fn of_one_burst_sixteen_packets_wait_for_a_next_hop() {
    let tunnel = sa("out", 0x1001, "out", 1) + &policy("out", NETS, &protect("out"));
    let mut world = World::new(&(PORTS.to_owned() + &tunnel), 1);
    let burst: Vec<_> = (0..40).map(|_| udp(NEAR, FAR, 9)).collect();
    world.offer(0, LAN, &burst, Time(0));
    let tally = world.tally();
    assert_eq!(tally.of(Cell::Held), 16);
    assert_eq!(tally.drops(DropReason::NoNeighbor), 24);
    assert!(world.requests.pop().is_some());
    let (known, _) = generation(&(PORTS.to_owned() + PEER));
    world.snapshot.neighbors = known.neighbors;
    world.round(0, Time(MILLISECOND));
    assert_eq!(world.sent(0, WAN).len(), 16);
    assert_eq!(world.tally().of(Cell::Held), 0);
}

#[test]
fn what_waited_for_a_neighbour_leaves_before_what_arrives_when_it_is_known() {
    let tunnel = sa("out", 0x1001, "out", 1) + &policy("out", NETS, &protect("out"));
    let mut world = World::new(&(PORTS.to_owned() + &tunnel), 1);
    let two = [udp(NEAR, FAR, 9), udp(NEAR, FAR, 9)];
    world.offer(0, LAN, &two, Time(0));
    let (known, _) = generation(&(PORTS.to_owned() + PEER));
    world.snapshot.neighbors = known.neighbors;
    world.offer(0, LAN, &two, Time(MILLISECOND));
    let sent = world.sent(0, WAN);
    let numbers: Vec<u8> = sent.iter().map(|packet| packet[27]).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
}

#[test]
fn an_opened_packet_goes_on_where_its_next_sa_is_at_home() {
    // From one spoke to another: opened by one SA, sealed by the next.
    let spokes = ["10.2.0.0/16", "10.3.0.0/16"];
    let text = PORTS.to_owned()
        + PEER
        + &sa("in", 0x2001, "in", 7)
        + &sa("out", 0x1001, "out", 1)
        + &policy("in", [spokes[1], spokes[0]], &protect("in"))
        + &policy("out", ["any", spokes[1]], &protect("out"))
        + "[[route]]\nprefix = \"10.3.0.0/16\"\nport = \"wan0\"\nvia = \"192.0.2.2\"\n";
    let mut world = World::new(&text, 2);
    world.offer(1, LAN, &[udp(NEAR, [10, 3, 0, 2], 9)], Time(0));
    assert_eq!(
        world.sent(1, WAN).len(),
        1,
        "the outbound SA is at home there now"
    );
    let packets = sealed(0x2001, 7, &[udp(FAR, [10, 3, 0, 2], 9)]);
    world.offer(0, WAN, &packets, Time(1));
    assert_eq!(world.tally().of(Cell::Held), 1);
    world.round(1, Time(2));
    assert_eq!(world.sent(1, WAN).len(), 1, "{:?}", world.tally().sides());
    let tally = world.tally();
    assert_eq!((tally.dropped(), tally.of(Cell::Held)), (0, 0));
    assert_eq!(world.sas[1].published.packets.load(Relaxed), 2);
}

//= test T13 (RFC 4303 section 2.6)
//= test T76 (RFC 4303 section 2.7)
#[test]
fn as_many_dummies_leave_as_were_ordered_wherever_the_order_arrives() {
    let text = PORTS.to_owned()
        + PEER
        + &sa("out", 0x1001, "out", 1)
        + &policy("out", NETS, &protect("out"));
    for arrives in [0, 1] {
        let mut world = World::new(&text, 2);
        world.offer(1, LAN, &[udp(NEAR, FAR, 9)], Time(0));
        assert_eq!(world.sent(1, WAN).len(), 1, "the SA is at home there now");
        let slot = world.sas[0].slot;
        let order = Order { slot, count: 70 };
        world.exchange.order(arrives, order).unwrap();
        let mut sent = 0;
        for round in 1..9 {
            for worker in [0, 1] {
                world.round(worker, Time(round * MILLISECOND));
                sent += world.sent(worker, WAN).len();
            }
        }
        assert_eq!(sent, 70, "ordered at worker {arrives}");
        let tally = world.tally();
        assert_eq!((tally.of(Cell::Created), tally.dropped()), (70, 0));
        assert_eq!(world.sas[0].published.sequence.load(Relaxed), 71);
    }
}

//= test T126 (RFC 4301 section 8.2.1)
#[test]
fn a_learned_path_mtu_is_told_to_senders_and_forgotten_with_its_age() {
    let text = PORTS.to_owned()
        + PEER
        + &sa("out", 0x1001, "out", 1)
        + &policy("out", NETS, &protect("out"));
    let mut world = World::new(&text, 1);
    // 1400 bytes: 20, 8, 8 and 16 around them make 1454 with padding and trailer.
    let mut long = udp(NEAR, FAR, 9);
    long.resize(1400, 0);
    long[2..4].copy_from_slice(&1400_u16.to_be_bytes());
    long[24..26].copy_from_slice(&1380_u16.to_be_bytes());
    long[10..12].fill(0);
    let sum = Sum::ZERO.bytes(&long[..20]).checksum();
    long[10..12].copy_from_slice(&sum.to_be_bytes());
    let offer = |world: &mut World, now| {
        world.offer(0, LAN, std::slice::from_ref(&long), now);
        world.sent(0, WAN).len()
    };
    assert_eq!(offer(&mut world, Time(0)), 1);
    let path = &world.sas[0].published.path_mtu;
    path.learn(1300, Time(1));
    assert_eq!(offer(&mut world, Time(2)), 0);
    let told = world.sent(0, LAN);
    assert_eq!((told.len(), &told[0][20..22]), (1, &[3, 4][..]));
    // 1300 less 20, 8, 8 and 16, in whole words, less the trailer.
    assert_eq!(told[0][26..28], 1246_u16.to_be_bytes());
    assert_eq!(world.tally().drops(DropReason::TooBig), 1);
    assert!(
        world.sas[0]
            .published
            .path_mtu
            .forget_after(SECOND, Time(1 + SECOND))
    );
    assert_eq!(offer(&mut world, Time(SECOND + 2)), 1);
}
