//! A peer behind a NAT that moves is followed, by nothing but a packet that is authentic and new,
//! and what goes to it then goes to where it is (RFC 7296 §2.23).

use std::sync::atomic::Ordering::Relaxed;

use ipsec::inbound::Consumed;
use ipsec::packet::{Upper, Version, address_bits, parse};
use ipsec::policy::Action;
use ipsec::sa::association::{Direction, Mode, SaParameters, UdpEncapsulation};
use ipsec::sa::path_mtu::{Complaint, Report};
use ipsec::sa::peer::Place;
use ipsec::time::{SECOND, Time};
use ipsec::verdict::DropReason;
use ipsec::wire::checksum::{Sum, pseudo_v6};

use crate::gateway::{A, A6, B, B6, Gateway, In, Out, ip, policy, sa};
use crate::packets::{between, v4, v6};

/// Where the peer is after a move.
const MOVED: (&str, u16) = ("203.0.113.7", 1024);
const MOVED6: (&str, u16) = ("2001:db8:7::7", 1024);

/// Our port, and the one that configuration gives the peer.
const OURS: u16 = 4500;
const THEIRS: u16 = 4501;

fn place((address, port): (&str, u16)) -> Place {
    Place {
        address: address_bits(ip(address)),
        port,
    }
}

/// Two gateways with an SA each way in UDP; the second one's SAs as `change` has them. The first
/// one is the one behind the NAT.
fn duplex(ends: [&str; 2], change: impl Fn(&mut SaParameters)) -> [Gateway; 2] {
    let make = |own: &str, peer: &str, ports: [u16; 2], spis: [u32; 2], second: bool| {
        let [own_port, peer_port] = ports;
        let mut out = sa(Direction::Out, spis[0], own, peer);
        let mut into = sa(Direction::In, spis[1], peer, own);
        out.udp_encapsulation = Some(UdpEncapsulation {
            source_port: own_port,
            destination_port: peer_port,
        });
        into.udp_encapsulation = Some(UdpEncapsulation {
            source_port: peer_port,
            destination_port: own_port,
        });
        for parameters in [&mut out, &mut into] {
            parameters.follow_peer = second;
            if second {
                change(parameters);
            }
        }
        let to = policy("to", Direction::Out, Action::Protect, &[&out.name]);
        let from = policy("from", Direction::In, Action::Protect, &[&into.name]);
        Gateway::new(vec![out, into], &[to, from], &[own])
    };
    let [first, second] = ends;
    [
        make(first, second, [THEIRS, OURS], [0x1001, 0x1002], false),
        make(second, first, [OURS, THEIRS], [0x1002, 0x1001], true),
    ]
}

/// The packet behind a NAT: from another address and port.
fn translated(packet: &[u8], (address, port): (&str, u16)) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let start = match ip(address) {
        std::net::IpAddr::V4(address) => {
            packet[12..16].copy_from_slice(&address.octets());
            packet[10..12].fill(0);
            let sum = Sum::ZERO.bytes(&packet[..20]).checksum();
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            20
        }
        std::net::IpAddr::V6(address) => {
            packet[8..24].copy_from_slice(&address.octets());
            40
        }
    };
    packet[start..start + 2].copy_from_slice(&port.to_be_bytes());
    packet
}

/// Where a sealed packet goes.
fn destination(packet: &[u8]) -> (Place, u16) {
    let outer = parse(packet).unwrap();
    let Upper::Ports {
        source,
        destination,
    } = outer.upper
    else {
        panic!("not in UDP")
    };
    let place = Place {
        address: outer.destination,
        port: destination,
    };
    (place, source)
}

//= test T160
#[test]
fn a_peer_that_moves_is_followed_and_answered_where_it_is() {
    for (ends, moved, packet, apart) in [
        ([A, B], MOVED, v4(60).bytes(), false),
        ([A, B], MOVED, v4(60).bytes(), true),
        ([A6, B6], MOVED6, v6(80).bytes(), false),
    ] {
        let [mut a, mut b] = duplex(ends, |_| {});
        b.apart = apart;
        let configured = (place((ends[0], THEIRS)), OURS);
        assert_eq!(destination(&b.seal(&packet)), configured);
        assert_eq!(b.verdict(&translated(&a.seal(&packet), moved)), In::Opened);
        let answer = b.seal(&packet);
        assert_eq!(destination(&answer), (place(moved), OURS));
        assert_eq!(b.sa("1002-Out").peer_address(), ip(moved.0));
        if let Version::V6 = parse(&answer).unwrap().version {
            let outer = parse(&answer).unwrap();
            let length = u32::from(outer.length) - 40;
            let pseudo = pseudo_v6(outer.source, outer.destination, 17, length);
            assert!(pseudo.bytes(&answer[40..]).holds());
        } else {
            assert_eq!(answer[26..28], [0, 0]);
        }
        // And back where it was.
        b.now = b.now.plus(SECOND);
        assert_eq!(b.verdict(&a.seal(&packet)), In::Opened);
        assert_eq!(destination(&b.seal(&packet)), configured);
    }
}

