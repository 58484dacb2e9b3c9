//! Transport mode: whose packets it takes, where the header goes, what comes out, and the checksums
//! of packets that came through NAT.

use ipsec::packet::{parse, protocol};
use ipsec::sa::association::{Mode, Protocol, UdpEncapsulation};
use ipsec::verdict::DropReason;
use ipsec::wire::checksum::{Sum, pseudo_v4, pseudo_v6};

use crate::gateway::{A, A6, B, B6, Gateway, In, Out, ip, pair_of, suites, with_suite};
use crate::packets::{self, between};

fn gateways(source: &str, destination: &str) -> (Gateway, Gateway) {
    pair_of(source, destination, |parameters| {
        parameters.mode = Mode::Transport;
    })
}

//= test T01
//= test T08
#[test]
fn every_algorithm_goes_there_and_back() {
    for suite in suites() {
        for (source, destination) in [(A, B), (A6, B6)] {
            for esn in [false, true] {
                let (mut a, mut b) = pair_of(source, destination, |parameters| {
                    let whole = crate::gateway::sa(parameters.direction, 0x1001, A, B);
                    *parameters = with_suite(std::mem::replace(parameters, whole), suite);
                    parameters.mode = Mode::Transport;
                    parameters.esn = esn;
                });
                for length in [60, 61, 62, 63, 1279] {
                    let packet = between(source, destination, length);
                    let sealed = a.seal(&packet.bytes());
                    let outside = parse(&sealed).unwrap();
                    assert_eq!(outside.protocol, protocol::ESP);
                    assert_eq!(outside.source, parse(&packet.bytes()).unwrap().source);
                    let (verdict, opened) = b.receive(&[sealed]).remove(0);
                    assert_eq!(verdict, In::Opened, "{suite:?} {source} {esn} {length}");
                    assert_eq!(opened, packet.lowered());
                }
                assert_eq!(b.states.of(ipsec::sa::SaSlot(0)).unwrap().bytes(), 1525);
            }
        }
    }
}

//= test T95
//= test T115
#[test]
fn others_packets_do_not_go_through() {
    let (mut a, _) = gateways(A, B);
    let refused = Out::Drop(DropReason::Unsupported);
    for (source, destination) in [("192.0.2.9", B), (A, "192.0.2.9"), ("10.1.0.1", "10.2.0.1")] {
        let packet = between(source, destination, 100).bytes();
        assert_eq!(a.send(&[packet], 1500)[0].0, refused);
    }
    let own = between(A, B, 100).bytes();
    let (verdict, sealed) = a.outbound(&[own], 1500, true).remove(0);
    assert!(matches!(verdict, Out::Sealed(_)));
    assert_eq!(parse(&sealed).unwrap().hop_limit, 64);
}

//= test T14
#[test]
fn fragments_do_not_go_through() {
    for protocol in [Protocol::Esp, Protocol::Ah] {
        let (mut a, _) = pair_of(A, B, |parameters| {
            parameters.mode = Mode::Transport;
            if protocol == Protocol::Ah {
                parameters.protocol = protocol;
                parameters.encryption_key = ipsec::secret::Secret::default();
                parameters.suite.encryption = ipsec::crypto::suite::Encryption::Null;
                parameters.suite.integrity = Some(ipsec::crypto::suite::Integrity::Sha1_96);
                parameters.integrity_key = ipsec::secret::Secret::new(vec![1; 20]);
            }
        });
        for flags in [0x2000, 0x0004] {
            let mut packet = between(A, B, 100);
            packet.flags_and_offset = flags;
            let verdict = a.send(&[packet.bytes()], 1500)[0].0;
            assert_eq!(verdict, Out::Drop(DropReason::Fragment));
        }
    }
}

//= test T15
#[test]
fn what_is_too_long_is_cut_behind_the_sa() {
    let (mut a, mut b) = gateways(A, B);
    // 20 + 8 + 8 + content + 2 + 16, in words of 4.
    for (length, whole) in [(1466, 1500), (1467, 1504)] {
        let packet = between(A, B, length);
        let (verdict, sealed) = a.send(&[packet.bytes()], 1500).remove(0);
        assert_eq!(verdict, Out::Sealed(whole));
        assert_eq!(
            b.receive(&[sealed]).remove(0),
            (In::Opened, packet.lowered())
        );
    }
    let mut whole = between(A, B, 1467);
    whole.flags_and_offset = 0x4000;
    let verdict = a.send(&[whole.bytes()], 1500)[0].0;
    assert_eq!(verdict, Out::TooBig(1466));
}

