//! Errors read back field by field, every packet that must not be answered, quotes cut anywhere.

use proptest::prelude::*;

use super::*;
use crate::packet::parse;

const GATEWAY_V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 1, 0, 1));
const GATEWAY_V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1));
const UDP: [u8; 8] = [0x30, 0x39, 0x01, 0xbb, 0, 8, 0, 0];

fn v4(source: u32, destination: u32, protocol: u8, flags_and_offset: u16, data: &[u8]) -> Vec<u8> {
    let fields = ipv4::Fields {
        traffic_class: 0xb8,
        total_length: u16::try_from(20 + data.len()).unwrap(),
        identification: 7,
        flags_and_offset,
        hop_limit: 1,
        protocol,
        source,
        destination,
    };
    [&fields.to_bytes()[..], data].concat()
}

fn v6(source: u128, destination: u128, next_header: u8, data: &[u8]) -> Vec<u8> {
    let fields = ipv6::Fields {
        traffic_class: 0xb8,
        flow_label: 5,
        payload_length: u16::try_from(data.len()).unwrap(),
        next_header,
        hop_limit: 1,
        source,
        destination,
    };
    [&fields.to_bytes()[..], data].concat()
}

const HOST_V4: u32 = 0x0a01_0002;
const PEER_V4: u32 = 0x0a02_0003;
const HOST_V6: u128 = (0x2001_0db8_0001 << 80) + 2;
const PEER_V6: u128 = (0x2001_0db8_0002 << 80) + 3;

fn answered(ip: &[u8]) -> bool {
    let packet = parse(ip).unwrap();
    let from = if packet.version == Version::V4 {
        GATEWAY_V4
    } else {
        GATEWAY_V6
    };
    let mut out = [0; LENGTH_MAXIMUM_V6];
    let too_big = too_big(ip, &packet, from, 1400, &mut out).is_some();
    assert_eq!(
        time_exceeded(ip, &packet, from, &mut out).is_some(),
        too_big
    );
    too_big
}

//= test T61 (RFC 4301 section 8.2.1)
#[test]
fn an_ipv4_error_and_its_quote() {
    for length in [8, 100, 528, 529, 1480] {
        let mut data = vec![0x5a; length];
        data[..8].copy_from_slice(&UDP);
        let mut ip = v4(HOST_V4, PEER_V4, protocol::UDP, 0x4000, &data);
        let packet = parse(&ip).unwrap();
        ip.extend([0xff; 18]); // what lies behind the packet in its frame
        let mut out = [0xee; 600];
        let error = too_big(&ip, &packet, GATEWAY_V4, 1418, &mut out).unwrap();
        assert_eq!(error, (28 + 20 + length).min(576));
        let parsed = parse(&out).unwrap();
        assert_eq!(usize::from(parsed.length), error);
        assert_eq!(parsed.upper, Upper::Icmp(0x0304));
        assert_eq!((parsed.hop_limit, parsed.traffic_class), (64, 0xc0));
        assert_eq!(parsed.source, address_bits(GATEWAY_V4));
        assert_eq!(parsed.destination, packet.source);
        assert!(Sum::ZERO.bytes(&out[20..error]).holds());
        assert_eq!(out[24..28], [0, 0, 0x05, 0x8a]);
        assert_eq!(out[28..error], ip[..error - 28]);
        assert_eq!(out[error..], [0xee; 600][error..]);
        assert_eq!(quoted_packet(&out, &parsed), Some(packet));

        let error = time_exceeded(&ip, &packet, GATEWAY_V4, &mut out).unwrap();
        assert_eq!(parse(&out).unwrap().upper, Upper::Icmp(0x0b00));
        assert_eq!(out[24..28], [0; 4]);
        assert!(Sum::ZERO.bytes(&out[20..error]).holds());
        assert_eq!(
            time_exceeded(&ip, &packet, GATEWAY_V4, &mut out[..error - 1]),
            None
        );
        assert_eq!(time_exceeded(&ip, &packet, GATEWAY_V6, &mut out), None);
    }
}

