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

/// The fields of a header that we write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    /// DSCP (upper 6 bits) and ECN.
    pub traffic_class: u8,
    /// Flow label; bits above the 20 are cut.
    pub flow_label: u32,
    /// Length of what stands behind this header, bytes.
    pub payload_length: u16,
    /// The next header.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source address.
    pub source: u128,
    /// Destination address.
    pub destination: u128,
}

impl Fields {
    /// Writes the header. In place, since a header built elsewhere and copied would stall on its
    /// own stores.
    #[inline]
    pub fn write(self, out: &mut [u8; LENGTH]) {
        let traffic_class = u32::from(self.traffic_class) << 20;
        let first = 0x6000_0000 | traffic_class | (self.flow_label & 0xf_ffff);
        let [a, b, c, d] = first.to_be_bytes();
        let [e, f] = self.payload_length.to_be_bytes();
        let (head, addresses) = out.split_at_mut(8);
        head.copy_from_slice(&[a, b, c, d, e, f, self.next_header, self.hop_limit]);
        let (source, destination) = addresses.split_at_mut(16);
        source.copy_from_slice(&self.source.to_be_bytes());
        destination.copy_from_slice(&self.destination.to_be_bytes());
    }

    /// The header as bytes.
    #[inline]
    #[must_use]
    pub fn to_bytes(self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        self.write(&mut bytes);
        bytes
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

    #[test]
    fn writes_what_it_reads() {
        let fields = Fields {
            traffic_class: 0xb9,
            flow_label: 0xf_1234,
            payload_length: 1400,
            next_header: 50,
            hop_limit: 64,
            source: (0x2001_0db8 << 96) + 1,
            destination: (0x2001_0db8 << 96) + 2,
        };
        let bytes = fields.to_bytes();
        let Some(header) = Header::parse(&bytes) else {
            panic!("a whole header")
        };
        let read = Fields {
            traffic_class: header.traffic_class(),
            flow_label: header.flow_label(),
            payload_length: header.payload_length(),
            next_header: header.next_header(),
            hop_limit: header.hop_limit(),
            source: header.source(),
            destination: header.destination(),
        };
        assert_eq!(read, fields);
    }
}
