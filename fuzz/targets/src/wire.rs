//! Every view of a header and the parser above them, over any bytes; and what the pipeline computes
//! from a packet alone.

use ipsec::ip::fragment::Plan;
use ipsec::ip::{hop, icmp_error, tunnel_header};
use ipsec::packet::{Packet, Version, address, builtin, checksum, parse, parse_quote};
use ipsec::wire::checksum::Sum;
use ipsec::wire::{esp, ethernet, extension, ipv4, ipv6, udp};

use crate::packets;

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let whole = packets::samples();
    let framed = whole
        .iter()
        .map(|packet| packets::frame([2, 0, 0, 0, 0, 1], packet));
    framed.chain(whole.clone()).collect()
}

pub(crate) fn run(bytes: &[u8]) {
    views(bytes);
    packet(bytes);
    // The same with lengths and checksum made true.
    let mut finished = bytes.to_vec();
    packets::finish(&mut finished);
    packet(&finished);
    if let Some(quoted) = parse_quote(bytes) {
        assert!(usize::from(quoted.upper_offset) <= usize::from(u16::MAX));
    }
}

fn views(bytes: &[u8]) {
    if let Some(header) = ethernet::Header::parse(bytes) {
        assert_eq!(header.to_bytes(), bytes[..14]);
        packet(&bytes[14..]);
    }
    if let Some(header) = esp::Header::parse(bytes) {
        assert_eq!(header.to_bytes(), bytes[..8]);
    }
    if let Some(header) = udp::Header::parse(bytes) {
        assert_eq!(header.to_bytes(), bytes[..8]);
    }
    if let Some(header) = ipv4::Header::parse(bytes) {
        assert!(header.length() >= 20 && header.length() <= bytes.len());
        assert_eq!(header.options().len() + 20, header.length());
        let sum = Sum::ZERO.bytes(&bytes[..header.length()]);
        assert_eq!(header.checksum_holds(), sum.holds());
    }
    if let Some(header) = ipv6::Header::parse(bytes) {
        assert_eq!(header.source().to_be_bytes(), bytes[8..24]);
        assert_eq!(header.destination().to_be_bytes(), bytes[24..40]);
    }
    for offset in [0, 40] {
        let first = bytes.first().copied().unwrap_or(0);
        if let Some(chain) = extension::walk(bytes, first, offset) {
            assert!(chain.offset <= bytes.len() || chain.offset == offset);
            assert!(!extension::is_walked(chain.protocol) || chain.fragment.is_some());
        }
    }
}

/// Whatever parses stays within itself, and what is computed from it parses again.
fn packet(bytes: &[u8]) {
    let Ok(packet) = parse(bytes) else {
        return;
    };
    let length = usize::from(packet.length);
    assert!(length <= bytes.len());
    assert!(usize::from(packet.upper_offset) <= length);
    let ip = &bytes[..length];
    assert_eq!(
        parse(ip),
        Ok(packet),
        "what lies behind a packet counts for nothing"
    );
    let _known = builtin(ip, &packet, |address| address == packet.destination);
    let _quoted = icmp_error::quoted_packet(ip, &packet);
    let _label = tunnel_header::flow_label(&packet, 1);
    errors(ip, &packet);
    pieces(ip, &packet);
    for outer in 0..4 {
        let mut inner = ip.to_vec();
        if tunnel_header::ecn_decapsulate(outer, &mut inner).is_ok() {
            assert!(parse(&inner).is_ok(), "ECN {outer}");
        }
    }
    let mut lowered = ip.to_vec();
    if hop::decrement(&mut lowered).is_ok() {
        let after = parse(&lowered).unwrap();
        assert_eq!(after.hop_limit + 1, packet.hop_limit);
    }
    let mut completed = ip.to_vec();
    if checksum::complete(&mut completed, &packet) {
        // A finished one may look unfinished by chance; then it is its own completion.
        let mut again = completed.clone();
        checksum::complete(&mut again, &packet);
        assert_eq!(again, completed, "complete twice");
    }
}

/// An error about a packet is itself a packet, and quotes that one.
fn errors(ip: &[u8], packet: &Packet) {
    let from = address(packet.version, packet.destination);
    let mut room = [0xee; icmp_error::LENGTH_MAXIMUM_V6 + 8];
    for length in [
        icmp_error::too_big(ip, packet, from, 1300, &mut room),
        icmp_error::time_exceeded(ip, packet, from, &mut room),
    ]
    .into_iter()
    .flatten()
    {
        assert!(length <= icmp_error::LENGTH_MAXIMUM_V6);
        assert!(
            room[icmp_error::LENGTH_MAXIMUM_V6..]
                .iter()
                .all(|byte| *byte == 0xee)
        );
        let error = parse(&room[..length]).unwrap();
        assert_eq!(usize::from(error.length), length);
        let Some(quoted) = icmp_error::quoted_packet(&room[..length], &error) else {
            // The quote breaks off among the extension headers.
            let shown = length - usize::from(error.upper_offset) - 8;
            assert!(usize::from(packet.upper_offset) > shown);
            continue;
        };
        assert_eq!(
            (quoted.source, quoted.destination),
            (packet.source, packet.destination)
        );
    }
}

/// The fragments of a packet are packets and fit. A chain of IPv6 extension headers may be cut in
/// two, and then the first piece alone is none (RFC 7112).
fn pieces(ip: &[u8], packet: &Packet) {
    let chained = packet.version == Version::V6 && packet.upper_offset != 40;
    // No link carries IPv6 in less, and less would cut the upper header too.
    let mtus = [68, 576, 1280, 1500].into_iter();
    for mtu in mtus.filter(|mtu| packet.version == Version::V4 || *mtu >= 1280) {
        let plans = [Plan::transit(ip, packet, mtu), Plan::own(ip, 7, mtu)];
        for plan in plans.into_iter().flatten() {
            let mut room = vec![0xee; ip.len().max(mtu.into()) + 64];
            for index in 0..plan.count() {
                let length = plan.write(ip, index, &mut room).unwrap();
                assert!(plan.count() == 1 || length <= usize::from(mtu));
                let parsed = parse(&room[..length]);
                assert!(
                    parsed.is_ok() || chained,
                    "piece {index} of {}",
                    plan.count()
                );
            }
        }
    }
}
