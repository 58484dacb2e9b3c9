//! Fragments that the machine itself sends where an SA in transport mode carries the packet.

use std::net::IpAddr;

use ipsec::ip::fragment::Plan;
use ipsec::packet::{Fragment, Version, parse, protocol};

use super::*;
use crate::worker::host::ETHERNET;

const V4: [&str; 2] = ["192.0.2.1", "192.0.2.2"];
const V6: [&str; 2] = ["2001:db8::1", "2001:db8::2"];

/// A gateway that speaks both versions, with an SA and a policy each way between the two ends.
fn direct(ends: [&str; 2], fate: &str) -> String {
    let both = |name, direction, spi, key| {
        let text = sa(name, spi, direction, key).replace("\"tunnel\"", "\"transport\"");
        text.replace("192.0.2.1", "NEAR")
            .replace("192.0.2.2", ends[1])
            .replace("NEAR", ends[0])
    };
    let ports = PORTS.replace(
        "[\"192.0.2.1/24\"]",
        "[\"192.0.2.1/24\", \"2001:db8::1/64\"]",
    );
    let peer = PEER.to_owned() + &PEER.replace("192.0.2.2", "2001:db8::2");
    ports
        + &peer
        + &both("out", "out", 0x1001, 1)
        + &both("in", "in", 0x2001, 7)
        + &policy("out", ends, fate)
        + &policy("in", ends, &protect("in"))
}

/// A UDP datagram that fills a packet of `length` bytes.
fn datagram(ends: [&str; 2], length: usize) -> Vec<u8> {
    let total = u16::try_from(length).unwrap();
    let mut ip = match ends.map(|end| end.parse().unwrap()) {
        [IpAddr::V4(from), IpAddr::V4(to)] => {
            let [high, low] = total.to_be_bytes();
            let head = [0x45, 0, high, low, 0, 7, 0, 0, 64, 17, 0, 0];
            let mut ip = [&head[..], &from.octets(), &to.octets()].concat();
            let sum = Sum::ZERO.bytes(&ip).checksum();
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
            ip
        }
        [IpAddr::V6(from), IpAddr::V6(to)] => {
            let [high, low] = (total - 40).to_be_bytes();
            let head = [0x60, 0, 0, 0, high, low, 17, 64];
            [&head[..], &from.octets(), &to.octets()].concat()
        }
        _ => panic!("two families"),
    };
    let payload = u16::try_from(length - ip.len()).unwrap();
    ip.extend([0x13, 0x88, 0x13, 0x89]);
    ip.extend(payload.to_be_bytes());
    ip.extend([0, 0]);
    ip.extend((ip.len()..length).map(|at| u8::try_from(at % 251).unwrap()));
    ip
}

/// As the machine's kernel cuts it for an MTU of 1400.
fn cut(packet: &[u8]) -> Vec<Vec<u8>> {
    let plan = Plan::own(packet, 0x1234_5678, 1400).unwrap();
    let write = |index| {
        let mut piece = vec![0; 1400];
        let length = plan.write(packet, index, &mut piece).unwrap();
        piece.truncate(length);
        piece
    };
    (0..plan.count()).map(write).collect()
}

fn host_sends(world: &mut World, worker: usize, packets: &[Vec<u8>], now: Time) {
    for packet in packets {
        let mut frame = [&[0; ETHERNET - 2][..], &ether_type(packet), packet].concat();
        world.workers[worker].serve_host(&mut frame, &world.snapshot, now);
        assert!(world.tally().balances(), "{:?}", world.tally().sides());
    }
}

