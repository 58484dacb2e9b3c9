//! Frames by hand.

use super::world::ip;

/// The port's own MAC.
pub(super) const PORT: [u8; 6] = [2, 0, 0, 0, 0, 1];
const SENDER: [u8; 6] = [2, 0, 0, 0, 0, 2];

pub(super) const UDP: u8 = 17;
pub(super) const TCP: u8 = 6;
pub(super) const ESP: u8 = 50;
pub(super) const AH: u8 = 51;
pub(super) const ICMPV6: u8 = 58;
pub(super) const HOP_BY_HOP: u8 = 0;
pub(super) const FRAGMENT: u8 = 44;
pub(super) const OPTIONS: u8 = 60;

/// Ethernet II to `destination`.
pub(super) fn ethernet(destination: [u8; 6], ether_type: u16, payload: &[u8]) -> Vec<u8> {
    [
        &destination[..],
        &SENDER,
        &ether_type.to_be_bytes(),
        payload,
    ]
    .concat()
}

/// An IPv4 packet. `fragment`: flags and offset in units of 8; `options`: a multiple of 4 bytes.
pub(super) fn ipv4_with(
    addresses: (&str, &str),
    protocol: u8,
    fragment: u16,
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let header = 20 + options.len();
    let length = u16::try_from(header + payload.len()).unwrap();
    let mut packet = vec![0x40 | u8::try_from(header / 4).unwrap(), 0];
    packet.extend(length.to_be_bytes());
    packet.extend([0x12, 0x34]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    for address in [addresses.0, addresses.1] {
        packet.extend(octets(address));
    }
    [&packet[..], options, payload].concat()
}

pub(super) fn octets(address: &str) -> Vec<u8> {
    match ip(address) {
        std::net::IpAddr::V4(address) => address.octets().to_vec(),
        std::net::IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// A frame with a plain IPv4 packet.
pub(super) fn v4(addresses: (&str, &str), protocol: u8, payload: &[u8]) -> Vec<u8> {
    ethernet(
        PORT,
        0x0800,
        &ipv4_with(addresses, protocol, 0, &[], payload),
    )
}

/// A frame with a piece of an IPv4 packet.
pub(super) fn v4_piece(
    addresses: (&str, &str),
    protocol: u8,
    fragment: u16,
    payload: &[u8],
) -> Vec<u8> {
    ethernet(
        PORT,
        0x0800,
        &ipv4_with(addresses, protocol, fragment, &[], payload),
    )
}

/// More fragments, offset 0; and a later one.
pub(super) const FIRST: u16 = 0x2000;
pub(super) const LATER: u16 = 0x0010;

/// An IPv6 packet.
pub(super) fn ipv6(addresses: (&str, &str), next: u8, hop_limit: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    packet.extend([next, hop_limit]);
    packet.extend(octets(addresses.0));
    packet.extend(octets(addresses.1));
    [&packet[..], payload].concat()
}

/// A frame with an IPv6 packet.
pub(super) fn v6(addresses: (&str, &str), next: u8, payload: &[u8]) -> Vec<u8> {
    ethernet(PORT, 0x86dd, &ipv6(addresses, next, 64, payload))
}

/// An extension header of 8 × (`units` + 1) bytes in front of `payload`.
pub(super) fn extension(next: u8, units: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0; (usize::from(units) + 1) * 8];
    header[0] = next;
    header[1] = units;
    [&header[..], payload].concat()
}

/// A fragment header: offset in units of 8, and whether more follow.
pub(super) fn fragment(next: u8, offset: u16, more: bool, payload: &[u8]) -> Vec<u8> {
    let [high, low] = ((offset << 3) | u16::from(more)).to_be_bytes();
    [&[next, 0, high, low, 0, 0, 0, 1][..], payload].concat()
}

pub(super) fn udp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap();
    udp_saying(source, destination, length, payload)
}

/// With a length of one's own.
pub(super) fn udp_saying(source: u16, destination: u16, length: u16, payload: &[u8]) -> Vec<u8> {
    let fields = [source, destination, length, 0]
        .map(u16::to_be_bytes)
        .concat();
    [&fields[..], payload].concat()
}

pub(super) fn esp(spi: u32) -> Vec<u8> {
    [&spi.to_be_bytes()[..], &1_u32.to_be_bytes(), &[0xab; 40]].concat()
}

pub(super) fn ah(spi: u32) -> Vec<u8> {
    [
        &[TCP, 4, 0, 0][..],
        &spi.to_be_bytes(),
        &1_u32.to_be_bytes(),
        &[0xab; 32],
    ]
    .concat()
}

/// A header and some data: enough of TCP for steering.
pub(super) fn tcp() -> Vec<u8> {
    [&[0x12, 0x34, 0, 22][..], &[0; 36]].concat()
}
