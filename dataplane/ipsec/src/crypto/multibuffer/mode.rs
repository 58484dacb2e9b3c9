//! What a kernel does with a text: the two halves of AES-GCM together or each alone.

/// One direction of an algorithm.
pub(super) trait Mode {
    /// The text goes through the cipher; else it stays as it is.
    const ENCIPHERS: bool;
    /// The text is written where it belongs; else it is only read.
    const WRITES: bool = true;
    /// The cipher text is hashed.
    const HASHES: bool;
    /// All of the text is read at the source; what is hashed is what was read.
    const OPENS: bool;
    /// The lengths are hashed, and the hash becomes a tag.
    const ENDS: bool = true;
    /// The number of the text's block in front of the first.
    const FRONT: usize = 1;
}

/// AES-GCM, encrypting.
pub(super) struct GcmSeal;

/// AES-GCM, decrypting.
pub(super) struct GcmOpen;

/// AES-CTR, encrypting.
pub(super) struct CtrSeal;

/// AES-CTR, decrypting.
pub(super) struct CtrOpen;

/// AES-GMAC, the text moved and its tag not yet hidden.
pub(super) struct GmacSeal;

/// The same of a packet that comes in.
pub(super) struct GmacOpen;

/// The same of a text that stays where it is.
pub(super) struct GmacEnd;

/// The hash of blocks in the midst of a message.
pub(super) struct Hash;

impl Mode for GcmSeal {
    const ENCIPHERS: bool = true;
    const HASHES: bool = true;
    const OPENS: bool = false;
}

impl Mode for GcmOpen {
    const ENCIPHERS: bool = true;
    const HASHES: bool = true;
    const OPENS: bool = true;
}

//= T18 (RFC 3686 section 4)
impl Mode for CtrSeal {
    const ENCIPHERS: bool = true;
    const HASHES: bool = false;
    const OPENS: bool = false;
    const FRONT: usize = 0;
}

impl Mode for CtrOpen {
    const ENCIPHERS: bool = true;
    const HASHES: bool = false;
    const OPENS: bool = true;
    const FRONT: usize = 0;
}

impl Mode for GmacSeal {
    const ENCIPHERS: bool = false;
    const HASHES: bool = true;
    const OPENS: bool = false;
}

impl Mode for GmacOpen {
    const ENCIPHERS: bool = false;
    const HASHES: bool = true;
    const OPENS: bool = true;
}

impl Mode for GmacEnd {
    const ENCIPHERS: bool = false;
    const WRITES: bool = false;
    const HASHES: bool = true;
    const OPENS: bool = true;
}

impl Mode for Hash {
    const ENCIPHERS: bool = false;
    const WRITES: bool = false;
    const HASHES: bool = true;
    const OPENS: bool = true;
    const ENDS: bool = false;
}
