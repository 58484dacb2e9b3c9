//! The UDP header (RFC 768).

/// Length of the header, bytes.
pub const LENGTH: usize = 8;

/// Offset of the checksum in the header, bytes.
pub const CHECKSUM: usize = 6;

/// A UDP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Length of header and data, bytes, as the header states it.
    pub length: u16,
    /// Checksum; 0: none was computed.
    pub checksum: u16,
}

impl Header {
    /// The header at the start of `bytes`, `None` if they are shorter than one.
    #[inline]
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let &[a, b, c, d, e, f, g, h] = bytes.first_chunk::<LENGTH>()?;
        Some(Self {
            source: u16::from_be_bytes([a, b]),
            destination: u16::from_be_bytes([c, d]),
            length: u16::from_be_bytes([e, f]),
            checksum: u16::from_be_bytes([g, h]),
        })
    }

    /// The header as bytes.
    #[inline]
    #[must_use]
    pub const fn to_bytes(self) -> [u8; LENGTH] {
        let [a, b] = self.source.to_be_bytes();
        let [c, d] = self.destination.to_be_bytes();
        let [e, f] = self.length.to_be_bytes();
        let [g, h] = self.checksum.to_be_bytes();
        [a, b, c, d, e, f, g, h]
    }
}

/// A computed checksum as it is sent: 0 would say that there is none (RFC 768, RFC 8200 §8.1).
//= T140 (RFC 8200 section 8.1)
#[inline]
#[must_use]
pub const fn sent_checksum(computed: u16) -> u16 {
    if computed == 0 { 0xffff } else { computed }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may fail by panic")]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_real_bytes() {
        let bytes = [0x11, 0x94, 0x01, 0xf4, 0x00, 0x0c, 0xbe, 0xef, 1, 2, 3, 4];
        let header = Header {
            source: 4500,
            destination: 500,
            length: 12,
            checksum: 0xbeef,
        };
        assert_eq!(Header::parse(&bytes), Some(header));
        assert_eq!(header.to_bytes(), bytes[..LENGTH]);
        for length in 0..LENGTH {
            assert_eq!(Header::parse(&bytes[..length]), None);
        }
    }

    //= test T140 (RFC 8200 section 8.1)
    #[test]
    fn a_computed_zero_is_sent_as_ones() {
        assert_eq!(sent_checksum(0), 0xffff);
        assert_eq!(sent_checksum(1), 1);
        assert_eq!(sent_checksum(0xffff), 0xffff);
    }
}
