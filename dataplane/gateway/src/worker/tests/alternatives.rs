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

/// A SYN whose sender takes segments of 1460 bytes.
fn syn(source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
    let mut ip = udp(source, destination, 9);
    ip.truncate(20);
    ip[2..4].copy_from_slice(&44_u16.to_be_bytes());
    ip[9] = 6;
    ip[10..12].fill(0);
    let sum = Sum::ZERO.bytes(&ip).checksum();
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    ip.extend([0x13, 0x88, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0]);
    ip.extend([0x60, 2, 0, 0, 0, 0, 0, 0, 2, 4, 0x05, 0xb4]);
    ip
}

#[test]
fn segments_fit_the_sa_that_carries_them_and_not_the_dead_first_choice() {
    // With an ICV of 8 bytes a packet has 8 bytes more.
    let text = PORTS.to_owned()
        + PEER
        + &sa("old", 0x1001, "out", 1)
        + &sa("new", 0x1002, "out", 2).replace("gcm16", "gcm8")
        + "lifetime = { hard_packets = 2 }\n"
        + &policy("out", NETS, &protect("old"))
        + "alternatives = [[\"new\"]]\ntcp_mss = \"auto\"\n"
        + &policy("in", NETS, "action = \"bypass\"");
    let mut world = World::new(&text, 1);
    let announced = |world: &mut World, now| {
        // What comes in clear is clamped to what its answers have room for.
        world.offer(0, WAN, &[syn(FAR, NEAR)], now);
        let sent = world.sent(0, LAN).remove(0);
        u16::from_be_bytes([sent[42], sent[43]])
    };
    // 1500 less 20, 8, 8 and ICV, in whole words, less the trailer and 40 of headers.
    assert_eq!(announced(&mut world, Time(0)), 1454 - 40);
    world.offer(0, LAN, &vec![udp(NEAR, FAR, 9); 2], Time(1));
    assert_eq!(world.sas[1].published.packets.load(Relaxed), 2);
    assert_eq!(announced(&mut world, Time(2)), 1446 - 40);
    // Where none is alive the first choice speaks, as it does for drops.
    world.sas[0]
        .published
        .sequence
        .store(u64::from(u32::MAX), Relaxed);
    assert_eq!(announced(&mut world, Time(3)), 1454 - 40);
}
