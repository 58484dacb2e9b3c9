//! Real packets, every truncation of them, and arbitrary bytes.

use proptest::prelude::*;

use super::*;
use crate::wire::checksum::Sum;

const SOURCE_V4: [u8; 4] = [10, 1, 0, 2];
const DESTINATION_V4: [u8; 4] = [10, 2, 0, 3];
const SOURCE_V6: u128 = 0x2001_0db8_0001_0000_0000_0000_0000_0002;
const DESTINATION_V6: u128 = 0x2001_0db8_0002_0000_0000_0000_0000_0003;
const PORTS: [u8; 8] = [0x30, 0x39, 0x01, 0xbb, 0, 8, 0, 0];

fn seal_header(packet: &mut [u8]) {
    let length = usize::from(packet[0] & 15) * 4;
    packet[10..12].fill(0);
    let checksum = Sum::ZERO.bytes(&packet[..length]).checksum();
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
}

fn v4(options: &[u8], flags_and_offset: u16, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let header = 20 + options.len();
    let total = u16::try_from(header + payload.len()).unwrap();
    let mut packet = vec![0x40 | u8::try_from(header / 4).unwrap(), 0xb9];
    packet.extend(total.to_be_bytes());
    packet.extend([0xab, 0xcd]);
    packet.extend(flags_and_offset.to_be_bytes());
    packet.extend([63, protocol, 0, 0]);
    packet.extend(SOURCE_V4);
    packet.extend(DESTINATION_V4);
    packet.extend(options);
    seal_header(&mut packet);
    packet.extend(payload);
    packet
}

fn v6(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x6b, 0x90, 0, 0];
    packet.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    packet.extend([next_header, 62]);
    packet.extend(SOURCE_V6.to_be_bytes());
    packet.extend(DESTINATION_V6.to_be_bytes());
    packet.extend(payload);
    packet
}

fn malformed(packet: &[u8]) {
    assert_eq!(parse(packet), Err(DropReason::Malformed), "{packet:02x?}");
}

const SEEN: Upper = Upper::Ports {
    source: 12345,
    destination: 443,
};

#[test]
fn an_ipv4_packet_with_what_lies_behind_it() {
    let mut frame = v4(&[], 0x4000, protocol::UDP, &PORTS);
    frame.extend([0xff; 18]);
    let expected = Packet {
        source: 0xffff_0a01_0002,
        destination: 0xffff_0a02_0003,
        length: 28,
        upper_offset: 20,
        identification: 0,
        upper: SEEN,
        version: Version::V4,
        protocol: protocol::UDP,
        hop_limit: 63,
        traffic_class: 0xb9,
        fragment: Fragment::Whole,
        dont_fragment: true,
    };
    assert_eq!(parse(&frame), Ok(expected));
}

#[test]
fn ipv4_options_are_skipped() {
    let packet = parse(&v4(&[1; 40], 0, protocol::TCP, &[0x30, 0x39, 1, 0xbb])).unwrap();
    assert_eq!((packet.upper_offset, packet.upper), (60, SEEN));
    assert!(!packet.dont_fragment);
}

#[test]
fn an_ipv6_packet() {
    let expected = Packet {
        source: SOURCE_V6,
        destination: DESTINATION_V6,
        length: 48,
        upper_offset: 40,
        identification: 0,
        upper: SEEN,
        version: Version::V6,
        protocol: protocol::UDP,
        hop_limit: 62,
        traffic_class: 0xb9,
        fragment: Fragment::Whole,
        dont_fragment: true,
    };
    assert_eq!(parse(&v6(protocol::UDP, &PORTS)), Ok(expected));
}

#[test]
fn every_protocol_with_ports_shows_them_and_others_do_not() {
    for protocol in 0..=255_u8 {
        let with_ports = [6, 17, 33, 132, 136].contains(&protocol);
        let expected = match protocol {
            _ if with_ports => SEEN,
            1 => Upper::Icmp(0x3039),
            _ => Upper::Opaque,
        };
        assert_eq!(
            parse(&v4(&[], 0, protocol, &PORTS)).unwrap().upper,
            expected
        );
        if extension::is_walked(protocol) {
            continue;
        }
        let expected = match protocol {
            _ if with_ports => SEEN,
            58 => Upper::Icmp(0x3039),
            _ => Upper::Opaque,
        };
        assert_eq!(parse(&v6(protocol, &PORTS)).unwrap().upper, expected);
    }
}

