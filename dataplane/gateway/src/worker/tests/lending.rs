//! Lending, step by step: two workers in one thread, so that every interleaving is chosen.

use std::sync::atomic::Ordering::Relaxed;

use super::*;
use crate::worker::lend::batch::Batch;

const BURST: usize = 64;

/// Bursts that are served before one is lent.
const BEFORE: usize = 2;

type Load = Box<Batch<<MemoryPort as Port>::Received, <MemoryPort as Port>::Transmit>>;

fn text(key: u8) -> String {
    PORTS.to_owned()
        + PEER
        + &sa("out", 0x1001, "out", 100 + key)
        + &sa("in", 0x2001, "in", key)
        + &policy("out", NETS, &protect("out"))
        + &policy("in", NETS, &protect("in"))
}

/// A gateway of two workers, with frames enough to lend; the second says that it has time.
fn world() -> World {
    let mut world = World::with_ports(&text(7), 2, (4096, 2048));
    assert!(!world.workers[1].help(0, BURST), "nothing to do yet");
    world
}

/// What a helper has claimed: where it is to be given back, and the batch.
struct Claimed(usize, Load);

impl World {
    fn claim(&self) -> Claimed {
        let mut cursor = 0;
        let ring = self.workers[1].desk.lending().ring_of(0);
        let (position, batch) = ring.claim_next(&mut cursor).unwrap();
        Claimed(position, batch)
    }

    fn give_back(&self, Claimed(position, mut batch): Claimed) {
        batch.run();
        batch.helped = true;
        let ring = self.workers[1].desk.lending().ring_of(0);
        ring.give_back(position, batch);
    }

    fn rounds(&mut self, count: usize) {
        for _ in 0..count {
            self.round(0, Time(1));
        }
    }

    /// Rounds until nothing is out.
    fn finish(&mut self) {
        for _ in 0..1000 {
            self.round(0, Time(1));
            if self.workers[0].lender.is_home() {
                return;
            }
        }
        panic!("it never comes home");
    }

    fn lent(&self) -> [u64; 2] {
        [Cell::Lent, Cell::TakenBack].map(|cell| self.workers[0].tally().of(cell))
    }

    fn ledgers_are_home(&mut self) -> bool {
        let mut lanes = self.workers.iter_mut().flat_map(|it| it.lanes_mut());
        lanes.all(|lane| lane.port.ledger().is_home())
    }
}

fn numbers(packets: &[Vec<u8>]) -> Vec<u32> {
    let number = |packet: &Vec<u8>| u32::from_be_bytes(packet[24..28].try_into().unwrap());
    packets.iter().map(number).collect()
}

fn up_to(count: usize) -> Vec<u32> {
    (1..=u32::try_from(count).unwrap()).collect()
}

fn plain(count: usize) -> Vec<Vec<u8>> {
    vec![udp(NEAR, FAR, 9); count]
}

#[test]
fn what_a_slow_helper_has_delays_the_others_and_they_leave_in_order() {
    let mut world = world();
    world.offer(0, LAN, &plain(6 * BURST), Time(0));
    world.rounds(BEFORE);
    assert_eq!(world.sent(0, WAN).len(), BEFORE * BURST, "one is out");
    assert_eq!(world.tally().of(Cell::Held), BURST as u64);
    let slow = world.claim();
    world.rounds(20);
    assert_eq!(world.sent(0, WAN).len(), 0, "the others wait behind it");
    assert_eq!(world.tally().of(Cell::Held), 4 * BURST as u64);
    assert_eq!(world.lent(), [0, 0]);
    world.give_back(slow);
    world.finish();
    assert_eq!(world.lent(), [1, 3]);
    let sent = numbers(&world.sent(0, WAN));
    assert_eq!(sent, up_to(6 * BURST)[BEFORE * BURST..]);
    assert_eq!(world.tally().of(Cell::Tx), 6 * BURST as u64);
    assert!(world.ledgers_are_home());
}

