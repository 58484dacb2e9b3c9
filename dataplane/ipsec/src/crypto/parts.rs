//! Where the parts of an ESP packet lie between its header and its ICV (RFC 4303 §2).

use super::suite::Suite;

/// SPI and sequence number.
pub(super) const HEADER_LENGTH: usize = 8;

/// Pad length and next header, the least that stands behind the payload.
pub(super) const TRAILER_LENGTH: usize = 2;

/// The lengths of a suite that the cutting needs, bytes.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    pub iv: usize,
    pub icv: usize,
    /// A power of two.
    pub alignment: usize,
}

impl Layout {
    pub(super) const fn of(suite: Suite) -> Self {
        Self {
            iv: suite.iv_length(),
            icv: suite.icv_length(),
            alignment: suite.alignment(),
        }
    }

    /// [`Self::covered`], if a payload of that length fits in too.
    pub(super) fn covered_with(self, length: usize, payload: usize) -> Option<usize> {
        let covered = self.covered(length)?;
        let least = HEADER_LENGTH + self.iv + payload + TRAILER_LENGTH;
        (covered >= least).then_some(covered)
    }

    /// Bytes in front of the ICV of a packet of `length` bytes; `None` when the packet holds no
    /// header, IV, trailer and ICV, or its text is not whole blocks.
    pub(super) const fn covered(self, length: usize) -> Option<usize> {
        let around = HEADER_LENGTH + self.iv + self.icv;
        match length.checked_sub(around) {
            Some(text) if text >= TRAILER_LENGTH && text & (self.alignment - 1) == 0 => {
                Some(length - self.icv)
            }
            _ => None,
        }
    }
}

/// A packet to seal, cut into its parts. `text` still wants the payload at its start.
pub(super) struct SealParts<'a> {
    pub header: &'a [u8; HEADER_LENGTH],
    pub iv: &'a [u8],
    pub text: &'a mut [u8],
    pub icv: &'a mut [u8],
}

/// A packet to open, cut into its parts.
pub(super) struct OpenParts<'a> {
    pub header: &'a [u8; HEADER_LENGTH],
    pub iv: &'a [u8],
    pub text: &'a [u8],
    pub icv: &'a [u8],
}

/// Cuts `packet` and copies `payload` to its place. `None` when the lengths do not fit: no room
/// for the payload and a trailer, or not whole blocks.
pub(super) fn seal_parts<'a>(
    packet: &'a mut [u8],
    payload: &[u8],
    layout: Layout,
) -> Option<SealParts<'a>> {
    let covered = layout.covered_with(packet.len(), payload.len())?;
    let (covered, icv) = packet.split_at_mut_checked(covered)?;
    let (header, rest) = covered.split_first_chunk_mut()?;
    let (iv, text) = rest.split_at_mut_checked(layout.iv)?;
    text.get_mut(..payload.len())?.copy_from_slice(payload);
    Some(SealParts {
        header,
        iv,
        text,
        icv,
    })
}

/// Cuts `packet`. `None` when it is too short, or its text is not whole blocks.
pub(super) fn open_parts(packet: &[u8], layout: Layout) -> Option<OpenParts<'_>> {
    let (covered, icv) = packet.split_at_checked(layout.covered(packet.len())?)?;
    let (header, rest) = covered.split_first_chunk()?;
    let (iv, text) = rest.split_at_checked(layout.iv)?;
    Some(OpenParts {
        header,
        iv,
        text,
        icv,
    })
}

/// What a combined mode authenticates beside the text: SPI and sequence number, 64 bits of it with
/// ESN although only 32 travel.
//= T05 T16 T21 (RFC 4106 section 5, RFC 7634 section 2.1)
pub(super) struct AssociatedData {
    bytes: [u8; 12],
    length: usize,
}

impl AssociatedData {
    pub(super) fn new(header: &[u8; HEADER_LENGTH], sequence: u64, esn: bool) -> Self {
        let mut bytes = [0; 12];
        let [s0, s1, s2, s3, n0, n1, n2, n3] = *header;
        if esn {
            let [h0, h1, h2, h3] = high_half(sequence);
            bytes = [s0, s1, s2, s3, h0, h1, h2, h3, n0, n1, n2, n3];
        } else {
            bytes[..HEADER_LENGTH].copy_from_slice(header);
        }
        let length = if esn { 12 } else { HEADER_LENGTH };
        Self { bytes, length }
    }
}

impl AsRef<[u8]> for AssociatedData {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// The upper 32 bits of a sequence number, as the ICV takes them.
pub(super) const fn high_half(sequence: u64) -> [u8; 4] {
    let [h0, h1, h2, h3, _, _, _, _] = sequence.to_be_bytes();
    [h0, h1, h2, h3]
}

/// Salt and IV as the 12-byte nonce of the counter modes. `None` when the IV has another length.
//= T16 T18 T21 (RFC 4106 section 4, RFC 3686 section 4, RFC 7634 section 2)
pub(super) fn nonce(salt: [u8; 4], iv: &[u8]) -> Option<[u8; 12]> {
    let iv: &[u8; 8] = iv.try_into().ok()?;
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(&salt);
    nonce[4..].copy_from_slice(iv);
    Some(nonce)
}

/// Whether both are the same, in a time that does not tell where they differ. They are as long.
pub(super) fn same(ours: &[u8], theirs: &[u8]) -> bool {
    let mut difference = u8::from(ours.len() != theirs.len());
    for (ours, theirs) in ours.iter().zip(theirs) {
        difference |= ours ^ theirs;
    }
    std::hint::black_box(difference) == 0
}
