//! The ESP header (RFC 4303 §2.1, §2.2). What follows it depends on the SA.

/// Length of the header, bytes.
pub const LENGTH: usize = 8;

/// An ESP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Security parameters index.
    pub spi: u32,
    /// Sequence number, the lower 32 bits with ESN.
    pub sequence: u32,
}

impl Header {
    /// The header at the start of `bytes`, `None` if they are shorter than one.
    #[inline]
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let &[a, b, c, d, e, f, g, h] = bytes.first_chunk::<LENGTH>()?;
        Some(Self {
            spi: u32::from_be_bytes([a, b, c, d]),
            sequence: u32::from_be_bytes([e, f, g, h]),
        })
    }

    /// The header as bytes.
    #[inline]
    #[must_use]
    pub const fn to_bytes(self) -> [u8; LENGTH] {
        let [a, b, c, d] = self.spi.to_be_bytes();
        let [e, f, g, h] = self.sequence.to_be_bytes();
        [a, b, c, d, e, f, g, h]
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may fail by panic")]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_real_bytes() {
        let bytes = [0xc0, 0xff, 0xee, 0x01, 0x00, 0x00, 0x10, 0x02, 0xaa];
        let header = Header {
            spi: 0xc0ff_ee01,
            sequence: 0x1002,
        };
        assert_eq!(Header::parse(&bytes), Some(header));
        assert_eq!(header.to_bytes(), bytes[..LENGTH]);
        for length in 0..LENGTH {
            assert_eq!(Header::parse(&bytes[..length]), None);
        }
    }
}
