//! Packets that come through two SAs, of which the inner one's numbers are not reserved yet.

use super::*;

/// ESP in a tunnel under AH in transport mode, in one direction.
fn both(direction: &str, keys: [u8; 2]) -> String {
    let esp = sa("esp", 0x3001, direction, keys[0]);
    let ah = sa("ah", 0x3002, direction, keys[1])
        .replace("\"esp\"", "\"ah\"")
        .replace("\"tunnel\"", "\"transport\"")
        .replace("encryption = \"aes128gcm16\"", "integrity = \"sha1_96\"")
        .replace("encryption_key", "integrity_key");
    esp + &ah
}

fn receiver() -> World {
    let fate = "action = \"protect\"\nsa = [\"esp\", \"ah\"]";
    let text = PORTS.to_owned() + &both("in", [7, 8]) + &policy("in", NETS, fate);
    let world = World::new(&text, 1);
    assert_eq!(&*world.sas[0].name, "esp");
    world.sas[0].published.reserved_end.store(0, Relaxed);
    world
}

/// Packets that went through both at the other gateway.
fn through_both(count: usize) -> Vec<Vec<u8>> {
    let fate = "action = \"protect\"\nsa = [\"esp\", \"ah\"]";
    let ends = both("out", [7, 8])
        .replace("192.0.2.1", "192.0.2.9")
        .replace("192.0.2.2", "192.0.2.1")
        .replace("192.0.2.9", "192.0.2.2");
    let ports = PORTS.replace("192.0.2.1", "192.0.2.2") + &PEER.replace("192.0.2.2", "192.0.2.1");
    let text = ports + &ends + &policy("out", [NETS[1], NETS[0]], fate);
    let mut world = World::new(&text, 1);
    world.offer(0, LAN, &vec![udp(FAR, NEAR, 9); count], Time(0));
    let sent = world.sent(0, WAN);
    assert_eq!(sent.len(), count, "{:?}", world.tally().sides());
    sent
}

fn packets(world: &World) -> [u64; 2] {
    [0, 1].map(|sa| world.sas[sa].published.packets.load(Relaxed))
}

//= test T50
#[test]
fn what_the_outer_sa_gave_waits_for_the_inner_ones_numbers() {
    let mut world = receiver();
    let sealed = through_both(3);
    world.offer(0, WAN, &sealed, Time(0));
    assert_eq!(world.tally().of(Cell::Held), 3);
    assert_eq!(packets(&world), [0, 3], "the outer SA has accepted them");
    // As received they are old by now, whatever waits.
    world.offer(0, WAN, &sealed, Time(1));
    assert_eq!(world.tally().drops(DropReason::Replay), 3);
    for round in 2..5 {
        world.round(0, Time(round));
    }
    assert_eq!((world.tally().of(Cell::Held), packets(&world)), (3, [0, 3]));
    // Each step lets those through that it covers.
    for (end, opened) in [(1, 1), (3, 2)] {
        world.sas[0].published.reserved_end.store(end, Relaxed);
        world.round(0, Time(10 + end));
        let sent = world.sent(0, LAN);
        assert_eq!(sent.len(), opened);
        assert!(
            sent.iter()
                .all(|packet| packet[12..20] == udp(FAR, NEAR, 9)[12..20])
        );
        assert_eq!(packets(&world), [end, 3], "the outer SA counts once");
    }
    let tally = world.tally();
    assert_eq!((tally.of(Cell::Held), tally.dropped()), (0, 3));
    for lane in world.workers[0].lanes_mut() {
        assert!(lane.port.ledger().is_home());
    }
}

#[test]
fn what_waits_in_vain_ends_once() {
    let mut world = receiver();
    world.offer(0, WAN, &through_both(2), Time(0));
    world.round(0, Time(SECOND - 1));
    assert_eq!(world.tally().of(Cell::Held), 2);
    world.round(0, Time(SECOND));
    let tally = world.tally();
    assert_eq!(tally.of(Cell::Held), 0);
    assert_eq!(
        (tally.drops(DropReason::NoReservation), tally.dropped()),
        (2, 2)
    );
    assert_eq!(packets(&world), [0, 2]);
}

#[test]
fn what_waits_for_the_outer_sa_waits_for_the_inner_one_next() {
    let mut world = receiver();
    world.sas[1].published.reserved_end.store(0, Relaxed);
    world.offer(0, WAN, &through_both(2), Time(0));
    assert_eq!((world.tally().of(Cell::Held), packets(&world)), (2, [0, 0]));
    world.sas[1].published.reserved_end.store(9, Relaxed);
    world.round(0, Time(1));
    assert_eq!((world.tally().of(Cell::Held), packets(&world)), (2, [0, 2]));
    world.sas[0].published.reserved_end.store(9, Relaxed);
    world.round(0, Time(2));
    assert_eq!((world.tally().of(Cell::Held), packets(&world)), (0, [2, 2]));
    assert_eq!(world.sent(0, LAN).len(), 2);
    assert_eq!(world.tally().dropped(), 0);
}

#[test]
fn what_waits_ends_with_the_sa_that_gave_it() {
    let mut world = receiver();
    world.offer(0, WAN, &through_both(2), Time(0));
    let (without, _) = generation(PORTS);
    world.snapshot = without;
    world.round(0, Time(1));
    let tally = world.tally();
    assert_eq!(tally.of(Cell::Held), 0);
    assert_eq!(
        (tally.drops(DropReason::SaExpired), tally.dropped()),
        (2, 2)
    );
}
