//! Fragments between workers, and packets longer than frames.

use super::*;
use crate::port::Port;

/// The part of an IPv4 packet without options from `start` to `end` of its payload.
fn piece(packet: &[u8], start: usize, end: usize) -> Vec<u8> {
    let more = if end < packet.len() - 20 { 0x20 } else { 0 };
    let mut piece = [&packet[..20], &packet[20 + start..20 + end]].concat();
    let length = u16::try_from(piece.len()).unwrap();
    piece[2..4].copy_from_slice(&length.to_be_bytes());
    let [high, low] = u16::try_from(start / 8).unwrap().to_be_bytes();
    piece[6..8].copy_from_slice(&[more | high, low]);
    piece[10..12].fill(0);
    let sum = Sum::ZERO.bytes(&piece[..20]).checksum();
    piece[10..12].copy_from_slice(&sum.to_be_bytes());
    piece
}

fn tunnel() -> String {
    PORTS.to_owned() + &sa("in", 0x2001, "in", 7) + &policy("in", NETS, &protect("in"))
}

#[test]
fn fragments_meet_on_one_worker_and_their_packet_goes_home() {
    let mut world = World::new(&tunnel(), 2);
    let packets = sealed(0x2001, 7, &vec![udp(FAR, NEAR, 9); 13]);
    world.offer(0, WAN, &packets[..1], Time(0));
    assert_eq!(world.sent(0, LAN).len(), 1, "the SA is at home there now");
    // Every first fragment comes to one worker, every second to the other.
    let cut = |packet: &Vec<u8>| {
        let end = packet.len() - 20;
        (piece(packet, 0, 40), piece(packet, 40, end))
    };
    let (first, second): (Vec<_>, Vec<_>) = packets[1..].iter().map(cut).unzip();
    world.offer(0, WAN, &first, Time(1));
    world.offer(1, WAN, &second, Time(2));
    assert!(world.tally().of(Cell::Held) > 0);
    let completed = |world: &World, worker: usize| world.workers[worker].tally().of(Cell::Merged);
    for round in 3..7 {
        world.round(0, Time(round));
        world.round(1, Time(round));
    }
    let merged = [completed(&world, 0), completed(&world, 1)];
    assert_eq!(merged[0] + merged[1], 12);
    assert!(merged.iter().all(|count| *count > 0), "{merged:?}");
    let tally = world.tally();
    assert_eq!((tally.dropped(), tally.of(Cell::Held)), (0, 0));
    assert_eq!(
        (world.sent(0, LAN).len(), world.sent(1, LAN).len()),
        (12, 0)
    );
    for worker in &world.workers {
        assert!(worker.lanes[WAN].port.ledger().is_home());
        assert!(worker.lanes[LAN].port.ledger().balances());
    }
}

#[test]
fn a_packet_longer_than_a_frame_is_opened_and_cut() {
    let mut world = World::with_frames(&tunnel(), 1, 512);
    let mut inner = udp(FAR, NEAR, 9);
    inner.resize(1400, 0x55);
    inner[2..4].copy_from_slice(&1400_u16.to_be_bytes());
    inner[6] = 0;
    inner[24..26].copy_from_slice(&1380_u16.to_be_bytes());
    let resum = |ip: &mut [u8]| {
        ip[10..12].fill(0);
        let sum = Sum::ZERO.bytes(&ip[..20]).checksum();
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
    };
    resum(&mut inner);
    let packets = sealed(0x2001, 7, &vec![inner; 2]);
    assert_eq!(packets.len(), 2);
    let cut = |packet: &Vec<u8>| -> Vec<Vec<u8>> {
        let length = packet.len() - 20;
        let starts = (0..length).step_by(400);
        starts
            .map(|start| piece(packet, start, (start + 400).min(length)))
            .collect()
    };
    // A way out that takes no such packet, whole or in frames.
    world.offer(0, WAN, &cut(&packets[0]), Time(0));
    assert_eq!(world.tally().drops(DropReason::Unsupported), 1);
    let mut narrow = world.snapshot.ports.to_vec();
    narrow[LAN].mtu = 480;
    world.snapshot.ports = narrow.into();
    world.offer(0, WAN, &cut(&packets[1]), Time(1));
    let sent = world.sent(0, LAN);
    assert_eq!(sent.len(), 4, "1380 bytes in pieces of 456");
    let bytes: usize = sent.iter().map(|piece| piece.len() - 20).sum();
    assert_eq!(bytes, 1380);
    let tally = world.tally();
    assert_eq!((tally.of(Cell::Merged), tally.of(Cell::Created)), (6, 3));
    assert_eq!((tally.dropped(), tally.of(Cell::Held)), (1, 0));
}

#[test]
fn fragments_that_wait_end_with_the_worker() {
    let mut world = World::new(&tunnel(), 1);
    let packets = sealed(0x2001, 7, &vec![udp(FAR, NEAR, 9); 2]);
    world.offer(0, WAN, &[piece(&packets[0], 0, 40)], Time(0));
    world.round(0, Time(SECOND - 1));
    assert_eq!(world.tally().of(Cell::Held), 1);
    world.round(0, Time(SECOND));
    assert_eq!(world.tally().drops(DropReason::Fragment), 1);
    world.offer(0, WAN, &[piece(&packets[1], 0, 40)], Time(SECOND));
    world.workers[0].abandon_fragments();
    let tally = world.tally();
    assert!(tally.balances());
    assert_eq!((tally.dropped(), tally.of(Cell::Held)), (2, 0));
    assert!(world.workers[0].take_lost().is_empty(), "nobody asked");
}

#[test]
fn fragments_from_the_protected_side_wait_for_nothing() {
    let mut world = World::new(&tunnel(), 1);
    let packet = sealed(0x2001, 7, &[udp(FAR, NEAR, 9)]).remove(0);
    world.offer(0, LAN, &[piece(&packet, 0, 40)], Time(0));
    assert_eq!(world.tally().of(Cell::Held), 0);
    // From the other side the same one does.
    world.offer(0, WAN, &[piece(&packet, 0, 40)], Time(1));
    assert_eq!(world.tally().of(Cell::Held), 1);
}