//= test T130 (RFC 4443 section 2.4)
#[test]
fn an_ipv6_error_and_its_quote() {
    for length in [8, 100, 1192, 1193, 1460] {
        let mut data = vec![0x5a; length];
        data[..8].copy_from_slice(&UDP);
        let ip = v6(HOST_V6, PEER_V6, protocol::UDP, &data);
        let packet = parse(&ip).unwrap();
        let mut out = [0xee; 1300];
        let error = too_big(&ip, &packet, GATEWAY_V6, 1280, &mut out).unwrap();
        assert_eq!(error, (48 + 40 + length).min(1280));
        let parsed = parse(&out).unwrap();
        assert_eq!(usize::from(parsed.length), error);
        assert_eq!((parsed.upper, parsed.hop_limit), (Upper::Icmp(0x0200), 64));
        assert_eq!(parsed.source, address_bits(GATEWAY_V6));
        assert_eq!(parsed.destination, packet.source);
        let payload = u32::try_from(error - 40).unwrap();
        let pseudo = pseudo_v6(parsed.source, parsed.destination, protocol::ICMPV6, payload);
        assert!(pseudo.bytes(&out[40..error]).holds());
        assert_eq!(out[44..48], [0, 0, 0x05, 0x00]);
        assert_eq!(out[48..error], ip[..error - 48]);
        assert_eq!(quoted_packet(&out, &parsed), Some(packet));

        let error = time_exceeded(&ip, &packet, GATEWAY_V6, &mut out).unwrap();
        assert_eq!(parse(&out).unwrap().upper, Upper::Icmp(0x0300));
        assert!(pseudo.bytes(&out[40..error]).holds());
        assert_eq!(
            time_exceeded(&ip, &packet, GATEWAY_V6, &mut out[..error - 1]),
            None
        );
        assert_eq!(time_exceeded(&ip, &packet, GATEWAY_V4, &mut out), None);
    }
}

//= test T131 (RFC 792)
#[test]
fn ipv4_packets_that_no_error_is_about() {
    let to = |source, destination| answered(&v4(source, destination, protocol::UDP, 0, &UDP));
    assert!(to(HOST_V4, PEER_V4));
    for source in [
        0,
        0x0000_0001,
        0x7f00_0001,
        0xe000_0001,
        0xf000_0001,
        0xffff_ffff,
    ] {
        assert!(!to(source, PEER_V4), "{source:x}");
    }
    for destination in [0xe000_0001, 0xefff_ffff, 0xffff_ffff] {
        assert!(!to(HOST_V4, destination), "{destination:x}");
    }
    for kind in 0..=255 {
        let ip = v4(
            HOST_V4,
            PEER_V4,
            protocol::ICMP,
            0,
            &[kind, 0, 0, 0, 0, 0, 0, 0],
        );
        assert_eq!(answered(&ip), ![3, 4, 5, 11, 12].contains(&kind), "{kind}");
    }
    assert!(answered(&v4(HOST_V4, PEER_V4, protocol::UDP, 0x2000, &UDP)));
    assert!(!answered(&v4(
        HOST_V4,
        PEER_V4,
        protocol::UDP,
        0x2001,
        &UDP
    )));
    assert!(!answered(&v4(
        HOST_V4,
        PEER_V4,
        protocol::UDP,
        0x0001,
        &UDP
    )));
    assert!(!answered(&v4(
        HOST_V4,
        PEER_V4,
        protocol::ICMP,
        0x2000,
        &[8]
    )));
}

//= test T130 (RFC 4443 section 2.4)
#[test]
fn ipv6_packets_that_no_error_is_about() {
    let to = |source, destination| answered(&v6(source, destination, protocol::UDP, &UDP));
    assert!(to(HOST_V6, PEER_V6));
    for source in [0, 1, 0xff02 << 112, 0xffff_0a01_0002] {
        assert!(!to(source, PEER_V6), "{source:x}");
    }
    assert!(!to(HOST_V6, (0xff05 << 112) + 1));
    for kind in 0..=255 {
        let ip = v6(
            HOST_V6,
            PEER_V6,
            protocol::ICMPV6,
            &[kind, 0, 0, 0, 0, 0, 0, 0],
        );
        assert_eq!(answered(&ip), kind >= 128 && kind != 137, "{kind}");
    }
    let first = [[protocol::UDP, 0, 0, 1, 0, 0, 0, 9], UDP].concat();
    assert!(answered(&v6(HOST_V6, PEER_V6, protocol::FRAGMENT, &first)));
    let later = [[protocol::UDP, 0, 0, 9, 0, 0, 0, 9], UDP].concat();
    assert!(!answered(&v6(HOST_V6, PEER_V6, protocol::FRAGMENT, &later)));
}

