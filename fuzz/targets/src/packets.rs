//! Packets to begin with.

use ipsec::wire::checksum::Sum;

/// Source and destination of the two gateways' outer packets.
pub(crate) const NEAR: [u8; 4] = [192, 0, 2, 1];
pub(crate) const FAR: [u8; 4] = [192, 0, 2, 2];

/// An IPv4 packet without options.
pub(crate) fn v4(protocol: u8, source: [u8; 4], destination: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0, 9, 0, 0, 64, protocol, 0, 0];
    packet.extend(source);
    packet.extend(destination);
    packet.extend(payload);
    finish(&mut packet);
    packet
}

/// An IPv6 packet between hosts 1 of two documentation networks, or the gateways (network 0).
pub(crate) fn v6(next: u8, source: u8, destination: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 0, next, 64];
    packet.extend(address_v6(source, 1));
    packet.extend(address_v6(
        destination,
        if destination == 0 { 2 } else { 1 },
    ));
    packet.extend(payload);
    finish(&mut packet);
    packet
}

/// `2001:db8:NETWORK::HOST`.
pub(crate) fn address_v6(network: u8, host: u8) -> [u8; 16] {
    let mut address = [0; 16];
    address[..6].copy_from_slice(&[0x20, 1, 0x0d, 0xb8, 0, network]);
    address[15] = host;
    address
}

/// Makes the lengths and the IPv4 header checksum of what claims to be an IP packet true, as far as
/// there are such fields: else the fuzzer would hardly get past them.
pub(crate) fn finish(packet: &mut [u8]) {
    let length = packet.len() as u16;
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => {
            let header = usize::from(packet[0] & 15) * 4;
            if header >= 20 && packet.len() >= header {
                packet[2..4].copy_from_slice(&length.to_be_bytes());
                packet[10..12].fill(0);
                let sum = Sum::ZERO.bytes(&packet[..header]).checksum();
                packet[10..12].copy_from_slice(&sum.to_be_bytes());
            }
        }
        Some(6) if packet.len() >= 40 => {
            packet[4..6].copy_from_slice(&(length - 40).to_be_bytes());
        }
        _ => {}
    }
}

/// A UDP datagram of `length` bytes without checksum.
pub(crate) fn udp(source: u16, destination: u16, length: u16) -> Vec<u8> {
    let mut datagram = vec![0xa5; length.into()];
    for (at, word) in [source, destination, length, 0].into_iter().enumerate() {
        datagram[2 * at..2 * at + 2].copy_from_slice(&word.to_be_bytes());
    }
    datagram
}

/// A frame to `mac` with the EtherType that the packet's version asks for.
pub(crate) fn frame(mac: [u8; 6], packet: &[u8]) -> Vec<u8> {
    let kind = match packet.first().map(|byte| byte >> 4) {
        Some(6) => [0x86, 0xdd],
        _ => [8, 0],
    };
    [&mac[..], &[2, 0, 0, 0, 0, 99], &kind, packet].concat()
}

/// One packet of each kind that a gateway meets, with the version's forms.
pub(crate) fn samples() -> Vec<Vec<u8>> {
    let (here, there) = ([10, 1, 0, 2], [10, 2, 0, 2]);
    let quoted = v4(17, there, here, &udp(5000, 5001, 40));
    let mut too_big = vec![3, 4, 0, 0, 0, 0, 5, 0];
    too_big.extend(&quoted);
    let mut first = v4(17, here, there, &udp(1, 2, 64));
    first[6] = 0x20;
    finish(&mut first);
    let mut later = v4(17, here, there, &[7; 64]);
    later[7] = 8;
    finish(&mut later);
    let mut options = v4(6, here, there, &[0; 20]);
    options.splice(20..20, [7, 7, 4, 10, 1, 0, 9, 0]);
    options[0] = 0x47;
    finish(&mut options);
    let chain = [&[60, 0, 5, 2, 0, 0, 1, 0][..], &[43, 0, 1, 4, 0, 0, 0, 0]].concat();
    let routing = [
        &chain[..],
        &[44, 0, 0, 0, 0, 0, 0, 0],
        &[17, 0, 0, 1, 0, 0, 0, 5],
    ]
    .concat();
    let long = [&routing[..], &udp(5000, 5001, 24)].concat();
    vec![
        v4(17, here, there, &udp(5000, 5001, 60)),
        v4(6, here, there, &[0; 20]),
        v4(1, here, there, &[8, 0, 0, 0, 1, 2, 3, 4]),
        v4(1, here, there, &too_big),
        first,
        later,
        options,
        v4(
            50,
            FAR,
            NEAR,
            &[0, 0, 0x20, 1, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8],
        ),
        v4(51, FAR, NEAR, &[4, 4, 0, 0, 0, 0, 0x20, 1, 0, 0, 0, 1]),
        v4(17, FAR, NEAR, &udp(4500, 4500, 60)),
        v4(17, FAR, NEAR, &[0x11, 0x94, 0x11, 0x94, 0, 9, 0, 0, 0xff]),
        v6(17, 1, 2, &udp(5000, 5001, 60)),
        v6(58, 1, 2, &[128, 0, 0, 0, 1, 2, 3, 4]),
        v6(0, 1, 2, &long),
        v6(
            50,
            0,
            0,
            &[0, 0, 0x20, 3, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8],
        ),
        v6(58, 0, 0, &[135, 0, 0, 0, 0, 0, 0, 0]),
    ]
}
