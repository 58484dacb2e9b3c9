//! Where the parts of an ESP packet lie between its header and its ICV (RFC 4303 §2).

/// SPI and sequence number.
pub(super) const HEADER_LENGTH: usize = 8;

/// Pad length and next header, the least that stands behind the payload.
pub(super) const TRAILER_LENGTH: usize = 2;

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
    iv_length: usize,
    icv_length: usize,
) -> Option<SealParts<'a>> {
    let (header, rest) = packet.split_first_chunk_mut()?;
    let (iv, rest) = rest.split_at_mut_checked(iv_length)?;
    let text_length = rest.len().checked_sub(icv_length)?;
    let (text, icv) = rest.split_at_mut_checked(text_length)?;
    if text_length < payload.len() + TRAILER_LENGTH {
        return None;
    }
    text.get_mut(..payload.len())?.copy_from_slice(payload);
    Some(SealParts {
        header,
        iv,
        text,
        icv,
    })
}

/// Cuts `packet`. `None` when it is too short for a trailer.
pub(super) fn open_parts(
    packet: &[u8],
    iv_length: usize,
    icv_length: usize,
) -> Option<OpenParts<'_>> {
    let (header, rest) = packet.split_first_chunk()?;
    let (iv, rest) = rest.split_at_checked(iv_length)?;
    let text_length = rest.len().checked_sub(icv_length)?;
    if text_length < TRAILER_LENGTH {
        return None;
    }
    let (text, icv) = rest.split_at_checked(text_length)?;
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
