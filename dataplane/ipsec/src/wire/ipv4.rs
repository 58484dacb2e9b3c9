//! The IPv4 header (RFC 791 §3.1).

use crate::wire::checksum::Sum;

/// Length of the header without options, bytes.
pub const LENGTH: usize = 20;

/// Length of the longest header, bytes.
pub const LENGTH_MAXIMUM: usize = 60;

/// The flag that forbids fragmentation, in the word of flags and fragment offset.
pub const DONT_FRAGMENT: u16 = 0x4000;

/// The flag that says that fragments follow.
pub const MORE_FRAGMENTS: u16 = 0x2000;

/// The fragment offset's bits, in units of 8 bytes.
pub const OFFSET: u16 = 0x1fff;

/// A view of an IPv4 header with its options.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a> {
    fixed: &'a [u8; LENGTH],
    whole: &'a [u8],
}

impl<'a> Header<'a> {
    /// The header at the start of `bytes`; `None` if the version is not 4, the IHL below 5, or the
    /// header with its options longer than `bytes`. Its checksum and total length are not judged.
    #[inline]
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let fixed = bytes.first_chunk::<LENGTH>()?;
        let [version_and_ihl, ..] = *fixed;
        if version_and_ihl == 0x45 {
            return Some(Self {
                fixed,
                whole: fixed,
            });
        }
        if !(0x46..=0x4f).contains(&version_and_ihl) {
            return None;
        }
        let length = usize::from(version_and_ihl & 0x0f).wrapping_mul(4);
        let whole = bytes.get(..length)?;
        Some(Self { fixed, whole })
    }

    /// Length of the header with its options, bytes: 20 to 60.
    #[inline]
    #[must_use]
    pub const fn length(self) -> usize {
        self.whole.len()
    }

    /// The options, padding included.
    #[inline]
    #[must_use]
    pub fn options(self) -> &'a [u8] {
        self.whole.get(LENGTH..).unwrap_or(&[])
    }

    /// DSCP (upper 6 bits) and ECN.
    #[inline]
    #[must_use]
    pub const fn traffic_class(self) -> u8 {
        self.fixed[1]
    }

    /// Length of the packet, bytes, as the header states it.
    #[inline]
    #[must_use]
    pub const fn total_length(self) -> u16 {
        u16::from_be_bytes([self.fixed[2], self.fixed[3]])
    }

    /// Identification.
    #[inline]
    #[must_use]
    pub const fn identification(self) -> u16 {
        u16::from_be_bytes([self.fixed[4], self.fixed[5]])
    }

    /// Flags and fragment offset in one word.
    #[inline]
    #[must_use]
    pub const fn flags_and_offset(self) -> u16 {
        u16::from_be_bytes([self.fixed[6], self.fixed[7]])
    }

    /// Time to live.
    #[inline]
    #[must_use]
    pub const fn hop_limit(self) -> u8 {
        self.fixed[8]
    }

    /// Protocol.
    #[inline]
    #[must_use]
    pub const fn protocol(self) -> u8 {
        self.fixed[9]
    }

    /// Header checksum as it stands.
    #[inline]
    #[must_use]
    pub const fn checksum(self) -> u16 {
        u16::from_be_bytes([self.fixed[10], self.fixed[11]])
    }

    /// Source address.
    #[inline]
    #[must_use]
    pub const fn source(self) -> u32 {
        let fixed = self.fixed;
        u32::from_be_bytes([fixed[12], fixed[13], fixed[14], fixed[15]])
    }

    /// Destination address.
    #[inline]
    #[must_use]
    pub const fn destination(self) -> u32 {
        let fixed = self.fixed;
        u32::from_be_bytes([fixed[16], fixed[17], fixed[18], fixed[19]])
    }

    /// Whether the header checksum is right.
    #[inline]
    #[must_use]
    pub fn checksum_holds(self) -> bool {
        // The length of the array unrolls the sum; options are rare.
        let fixed = Sum::ZERO.bytes(self.fixed);
        if self.whole.len() == LENGTH {
            return fixed.holds();
        }
        fixed.bytes(self.options()).holds()
    }
}

/// The fields of a header that we write, without options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    /// DSCP (upper 6 bits) and ECN.
    pub traffic_class: u8,
    /// Length of the packet, bytes.
    pub total_length: u16,
    /// Identification.
    pub identification: u16,
    /// Flags and fragment offset in one word.
    pub flags_and_offset: u16,
    /// Time to live.
    pub hop_limit: u8,
    /// Protocol.
    pub protocol: u8,
    /// Source address.
    pub source: u32,
    /// Destination address.
    pub destination: u32,
}

