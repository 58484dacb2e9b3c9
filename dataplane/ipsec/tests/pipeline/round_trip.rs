//! What one gateway seals the other opens, byte for byte.

use ipsec::packet::{Version, parse};
use ipsec::sa::association::{DontFragment, Dscp, FlowLabel, UdpEncapsulation};
use ipsec::verdict::DropReason;
use proptest::prelude::*;

use crate::gateway::{A, A6, B, B6, In, Out, crafted, distinct, pair, pair_of, suites, with_suite};
use crate::packets::{Udp, v4, v6};

/// Seals and opens a burst of packets; all must come out as they went in, one hop further.
fn passes(change: impl Fn(&mut ipsec::sa::SaParameters), outer: (&str, &str), packets: &[Udp]) {
    let (mut a, mut b) = pair_of(outer.0, outer.1, change);
    let bytes: Vec<_> = packets.iter().map(Udp::bytes).collect();
    let sealed = a.send(&bytes, 1500);
    let wire: Vec<_> = sealed.iter().map(|(_, packet)| packet.clone()).collect();
    for (verdict, packet) in &sealed {
        assert_eq!(*verdict, Out::Sealed(u16::try_from(packet.len()).unwrap()));
        assert!(packet.len() <= 1500);
    }
    let opened = b.receive(&wire);
    for ((verdict, packet), sent) in opened.iter().zip(packets) {
        assert_eq!(*verdict, In::Opened);
        assert_eq!(*packet, sent.lowered());
    }
    assert_eq!(a.count(0), packets.len() as u64);
    assert_eq!(b.count(0), packets.len() as u64);
}

const OUTERS: [(&str, &str); 2] = [(A, B), (A6, B6)];

//= test T09
#[test]
fn every_suite_in_every_pairing_of_families() {
    for suite in suites() {
        for outer in OUTERS {
            let packets: Vec<Udp> = (28..120)
                .map(v4)
                .chain((48..120).map(v6))
                .chain([v4(1400), v6(1400)])
                .collect();
            passes(|sa| *sa = with_suite(take(sa), suite), outer, &packets);
        }
    }
}

fn take(sa: &mut ipsec::sa::SaParameters) -> ipsec::sa::SaParameters {
    let blank = crate::gateway::sa(sa.direction, sa.spi, A, B);
    std::mem::replace(sa, blank)
}

//= test T05
#[test]
fn extended_sequence_numbers_pass_the_32_bit_boundary() {
    for suite in suites() {
        let esn = |sa: &mut ipsec::sa::SaParameters| {
            *sa = with_suite(take(sa), suite);
            sa.esn = true;
            sa.sequence = u64::from(u32::MAX) - 20;
        };
        passes(esn, (A, B), &vec![v4(100); 50]);
    }
}

//= test T67
#[test]
fn udp_encapsulation_over_both_families() {
    for outer in OUTERS {
        let udp = |sa: &mut ipsec::sa::SaParameters| {
            sa.udp_encapsulation = Some(UdpEncapsulation {
                source_port: 4500,
                destination_port: 4500,
            });
        };
        passes(udp, outer, &[v4(200), v6(200)]);
    }
}

//= test T135
//= test T140
#[test]
fn the_udp_checksum_is_zero_over_ipv4_and_right_over_ipv6() {
    let udp = |sa: &mut ipsec::sa::SaParameters| {
        sa.udp_encapsulation = Some(UdpEncapsulation {
            source_port: 4500,
            destination_port: 4500,
        });
    };
    let (mut a, _) = pair(udp);
    let sealed = a.seal(&v4(200).bytes());
    assert_eq!(&sealed[20..24], &[0x11, 0x94, 0x11, 0x94]);
    assert_eq!(&sealed[26..28], &[0, 0]);
    let (mut a, _) = pair_of(A6, B6, udp);
    let sealed = a.seal(&v4(200).bytes());
    let packet = parse(&sealed).unwrap();
    let length = u32::try_from(sealed.len() - 40).unwrap();
    let sum = ipsec::wire::checksum::pseudo_v6(packet.source, packet.destination, 17, length);
    assert!(sum.bytes(&sealed[40..]).holds());
    assert_ne!(&sealed[46..48], &[0, 0]);
}

//= test T12
//= test T77
#[test]
fn tfc_padding_hides_lengths_and_is_cut() {
    for length in [28, 40, 300, 999, 1000, 1001] {
        passes(|sa| sa.tfc_pad_to = 1000, (A, B), &[v4(length)]);
    }
    let (mut a, _) = pair(|sa| sa.tfc_pad_to = 1000);
    let lengths = [28, 500, 1000].map(|length| a.seal(&v4(length).bytes()).len());
    assert_eq!(lengths, [lengths[0]; 3]);
    let (mut a, _) = pair(|sa| sa.tfc_pad_to = 9000);
    assert!(a.seal(&v4(100).bytes()).len() <= 1500);
}

//= test T03
#[test]
fn numbers_count_from_one_and_no_iv_repeats() {
    let (mut a, _) = pair(|_| {});
    let sealed = a.send(&vec![v4(100).bytes(); 150], 1500);
    let numbers: Vec<u32> = sealed
        .iter()
        .map(|(_, packet)| u32::from_be_bytes(packet[24..28].try_into().unwrap()))
        .collect();
    assert_eq!(numbers, (1..=150).collect::<Vec<_>>());
    assert!(distinct(
        sealed.iter().map(|(_, packet)| packet[28..36].to_vec())
    ));
    assert!(distinct(
        sealed.iter().map(|(_, packet)| packet[4..6].to_vec())
    ));
}

