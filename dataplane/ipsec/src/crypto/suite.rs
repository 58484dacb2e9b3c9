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

/// ESP or AH.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Protocol {
    /// RFC 4303, protocol 50.
    Esp = 50,
    /// RFC 4302, protocol 51.
    Ah = 51,
}

/// Why algorithms cannot serve together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SuiteError {
    /// A key or ICV length that the algorithm does not have.
    #[error("no such variant of the algorithm")]
    Unknown,
    /// ESP with a cipher that does not authenticate, or `null`, alone (T11, T71, T148).
    #[error("encryption without integrity")]
    IntegrityMissing,
    /// A second ICV beside the AEAD's own.
    #[error("integrity beside an AEAD, which brings its own")]
    IntegrityWithAead,
    /// The AH form of AES-GMAC in ESP (T150).
    #[error("as integrity, AES-GMAC serves AH alone; ESP has it as encryption")]
    GmacIsEncryption,
    /// AH does not encrypt.
    #[error("encryption in AH")]
    EncryptionInAh,
}

//= T144 (RFC 8221 section 5)
impl Encryption {
    /// Every algorithm, in the order of the interface document.
    pub const ALL: [Self; 20] = [
        Self::Null,
        Self::AesGcm { bits: 128, icv: 16 },
        Self::AesGcm { bits: 192, icv: 16 },
        Self::AesGcm { bits: 256, icv: 16 },
        Self::AesGcm { bits: 128, icv: 12 },
        Self::AesGcm { bits: 192, icv: 12 },
        Self::AesGcm { bits: 256, icv: 12 },
        Self::AesGcm { bits: 128, icv: 8 },
        Self::AesGcm { bits: 192, icv: 8 },
        Self::AesGcm { bits: 256, icv: 8 },
        Self::AesGmac { bits: 128 },
        Self::AesGmac { bits: 256 },
        Self::ChaCha20Poly1305,
        Self::AesCbc { bits: 128 },
        Self::AesCbc { bits: 192 },
        Self::AesCbc { bits: 256 },
        Self::AesCtr { bits: 128 },
        Self::AesCtr { bits: 192 },
        Self::AesCtr { bits: 256 },
        Self::TripleDes,
    ];

