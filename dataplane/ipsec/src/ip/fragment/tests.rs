//! Fragments put together again by a naive model are the packet they came from.

use proptest::prelude::*;

use super::*;
use crate::packet::{Fragment, parse, protocol};

fn v4(options: &[u8], flags_and_offset: u16, payload: &[u8]) -> Vec<u8> {
    let length = 20 + options.len();
    let mut packet = vec![0x40 | u8::try_from(length / 4).unwrap(), 0x12];
    packet.extend(u16::try_from(length + payload.len()).unwrap().to_be_bytes());
    packet.extend([0xab, 0xcd]);
    packet.extend(flags_and_offset.to_be_bytes());
    packet.extend([64, 99, 0, 0, 10, 1, 0, 2, 10, 2, 0, 3]);
    packet.extend(options);
    let checksum = Sum::ZERO.bytes(&packet).checksum();
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend(payload);
    packet
}

fn v6(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let fields = ipv6::Fields {
        traffic_class: 0x12,
        flow_label: 0x3_4567,
        payload_length: u16::try_from(payload.len()).unwrap(),
        next_header,
        hop_limit: 64,
        source: 1 << 100,
        destination: 2 << 100,
    };
    [&fields.to_bytes()[..], payload].concat()
}

fn bytes(length: usize) -> Vec<u8> {
    (0..=250)
        .map(|byte: u8| byte ^ 0x5a)
        .cycle()
        .take(length)
        .collect()
}

fn pieces(plan: &Plan, ip: &[u8]) -> Vec<Vec<u8>> {
    let piece = |index| {
        let mut out = vec![0xee; 70_000];
        let length = plan.write(ip, index, &mut out).unwrap();
        assert!(out[length..].iter().all(|byte| *byte == 0xee));
        assert_eq!(plan.write(ip, index, &mut out[..length - 1]), None);
        out.truncate(length);
        out
    };
    let pieces = (0..plan.count()).map(piece).collect();
    assert_eq!(plan.write(ip, plan.count(), &mut [0; 2000]), None);
    pieces
}

/// Offset in bytes, whether more follow, payload.
fn read_v4(piece: &[u8]) -> (usize, bool, &[u8]) {
    let packet = parse(piece).unwrap();
    assert_eq!(usize::from(packet.length), piece.len());
    assert!(!packet.dont_fragment);
    let word = ipv4::Header::parse(piece).unwrap().flags_and_offset();
    let offset = usize::from(word & ipv4::OFFSET) * 8;
    let more = word & ipv4::MORE_FRAGMENTS != 0;
    (offset, more, &piece[packet.upper_offset.into()..])
}

/// Checks the rules of RFC 791 and gives the payload back.
fn reassemble<'a>(
    pieces: impl IntoIterator<Item = (usize, bool, &'a [u8])>,
    base: usize,
) -> Vec<u8> {
    let mut payload = Vec::new();
    let mut ended = false;
    for (offset, more, data) in pieces {
        assert!(!ended, "a piece behind the last");
        assert_eq!(offset, base + payload.len());
        assert!(!data.is_empty());
        assert!(!more || data.len() % 8 == 0);
        payload.extend(data);
        ended = !more;
    }
    payload
}

//= test T61 (RFC 4301 section 8.2.1)
//= test T134 (RFC 6864 section 4.3)
#[test]
fn transit_refuses_df_and_ipv6() {
    let df = v4(&[], 0x4000, &bytes(1480));
    let packet = parse(&df).unwrap();
    assert_eq!(Plan::transit(&df, &packet, 1000), None);
    assert!(Plan::own(&df, 0, 1000).is_some());
    let ip = v6(protocol::NONE, &bytes(1400));
    assert_eq!(Plan::transit(&ip, &parse(&ip).unwrap(), 1300), None);
    let open = v4(&[], 0, &bytes(1480));
    let plan = Plan::transit(&open, &parse(&open).unwrap(), 1000).unwrap();
    assert_eq!(plan.count(), 2);
}

#[test]
fn what_fits_stays_as_it_is() {
    for ip in [v4(&[], 0x4000, &bytes(80)), v6(protocol::NONE, &bytes(60))] {
        let plan = Plan::own(&ip, 9, 100).unwrap();
        assert_eq!(pieces(&plan, &ip), [ip]);
    }
}