//= test T160
#[test]
fn nothing_old_forged_bare_or_impossible_moves_a_peer() {
    let [mut a, mut b] = duplex([A, B], |_| {});
    let home = (place((A, THEIRS)), OURS);
    let mut packets: Vec<Vec<u8>> = (0..4).map(|_| a.seal(&v4(60).bytes())).collect();
    let newest = packets.pop().unwrap();
    assert_eq!(b.verdict(&newest), In::Opened);

    // Seen already, and new but not the newest.
    let replay = In::Drop(DropReason::Replay);
    assert_eq!(b.verdict(&translated(&newest, MOVED)), replay);
    assert_eq!(b.verdict(&translated(&packets[0], MOVED)), In::Opened);
    // Not authentic.
    let next = a.seal(&v4(60).bytes());
    let mut forged = translated(&next, MOVED);
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(b.verdict(&forged), In::Drop(DropReason::Authentication));
    // Authentic and new, but not in UDP.
    let mut bare = between(MOVED.0, B, 0).with(50, &next[28..]);
    assert_eq!(b.verdict(&bare), In::Opened);
    // From where nobody can be.
    for source in ["127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255", B] {
        bare = translated(&a.seal(&v4(60).bytes()), (source, 1024));
        assert_eq!(b.verdict(&bare), In::Opened, "{source}");
    }
    let no_port = translated(&a.seal(&v4(60).bytes()), (MOVED.0, 0));
    assert_eq!(b.verdict(&no_port), In::Opened);
    assert_eq!(destination(&b.seal(&v4(60).bytes())), home);
    assert_eq!(b.sa("1002-Out").peer.as_ref().unwrap().moves(), 0);
}

//= test T160
#[test]
fn a_peer_is_followed_once_a_second_at_most() {
    let [mut a, mut b] = duplex([A, B], |_| {});
    let mut from = |b: &mut Gateway, port| {
        let sealed = translated(&a.seal(&v4(60).bytes()), (MOVED.0, port));
        assert_eq!(b.verdict(&sealed), In::Opened);
        destination(&b.seal(&v4(60).bytes())).0.port
    };
    b.now = Time(5 * SECOND);
    assert_eq!(from(&mut b, 1000), 1000);
    assert_eq!(from(&mut b, 1001), 1000);
    b.now = Time(6 * SECOND - 1);
    assert_eq!(from(&mut b, 1002), 1000);
    b.now = Time(6 * SECOND);
    assert_eq!(from(&mut b, 1003), 1003);
}

//= test T160
#[test]
fn a_peer_is_not_followed_where_it_must_not_be() {
    type Change = fn(&mut SaParameters);
    let changes: [(&str, Change); 4] = [
        ("no window", |it| it.replay_window = 0),
        ("not wanted", |it| it.follow_peer = false),
        ("not wanted in", |it| {
            it.follow_peer = it.direction == Direction::Out;
        }),
        ("not wanted out", |it| {
            it.follow_peer = it.direction == Direction::In;
        }),
    ];
    for (what, change) in changes {
        let [mut a, mut b] = duplex([A, B], change);
        let sealed = translated(&a.seal(&v4(60).bytes()), MOVED);
        assert_eq!(b.verdict(&sealed), In::Opened, "{what}");
        let home = (place((A, THEIRS)), OURS);
        assert_eq!(destination(&b.seal(&v4(60).bytes())), home, "{what}");
    }
    // An SA of other ports, or to another peer, is another peer's.
    for (port, peer) in [(OURS + 9, A), (THEIRS, "192.0.2.77")] {
        let [mut a, mut b] = duplex([A, B], |it| {
            if it.direction == Direction::Out {
                it.destination = ip(peer);
                it.udp_encapsulation = Some(UdpEncapsulation {
                    source_port: OURS,
                    destination_port: port,
                });
            }
        });
        let sealed = translated(&a.seal(&v4(60).bytes()), MOVED);
        assert_eq!(b.verdict(&sealed), In::Opened);
        let home = (place((peer, port)), OURS);
        assert_eq!(destination(&b.seal(&v4(60).bytes())), home);
    }
}

