//! The algorithm table: names, key, IV, block and ICV lengths (RFC 8221).

/// An encryption algorithm of ESP. AEADs bring their own integrity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encryption {
    /// NULL (RFC 2410).
    Null,
    /// AES-GCM (RFC 4106): key bits and ICV bytes (16, 12 or 8).
    AesGcm {
        /// 128, 192 or 256.
        bits: u16,
        /// 16, 12 or 8 bytes.
        icv: u8,
    },
    /// AES-GMAC as ESP without confidentiality (RFC 4543), key bits.
    AesGmac {
        /// 128 or 256.
        bits: u16,
    },
    /// ChaCha20-Poly1305 (RFC 7634).
    ChaCha20Poly1305,
    /// AES-CBC (RFC 3602), key bits.
    AesCbc {
        /// 128, 192 or 256.
        bits: u16,
    },
    /// AES-CTR (RFC 3686), key bits.
    AesCtr {
        /// 128, 192 or 256.
        bits: u16,
    },
    /// 3DES-CBC (RFC 2451), legacy.
    TripleDes,
}

/// An integrity algorithm of ESP and AH.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Integrity {
    /// HMAC-MD5-96 (RFC 2403), legacy.
    Md5_96,
    /// HMAC-SHA1-96 (RFC 2404).
    Sha1_96,
    /// HMAC-SHA-256-128 (RFC 4868).
    Sha256_128,
    /// HMAC-SHA-384-192 (RFC 4868).
    Sha384_192,
    /// HMAC-SHA-512-256 (RFC 4868).
    Sha512_256,
    /// AES-XCBC-MAC-96 (RFC 3566).
    Aes128Xcbc96,
    /// AES-CMAC-96 (RFC 4494).
    Aes128Cmac96,
    /// AES-GMAC in AH (RFC 4543), key bits.
    AesGmac {
        /// 128 or 256.
        bits: u16,
    },
}

/// What one SA uses. Which combinations are legal is [`Suite::check`]'s to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Suite {
    /// ESP's cipher; `Null` in AH.
    pub encryption: Encryption,
    /// A separate MAC; `None` with an AEAD.
    pub integrity: Option<Integrity>,
}