#[test]
fn no_piece_more_than_needed() {
    // The last piece need not be a multiple of 8: 81 bytes fit behind the header.
    for (length, mtu, count) in [(161, 101, 2), (162, 101, 3), (241, 101, 3), (242, 101, 4)] {
        let plan = Plan::own(&v4(&[], 0, &bytes(length)), 0, mtu).unwrap();
        assert_eq!(plan.count(), count, "{length}");
    }
}

#[test]
fn impossible_cuts_are_refused() {
    let ip = v4(&[1; 40], 0, &bytes(200));
    assert_eq!(Plan::own(&ip, 0, 67), None);
    assert!(Plan::own(&ip, 0, 68).is_some());
    assert_eq!(Plan::own(&v6(99, &bytes(200)), 0, 55), None);
    assert!(Plan::own(&v6(99, &bytes(200)), 0, 56).is_some());
    assert_eq!(Plan::own(&ip[..100], 0, 68), None);
    assert_eq!(Plan::own(&[], 0, 1500), None);
    assert_eq!(Plan::own(&v4(&[], 0x1fff, &bytes(100)), 0, 68), None);
    let fragment = [&[99, 0, 0, 1, 0, 0, 0, 0][..], &bytes(200)].concat();
    assert_eq!(Plan::own(&v6(protocol::FRAGMENT, &fragment), 0, 100), None);
}

#[test]
fn only_marked_options_go_into_later_fragments() {
    // No operation, record route (not copied), router alert (copied), security (copied), end.
    let options = [
        1, 7, 7, 4, 0, 0, 0, 0, 0x94, 4, 0, 0, 0x82, 6, 1, 2, 3, 4, 0, 0x99,
    ];
    let ip = v4(&options, 0, &bytes(300));
    let plan = Plan::own(&ip, 0, 120).unwrap();
    let pieces = pieces(&plan, &ip);
    assert_eq!(pieces[0][20..40], options);
    for piece in &pieces[1..] {
        assert_eq!(piece[0], 0x48);
        assert_eq!(piece[20..32], [0x94, 4, 0, 0, 0x82, 6, 1, 2, 3, 4, 0, 0]);
    }
    assert_eq!(
        reassemble(pieces.iter().map(|piece| read_v4(piece)), 0),
        bytes(300)
    );

    // A damaged option ends the copying.
    for damaged in [
        [0x94, 4, 0, 0, 0x82, 1, 0, 0],
        [0x94, 4, 0, 0, 0x82, 60, 0, 0],
    ] {
        let mut copied = [0; 40];
        assert_eq!(copied_options(&damaged, &mut copied), 4);
        assert_eq!(copied[..8], [0x94, 4, 0, 0, 0, 0, 0, 0]);
    }
}

//= test T132 (RFC 2473 section 7.1)
#[test]
fn an_outer_ipv6_packet() {
    let esp = bytes(1350);
    let ip = v6(protocol::ESP, &esp);
    let plan = Plan::own(&ip, 0x0102_0304, 1280).unwrap();
    let pieces = pieces(&plan, &ip);
    assert_eq!(pieces.len(), 2);
    assert_eq!(pieces[0].len(), 1280);
    for (piece, kind) in pieces.iter().zip([Fragment::First, Fragment::Later]) {
        let packet = parse(piece).unwrap();
        assert_eq!((packet.fragment, packet.protocol), (kind, protocol::ESP));
        assert_eq!(
            (packet.identification, packet.upper_offset),
            (0x0102_0304, 48)
        );
        assert_eq!(usize::from(packet.length), piece.len());
    }
    assert_eq!([&pieces[0][48..], &pieces[1][48..]].concat(), esp);
    assert_eq!(pieces[0][42..44], [0, 1]);
    assert_eq!(pieces[1][42..44], 1232_u16.to_be_bytes());
}