//= test T136
#[test]
fn keepalives_are_known_by_where_the_peer_is() {
    let [mut a, mut b] = duplex([A, B], |_| {});
    let keepalive = |source: &str| {
        let datagram = [0x04, 0, 0x11, 0x94, 0, 9, 0, 0, 0xff];
        between(source, B, 0).with(17, &datagram)
    };
    let sealed = translated(&a.seal(&v4(60).bytes()), MOVED);
    assert_eq!(b.verdict(&sealed), In::Opened);
    b.tables = b.tables.with_moved_peers();
    let swallowed = In::Consumed(Consumed::Keepalive);
    assert_eq!(b.verdict(&keepalive(MOVED.0)), swallowed);
    assert_eq!(b.verdict(&keepalive(A)), In::Host, "a stranger now");
    // Ours go where the peer is.
    let mut out = [0; 64];
    let length = ipsec::outbound::keepalive(b.sa("1002-Out"), &mut out).unwrap();
    assert_eq!(destination(&out[..length]).0, place(MOVED));
    // A keepalive says nothing about where the peer is.
    assert_eq!(destination(&b.seal(&v4(60).bytes())).0, place(MOVED));
}

//= test T65
#[test]
fn an_icmp_error_is_about_where_the_peer_is() {
    let [mut a, mut b] = duplex([A, B], |_| {});
    let sent = b.seal(&v4(60).bytes());
    let report = |packet: &[u8]| {
        let mut message = vec![3, 4, 0, 0, 0, 0, 5, 0];
        message.extend(&packet[..36]);
        let sum = Sum::ZERO.bytes(&message).checksum();
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        Report::of_v4(&between("198.51.100.1", B, 0).with(1, &message)).unwrap()
    };
    let before = report(&sent);
    assert_eq!(before.complaint, Complaint::TooBig(1280));
    let found = |b: &Gateway, report| b.tables.sender(report).map(|sa| sa.name.to_string());
    assert_eq!(found(&b, &before).as_deref(), Some("1002-Out"));
    let sealed = translated(&a.seal(&v4(60).bytes()), MOVED);
    assert_eq!(b.verdict(&sealed), In::Opened);
    let after = report(&b.seal(&v4(60).bytes()));
    assert_eq!(found(&b, &after).as_deref(), Some("1002-Out"));
    assert_eq!(found(&b, &before), None, "about another way");
}

//= test T160
#[test]
fn transport_mode_follows_port_and_address() {
    let mut a = transport(A, B);
    let [_, mut b] = duplex([A, B], |it| it.mode = Mode::Transport);
    let there = between(A, B, 60).bytes();
    let seal = |a: &mut Gateway| {
        let (verdict, sealed) = a
            .outbound(std::slice::from_ref(&there), 1500, true)
            .remove(0);
        assert!(matches!(verdict, Out::Sealed(_)), "{verdict:?}");
        sealed
    };
    let back = |b: &mut Gateway, to: &str| {
        b.outbound(&[between(B, to, 60).bytes()], 1500, true)
            .remove(0)
    };
    // Another port: the same connection goes on.
    assert_eq!(b.verdict(&translated(&seal(&mut a), (A, 1024))), In::Opened);
    let (_, answer) = back(&mut b, A);
    assert_eq!(destination(&answer), (place((A, 1024)), OURS));
    // Another address: packets to it are the peer's, those to the old one nobody's.
    b.now = b.now.plus(SECOND);
    assert_eq!(b.verdict(&translated(&seal(&mut a), MOVED)), In::Opened);
    let (_, answer) = back(&mut b, MOVED.0);
    assert_eq!(destination(&answer), (place(MOVED), OURS));
    let unsupported = Out::Drop(DropReason::Unsupported);
    assert_eq!(back(&mut b, A).0, unsupported);
    assert_eq!(b.sa("1001-In").published.packets.load(Relaxed), 2);
}

/// The near end of [`duplex`] in transport mode.
fn transport(own: &str, peer: &str) -> Gateway {
    let mut out = sa(Direction::Out, 0x1001, own, peer);
    out.mode = Mode::Transport;
    out.udp_encapsulation = Some(UdpEncapsulation {
        source_port: THEIRS,
        destination_port: OURS,
    });
    let to = policy("to", Direction::Out, Action::Protect, &[&out.name]);
    Gateway::new(vec![out], &[to], &[own])
}