    /// The name in configuration and tables; `unknown` for a variant that is none of [`Self::ALL`].
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::AesGcm { bits: 128, icv: 16 } => "aes128gcm16",
            Self::AesGcm { bits: 192, icv: 16 } => "aes192gcm16",
            Self::AesGcm { bits: 256, icv: 16 } => "aes256gcm16",
            Self::AesGcm { bits: 128, icv: 12 } => "aes128gcm12",
            Self::AesGcm { bits: 192, icv: 12 } => "aes192gcm12",
            Self::AesGcm { bits: 256, icv: 12 } => "aes256gcm12",
            Self::AesGcm { bits: 128, icv: 8 } => "aes128gcm8",
            Self::AesGcm { bits: 192, icv: 8 } => "aes192gcm8",
            Self::AesGcm { bits: 256, icv: 8 } => "aes256gcm8",
            Self::AesGmac { bits: 128 } => "aes128gmac",
            Self::AesGmac { bits: 256 } => "aes256gmac",
            Self::ChaCha20Poly1305 => "chacha20poly1305",
            Self::AesCbc { bits: 128 } => "aes128",
            Self::AesCbc { bits: 192 } => "aes192",
            Self::AesCbc { bits: 256 } => "aes256",
            Self::AesCtr { bits: 128 } => "aes128ctr",
            Self::AesCtr { bits: 192 } => "aes192ctr",
            Self::AesCtr { bits: 256 } => "aes256ctr",
            Self::TripleDes => "3des",
            Self::AesGcm { .. }
            | Self::AesGmac { .. }
            | Self::AesCbc { .. }
            | Self::AesCtr { .. } => "unknown",
        }
    }

    /// The algorithm of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name() == name)
    }

    /// The RFC that defines its use in ESP.
    #[must_use]
    pub const fn rfc(self) -> u16 {
        match self {
            Self::Null => 2410,
            Self::AesGcm { .. } => 4106,
            Self::AesGmac { .. } => 4543,
            Self::ChaCha20Poly1305 => 7634,
            Self::AesCbc { .. } => 3602,
            Self::AesCtr { .. } => 3686,
            Self::TripleDes => 2451,
        }
    }

    /// Length of the key as configured, bytes: for counter modes with the salt or nonce at the end.
    #[must_use]
    pub const fn key_length(self) -> usize {
        self.cipher_key_length() + self.salt_length()
    }

    /// Length of the cipher's own key, bytes.
    #[must_use]
    pub const fn cipher_key_length(self) -> usize {
        match self {
            Self::Null => 0,
            Self::AesGcm { bits, .. }
            | Self::AesGmac { bits }
            | Self::AesCbc { bits }
            | Self::AesCtr { bits } => bits as usize / 8,
            Self::ChaCha20Poly1305 => 32,
            Self::TripleDes => 24,
        }
    }

    /// Length of the salt (GCM, GMAC, ChaCha20) or nonce (CTR) at the key's end, bytes.
    #[must_use]
    pub const fn salt_length(self) -> usize {
        if self.is_counter_mode() {
            SALT_LENGTH
        } else {
            0
        }
    }

    /// Length of the IV in each packet, bytes.
    //= T16 (RFC 4106 section 3.1)
    //= T72 (RFC 4303 section 2.3)
    #[must_use]
    pub const fn iv_length(self) -> usize {
        match self {
            Self::Null => 0,
            Self::AesCbc { .. } => 16,
            Self::AesGcm { .. }
            | Self::AesGmac { .. }
            | Self::ChaCha20Poly1305
            | Self::AesCtr { .. }
            | Self::TripleDes => 8,
        }
    }

    /// The multiple to which payload, padding, pad length and next header together are brought,
    /// bytes: the cipher's block, and 4 at least.
    //= T06 T07 (RFC 4303 section 2.4)
    #[must_use]
    pub const fn alignment(self) -> usize {
        match self {
            Self::AesCbc { .. } => 16,
            Self::TripleDes => 8,
            Self::Null
            | Self::AesGcm { .. }
            | Self::AesGmac { .. }
            | Self::ChaCha20Poly1305
            | Self::AesCtr { .. } => 4,
        }
    }

    /// Length of the ICV that an AEAD brings, bytes; 0 for the others.
    #[must_use]
    pub const fn icv_length(self) -> usize {
        match self {
            Self::AesGcm { icv, .. } => icv as usize,
            Self::AesGmac { .. } | Self::ChaCha20Poly1305 => 16,
            Self::Null | Self::AesCbc { .. } | Self::AesCtr { .. } | Self::TripleDes => 0,
        }
    }

    /// Brings its own integrity (GMAC counts: a combined mode without confidentiality).
    #[must_use]
    pub const fn is_aead(self) -> bool {
        self.icv_length() > 0
    }

    /// Loses its security when an IV repeats under a key: needs sequence numbers that outlive a
    /// restart.
    //= T149 (RFC 8221 section 3)
    #[must_use]
    pub const fn is_counter_mode(self) -> bool {
        match self {
            Self::AesGcm { .. }
            | Self::AesGmac { .. }
            | Self::ChaCha20Poly1305
            | Self::AesCtr { .. } => true,
            Self::Null | Self::AesCbc { .. } | Self::TripleDes => false,
        }
    }

    /// RFC 8221 says SHOULD NOT: wants `allow_legacy`.
    //= T145 (RFC 8221 section 5)
    #[must_use]
    pub const fn is_legacy(self) -> bool {
        matches!(self, Self::TripleDes)
    }
}

//= T146 (RFC 8221 section 6)
impl Integrity {
    /// Every algorithm, in the order of the interface document.
    pub const ALL: [Self; 9] = [
        Self::Md5_96,
        Self::Sha1_96,
        Self::Sha256_128,
        Self::Sha384_192,
        Self::Sha512_256,
        Self::Aes128Xcbc96,
        Self::Aes128Cmac96,
        Self::AesGmac { bits: 128 },
        Self::AesGmac { bits: 256 },
    ];

