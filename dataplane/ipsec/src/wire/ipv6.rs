//! The IPv6 header (RFC 8200 §3).

/// Length of the header, bytes.
pub const LENGTH: usize = 40;

/// A view of an IPv6 header.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a>(&'a [u8; LENGTH]);

impl<'a> Header<'a> {
    /// The header at the start of `bytes`; `None` if they are shorter or the version is not 6.
    #[inline]
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let fixed = bytes.first_chunk::<LENGTH>()?;
        (fixed[0] >> 4 == 6).then_some(Self(fixed))
    }

    /// DSCP (upper 6 bits) and ECN.
    #[inline]
    #[must_use]
    pub const fn traffic_class(self) -> u8 {
        (self.0[0] << 4) | (self.0[1] >> 4)
    }

    /// Flow label, 20 bits.
    #[inline]
    #[must_use]
    pub const fn flow_label(self) -> u32 {
        u32::from_be_bytes([0, self.0[1] & 0x0f, self.0[2], self.0[3]])
    }

    /// Length of what stands behind this header, bytes.
    #[inline]
    #[must_use]
    pub const fn payload_length(self) -> u16 {
        u16::from_be_bytes([self.0[4], self.0[5]])
    }

    /// The next header.
    #[inline]
    #[must_use]
    pub const fn next_header(self) -> u8 {
        self.0[6]
    }

    /// Hop limit.
    #[inline]
    #[must_use]
    pub const fn hop_limit(self) -> u8 {
        self.0[7]
    }

    /// Source address.
    #[inline]
    #[must_use]
    pub fn source(self) -> u128 {
        let &[
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            ref source @ ..,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
        ] = self.0;
        u128::from_be_bytes(*source)
    }

    /// Destination address.
    #[inline]
    #[must_use]
    pub fn destination(self) -> u128 {
        self.0
            .last_chunk::<16>()
            .map_or(0, |destination| u128::from_be_bytes(*destination))
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may fail by panic")]
mod tests {
    use super::*;

    #[test]
    fn reads_real_bytes() {
        let mut bytes = [0_u8; LENGTH];
        bytes[..8].copy_from_slice(&[0x6b, 0x8a, 0xbc, 0xde, 0x00, 0x10, 58, 255]);
        bytes[8..24].copy_from_slice(&0xfe80_u128.rotate_right(16).to_be_bytes());
        bytes[24..].copy_from_slice(&0x2001_0db8_0000_0000_0000_0000_0000_0001_u128.to_be_bytes());
        let Some(header) = Header::parse(&bytes) else {
            panic!("a whole header")
        };
        assert_eq!(header.traffic_class(), 0xb8);
        assert_eq!(header.flow_label(), 0xa_bcde);
        assert_eq!(header.payload_length(), 16);
        assert_eq!(header.next_header(), 58);
        assert_eq!(header.hop_limit(), 255);
        assert_eq!(header.source(), 0xfe80 << 112);
        assert_eq!(header.destination(), (0x2001_0db8 << 96) + 1);
        for length in 0..LENGTH {
            assert!(Header::parse(&bytes[..length]).is_none());
        }
        bytes[0] = 0x4b;
        assert!(Header::parse(&bytes).is_none());
    }
}
