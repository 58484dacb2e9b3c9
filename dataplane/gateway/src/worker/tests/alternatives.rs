//! SAs that take over from one another, on different workers.

use super::*;

//= test T55
//= test T70
#[test]
fn what_the_newest_can_no_longer_carry_goes_on_where_the_next_is_at_home() {
    let text = PORTS.to_owned()
        + PEER
        + &sa("old", 0x1001, "out", 1)
        + &sa("new", 0x1002, "out", 2)
        + "lifetime = { hard_packets = 3 }\n"
        + &policy("out", NETS, &protect("old"))
        + "alternatives = [[\"new\"]]\n";
    let mut world = World::new(&text, 2);
    // A packet of their own would say the same.
    for (sa, home) in world.sas.iter().zip([1, 0]) {
        sa.home.store(home, Relaxed);
    }
    let burst: Vec<_> = (0..5).map(|_| udp(NEAR, FAR, 9)).collect();
    // Worker 1 does not know yet how far the new one is.
    world.offer(1, LAN, &burst, Time(0));
    assert_eq!(world.tally().of(Cell::Held), 5);
    world.round(0, Time(1));
    assert_eq!(world.sent(0, WAN).len(), 3);
    assert_eq!(world.tally().of(Cell::Held), 2);
    world.round(1, Time(2));
    assert_eq!(world.sent(1, WAN).len(), 2);
    // Now it does.
    world.offer(1, LAN, &burst, Time(3));
    assert_eq!(world.sent(1, WAN).len(), 5);
    let tally = world.tally();
    assert_eq!((tally.dropped(), tally.of(Cell::Held)), (0, 0));
    let sent = world
        .sas
        .iter()
        .map(|sa| sa.published.packets.load(Relaxed));
    assert_eq!(sent.collect::<Vec<_>>(), [7, 3]);
}
