//! NAT keepalives: when one leaves, who sends it, and how many.

use super::*;

/// `sa` in UDP, with further lines.
fn encapsulated(sa: &str, ports: [u16; 2], more: &str) -> String {
    let [source, destination] = ports;
    format!(
        "{sa}udp_encapsulation = {{ source_port = {source}, destination_port = {destination} }}\n\
         {more}\n"
    )
}

/// Rounds of all workers at these milliseconds; each keepalive that left, by millisecond, worker
/// and ports.
fn keepalives(world: &mut World, at: impl Iterator<Item = u64>) -> Vec<(u64, usize, [u16; 2])> {
    let mut seen = Vec::new();
    for millisecond in at {
        for worker in 0..world.workers.len() {
            world.round(worker, Time(millisecond * MILLISECOND));
            for packet in world.sent(worker, WAN) {
                assert_eq!((packet.len(), packet[9], packet[28]), (29, 17, 0xff));
                let port = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
                seen.push((millisecond, worker, [port(20), port(22)]));
            }
        }
    }
    seen
}

const EVERY_20: &str = "keepalive_seconds = 20";

//= test T136 (RFC 3948 sections 2.3, 4)
#[test]
fn a_keepalive_leaves_when_nothing_else_did_for_its_time() {
    let tunnel = encapsulated(&sa("out", 0x1001, "out", 1), [4500, 4501], EVERY_20);
    let text = PORTS.to_owned() + PEER + &tunnel + &policy("out", NETS, &protect("out"));
    let mut world = World::new(&text, 2);
    let ports = [4500, 4501];
    // Nothing is sent at all: every 20 seconds, by the first worker.
    let seen = keepalives(&mut world, (0..=45_000).step_by(50));
    assert_eq!(seen, [(20_000, 0, ports), (40_000, 0, ports)]);
    // A packet of the SA, which lives on the other worker: 20 seconds after that, and as much later
    // as the counters are looked at.
    world.offer(1, LAN, &[udp(NEAR, FAR, 9)], Time(45_050 * MILLISECOND));
    assert_eq!(world.sent(1, WAN).len(), 1);
    let seen = keepalives(&mut world, (45_050..=70_000).step_by(50));
    assert_eq!(seen.len(), 1);
    let (millisecond, worker, _) = seen[0];
    assert!((65_050..=65_150).contains(&millisecond) && worker == 0);
    let tally = world.tally();
    assert_eq!((tally.of(Cell::Created), tally.of(Cell::Tx)), (3, 4));
    assert_eq!(world.sas[0].published.packets.load(Relaxed), 1);
}

//= test T136 (RFC 3948 sections 2.3, 4)
#[test]
fn a_peer_gets_one_keepalive_however_many_sas_go_there() {
    let tunnel =
        |name, spi, key, ports, more| encapsulated(&sa(name, spi, "out", key), ports, more);
    let text = PORTS.to_owned()
        + PEER
        + &tunnel("one", 0x1001, 1, [4500, 4500], "keepalive_seconds = 30")
        + &tunnel("two", 0x1002, 2, [4500, 4500], EVERY_20)
        + &tunnel("silent", 0x1003, 3, [4500, 4500], "")
        + &tunnel("other", 0x1004, 4, [4500, 9000], "keepalive_seconds = 10")
        + &tunnel("none", 0x1005, 5, [4500, 9001], "keepalive_seconds = 0")
        + &tunnel(
            "dead",
            0x1006,
            6,
            [4500, 9002],
            "keepalive_seconds = 10\nlifetime = { hard_seconds = 5 }",
        )
        + &policy("out", NETS, &protect("silent"));
    let mut world = World::new(&text, 1);
    let mut seen = keepalives(&mut world, (0..=24_000).step_by(100));
    seen.sort_unstable();
    let [same, other] = [[4500, 4500], [4500, 9000]];
    assert_eq!(
        seen,
        [(10_000, 0, other), (20_000, 0, same), (20_000, 0, other)]
    );
    // What an SA without keepalives sends to the same peer keeps the mapping as well.
    world.offer(0, LAN, &[udp(NEAR, FAR, 9)], Time(24_000 * MILLISECOND));
    assert_eq!(world.sent(0, WAN).len(), 1);
    let seen = keepalives(&mut world, (24_100..=43_900).step_by(100));
    let to_same = seen.iter().filter(|(.., ports)| *ports == same);
    assert_eq!(to_same.count(), 0, "{seen:?}");
}

#[test]
fn a_keepalive_that_cannot_leave_counts_nowhere_and_is_tried_again() {
    let tunnel = encapsulated(&sa("out", 0x1001, "out", 1), [4500, 4500], EVERY_20);
    let mut world = World::new(&(PORTS.to_owned() + &tunnel), 1);
    // The next hop is not known: one waits for it, and is given up.
    let seen = keepalives(&mut world, (0..=39_000).step_by(100));
    assert_eq!((seen.len(), world.requests.len()), (0, 1));
    assert_eq!(world.tally().of(Cell::Created), 0);
    let (known, _) = generation(&(PORTS.to_owned() + PEER + &tunnel));
    world.snapshot.neighbors = known.neighbors;
    let seen = keepalives(&mut world, (39_100..=41_000).step_by(100));
    assert_eq!(seen, [(40_000, 0, [4500, 4500])]);
    assert_eq!(world.tally().of(Cell::Created), 1);
}

#[test]
fn of_many_peers_each_gets_its_keepalive_within_a_pass() {
    const PEERS: u16 = 200;
    let tunnels: String = (0..PEERS)
        .map(|number| {
            let name = format!("out-{number}");
            let spi = 0x1001 + u32::from(number);
            let sa = sa(&name, spi, "out", 1).replace("0101010101", &format!("{spi:010x}"));
            encapsulated(&sa, [4500, 5000 + number], EVERY_20)
        })
        .collect();
    let mut world = World::new(&(PORTS.to_owned() + PEER + &tunnels), 1);
    let mut seen = keepalives(&mut world, (0..=20_050).step_by(10));
    assert!(seen.iter().all(|(millisecond, ..)| *millisecond >= 20_000));
    seen.sort_unstable_by_key(|(.., ports)| *ports);
    seen.dedup_by_key(|(.., ports)| *ports);
    assert_eq!(seen.len(), usize::from(PEERS));
}
