//! The AH header (RFC 4302 §2). How long its ICV field is depends on the SA.

/// Length of the header in front of the ICV field, bytes.
pub const LENGTH: usize = 12;

/// The longest that the header's length field can say, bytes.
pub const LENGTH_MAXIMUM: usize = (255 + 2) * 4;

/// An AH header without its ICV field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The protocol behind the header.
    pub next_header: u8,
    /// Length of the header with its ICV field, bytes; a multiple of 4 from 12 to
    /// [`LENGTH_MAXIMUM`] can be written.
    pub length: u16,
    /// Security parameters index.
    pub spi: u32,
    /// Sequence number, the lower 32 bits with ESN.
    pub sequence: u32,
}

impl Header {
    /// The header at the start of `bytes`, `None` if they are shorter than one. What its length
    /// says is not judged, and its reserved field is not looked at.
    //= T40 (RFC 4302 section 2.3)
    #[inline]
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let &[next_header, words, _, _, a, b, c, d, e, f, g, h] = bytes.first_chunk::<LENGTH>()?;
        Some(Self {
            next_header,
            length: u16::from(words).wrapping_add(2).wrapping_mul(4),
            spi: u32::from_be_bytes([a, b, c, d]),
            sequence: u32::from_be_bytes([e, f, g, h]),
        })
    }

    /// The header as bytes.
    //= T39 T40 (RFC 4302 sections 2.2, 2.3)
    #[inline]
    #[must_use]
    pub const fn to_bytes(self) -> [u8; LENGTH] {
        let [_, words] = (self.length / 4).saturating_sub(2).to_be_bytes();
        let [a, b, c, d] = self.spi.to_be_bytes();
        let [e, f, g, h] = self.sequence.to_be_bytes();
        [self.next_header, words, 0, 0, a, b, c, d, e, f, g, h]
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may fail by panic")]
mod tests {
    use super::*;

    //= test T39
    //= test T40
    #[test]
    fn reads_and_writes_real_bytes() {
        let bytes = [6, 4, 0, 0, 0xc0, 0xff, 0xee, 0x01, 0, 0, 0x10, 0x02, 0xaa];
        let header = Header {
            next_header: 6,
            length: 24,
            spi: 0xc0ff_ee01,
            sequence: 0x1002,
        };
        assert_eq!(Header::parse(&bytes), Some(header));
        assert_eq!(header.to_bytes(), bytes[..LENGTH]);
        for length in 0..LENGTH {
            assert_eq!(Header::parse(&bytes[..length]), None);
        }
        let mut reserved = bytes;
        reserved[2..4].fill(0xff);
        assert_eq!(Header::parse(&reserved), Some(header));
        for words in 0..=255 {
            reserved[1] = words;
            let read = Header::parse(&reserved).map(|header| header.length);
            assert_eq!(read, Some((u16::from(words) + 2) * 4));
        }
        assert_eq!(usize::from(257_u16) * 4, LENGTH_MAXIMUM);
    }
}
