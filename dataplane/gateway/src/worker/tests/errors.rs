//! ICMP errors about packets that came out of an SA.

use super::*;

/// The peer's own address, to which answers go in clear.
const PEER_ADDRESS: [u8; 4] = [192, 0, 2, 2];

fn world() -> World {
    let text = PORTS.to_owned()
        + PEER
        + &sa("in", 0x2001, "in", 7)
        + &policy("in", ["10.1.0.0/16", "192.0.2.2"], &protect("in"))
        + &policy("out", ["any", "192.0.2.2"], "action = \"bypass\"");
    World::new(&text, 1)
}

/// The only packet that leaves by the unprotected port when this one arrives sealed.
fn error(world: &mut World, packet: Vec<u8>) -> Vec<u8> {
    world.offer(0, WAN, &sealed(0x2001, 7, &[packet]), Time(0));
    let mut sent = world.sent(0, WAN);
    assert_eq!(sent.len(), 1);
    assert_eq!(world.tally().of(Cell::Created), 1);
    sent.remove(0)
}

#[test]
fn they_come_from_the_port_by_which_the_packet_would_have_left() {
    let mut world = world();
    // Not from the first protected one, which is another.
    world.snapshot.first_protected = PortIndex(0);
    let error = error(&mut world, udp(PEER_ADDRESS, NEAR, 2));
    assert_eq!(error[12..20], [10, 1, 0, 1, 192, 0, 2, 2]);
    assert_eq!(error[20..22], [11, 0]);
}

#[test]
fn none_tells_less_than_the_least_mtu() {
    let mut world = world();
    Arc::get_mut(&mut world.snapshot.ports).unwrap()[LAN].mtu = 30;
    let error = error(&mut world, udp(PEER_ADDRESS, NEAR, 9));
    assert_eq!(error[20..22], [3, 4]);
    assert_eq!(error[26..28], [0, 68]);
}
