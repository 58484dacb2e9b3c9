//! Cutting a packet into fragments (RFC 791 §3.2, RFC 8200 §4.5): a plan, then one fragment at a
//! time into the caller's buffers.

use crate::limits::EXTENSION_HEADERS;
use crate::packet::{Packet, Version};
use crate::wire::checksum::Sum;
use crate::wire::extension::{self, FragmentHeader};
use crate::wire::{ipv4, ipv6};

/// How a packet is cut. A packet that fits the MTU is one piece, as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    version: Version,
    /// Length of what the first piece repeats of the original, bytes: the IPv4 header, or the
    /// unfragmentable part of IPv6.
    header: usize,
    /// Length of what is cut, bytes.
    payload: usize,
    /// Payload of the first piece, bytes.
    first: usize,
    /// Payload of each further piece but the last, bytes.
    later: usize,
    /// Number of pieces.
    count: usize,
    /// IPv6: the fragment headers' identification.
    identification: u32,
    /// IPv6: where the unfragmentable part names what follows it.
    next_header: usize,
}

impl Plan {
    /// Cuts an IPv4 packet in transit, which may be a fragment itself, into pieces of at most `mtu`
    /// bytes. `None` for IPv6, for a packet with DF set, and where no fragment could be formed.
    //= T134 (RFC 6864 section 4.3)
    #[must_use]
    pub fn transit(ip: &[u8], packet: &Packet, mtu: u16) -> Option<Self> {
        if packet.version != Version::V4 || packet.dont_fragment {
            return None;
        }
        Self::v4(ip.get(..packet.length.into())?, mtu.into())
    }

    /// Cuts a packet of the gateway's own making, of either version, into pieces of at most `mtu`
    /// bytes. DF is clear in them whatever it was. `identification` is for IPv6 and must not
    /// repeat soon; an IPv4 packet has its own. `None` where no fragment could be formed, and for
    /// an IPv6 packet that has a fragment header.
    //= T132 (RFC 2473 section 7.1)
    #[must_use]
    pub fn own(ip: &[u8], identification: u32, mtu: u16) -> Option<Self> {
        match ip.first()? >> 4 {
            4 => Self::v4(ip, mtu.into()),
            6 => Self::v6(ip, identification, mtu.into()),
            _ => None,
        }
    }

    /// Number of pieces, at least 1.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Writes piece `index` (from 0) of the packet `ip` that was planned to the start of `out`, and
    /// says how long it is. `None` if there is no such piece or `out` is too short.
    pub fn write(&self, ip: &[u8], index: usize, out: &mut [u8]) -> Option<usize> {
        if index >= self.count {
            return None;
        }
        if self.count == 1 {
            let whole = ip.get(..self.header + self.payload)?;
            out.get_mut(..whole.len())?.copy_from_slice(whole);
            return Some(whole.len());
        }
        let (start, end) = match index {
            0 => (0, self.first),
            _ => {
                let start = self.first + (index - 1) * self.later;
                (start, (start + self.later).min(self.payload))
            }
        };
        let end = if index + 1 == self.count {
            self.payload
        } else {
            end
        };
        let header = ip.get(..self.header)?;
        let data = ip.get(self.header + start..self.header + end)?;
        let last = index + 1 == self.count;
        let length = match self.version {
            Version::V4 => Self::write_v4(header, start, last, data.len(), out)?,
            Version::V6 => self.write_v6(header, start, last, data.len(), out)?,
        };
        out.get_mut(length..length + data.len())?
            .copy_from_slice(data);
        Some(length + data.len())
    }

    fn v4(ip: &[u8], mtu: usize) -> Option<Self> {
        let header = ipv4::Header::parse(ip)?;
        let length = usize::from(header.total_length());
        let payload = length.checked_sub(header.length())?;
        ip.get(..length)?;
        // A reassembled packet longer than a packet can be: nobody could use the pieces.
        let offset = usize::from(header.flags_and_offset() & ipv4::OFFSET) * 8;
        if offset + payload > usize::from(u16::MAX) {
            return None;
        }
        let mut copied = [0; ipv4::LENGTH_MAXIMUM - ipv4::LENGTH];
        let later_header = ipv4::LENGTH + copied_options(header.options(), &mut copied);
        let plan = Self {
            version: Version::V4,
            header: header.length(),
            payload,
            first: 0,
            later: 0,
            count: 1,
            identification: 0,
            next_header: 0,
        };
        plan.cut(length, mtu, header.length(), later_header)
    }

    fn v6(ip: &[u8], identification: u32, mtu: usize) -> Option<Self> {
        let header = ipv6::Header::parse(ip)?;
        let length = usize::from(header.payload_length()) + ipv6::LENGTH;
        let ip = ip.get(..length)?;
        let (unfragmentable, next_header) = unfragmentable(ip)?;
        let plan = Self {
            version: Version::V6,
            header: unfragmentable,
            payload: length - unfragmentable,
            first: 0,
            later: 0,
            count: 1,
            identification,
            next_header,
        };
        let headers = unfragmentable + extension::LENGTH;
        plan.cut(length, mtu, headers, headers)
    }