    /// The name in configuration and tables; `unknown` for a variant that is none of [`Self::ALL`].
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Md5_96 => "md5_96",
            Self::Sha1_96 => "sha1_96",
            Self::Sha256_128 => "sha256_128",
            Self::Sha384_192 => "sha384_192",
            Self::Sha512_256 => "sha512_256",
            Self::Aes128Xcbc96 => "aes128_xcbc_96",
            Self::Aes128Cmac96 => "aes128_cmac_96",
            Self::AesGmac { bits: 128 } => "aes128gmac",
            Self::AesGmac { bits: 256 } => "aes256gmac",
            Self::AesGmac { .. } => "unknown",
        }
    }

    /// The algorithm of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name() == name)
    }

    /// The RFC that defines its use in ESP or AH.
    #[must_use]
    pub const fn rfc(self) -> u16 {
        match self {
            Self::Md5_96 => 2403,
            Self::Sha1_96 => 2404,
            Self::Sha256_128 | Self::Sha384_192 | Self::Sha512_256 => 4868,
            Self::Aes128Xcbc96 => 3566,
            Self::Aes128Cmac96 => 4494,
            Self::AesGmac { .. } => 4543,
        }
    }

    /// Length of the key as configured, bytes; of GMAC with the salt.
    //= T19 (RFC 2403 section 3, RFC 2404 section 3)
    //= T20 (RFC 4868 section 2.1.1)
    //= T154 (RFC 3566 section 4.1)
    #[must_use]
    pub const fn key_length(self) -> usize {
        match self {
            Self::Md5_96 | Self::Aes128Xcbc96 | Self::Aes128Cmac96 => 16,
            Self::Sha1_96 => 20,
            Self::Sha256_128 => 32,
            Self::Sha384_192 => 48,
            Self::Sha512_256 => 64,
            Self::AesGmac { bits } => bits as usize / 8 + SALT_LENGTH,
        }
    }

    /// Length of the ICV field, bytes. GMAC's field in AH is its 8-byte IV and the tag (T151).
    #[must_use]
    pub const fn icv_length(self) -> usize {
        match self {
            Self::Md5_96 | Self::Sha1_96 | Self::Aes128Xcbc96 | Self::Aes128Cmac96 => 12,
            Self::Sha256_128 => 16,
            Self::Sha384_192 | Self::AesGmac { .. } => 24,
            Self::Sha512_256 => 32,
        }
    }

    /// Loses its security when an IV repeats under a key.
    //= T149 (RFC 8221 section 3)
    #[must_use]
    pub const fn is_counter_mode(self) -> bool {
        matches!(self, Self::AesGmac { .. })
    }

    /// RFC 8221 says MUST NOT: wants `allow_legacy`.
    //= T147 (RFC 8221 section 6)
    #[must_use]
    pub const fn is_legacy(self) -> bool {
        matches!(self, Self::Md5_96)
    }
}

impl Suite {
    /// Whether the algorithms can serve together in `protocol`.
    ///
    /// # Errors
    /// The first rule that they break.
    //= T11 T71 T148 T150 (RFC 4303 section 3.2, RFC 8221 section 4, RFC 4543 section 5.3)
    pub fn check(self, protocol: Protocol) -> Result<(), SuiteError> {
        let known = Encryption::ALL.contains(&self.encryption)
            && self.integrity.is_none_or(|it| Integrity::ALL.contains(&it));
        match (protocol, self.encryption.is_aead(), self.integrity) {
            _ if !known => Err(SuiteError::Unknown),
            (Protocol::Ah, _, _) if self.encryption != Encryption::Null => {
                Err(SuiteError::EncryptionInAh)
            }
            (Protocol::Ah, _, Some(_)) | (Protocol::Esp, true, None) => Ok(()),
            (_, false, None) | (Protocol::Ah, _, None) => Err(SuiteError::IntegrityMissing),
            (Protocol::Esp, true, Some(_)) => Err(SuiteError::IntegrityWithAead),
            (Protocol::Esp, false, Some(Integrity::AesGmac { .. })) => {
                Err(SuiteError::GmacIsEncryption)
            }
            (Protocol::Esp, false, Some(_)) => Ok(()),
        }
    }

    /// Length of the IV in each ESP packet, bytes.
    #[must_use]
    pub const fn iv_length(self) -> usize {
        self.encryption.iv_length()
    }

    /// Multiple that payload and trailer of ESP reach together, bytes.
    #[must_use]
    pub const fn alignment(self) -> usize {
        self.encryption.alignment()
    }

    /// Length of the ICV (in AH: of the ICV field without padding), bytes.
    #[must_use]
    pub const fn icv_length(self) -> usize {
        match self.integrity {
            Some(integrity) => integrity.icv_length(),
            None => self.encryption.icv_length(),
        }
    }

    /// No IV may repeat under the key, over restarts too.
    //= T149 (RFC 8221 section 3)
    #[must_use]
    pub const fn is_counter_mode(self) -> bool {
        self.encryption.is_counter_mode()
            || matches!(self.integrity, Some(integrity) if integrity.is_counter_mode())
    }

    /// One of the algorithms wants `allow_legacy`.
    #[must_use]
    pub const fn is_legacy(self) -> bool {
        self.encryption.is_legacy()
            || matches!(self.integrity, Some(integrity) if integrity.is_legacy())
    }
}

/// Bytes of salt or nonce behind the key of a counter mode (RFC 4106 §8.1, RFC 3686 §5.1).
pub const SALT_LENGTH: usize = 4;
