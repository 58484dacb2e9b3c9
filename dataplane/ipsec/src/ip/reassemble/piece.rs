//! One fragment: whose it is, which part of its packet it holds, and where its headers end.

use crate::packet::{Packet, Version};
use crate::verdict::DropReason;
use crate::wire::extension::{self, FragmentHeader};
use crate::wire::{ipv4, ipv6};

/// What all fragments of one packet share (RFC 791 §3.2, RFC 8200 §4.5: for IPv6 not what the
/// fragment header names as next).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Key {
    source: u128,
    destination: u128,
    identification: u32,
    /// IPv4: the protocol.
    protocol: Option<u8>,
}

impl Key {
    pub(super) fn of(packet: &Packet) -> Self {
        Self {
            source: packet.source,
            destination: packet.destination,
            identification: packet.identification,
            protocol: (packet.version == Version::V4).then_some(packet.protocol),
        }
    }

    /// A number between 0 and `count` − 1, the same for all fragments of a packet.
    pub(super) fn share(&self, seed: u64, count: u16) -> u16 {
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        let addresses = self.source ^ self.destination.rotate_left(64);
        let [high, low] = [addresses >> 64, addresses & u128::from(u64::MAX)];
        let words = [
            u64::try_from(high).unwrap_or_default(),
            u64::try_from(low).unwrap_or_default(),
            u64::from(self.identification) << 8 | u64::from(self.protocol.unwrap_or_default()),
        ];
        let mixed = words.into_iter().fold(seed, |sum, word| {
            let product = (sum ^ word).wrapping_mul(ODD);
            product ^ (product >> 32)
        });
        let share = ((mixed >> 32) * u64::from(count)) >> 32;
        u16::try_from(share).unwrap_or(0)
    }
}

/// One fragment's place in its packet. Offsets count from its IP header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Piece {
    /// First byte, in the part that was cut.
    pub start: u16,
    /// The byte behind its last.
    pub end: u16,
    /// More follow.
    pub more: bool,
    /// Length of the headers that the whole packet has again: an IPv6 fragment header is not among
    /// them.
    pub headers: u16,
    /// Where its payload starts.
    pub payload: u16,
    /// IPv6: the offset of the byte that names the fragment header.
    pub next_header_at: u16,
    /// IPv6: what the fragment header names as next.
    pub next_header: u8,
    /// ECN field.
    pub ecn: u8,
}

impl Piece {
    /// The fragment `ip`, as long as its header says, which parsed as `packet`.
    ///
    /// # Errors
    /// [`DropReason::Malformed`] for what can be part of no packet: a length that is no multiple
    /// of 8 though more follow, an end beyond the longest packet, nothing in it at all.
    pub(super) fn of(ip: &[u8], packet: &Packet) -> Result<Self, DropReason> {
        let piece = match packet.version {
            Version::V4 => Self::v4(ip, packet),
            Version::V6 => Self::v6(ip, packet),
        };
        piece.ok_or(DropReason::Malformed)
    }

    fn v4(ip: &[u8], packet: &Packet) -> Option<Self> {
        let header = ipv4::Header::parse(ip)?;
        let flags_and_offset = header.flags_and_offset();
        let headers = u16::try_from(header.length()).ok()?;
        Self {
            start: (flags_and_offset & ipv4::OFFSET) * 8,
            more: flags_and_offset & ipv4::MORE_FRAGMENTS != 0,
            headers,
            payload: headers,
            ..Self::default()
        }
        .bounded(packet, headers)
    }

    fn v6(ip: &[u8], packet: &Packet) -> Option<Self> {
        let (at, headers) = find_fragment_header(ip)?;
        let bytes = *ip.get(headers..)?.first_chunk::<{ extension::LENGTH }>()?;
        let fragment = FragmentHeader::parse(bytes);
        let headers = u16::try_from(headers).ok()?;
        Self {
            start: fragment.offset,
            more: fragment.more,
            headers,
            payload: headers.checked_add(8)?,
            next_header_at: u16::try_from(at).ok()?,
            next_header: bytes[0],
            ..Self::default()
        }
        // The payload length counts the extension headers and not the first 40 bytes.
        .bounded(packet, headers.checked_sub(40)?)
    }

    //= T156 (RFC 8200 section 4.5)
    fn bounded(self, packet: &Packet, counted: u16) -> Option<Self> {
        let length = packet.length.checked_sub(self.payload)?;
        let end = self.start.checked_add(length)?;
        end.checked_add(counted)?;
        let whole = !self.more || length.is_multiple_of(8);
        (length > 0 && whole).then_some(Self {
            end,
            ecn: packet.traffic_class & 3,
            ..self
        })
    }

    /// Bytes of its part.
    pub(super) const fn length(&self) -> u16 {
        self.end - self.start
    }
}

/// Where the fragment header is named, and where it stands. The packet has parsed before.
fn find_fragment_header(ip: &[u8]) -> Option<(usize, usize)> {
    const NEXT_HEADER: usize = 6;
    let (mut at, mut offset) = (NEXT_HEADER, ipv6::LENGTH);
    let mut kind = *ip.get(at)?;
    while kind != extension::FRAGMENT {
        if !extension::is_walked(kind) {
            return None;
        }
        let &[next, length] = ip.get(offset..)?.first_chunk::<2>()?;
        at = offset;
        offset += (usize::from(length) + 1) * 8;
        kind = next;
    }
    Some((at, offset))
}