//= test T115
#[test]
fn the_machines_own_packets_keep_their_hop_limit() {
    let (mut a, mut b) = pair(|_| {});
    let packet = Udp {
        hop_limit: 1,
        ..v4(100)
    };
    let (verdict, sealed) = a.outbound(&[packet.bytes()], 1500, true).remove(0);
    assert!(matches!(verdict, Out::Sealed(_)));
    assert_eq!(b.receive(&[sealed]).remove(0).1, packet.bytes());
}

//= test T58
//= test T60
//= test T63
//= test T141
#[test]
fn the_outer_header_is_as_the_sa_says() {
    let packet = Udp {
        traffic_class: 0xb9,
        flags_and_offset: 0x4000,
        ..v4(100)
    };
    let open = Udp {
        flags_and_offset: 0,
        ..packet
    };
    let (mut a, _) = pair(|sa| sa.hop_limit = 33);
    let outer = parse(&a.seal(&packet.bytes())).unwrap();
    assert_eq!((outer.hop_limit, outer.traffic_class), (33, 0xb9));
    assert_eq!((outer.version, outer.protocol), (Version::V4, 50));
    assert_eq!((outer.length, outer.upper_offset), (156, 20));
    assert!(outer.dont_fragment);
    assert!(!parse(&a.seal(&open.bytes())).unwrap().dont_fragment);
    assert!(parse(&a.seal(&v6(100).bytes())).unwrap().dont_fragment);
    let (mut a, _) = pair(|sa| {
        sa.dont_fragment = DontFragment::Clear;
        sa.dscp = Dscp::Fixed(10);
        sa.ecn = false;
    });
    let outer = parse(&a.seal(&packet.bytes())).unwrap();
    assert_eq!((outer.dont_fragment, outer.traffic_class), (false, 40));
    let (mut a, _) = pair(|sa| sa.dont_fragment = DontFragment::Set);
    assert!(parse(&a.seal(&open.bytes())).unwrap().dont_fragment);
}

//= test T117
#[test]
fn the_outer_flow_label_is_the_flows_own_or_zero() {
    let label = |sealed: &[u8]| u32::from_be_bytes(sealed[..4].try_into().unwrap()) & 0xf_ffff;
    let (mut a, _) = pair_of(A6, B6, |_| {});
    let mut labels = [v6(100), v6(100), v4(100)].map(|packet| label(&a.seal(&packet.bytes())));
    assert_eq!(labels[0], labels[1]);
    assert_ne!(labels[1], labels[2]);
    let (mut a, _) = pair_of(A6, B6, |sa| sa.flow_label = FlowLabel::Zero);
    labels[0] = label(&a.seal(&v6(100).bytes()));
    assert_eq!(labels[0], 0);
}

/// The outer ECN field of an IPv4 packet set to `mark`, its checksum too.
fn marked(mut packet: Vec<u8>, mark: u8) -> Vec<u8> {
    let old = u16::from_be_bytes([packet[0], packet[1]]);
    packet[1] = packet[1] & !3 | mark;
    let new = u16::from_be_bytes([packet[0], packet[1]]);
    let sum = u16::from_be_bytes([packet[10], packet[11]]);
    let sum = ipsec::wire::checksum::update(sum, old, new);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

//= test T63
//= test T142
#[test]
fn congestion_marks_reach_the_inner_packet() {
    let (mut a, mut b) = pair(|_| {});
    let capable = Udp {
        traffic_class: 2,
        ..v4(100)
    };
    let sealed = marked(a.seal(&capable.bytes()), 3);
    let (verdict, opened) = b.receive(&[sealed]).remove(0);
    assert_eq!(verdict, In::Opened);
    let congested = Udp {
        traffic_class: 3,
        ..capable
    };
    assert_eq!(opened, congested.lowered());
    let sealed = marked(a.seal(&v4(100).bytes()), 3);
    let reason = DropReason::Ecn;
    assert_eq!(b.verdict(&sealed), In::Drop(reason));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_burst_passes(
        lengths in prop::collection::vec((28_usize..1300, any::<bool>(), any::<u8>()), 1..130),
        suite in 0..suites().len(),
        tfc in 0_u16..1600,
        esn: bool,
    ) {
        let packets: Vec<Udp> = lengths
            .into_iter()
            .map(|(length, six, class)| Udp {
                traffic_class: class & !3,
                ..if six { v6(length + 20) } else { v4(length) }
            })
            .collect();
        let change = |sa: &mut ipsec::sa::SaParameters| {
            *sa = with_suite(take(sa), suites()[suite]);
            sa.tfc_pad_to = tfc;
            sa.esn = esn;
            sa.replay_window = 1024;
        };
        passes(change, (A, B), &packets);
    }
}

/// Loss and other ways of counting part the counts of both ends; each SA ends by its own.
//= test T110
#[test]
fn ends_whose_byte_counts_part_go_on_working() {
    let (mut a, mut b) = pair(|sa| sa.lifetime.hard_bytes = 300);
    let packets = [(); 4].map(|()| v4(100).bytes());
    let sent = a.send(&packets, 1500);
    let [first, _, third, fourth] = &sent[..] else {
        panic!("{} ends", sent.len());
    };
    assert_eq!(fourth.0, Out::Drop(DropReason::SaExpired));
    for (verdict, sealed) in [first, third] {
        assert!(matches!(verdict, Out::Sealed(_)));
        assert_eq!(b.verdict(sealed), In::Opened);
    }
    // A sender that counts less than we did goes on, as far as this end's limit of 300.
    let mut more = |number| b.verdict(&crafted(&a, number, &v4(62).bytes(), &[0, 4]));
    assert_eq!([more(4), more(5)], [In::Opened; 2]);
    assert_eq!(more(6), In::Drop(DropReason::SaExpired));
}