/// IPv6 headers in front and behind.
//= test T01
//= test T08
#[test]
fn extension_headers_stay_where_routers_look() {
    let (mut a, mut b) = gateways(A6, B6);
    let udp = &between(A6, B6, 60).bytes()[40..];
    let mut behind = vec![protocol::DESTINATION_OPTIONS, 0, 1, 4, 0, 0, 0, 0];
    behind.extend([protocol::UDP, 0, 1, 4, 0, 0, 0, 0]);
    behind.extend_from_slice(udp);
    let packet = between(A6, B6, 0).with(protocol::HOP_BY_HOP, &behind);
    let sealed = a.seal(&packet);
    assert_eq!(
        (sealed[6], sealed[40]),
        (protocol::HOP_BY_HOP, protocol::ESP)
    );
    let (verdict, opened) = b.receive(&[sealed]).remove(0);
    assert_eq!(verdict, In::Opened);
    let mut lowered = packet;
    lowered[7] -= 1;
    assert_eq!(opened, lowered);
}

//= test T36
#[test]
fn any_protocol_is_carried() {
    let (mut a, mut b) = gateways(A, B);
    for number in [protocol::IPV4, protocol::IPV6, 132, 47, 255] {
        let packet = between(A, B, 0).with(number, &[7; 40]);
        let (verdict, opened) = b.receive(&[a.seal(&packet)]).remove(0);
        assert_eq!((verdict, opened[9]), (In::Opened, number));
    }
    let dummy = between(A, B, 0).with(protocol::NONE, &[7; 40]);
    let consumed = In::Consumed(ipsec::inbound::Consumed::Dummy);
    assert_eq!(b.verdict(&a.seal(&dummy)), consumed);
}

/// The sum over pseudo-header and segment of an opened packet.
fn holds(packet: &[u8]) -> bool {
    let facts = parse(packet).unwrap();
    let segment = &packet[facts.upper_offset.into()..];
    let length = u16::try_from(segment.len()).unwrap();
    let low = |address: u128| (address & 0xffff_ffff) as u32;
    let pseudo = if packet[0] >> 4 == 4 {
        let (source, destination) = (low(facts.source), low(facts.destination));
        pseudo_v4(source, destination, facts.protocol, length)
    } else {
        pseudo_v6(
            facts.source,
            facts.destination,
            facts.protocol,
            length.into(),
        )
    };
    pseudo.bytes(segment).holds()
}

/// A segment whose checksum is that of other addresses, as NAT leaves it.
fn through_nat(source: &str, destination: &str, number: u8, sum: u16) -> Vec<u8> {
    let field = if number == protocol::TCP { 16 } else { 6 };
    let mut segment = vec![0x5a; 33];
    segment[4..6].copy_from_slice(&33_u16.to_be_bytes());
    segment[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    between(source, destination, 0).with(number, &segment)
}

//= test T68
#[test]
fn checksums_are_made_anew_behind_nat() {
    for (source, destination) in [(A, B), (A6, B6)] {
        for encapsulated in [false, true] {
            let (mut a, mut b) = pair_of(source, destination, |parameters| {
                parameters.mode = Mode::Transport;
                parameters.udp_encapsulation = encapsulated.then_some(UdpEncapsulation {
                    source_port: 4500,
                    destination_port: 4500,
                });
            });
            for number in [protocol::TCP, protocol::UDP] {
                let sealed = a.seal(&through_nat(source, destination, number, 0xdead));
                let (verdict, opened) = b.receive(&[sealed]).remove(0);
                assert_eq!(verdict, In::Opened);
                assert_eq!(holds(&opened), encapsulated, "{source} {number}");
            }
            if ip(source).is_ipv4() {
                let sealed = a.seal(&through_nat(source, destination, protocol::UDP, 0));
                let opened = b.receive(&[sealed]).remove(0).1;
                assert_eq!(opened[26..28], [0, 0]);
            }
        }
    }
}

#[test]
fn other_lengths_never_panic() {
    let (mut a, mut b) = gateways(A, B);
    let packet = packets::v4(28).with(protocol::TCP, &[1; 8]);
    let mut own = packet;
    own[12..20].copy_from_slice(&[192, 0, 2, 1, 192, 0, 2, 2]);
    own[10..12].fill(0);
    let sum = Sum::ZERO.bytes(&own[..20]).checksum();
    own[10..12].copy_from_slice(&sum.to_be_bytes());
    let sealed = a.seal(&own);
    for length in 20..sealed.len() {
        let mut cut = sealed[..length].to_vec();
        cut[2..4].copy_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
        cut[10..12].fill(0);
        let sum = Sum::ZERO.bytes(&cut[..20]).checksum();
        cut[10..12].copy_from_slice(&sum.to_be_bytes());
        assert!(matches!(b.verdict(&cut), In::Drop(_)), "{length}");
    }
}