/// All of `pieces` as one packet again.
fn together(pieces: &[Vec<u8>]) -> Vec<u8> {
    let mut whole = Vec::new();
    let mut end = 0;
    for piece in pieces {
        let packet = parse(piece).unwrap();
        assert!(piece.len() <= 1500);
        assert_ne!(packet.fragment, Fragment::Whole);
        let offset = match packet.version {
            Version::V4 => u16::from_be_bytes([piece[6], piece[7]]) & 0x1fff,
            Version::V6 => u16::from_be_bytes([piece[42], piece[43]]) >> 3,
        };
        let start = if packet.version == Version::V4 {
            20
        } else {
            48
        };
        assert_eq!(usize::from(offset) * 8, end, "in order, without a gap");
        whole.extend(&piece[start..]);
        end = whole.len();
    }
    whole
}

//= test T14 (RFC 4303 section 3.3.4)
//= test T15 (RFC 4303 section 3.3.4)
#[test]
fn they_meet_before_the_sa_and_are_cut_behind_it() {
    for (ends, header) in [(V4, 20), (V6, 40)] {
        let mut world = World::new(&direct(ends, &protect("out")), 1);
        let packet = datagram(ends, 4028);
        let pieces = cut(&packet);
        let (last, first) = pieces.split_last().unwrap();
        host_sends(&mut world, 0, first, Time(0));
        let waiting = first.len() as u64;
        assert_eq!(world.tally().of(Cell::Held), waiting);
        assert_eq!(world.sas[0].published.packets.load(Relaxed), 0);
        host_sends(&mut world, 0, std::slice::from_ref(last), Time(1));
        let sent = world.sent(0, WAN);
        let tally = world.tally();
        assert_eq!((tally.of(Cell::Held), tally.dropped()), (0, 0), "{ends:?}");
        assert_eq!(tally.of(Cell::Merged), waiting);
        assert_eq!(tally.of(Cell::Created), sent.len() as u64 - 1);
        assert_eq!(world.sas[0].published.packets.load(Relaxed), 1);
        assert_eq!(world.sas[0].published.bytes.load(Relaxed), 4028);
        assert!(
            sent.iter()
                .all(|it| parse(it).unwrap().protocol == protocol::ESP)
        );
        // SPI, number and IV, the text with its trailer, and the ICV.
        let text = (4028 - header + 2_usize).next_multiple_of(4);
        assert_eq!(together(&sent).len(), 16 + text + 16);
        assert_eq!(together(&sent)[..8], [0, 0, 0x10, 1, 0, 0, 0, 1]);
        for lane in world.workers[0].lanes_mut() {
            assert!(lane.port.ledger().is_home());
        }
    }
}

#[test]
fn what_they_make_is_opened_at_the_other_end() {
    for ends in [V4, V6] {
        let mut world = World::new(&direct(ends, &protect("out")), 1);
        host_sends(&mut world, 0, &cut(&datagram(ends, 4028)), Time(0));
        let sealed = world.sent(0, WAN);
        // The same file, seen from the other end of its first SA.
        let [near, far] = ends;
        let there = direct([far, near], &protect("out"));
        let there = there
            .replace("192.0.2.1/24", "192.0.2.2/24")
            .replace("2001:db8::1/64", "2001:db8::2/64")
            .replace("spi = 4097", "spi = 4098")
            .replace("spi = 8193", "spi = 4097")
            .replace(&"01".repeat(20), &"08".repeat(20))
            .replace(&"07".repeat(20), &"01".repeat(20));
        let mut peer = World::new(&there, 1);
        peer.offer(0, WAN, &sealed, Time(0));
        let tally = peer.tally();
        let merged = sealed.len() as u64 - 1;
        let opened = peer.sas[1].published.packets.load(Relaxed);
        let reasons = DropReason::ALL.map(|reason| tally.drops(reason));
        assert_eq!(tally.of(Cell::Merged), merged, "{ends:?}: {reasons:?}");
        assert_eq!(opened, 1, "{ends:?}: {reasons:?}");
        assert_eq!(peer.sas[1].published.bytes.load(Relaxed), 4028);
        // Opened, and there is no host port in these tests.
        let for_the_host = tally.drops(DropReason::HostFull);
        assert_eq!((for_the_host, tally.dropped()), (1, 1));
    }
}