#[test]
fn a_cut_quote_shows_what_is_left_of_it() {
    let inner = v4(PEER_V4, HOST_V4, protocol::UDP, 0x4000, &UDP);
    let whole = parse(&inner).unwrap();
    for length in 0..=inner.len() {
        let mut quote = inner[..length].to_vec();
        if let Some(checksum) = quote.get_mut(10) {
            *checksum ^= 0xff; // lowered TTLs and NAT leave wrong checksums in quotes
        }
        let message = [&[3, 4, 0, 0, 0, 0, 5, 0][..], &quote].concat();
        let error = v4(HOST_V4, PEER_V4, protocol::ICMP, 0, &message);
        let opaque = Packet {
            upper: Upper::Opaque,
            ..whole
        };
        let expected = match length {
            0..20 => None,
            20..24 => Some(opaque),
            _ => Some(whole),
        };
        let packet = parse(&error).unwrap();
        assert_eq!(quoted_packet(&error, &packet), expected, "{length}");
    }
    let inner = v6(PEER_V6, HOST_V6, protocol::TCP, &UDP);
    for (length, seen) in [(39, false), (40, true), (48, true)] {
        let message = [&[1, 0, 0, 0, 0, 0, 0, 0][..], &inner[..length]].concat();
        let error = v6(HOST_V6, PEER_V6, protocol::ICMPV6, &message);
        let packet = parse(&error).unwrap();
        let quoted = quoted_packet(&error, &packet);
        let fragment = Fragment::First;
        assert_eq!(quoted_packet(&error, &Packet { fragment, ..packet }), None);
        assert_eq!(quoted.map(|quoted| quoted.source), seen.then_some(PEER_V6));
        // Another family inside, or no error outside.
        let error = v4(HOST_V4, PEER_V4, protocol::ICMP, 0, &message);
        assert_eq!(quoted_packet(&error, &parse(&error).unwrap()), None);
    }
}

proptest! {
    #[test]
    fn no_bytes_make_a_quote_panic(
        quote in proptest::collection::vec(any::<u8>(), 0..120), first in 0x40_u8..0x70,
        v6_outer: bool,
    ) {
        let message = [&[3, 1, 0, 0, 0, 0, 0, 0, first][..], &quote].concat();
        let ip = if v6_outer {
            v6(HOST_V6, PEER_V6, protocol::ICMPV6, &message)
        } else {
            v4(HOST_V4, PEER_V4, protocol::ICMP, 0, &message)
        };
        let packet = parse(&ip).unwrap();
        if let Some(quoted) = quoted_packet(&ip, &packet) {
            prop_assert_eq!(quoted.version, packet.version);
        }
    }
}

//= test T65 (RFC 4301 section 6.1.1)
//= test T120 (RFC 4301 section 6.1.2)
#[test]
fn errors_are_heeded_by_type_and_the_rest_is_not_concerned() {
    use Version::{V4, V6};
    let too_big = Heeded::NONE.and_too_big();
    assert!(too_big.takes(V4, 3, 4) && too_big.takes(V6, 2, 0));
    assert!(!too_big.takes(V4, 3, 1) && !too_big.takes(V6, 1, 0) && !too_big.takes(V4, 2, 0));
    let unreachable = Heeded::NONE.and_types(3, 1);
    assert!(unreachable.takes(V4, 3, 1) && unreachable.takes(V6, 1, 0));
    assert!(!unreachable.takes(V4, 3, 4) && !unreachable.takes(V6, 2, 0));
    let three = Heeded::NONE.and_number(3);
    assert!(three.takes(V4, 3, 4) && three.takes(V4, 3, 0) && three.takes(V6, 3, 0));
    assert!(Heeded::NONE.and_number(137).takes(V6, 137, 0));
    let of = |kind: u8, code: u8| {
        let message = [&[kind, code, 0, 0, 0, 0, 0, 0][..], &UDP].concat();
        parse(&v4(HOST_V4, PEER_V4, protocol::ICMP, 0, &message)).unwrap()
    };
    for kind in 0..=255 {
        let concerned = [3, 4, 5, 11, 12].contains(&kind);
        assert_eq!(Heeded::NONE.admits(&of(kind, 0)), !concerned, "{kind}");
        assert!(Heeded::ALL.admits(&of(kind, 4)));
    }
    assert!(too_big.admits(&of(3, 4)) && !too_big.admits(&of(3, 3)));
    let udp = parse(&v4(HOST_V4, PEER_V4, protocol::UDP, 0, &UDP)).unwrap();
    assert!(Heeded::NONE.admits(&udp));
}
