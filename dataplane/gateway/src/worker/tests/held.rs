//! Packets that wait for a reservation of their numbers.

use super::*;

#[test]
fn a_held_packet_is_not_opened_again_before_more_is_reserved() {
    let with = |key| {
        let tunnel = sa("in", 0x2001, "in", key) + &policy("in", NETS, &protect("in"));
        PORTS.to_owned() + &tunnel
    };
    let mut world = World::new(&with(7), 1);
    world.sas[0].published.reserved_end.store(0, Relaxed);
    let packets = sealed(0x2001, 7, &[udp(FAR, NEAR, 9), udp(FAR, NEAR, 9)]);
    world.offer(0, WAN, &packets, Time(0));
    assert_eq!(world.tally().of(Cell::Held), 2);
    // To open them with another key would be the end of them.
    let (wrong, keys) = generation(&with(8));
    keys[0].published.reserved_end.store(0, Relaxed);
    let right = std::mem::replace(&mut world.snapshot, wrong);
    for round in 1..5 {
        world.round(0, Time(round * MILLISECOND));
    }
    assert_eq!(world.tally().of(Cell::Held), 2, "opened for nothing");
    world.snapshot = right;
    world.sas[0].published.reserved_end.store(1, Relaxed);
    world.round(0, Time(5 * MILLISECOND));
    assert_eq!(world.sent(0, LAN).len(), 1);
    assert_eq!(world.tally().of(Cell::Held), 1);
    world.round(0, Time(SECOND - 1));
    assert_eq!(world.tally().of(Cell::Held), 1);
    world.round(0, Time(SECOND));
    assert_eq!(world.tally().drops(DropReason::NoReservation), 1);
    assert_eq!(world.tally().of(Cell::Held), 0);
}

#[test]
fn what_was_held_is_not_overtaken_by_the_burst_that_finds_more_reserved() {
    let tunnel = sa("in", 0x2001, "in", 7) + &policy("in", NETS, &protect("in"));
    let mut world = World::new(&(PORTS.to_owned() + &tunnel), 1);
    world.sas[0].published.reserved_end.store(0, Relaxed);
    // Told apart by their hop limits, from which both gateways take one.
    let packets = sealed(
        0x2001,
        7,
        &[11, 12, 13, 14].map(|hops| udp(FAR, NEAR, hops)),
    );
    let (first, second) = packets.split_at(2);
    world.offer(0, WAN, first, Time(0));
    assert_eq!(world.tally().of(Cell::Held), 2);
    // The grant comes between two rounds, and the next burst is there already.
    world.sas[0].published.reserved_end.store(9, Relaxed);
    world.offer(0, WAN, second, Time(1));
    let sent = world.sent(0, LAN);
    let order: Vec<u8> = sent.iter().map(|packet| packet[8]).collect();
    assert_eq!(order, [9, 10, 11, 12]);
}

#[test]
fn what_waits_is_not_overtaken_because_there_was_no_room_for_more() {
    let tunnel = sa("in", 0x2001, "in", 7) + &policy("in", NETS, &protect("in"));
    let mut world = World::with_ports(&(PORTS.to_owned() + &tunnel), 1, (512, 2048));
    world.sas[0].published.reserved_end.store(0, Relaxed);
    let packets = sealed(0x2001, 7, &vec![udp(FAR, NEAR, 9); 260]);
    let (first, last) = packets.split_at(258);
    for burst in first.chunks(64) {
        world.offer(0, WAN, burst, Time(0));
    }
    assert_eq!(world.tally().of(Cell::Held), 256);
    assert_eq!(world.tally().drops(DropReason::NoReservation), 2);
    // The grant comes when the round has looked at what waits and before it takes in a burst.
    world.sas[0].published.reserved_end.store(999, Relaxed);
    let mac = world.snapshot.ports[WAN].mac;
    for packet in last {
        let frame = [&mac[..], &[2, 0, 0, 0, 9, 9, 8, 0], packet].concat();
        assert!(world.workers[0].lanes_mut()[WAN].port.inject(&frame));
    }
    world.workers[0].serve(WAN, 64, &world.snapshot, Time(1));
    assert_eq!(world.sent(0, LAN).len(), 0, "256 wait in front of them");
    world.round(0, Time(2));
    assert_eq!(world.sent(0, LAN).len(), 256);
}