#[test]
fn without_a_backlog_or_an_idle_worker_nothing_is_lent() {
    let mut lonely = World::with_ports(&text(7), 2, (4096, 2048));
    let mut busy = world();
    // A full batch of its own: no time for others.
    assert!(!busy.workers[1].help(BURST, BURST));
    for world in [&mut lonely, &mut busy] {
        world.offer(0, LAN, &plain(6 * BURST), Time(0));
        world.rounds(5);
        assert_eq!(world.sent(0, WAN).len(), 6 * BURST);
    }
    let mut calm = world();
    for _ in 0..10 {
        calm.offer(0, LAN, &plain(2 * BURST), Time(0));
        calm.rounds(2);
        assert_eq!(calm.sent(0, WAN).len(), 2 * BURST);
    }
    for world in [lonely, busy, calm] {
        assert_eq!(world.lent(), [0, 0]);
    }
}

#[test]
fn replay_is_decided_in_the_order_of_arrival_when_batches_are_back() {
    let mut world = world();
    let packets = sealed(0x2001, 7, &vec![udp(FAR, NEAR, 9); 4 * BURST]);
    // The fourth burst is the third again: when it is looked at first, all of it may be new.
    let mut arriving = packets[..3 * BURST].to_vec();
    arriving.extend_from_slice(&packets[2 * BURST..3 * BURST]);
    arriving.extend_from_slice(&packets[3 * BURST..]);
    world.offer(0, WAN, &arriving, Time(0));
    world.rounds(3);
    let (first, second) = (world.claim(), world.claim());
    world.give_back(second);
    world.rounds(5);
    assert_eq!(world.sent(0, LAN).len(), BEFORE * BURST);
    world.give_back(first);
    world.finish();
    assert_eq!(world.sent(0, LAN).len(), 2 * BURST);
    assert_eq!(world.tally().drops(DropReason::Replay), BURST as u64);
    assert_eq!(
        world.sas[1].published.packets.load(Relaxed),
        4 * BURST as u64
    );
    assert!(world.ledgers_are_home());
}

#[test]
fn a_bad_icv_in_a_lent_batch_moves_nothing() {
    let mut world = world();
    let mut packets = sealed(0x2001, 7, &vec![udp(FAR, NEAR, 9); 3 * BURST]);
    for broken in &mut packets[2 * BURST..] {
        *broken.last_mut().unwrap() ^= 1;
    }
    world.offer(0, WAN, &packets, Time(0));
    world.rounds(2);
    let lent = world.claim();
    world.give_back(lent);
    world.finish();
    assert_eq!(world.lent(), [1, 0]);
    let authentic = 2 * BURST as u64;
    assert_eq!(
        world.tally().drops(DropReason::Authentication),
        BURST as u64
    );
    assert_eq!(world.sas[1].published.sequence.load(Relaxed), authentic);
    assert_eq!(world.sent(0, LAN).len() as u64, authentic);
}

#[test]
fn packets_of_an_sa_that_is_deleted_meanwhile_are_expired() {
    for (port, way) in [(LAN, WAN), (WAN, LAN)] {
        let mut world = world();
        let packets = match port {
            LAN => plain(3 * BURST),
            _ => sealed(0x2001, 7, &vec![udp(FAR, NEAR, 9); 3 * BURST]),
        };
        world.offer(0, port, &packets, Time(0));
        world.rounds(2);
        // Others stand in their slots now.
        world.snapshot = generation(&text(8)).0;
        world.finish();
        let tally = world.tally();
        assert_eq!(tally.drops(DropReason::SaExpired), BURST as u64);
        assert_eq!(world.sent(0, way).len(), 2 * BURST);
        assert!(tally.balances() && world.ledgers_are_home());
    }
}

#[test]
fn what_cannot_be_lent_does_not_overtake() {
    let mut world = world();
    world.offer(0, LAN, &plain(6 * BURST), Time(0));
    world.rounds(3);
    let slow = world.claim();
    // Dummies of the same SA: behind all that is out, and no burst before them.
    let slot = world.sas[0].slot;
    world.exchange.order(0, Order { slot, count: 10 }).unwrap();
    world.rounds(10);
    assert_eq!(world.sent(0, WAN).len(), BEFORE * BURST);
    world.give_back(slow);
    world.finish();
    world.rounds(20);
    let sent = numbers(&world.sent(0, WAN));
    assert_eq!(sent, up_to(6 * BURST + 10)[BEFORE * BURST..]);
    assert_eq!(world.tally().of(Cell::Created), 10);
    assert!(world.ledgers_are_home());
}