impl Fields {
    /// The header as bytes, checksum included.
    #[inline]
    #[must_use]
    pub const fn to_bytes(self) -> [u8; LENGTH] {
        let checksum = Sum::ZERO
            .word(0x4500 | self.traffic_class as u16)
            .word(self.total_length)
            .word(self.identification)
            .word(self.flags_and_offset)
            .word(u16::from_be_bytes([self.hop_limit, self.protocol]))
            .double_word(self.source)
            .double_word(self.destination)
            .checksum();
        let [length_high, length_low] = self.total_length.to_be_bytes();
        let [id_high, id_low] = self.identification.to_be_bytes();
        let [flags, offset] = self.flags_and_offset.to_be_bytes();
        let [sum_high, sum_low] = checksum.to_be_bytes();
        let [a, b, c, d] = self.source.to_be_bytes();
        let [e, f, g, h] = self.destination.to_be_bytes();
        [
            0x45,
            self.traffic_class,
            length_high,
            length_low,
            id_high,
            id_low,
            flags,
            offset,
            self.hop_limit,
            self.protocol,
            sum_high,
            sum_low,
            a,
            b,
            c,
            d,
            e,
            f,
            g,
            h,
        ]
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may fail by panic")]
mod tests {
    use super::*;

    /// An ICMP echo request with the router alert option (RFC 2113).
    const PACKET: [u8; 24] = [
        0x46, 0xc0, 0x00, 0x20, 0x12, 0x34, 0x40, 0x00, 0x01, 0x02, 0x2e, 0x06, 192, 0, 2, 1, 224,
        0, 0, 22, 0x94, 0x04, 0x00, 0x00,
    ];

    #[test]
    fn reads_real_bytes() {
        let mut bytes = PACKET;
        bytes[10..12].fill(0);
        let checksum = Sum::ZERO.bytes(&bytes).checksum();
        bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
        let Some(header) = Header::parse(&bytes) else {
            panic!("a whole header")
        };
        assert_eq!(header.length(), 24);
        assert_eq!(header.options(), [0x94, 4, 0, 0]);
        assert_eq!(header.traffic_class(), 0xc0);
        assert_eq!(header.total_length(), 32);
        assert_eq!(header.identification(), 0x1234);
        assert_eq!(header.flags_and_offset(), DONT_FRAGMENT);
        assert_eq!(header.hop_limit(), 1);
        assert_eq!(header.protocol(), 2);
        assert_eq!(header.checksum(), checksum);
        assert_eq!(header.source(), 0xc000_0201);
        assert_eq!(header.destination(), 0xe000_0016);
        assert!(header.checksum_holds());
        bytes[23] ^= 1;
        assert!(Header::parse(&bytes).is_some_and(|header| !header.checksum_holds()));
    }

    #[test]
    fn refuses_what_is_no_header() {
        for length in 0..PACKET.len() {
            assert!(Header::parse(&PACKET[..length]).is_none(), "{length}");
        }
        for first in 0..=0xff_u8 {
            let mut bytes = [0; LENGTH_MAXIMUM];
            bytes[0] = first;
            let good = first >> 4 == 4 && first & 15 >= 5;
            assert_eq!(Header::parse(&bytes).is_some(), good, "{first:#x}");
        }
    }

    #[test]
    fn writes_what_it_reads() {
        let fields = Fields {
            traffic_class: 0xb9,
            total_length: 1500,
            identification: 0x1234,
            flags_and_offset: DONT_FRAGMENT,
            hop_limit: 64,
            protocol: 50,
            source: 0xc000_0201,
            destination: 0xc000_0202,
        };
        let bytes = fields.to_bytes();
        let Some(header) = Header::parse(&bytes) else {
            panic!("a whole header")
        };
        assert!(header.checksum_holds());
        let read = Fields {
            traffic_class: header.traffic_class(),
            total_length: header.total_length(),
            identification: header.identification(),
            flags_and_offset: header.flags_and_offset(),
            hop_limit: header.hop_limit(),
            protocol: header.protocol(),
            source: header.source(),
            destination: header.destination(),
        };
        assert_eq!(read, fields);
    }
}
