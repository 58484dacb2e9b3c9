//! The Ethernet header (IEEE 802.3, RFC 894, RFC 2464): two addresses and an EtherType.

/// Length of the header, bytes.
pub const LENGTH: usize = 14;

/// EtherTypes that the gateway names.
pub mod ether_type {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// A VLAN tag (IEEE 802.1Q).
    pub const VLAN: u16 = 0x8100;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// A provider's VLAN tag (IEEE 802.1ad).
    pub const PROVIDER_VLAN: u16 = 0x88a8;
}

/// An Ethernet header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// To whom the frame goes.
    pub destination: [u8; 6],
    /// From whom it came.
    pub source: [u8; 6],
    /// What it carries, see [`ether_type`].
    pub ether_type: u16,
}

impl Header {
    /// The header of `frame`, `None` if the frame is shorter than one.
    #[inline]
    #[must_use]
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let &[a, b, c, d, e, f, g, h, i, j, k, l, high, low] = frame.first_chunk::<LENGTH>()?;
        Some(Self {
            destination: [a, b, c, d, e, f],
            source: [g, h, i, j, k, l],
            ether_type: u16::from_be_bytes([high, low]),
        })
    }

    /// The header as bytes.
    #[inline]
    #[must_use]
    pub fn to_bytes(self) -> [u8; LENGTH] {
        let [a, b, c, d, e, f] = self.destination;
        let [g, h, i, j, k, l] = self.source;
        let [high, low] = self.ether_type.to_be_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l, high, low]
    }

    /// Writes the header to the start of `frame`; `None`, and nothing written, if it is too short.
    #[inline]
    pub fn write(self, frame: &mut [u8]) -> Option<()> {
        *frame.first_chunk_mut::<LENGTH>()? = self.to_bytes();
        Some(())
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may fail by panic")]
mod tests {
    use super::*;

    const FRAME: [u8; 15] = [
        0x02, 0, 0, 0, 0, 0x02, 0x52, 0x54, 0, 0x12, 0x34, 0x56, 0x86, 0xdd, 0x60,
    ];

    #[test]
    fn reads_and_writes_real_bytes() {
        let header = Header {
            destination: [2, 0, 0, 0, 0, 2],
            source: [0x52, 0x54, 0, 0x12, 0x34, 0x56],
            ether_type: ether_type::IPV6,
        };
        assert_eq!(Header::parse(&FRAME), Some(header));
        let mut frame = [0x60; 15];
        assert_eq!(header.write(&mut frame), Some(()));
        assert_eq!(frame, FRAME);
    }

    #[test]
    fn refuses_every_shorter_frame() {
        for length in 0..LENGTH {
            assert_eq!(Header::parse(&FRAME[..length]), None);
            let header = Header {
                destination: [1; 6],
                source: [2; 6],
                ether_type: 3,
            };
            let mut frame = vec![0; length];
            assert_eq!(header.write(&mut frame), None);
            assert!(frame.iter().all(|byte| *byte == 0));
        }
    }
}
