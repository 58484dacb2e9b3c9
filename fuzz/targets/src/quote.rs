//! ICMP errors with a quote of the fuzzer's choice: from outside about our own ESP, from outside
//! and from inside about protected traffic, through a tunnel, and none of these.

use ipsec::packet::{Version, address, parse};
use ipsec::time::Time;

use crate::bytes::Bytes;
use crate::gateway::{Gateway, LAN, MACS, WAN, wan_frame};
use crate::packets::{self, FAR, NEAR};
use crate::pairs::PAIRS;

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let quotes = packets::samples();
    let ours = packets::v4(50, NEAR, FAR, &[0, 0, 0x10, 1, 0, 0, 0, 1, 9, 9, 9, 9]);
    let back = packets::v4(
        17,
        [10, 2, 0, 2],
        [10, 1, 0, 2],
        &packets::udp(5000, 5001, 40),
    );
    let kinds = [[3, 4], [11, 0], [5, 1], [2, 0], [3, 13]];
    let mut seeds = Vec::new();
    for (number, quote) in quotes.iter().chain([&ours, &back]).enumerate() {
        for way in 0..4 {
            let kind = kinds[number % kinds.len()];
            seeds.push([&[way, kind[0], kind[1], 5, 0], &quote[..]].concat());
        }
    }
    seeds
}

pub(crate) fn run(bytes: &[u8]) {
    let mut bytes = Bytes::new(bytes);
    let way = bytes.byte();
    let message = [
        &[
            bytes.byte(),
            bytes.byte(),
            0,
            0,
            0,
            0,
            bytes.byte(),
            bytes.byte(),
        ][..],
        {
            let quote = bytes.rest();
            &quote[..quote.len().min(1400)]
        },
    ]
    .concat();
    let six = message.get(8).is_some_and(|first| first >> 4 == 6);
    let mut gateway = Gateway::near();
    let now = Time(1);
    match way & 3 {
        // A router outside, to the gateway.
        0 if six => {
            let mut packet = packets::v6(58, 7, 0, &message);
            packet[24..40].copy_from_slice(&packets::address_v6(0, 1));
            gateway.arrive(WAN, &[packets::frame(MACS[WAN], &packet)], now);
        }
        0 => {
            let packet = packets::v4(1, [198, 51, 100, 9], NEAR, &message);
            gateway.arrive(WAN, &[packets::frame(MACS[WAN], &packet)], now);
        }
        // A host inside, to the other network and through the tunnel.
        1 => {
            let packet = error_from_inside(six, &message);
            gateway.arrive(LAN, &[packets::frame(MACS[LAN], &packet)], now);
        }
        2 => {
            let packet = error_from_inside(six, &message);
            gateway.host_sends(&packets::frame(MACS[LAN], &packet), now);
        }
        // Out of a tunnel.
        _ => {
            let number = if six { 2 } else { 0 };
            let inner = error_out_of_tunnel(six, &message);
            let text = [&inner[..], &[0, if six { 41 } else { 4 }]].concat();
            let pair = &PAIRS[number];
            let frame = wan_frame(pair, pair.sealed(number, 1, &text), 0);
            for sent in gateway.arrive(WAN, &[frame], now).iter().flatten() {
                same_family_as(six, sent);
            }
        }
    }
    gateway.settle();
}

fn error_from_inside(six: bool, message: &[u8]) -> Vec<u8> {
    if six {
        packets::v6(58, 5, 6, message)
    } else {
        packets::v4(1, [10, 1, 0, 77], [10, 2, 0, 2], message)
    }
}

fn error_out_of_tunnel(six: bool, message: &[u8]) -> Vec<u8> {
    if six {
        packets::v6(58, 6, 5, message)
    } else {
        packets::v4(1, [198, 51, 100, 9], [10, 1, 0, 2], message)
    }
}

/// What leaves because of an opened packet is that packet or an error about it.
fn same_family_as(six: bool, frame: &[u8]) {
    let packet = parse(&frame[14..]).unwrap();
    assert_eq!(packet.version == Version::V6, six);
    assert_eq!(address(packet.version, packet.source).is_ipv6(), six);
}