//= test T64 (RFC 4301 section 4.4.1.1)
#[test]
fn fragments() {
    for (flags, fragment) in [
        (0x2000, Fragment::First),
        (0x2001, Fragment::Later),
        (0x0001, Fragment::Later),
        (0x1fff, Fragment::Later),
        (0x8000, Fragment::Whole),
    ] {
        let packet = parse(&v4(&[], flags, protocol::UDP, &PORTS)).unwrap();
        let whole = fragment == Fragment::Whole;
        assert_eq!(packet.fragment, fragment, "{flags:#x}");
        assert_eq!(packet.identification, if whole { 0 } else { 0xabcd });
        assert_eq!(packet.upper == SEEN, fragment != Fragment::Later);
    }
    for (word, fragment) in [
        ([0, 0], Fragment::Whole), // RFC 6946
        ([0, 6], Fragment::Whole), // reserved bits
        ([0, 1], Fragment::First),
        ([0, 9], Fragment::Later),
        ([0xff, 0xf8], Fragment::Later),
    ] {
        let header = [protocol::UDP, 0, word[0], word[1], 1, 2, 3, 4];
        let packet = parse(&v6(protocol::FRAGMENT, &[header, PORTS].concat())).unwrap();
        let whole = fragment == Fragment::Whole;
        assert_eq!((packet.fragment, packet.upper_offset), (fragment, 48));
        assert_eq!(packet.identification, if whole { 0 } else { 0x0102_0304 });
        assert_eq!(packet.upper == SEEN, fragment != Fragment::Later);
    }
}

//= test T157 (RFC 7112 section 5)
#[test]
fn a_first_fragment_that_cuts_its_headers() {
    let packet = parse(&v4(&[], 0x2000, protocol::UDP, &PORTS[..3])).unwrap();
    assert_eq!(
        (packet.fragment, packet.upper),
        (Fragment::First, Upper::Opaque)
    );
    let first = [protocol::TCP, 0, 0, 1, 1, 2, 3, 4];
    malformed(&v6(protocol::FRAGMENT, &[first, PORTS].concat()));
    let whole = [&first[..], &PORTS, &PORTS, &[0; 8]].concat();
    assert_eq!(parse(&v6(protocol::FRAGMENT, &whole)).unwrap().upper, SEEN);
    let options = [protocol::DESTINATION_OPTIONS, 0, 0, 1, 1, 2, 3, 4];
    malformed(&v6(
        protocol::FRAGMENT,
        &[options, [17, 1, 0, 0, 0, 0, 0, 0]].concat(),
    ));
}

//= test T107 (RFC 4301 section 4.4.1.1)
#[test]
fn extension_headers_are_walked_within_bounds() {
    let options = |next: u8, words: u8| [next, words, 1, 4, 0, 0, 0, 0];
    let chain = [
        &options(protocol::ROUTING, 0)[..],
        &options(protocol::DESTINATION_OPTIONS, 1),
        &[0; 8],
        &options(protocol::UDP, 0),
        &PORTS,
    ]
    .concat();
    let packet = parse(&v6(protocol::HOP_BY_HOP, &chain)).unwrap();
    assert_eq!((packet.protocol, packet.upper_offset), (protocol::UDP, 72));
    assert_eq!(packet.upper, SEEN);
    for end in 0..chain.len() - 4 {
        malformed(&v6(protocol::HOP_BY_HOP, &chain[..end]));
    }

    let many = |count: usize| {
        let mut chain = vec![options(protocol::DESTINATION_OPTIONS, 0); count - 1];
        chain.push(options(protocol::UDP, 0));
        chain.push(PORTS);
        v6(protocol::DESTINATION_OPTIONS, &chain.concat())
    };
    assert!(parse(&many(limits::EXTENSION_HEADERS)).is_ok());
    malformed(&many(limits::EXTENSION_HEADERS + 1));

    let fragment = [protocol::FRAGMENT, 0, 0, 0, 0, 0, 0, 0];
    malformed(&v6(
        protocol::FRAGMENT,
        &[fragment, fragment, PORTS].concat(),
    ));
    // ESP and AH end the walk.
    let ah = [&options(protocol::AH, 0)[..], &[60, 4, 0, 0]].concat();
    assert_eq!(
        parse(&v6(protocol::HOP_BY_HOP, &ah)).unwrap().protocol,
        protocol::AH
    );
}