    /// Fills in the pieces: all but the last a multiple of 8 bytes, as long as they may be.
    fn cut(self, length: usize, mtu: usize, first: usize, later: usize) -> Option<Self> {
        if length <= mtu {
            return Some(self);
        }
        let first = mtu.checked_sub(first)? & !7;
        let last = mtu.checked_sub(later)?;
        let later = last & !7;
        if first == 0 || later == 0 || first >= self.payload {
            return None;
        }
        let behind_first = self.payload - first;
        let between = behind_first.saturating_sub(last).div_ceil(later);
        Some(Self {
            first,
            later,
            count: 2 + between,
            ..self
        })
    }

    /// RFC 791 §3.2: the first piece keeps all options, the others those marked as copied.
    fn write_v4(
        header: &[u8],
        start: usize,
        last: bool,
        data: usize,
        out: &mut [u8],
    ) -> Option<usize> {
        let original = ipv4::Header::parse(header)?;
        let mut copied = [0; ipv4::LENGTH_MAXIMUM - ipv4::LENGTH];
        let options = if start == 0 {
            original.options()
        } else {
            let length = copied_options(original.options(), &mut copied);
            copied.get(..length)?
        };
        let length = ipv4::LENGTH + options.len();
        let out = out.get_mut(..length)?;
        let (fixed, out_options) = out.split_first_chunk_mut::<{ ipv4::LENGTH }>()?;
        *fixed = *header.first_chunk()?;
        out_options.copy_from_slice(options);

        let flags_and_offset = original.flags_and_offset();
        let offset = (flags_and_offset & ipv4::OFFSET) + u16::try_from(start / 8).ok()?;
        let more = if last {
            flags_and_offset & ipv4::MORE_FRAGMENTS
        } else {
            ipv4::MORE_FRAGMENTS
        };
        fixed[0] = 0x40 | u8::try_from(length / 4).ok()?;
        fixed[2..4].copy_from_slice(&u16::try_from(length + data).ok()?.to_be_bytes());
        fixed[6..8].copy_from_slice(&(offset | more).to_be_bytes());
        fixed[10..12].fill(0);
        let checksum = Sum::ZERO.bytes(out).checksum();
        out.get_mut(10..12)?
            .copy_from_slice(&checksum.to_be_bytes());
        Some(length)
    }

    /// RFC 8200 §4.5: the unfragmentable part, the fragment header, the piece.
    fn write_v6(
        &self,
        header: &[u8],
        start: usize,
        last: bool,
        data: usize,
        out: &mut [u8],
    ) -> Option<usize> {
        let fragment = FragmentHeader {
            offset: u16::try_from(start).ok()?,
            more: !last,
            identification: self.identification,
        };
        let length = header.len() + extension::LENGTH;
        let out = out.get_mut(..length)?;
        let (unfragmentable, out_fragment) = out.split_at_mut(header.len());
        unfragmentable.copy_from_slice(header);
        let payload_length = u16::try_from(length - ipv6::LENGTH + data).ok()?;
        unfragmentable
            .get_mut(4..6)?
            .copy_from_slice(&payload_length.to_be_bytes());
        let next_header = unfragmentable.get_mut(self.next_header)?;
        out_fragment.copy_from_slice(&fragment.to_bytes(*next_header));
        *next_header = extension::FRAGMENT;
        Some(length)
    }
}

/// Writes the options that every fragment carries, padded to a multiple of 4 bytes, and says how
/// long they are. What stands behind a damaged option is not copied.
fn copied_options(options: &[u8], out: &mut [u8; 40]) -> usize {
    const COPIED: u8 = 0x80;
    let mut rest = options;
    let mut length = 0;
    loop {
        let option = match *rest {
            [] | [0, ..] => break, // end of options
            [1, ..] => 1,          // no operation
            [_] | [_, 0 | 1, ..] => break,
            [_, length, ..] => usize::from(length),
        };
        let Some((option, behind)) = rest.split_at_checked(option) else {
            break;
        };
        if option[0] & COPIED != 0
            && let Some(to) = out.get_mut(length..length + option.len())
        {
            to.copy_from_slice(option);
            length += option.len();
        }
        rest = behind;
    }
    length.next_multiple_of(4)
}

/// Length of the part that every fragment repeats, and the offset of the byte that names what
/// follows it: up to and with hop-by-hop options and the routing header (RFC 8200 §4.5).
fn unfragmentable(ip: &[u8]) -> Option<(usize, usize)> {
    const NEXT_HEADER: usize = 6;
    let mut found = (ipv6::LENGTH, NEXT_HEADER);
    let (mut offset, mut kind) = (ipv6::LENGTH, *ip.get(NEXT_HEADER)?);
    for _ in 0..=EXTENSION_HEADERS {
        if kind == extension::FRAGMENT {
            return None;
        }
        if !extension::is_walked(kind) {
            return Some(found);
        }
        let [next_header, length, ..] = *ip.get(offset..)?.first_chunk::<8>()?;
        let end = offset + (usize::from(length) + 1) * 8;
        if end > ip.len() {
            return None;
        }
        if kind != extension::DESTINATION_OPTIONS {
            found = (end, offset);
        }
        (offset, kind) = (end, next_header);
    }
    None
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panic")]
mod tests;
