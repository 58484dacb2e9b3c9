//! Cuts packets, right or wrong, independent of the product's own way.

use crate::packets::{self, MORE_FRAGMENTS};

/// IPv6's fragment header.
const FRAGMENT: u8 = 44;

/// The part of a packet from `start` to `end`, bytes behind its IP header without extension
/// headers, as a fragment. `more` overrides what the end says.
pub fn piece(packet: &[u8], id: u16, [start, end]: [usize; 2], more: Option<bool>) -> Vec<u8> {
    let header = if packet[0] >> 4 == 4 { 20 } else { 40 };
    let payload = &packet[header..];
    let end = end.min(payload.len());
    let more = more.unwrap_or(end < payload.len());
    let offset = u16::try_from(start).unwrap_or(u16::MAX);
    let mut fragment = packet[..header].to_vec();
    let mut length = end - start;
    if header == 20 {
        length += 20;
        let flag = if more { MORE_FRAGMENTS } else { 0 };
        fragment[4..6].copy_from_slice(&id.to_be_bytes());
        fragment[6..8].copy_from_slice(&((offset / 8) | flag).to_be_bytes());
    } else {
        length += 8;
        let next = std::mem::replace(&mut fragment[6], FRAGMENT);
        let [high, low] = (offset | u16::from(more)).to_be_bytes();
        let [id_high, id_low] = id.to_be_bytes();
        fragment.extend([next, 0, high, low, 0, 0, id_high, id_low]);
    }
    let field = if header == 20 { 2 } else { 4 };
    let length = u16::try_from(length).unwrap_or(u16::MAX);
    fragment[field..field + 2].copy_from_slice(&length.to_be_bytes());
    if header == 20 {
        resum(&mut fragment);
    }
    fragment.extend(&payload[start..end]);
    fragment
}

/// Makes the IPv4 header checksum right.
pub fn resum(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let sum = packets::checksum(0, &packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// A packet in pieces of at most `size` bytes.
pub fn cut(packet: &[u8], id: u16, size: usize) -> Vec<Vec<u8>> {
    let header = if packet[0] >> 4 == 4 { 20 } else { 40 };
    (0..packet.len() - header)
        .step_by(size)
        .map(|start| piece(packet, id, [start, start + size], None))
        .collect()
}