#[test]
fn they_go_where_their_sa_is_at_home_and_are_cut_there() {
    for ends in [V4, V6] {
        let mut world = World::new(&direct(ends, &protect("out")), 2);
        world.sas[0].home.store(1, Relaxed);
        host_sends(&mut world, 0, &cut(&datagram(ends, 4028)), Time(0));
        assert_eq!(world.tally().of(Cell::Held), 1, "the whole packet");
        world.round(1, Time(1));
        assert_eq!(world.sent(1, WAN).len(), 3, "{ends:?}");
        let tally = world.tally();
        assert_eq!((tally.of(Cell::Held), tally.dropped()), (0, 0));
    }
}

#[test]
fn policy_may_choose_another_way_for_what_was_put_together() {
    let tunnel = |ends: [&str; 2]| {
        let text = sa("tunnel", 0x1002, "out", 2);
        text.replace("192.0.2.1", ends[0])
            .replace("192.0.2.2", ends[1])
    };
    for ends in [V4, V6] {
        for (fate, more) in [
            ("action = \"bypass\"".to_owned(), String::new()),
            (protect("tunnel"), tunnel(ends)),
        ] {
            let text = direct(ends, &fate) + &more;
            let mut world = World::new(&text, 1);
            let packet = datagram(ends, 4028);
            host_sends(&mut world, 0, &cut(&packet), Time(0));
            let sent = world.sent(0, WAN);
            let tally = world.tally();
            assert_eq!((sent.len(), tally.dropped()), (3, 0), "{ends:?} {fate}");
            if more.is_empty() {
                let header = if ends == V4 { 20 } else { 40 };
                assert_eq!(together(&sent), packet[header..]);
            } else {
                // Three fragments, each sealed for itself.
                assert_eq!(world.sas[2].published.packets.load(Relaxed), 3);
            }
        }
    }
}

#[test]
fn what_stays_incomplete_is_dropped_as_are_fragments_of_others() {
    let mut world = World::new(&direct(V4, &protect("out")), 1);
    let pieces = cut(&datagram(V4, 4028));
    host_sends(&mut world, 0, &pieces[1..], Time(0));
    world.round(0, Time(SECOND - 1));
    assert_eq!(world.tally().of(Cell::Held), 2);
    world.round(0, Time(SECOND));
    assert_eq!(world.tally().drops(DropReason::Fragment), 2);
    // What stops with the worker.
    host_sends(&mut world, 0, &pieces[..1], Time(SECOND));
    world.workers[0].abandon_fragments();
    assert_eq!(world.tally().drops(DropReason::Fragment), 3);
    assert_eq!(world.tally().of(Cell::Held), 0);
    // In transit nobody puts together what an SA takes whole alone.
    world.offer(0, LAN, &pieces, Time(SECOND));
    assert_eq!(world.tally().drops(DropReason::Fragment), 6);
    assert_eq!(world.sent(0, WAN).len(), 0);
}

#[test]
fn the_wire_cannot_push_them_out() {
    let mut world = World::new(&direct(V4, &protect("out")), 1);
    let pieces = cut(&datagram(V4, 4028));
    host_sends(&mut world, 0, &pieces[..2], Time(0));
    // First fragments of ESP for us, more packets than the bounds allow.
    let esp: Vec<_> = (0..40_u16)
        .map(|number| {
            let mut piece = cut(&datagram([V4[1], V4[0]], 2000)).remove(0);
            piece[9] = protocol::ESP;
            piece[4..6].copy_from_slice(&number.to_be_bytes());
            piece[10..12].fill(0);
            let sum = Sum::ZERO.bytes(&piece[..20]).checksum();
            piece[10..12].copy_from_slice(&sum.to_be_bytes());
            piece
        })
        .collect();
    world.offer(0, WAN, &esp, Time(1));
    assert_eq!(world.tally().drops(DropReason::Fragment), 24);
    host_sends(&mut world, 0, &pieces[2..], Time(2));
    assert_eq!(world.sent(0, WAN).len(), 3);
}