#[test]
fn ipv6_headers_for_every_hop_are_repeated() {
    let hop_by_hop = [protocol::DESTINATION_OPTIONS, 0, 1, 4, 0, 0, 0, 0];
    let before_routing = [protocol::ROUTING, 0, 1, 4, 0, 0, 0, 0];
    let routing = [protocol::DESTINATION_OPTIONS, 0, 4, 0, 0, 0, 0, 0];
    let options = [protocol::ESP, 0, 1, 4, 0, 0, 0, 0];
    let unfragmentable = [hop_by_hop, before_routing, routing].concat();
    let payload = [&options[..], &bytes(400)].concat();
    let ip = v6(
        protocol::HOP_BY_HOP,
        &[&unfragmentable[..], &payload].concat(),
    );
    let plan = Plan::own(&ip, 5, 200).unwrap();
    let mut payload_again: Vec<u8> = Vec::new();
    for piece in pieces(&plan, &ip) {
        assert!(piece.len() <= 200);
        parse(&piece).unwrap();
        assert_eq!(piece[40..56], unfragmentable[..16]);
        assert_eq!(piece[56], protocol::FRAGMENT);
        assert_eq!(piece[57..64], routing[1..]);
        assert_eq!(piece[64], protocol::DESTINATION_OPTIONS);
        payload_again.extend(&piece[72..]);
    }
    assert_eq!(payload_again, payload);
}

proptest! {
    #[test]
    fn ipv4_fragments_make_the_packet_again(
        length in 1_usize..9000, mtu in 68_u16..1600, words in 0_usize..11, offset in 0_u16..6000,
        more: bool, option in 1_u8..=255,
    ) {
        let mut options = vec![0; words * 4];
        if words > 0 {
            options[0] = option;
            options[1] = u8::try_from(words * 4).unwrap();
        }
        let length = if more { length.next_multiple_of(8) } else { length };
        let flags = if more { ipv4::MORE_FRAGMENTS } else { 0 };
        let payload = bytes(length);
        let ip = v4(&options, offset | flags, &payload);
        prop_assume!(usize::from(offset) * 8 + length <= 65_535);
        let plan = Plan::own(&ip, 0, mtu).unwrap();
        let pieces = pieces(&plan, &ip);
        for piece in &pieces {
            prop_assert!(piece.len() <= mtu.into());
            prop_assert_eq!(&piece[4..6], &ip[4..6]);
            prop_assert_eq!(&piece[8..10], &ip[8..10]);
            prop_assert_eq!(&piece[12..20], &ip[12..20]);
        }
        let read = pieces.iter().map(|piece| read_v4(piece));
        prop_assert!(read.clone().take(pieces.len() - 1).all(|(_, more, _)| more));
        prop_assert_eq!(read.clone().next_back().unwrap().1, more);
        prop_assert_eq!(reassemble(read, usize::from(offset) * 8), payload);
    }

    #[test]
    fn ipv6_fragments_make_the_packet_again(length in 1_usize..9000, mtu in 56_u16..1600) {
        let payload = bytes(length);
        let ip = v6(protocol::ESP, &payload);
        let plan = Plan::own(&ip, 77, mtu).unwrap();
        prop_assume!(plan.count() > 1);
        let pieces = pieces(&plan, &ip);
        let mut read = Vec::new();
        for piece in &pieces {
            prop_assert!(piece.len() <= mtu.into());
            prop_assert_eq!(&piece[..4], &ip[..4]);
            prop_assert_eq!(&piece[8..40], &ip[8..40]);
            prop_assert_eq!(&piece[44..48], &[0, 0, 0, 77]);
            let word = u16::from_be_bytes([piece[42], piece[43]]);
            read.push((usize::from(word & !7), word & 1 != 0, &piece[48..]));
        }
        prop_assert!(!read.last().unwrap().1);
        prop_assert_eq!(reassemble(read, 0), payload);
    }

    #[test]
    fn no_bytes_make_it_panic(
        mut ip in proptest::collection::vec(any::<u8>(), 0..300), first in 0x40_u8..0x70, mtu: u16,
    ) {
        if let Some(byte) = ip.first_mut() {
            *byte = first;
        }
        if let Some(plan) = Plan::own(&ip, 0, mtu) {
            for index in 0..plan.count() {
                let mut out = [0; 400];
                if let Some(length) = plan.write(&ip, index, &mut out) {
                    prop_assert!(length <= mtu.into());
                }
            }
        }
    }
}
