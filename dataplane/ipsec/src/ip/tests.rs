//! Whatever parses goes through every function here without a panic, and out of none longer than
//! its buffer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::{fragment, hop, icmp_error, tunnel_header};
use crate::packet::{self, Packet, Version};
use crate::wire::checksum::Sum;

fn offer(ip: &[u8], packet: &Packet) {
    let mut copy = ip.to_vec();
    let _ = packet::builtin(ip, packet, |_| true);
    packet::checksum::complete(&mut copy, packet);
    let mut out = [0; 2000];
    for from in [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ] {
        let _ = icmp_error::too_big(ip, packet, from, 1280, &mut out);
        let _ = icmp_error::time_exceeded(ip, packet, from, &mut out);
    }
    let _ = icmp_error::quoted_packet(ip, packet);
    for plan in [
        fragment::Plan::transit(ip, packet, 68),
        fragment::Plan::own(ip, 1, 68),
    ] {
        for index in 0..plan.map_or(0, |plan| plan.count()) {
            plan.and_then(|plan| plan.write(ip, index, &mut out));
        }
    }
    for outer in 0..4 {
        let _ = tunnel_header::ecn_decapsulate(outer, &mut copy);
    }
    let _ = tunnel_header::flow_label(packet, 1);
    let _ = hop::decrement(&mut copy);
}

proptest! {
    #[test]
    fn nothing_panics_on_what_parses(
        mut ip in proptest::collection::vec(any::<u8>(), 20..300), v4: bool, ihl in 5_u8..10,
        protocol in prop::sample::select(vec![0_u8, 1, 6, 17, 43, 44, 50, 58, 60, 99]),
        other in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let length = u16::try_from(ip.len()).unwrap_or(0);
        if v4 {
            ip[0] = 0x40 | ihl;
            ip[2..4].copy_from_slice(&length.to_be_bytes());
            ip[9] = protocol;
            ip[10..12].fill(0);
            let header = ip.len().min(usize::from(ihl) * 4);
            let checksum = Sum::ZERO.bytes(&ip[..header]).checksum();
            ip[10..12].copy_from_slice(&checksum.to_be_bytes());
        } else {
            ip[0] = 0x60;
            ip[4..6].copy_from_slice(&length.saturating_sub(40).to_be_bytes());
            ip[6] = protocol;
        }
        if let Ok(packet) = packet::parse(&ip) {
            prop_assert_eq!(packet.version == Version::V4, v4);
            offer(&ip, &packet);
            // A descriptor that belongs to other bytes.
            offer(&other, &packet);
        }
        if let Some(packet) = packet::parse_quote(&ip) {
            offer(&ip, &packet);
            offer(&other, &packet);
        }
    }
}