#[test]
fn inconsistent_lengths_are_malformed() {
    let good = v4(&[], 0, protocol::UDP, &PORTS);
    for total in (0..20).chain([29, 30, 0xffff]) {
        let mut packet = good.clone();
        packet[2..4].copy_from_slice(&u16::to_be_bytes(total));
        seal_header(&mut packet);
        malformed(&packet);
    }
    // Ports or a type that ought to be there and are not.
    for end in 0..4 {
        malformed(&v4(&[], 0, protocol::UDP, &PORTS[..end]));
        malformed(&v6(protocol::TCP, &PORTS[..end]));
    }
    malformed(&v4(&[], 0, protocol::ICMP, &[8]));
    assert!(parse(&v4(&[], 0, protocol::UDP, &PORTS[..4])).is_ok());
    assert!(parse(&v6(protocol::NONE, &[])).is_ok());
    // A jumbogram (RFC 2675): payload length 0 in front of hop-by-hop options.
    let jumbo = [protocol::UDP, 0, 0xc2, 4, 0, 1, 0, 0];
    let mut packet = v6(protocol::HOP_BY_HOP, &[jumbo, PORTS].concat());
    packet[4..6].fill(0);
    malformed(&packet);
}

#[test]
fn what_is_longer_than_we_carry_is_unsupported_and_a_flaw_still_malformed() {
    let unsupported = Err(DropReason::Unsupported);
    let longest = limits::PACKET - 20;
    assert!(parse(&v4(&[], 0, 99, &vec![0; longest])).is_ok());
    let mut long = v4(&[], 0, 99, &vec![0; longest + 1]);
    assert_eq!(parse(&long), unsupported);
    assert_eq!(parse(&v4(&[], 0, 99, &vec![0; 65_515])), unsupported);
    malformed(&long[..long.len() - 1]);
    long[10] ^= 1;
    malformed(&long);
    assert!(parse(&v6(99, &vec![0; longest - 20])).is_ok());
    let long = v6(99, &vec![0; longest - 19]);
    assert_eq!(parse(&long), unsupported);
    assert_eq!(parse(&v6(99, &vec![0; 65_535])), unsupported);
    malformed(&long[..long.len() - 1]);
    // Ports that ought to be there and are not.
    let hops = [protocol::UDP, 255, 0, 0, 0, 0, 0, 0];
    malformed(&v6(
        protocol::HOP_BY_HOP,
        &[&hops[..], &vec![0; 2040]].concat(),
    ));
}

#[test]
fn every_flipped_bit_of_an_ipv4_header_is_noticed() {
    let good = v4(&[1, 1, 1, 0], 0x4000, protocol::UDP, &PORTS);
    for bit in 0..24 * 8 {
        let mut packet = good.clone();
        packet[bit / 8] ^= 1 << (bit % 8);
        malformed(&packet);
    }
}

fn samples() -> Vec<Vec<u8>> {
    let fragment = [protocol::UDP, 0, 0, 1, 1, 2, 3, 4];
    let options = [protocol::FRAGMENT, 0, 1, 4, 0, 0, 0, 0];
    vec![
        v4(&[], 0, protocol::UDP, &PORTS),
        v4(&[1; 12], 0x2000, protocol::TCP, &[7; 24]),
        v4(&[], 0x0007, protocol::ESP, &[7; 24]),
        v6(protocol::ICMPV6, &PORTS),
        v6(protocol::HOP_BY_HOP, &[options, fragment, PORTS].concat()),
    ]
}

#[test]
fn every_truncation_is_malformed() {
    for packet in samples() {
        assert!(parse(&packet).is_ok());
        for end in 0..packet.len() {
            malformed(&packet[..end]);
        }
    }
}

proptest! {
    #[test]
    fn offsets_stay_within_the_packet_whatever_the_bytes(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..200), first in 0x40_u8..0x70,
    ) {
        if let Some(byte) = bytes.first_mut() {
            *byte = first;
        }
        if let Ok(packet) = parse(&bytes) {
            prop_assert!(packet.upper_offset <= packet.length);
            prop_assert!(usize::from(packet.length) <= bytes.len());
        }
    }

    #[test]
    fn mutated_packets_never_lead_out_of_the_packet(
        which in 0_usize..5,
        changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..6),
    ) {
        let mut packet = samples().swap_remove(which);
        for (at, value) in changes {
            let length = packet.len();
            packet[at % length] = value;
        }
        if packet[0] >> 4 == 4 && usize::from(packet[0] & 15) * 4 <= packet.len() {
            seal_header(&mut packet);
        }
        if let Ok(parsed) = parse(&packet) {
            prop_assert!(parsed.upper_offset <= parsed.length);
            prop_assert!(usize::from(parsed.length) <= packet.len());
        }
    }
}