#[test]
fn a_burst_with_pieces_to_cut_waits_until_all_is_home() {
    let mut world = world();
    // Too long for the way and without DF: it is cut before it is sealed.
    let mut long = udp(NEAR, FAR, 9);
    long.resize(1496, 0);
    long[2..4].copy_from_slice(&1496_u16.to_be_bytes());
    long[6] = 0;
    long[24..26].copy_from_slice(&1476_u16.to_be_bytes());
    long[10..12].fill(0);
    let sum = Sum::ZERO.bytes(&long[..20]).checksum();
    long[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut packets = plain(5 * BURST);
    packets.push(long);
    world.offer(0, LAN, &packets, Time(0));
    world.rounds(3);
    world.finish();
    world.rounds(5);
    let sent = numbers(&world.sent(0, WAN));
    assert_eq!(sent, up_to(5 * BURST + 2));
    assert!(world.lent()[1] > 0);
    assert!(world.ledgers_are_home());
}

#[test]
fn a_helper_that_does_not_run_is_not_lent_to_for_a_while() {
    let mut world = world();
    world.offer(0, LAN, &plain(40 * BURST), Time(0));
    world.rounds(BEFORE);
    let slow = world.claim();
    // All places fill up, then there is nothing to do but to wait.
    for millisecond in 0..60 {
        world.round(0, Time(millisecond * MILLISECOND));
    }
    assert!(!world.workers[0].lender.has_room());
    assert_eq!(world.sent(0, WAN).len(), BEFORE * BURST);
    world.give_back(slow);
    world.finish();
    let lent = world.lent();
    // All that is out has come home: from now on the home is alone.
    for millisecond in 60..110 {
        world.round(0, Time(millisecond * MILLISECOND));
    }
    assert_eq!(world.lent(), lent);
    let sent = numbers(&world.sent(0, WAN));
    assert_eq!(sent, up_to(40 * BURST)[BEFORE * BURST..]);
    assert!(world.ledgers_are_home());
}

#[test]
fn a_parcel_that_is_lent_goes_back_to_its_own_worker() {
    let mut world = world();
    world.offer(0, LAN, &plain(1), Time(0));
    // It arrives at worker 1, which hands it over.
    world.offer(1, LAN, &plain(4 * BURST), Time(0));
    for _ in 0..3 {
        world.round(1, Time(1));
    }
    assert!(
        !world.workers[1].help(BURST, BURST),
        "handed over, not its own"
    );
    world.rounds(3);
    assert!(!world.workers[0].lender.is_home());
    // One burst is lent, one waits in the queue.
    assert_eq!(world.tally().of(Cell::Held), 2 * BURST as u64);
    assert!(world.workers[1].help(0, BURST));
    world.finish();
    world.round(1, Time(2));
    assert_eq!(world.lent(), [1, 1]);
    assert_eq!(world.workers[1].tally().of(Cell::Helped), 1);
    assert_eq!(numbers(&world.sent(0, WAN)), up_to(4 * BURST + 1));
    assert!(world.ledgers_are_home());
}

/// A home with more than it can do and a helper, on a clock by which a round takes so many
/// nanoseconds alone and while batches are out. Answers the part of the batches that was lent.
fn part_lent(alone: u64, lending: u64) -> f64 {
    const ROUNDS: usize = 2000;
    let mut world = world();
    let (mut now, mut offered) = (Time(1), 0);
    for _ in 0..ROUNDS {
        let is_home = world.workers[0].lender.is_home();
        now = now.plus(if is_home { alone } else { lending });
        let waiting = offered - world.tally().of(Cell::Rx);
        let more = if waiting < 4 * BURST as u64 {
            2 * BURST
        } else {
            0
        };
        offered += more as u64;
        world.offer(0, LAN, &plain(more), now);
        world.workers[1].help(0, BURST);
        world.sent(0, WAN);
    }
    let lent: u64 = world.lent().iter().sum();
    lent as f64 / ROUNDS as f64
}

#[test]
fn what_is_slower_for_lending_is_not_lent() {
    let (dearer, cheaper) = (part_lent(62_500, 80_000), part_lent(80_000, 40_000));
    assert!(dearer < 0.05, "but for a trial: {dearer}");
    assert!(cheaper > 0.9, "{cheaper}");
}
