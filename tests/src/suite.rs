//! The algorithms as the tests need them: configuration names, key lengths, scapy's names.

/// A cipher with its integrity algorithm, as an SA names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suite {
    /// Value of `encryption`; empty in AH.
    pub encryption: &'static str,
    /// Value of `integrity`; empty with an AEAD.
    pub integrity: &'static str,
    /// Bytes of `encryption_key`, salt included.
    pub encryption_key_bytes: usize,
    /// Bytes of `integrity_key`.
    pub integrity_key_bytes: usize,
    /// Bytes of IV in each packet.
    pub iv_bytes: usize,
    /// What the protected text of ESP is a multiple of, bytes.
    pub block_bytes: usize,
    /// Bytes of integrity check value in each packet.
    pub icv_bytes: usize,
    /// scapy's name of the cipher.
    pub scapy_cipher: &'static str,
}

/// AES-GCM with a 128-bit key: what tests use when the algorithm is not their subject.
pub const AES128GCM16: Suite = aead("aes128gcm16", 20, 16, "AES-GCM");
/// AES-GCM with a 256-bit key.
pub const AES256GCM16: Suite = aead("aes256gcm16", 36, 16, "AES-GCM");
/// ChaCha20-Poly1305.
pub const CHACHA20POLY1305: Suite = aead("chacha20poly1305", 36, 16, "CHACHA20-POLY1305");
/// No encryption, HMAC-SHA1-96.
pub const NULL_SHA1: Suite = NULL.with(MACS[1]);
/// No encryption, HMAC-SHA256-128.
pub const NULL_SHA256: Suite = NULL.with(MACS[2]);
/// AH with HMAC-SHA256-128.
pub const AH_SHA256: Suite = AH.with(MACS[2]);

/// The suites that live tests go through.
pub const ALL: [Suite; 5] = [
    AES128GCM16,
    AES256GCM16,
    CHACHA20POLY1305,
    NULL_SHA1,
    NULL_SHA256,
];

/// Every suite of ESP: each AEAD, and each other cipher with each MAC.
pub fn every_esp() -> Vec<Suite> {
    let separate = CIPHERS
        .into_iter()
        .flat_map(|cipher| MACS.map(|mac| cipher.with(mac)));
    AEADS.into_iter().chain(separate).collect()
}

/// Every suite of AH.
pub fn every_ah() -> Vec<Suite> {
    let macs = MACS.map(|mac| AH.with(mac));
    macs.into_iter().chain(AH_GMACS).collect()
}

const AEADS: [Suite; 12] = [
    AES128GCM16,
    aead("aes192gcm16", 28, 16, "AES-GCM"),
    AES256GCM16,
    aead("aes128gcm12", 20, 12, "AES-GCM"),
    aead("aes192gcm12", 28, 12, "AES-GCM"),
    aead("aes256gcm12", 36, 12, "AES-GCM"),
    aead("aes128gcm8", 20, 8, "AES-GCM"),
    aead("aes192gcm8", 28, 8, "AES-GCM"),
    aead("aes256gcm8", 36, 8, "AES-GCM"),
    aead("aes128gmac", 20, 16, "NULL"),
    aead("aes256gmac", 36, 16, "NULL"),
    CHACHA20POLY1305,
];

const NULL: Suite = cipher("null", 0, 0, 4, "NULL");

const AH: Suite = Suite {
    encryption: "",
    ..NULL
};

const CIPHERS: [Suite; 8] = [
    NULL,
    cipher("aes128", 16, 16, 16, "AES-CBC"),
    cipher("aes192", 24, 16, 16, "AES-CBC"),
    cipher("aes256", 32, 16, 16, "AES-CBC"),
    cipher("aes128ctr", 20, 8, 4, "AES-CTR"),
    cipher("aes192ctr", 28, 8, 4, "AES-CTR"),
    cipher("aes256ctr", 36, 8, 4, "AES-CTR"),
    cipher("3des", 24, 8, 8, "3DES"),
];

/// Name, key bytes, ICV bytes.
type Mac = (&'static str, usize, usize);

const MACS: [Mac; 7] = [
    ("md5_96", 16, 12),
    ("sha1_96", 20, 12),
    ("sha256_128", 32, 16),
    ("sha384_192", 48, 24),
    ("sha512_256", 64, 32),
    ("aes128_xcbc_96", 16, 12),
    ("aes128_cmac_96", 16, 12),
];

const AH_GMACS: [Suite; 2] = [
    Suite {
        iv_bytes: 8,
        ..AH.with(("aes128gmac", 20, 16))
    },
    Suite {
        iv_bytes: 8,
        ..AH.with(("aes256gmac", 36, 16))
    },
];

const fn aead(
    encryption: &'static str,
    key_bytes: usize,
    icv_bytes: usize,
    scapy: &'static str,
) -> Suite {
    Suite {
        icv_bytes,
        ..cipher(encryption, key_bytes, 8, 4, scapy)
    }
}

const fn cipher(
    encryption: &'static str,
    key_bytes: usize,
    iv_bytes: usize,
    block_bytes: usize,
    scapy: &'static str,
) -> Suite {
    Suite {
        encryption,
        integrity: "",
        encryption_key_bytes: key_bytes,
        integrity_key_bytes: 0,
        iv_bytes,
        block_bytes,
        icv_bytes: 0,
        scapy_cipher: scapy,
    }
}

impl Suite {
    const fn with(self, (integrity, key_bytes, icv_bytes): Mac) -> Self {
        Self {
            integrity,
            integrity_key_bytes: key_bytes,
            icv_bytes,
            ..self
        }
    }

    /// The integrity algorithm's name, or the cipher's where it brings its own.
    pub fn name(&self) -> String {
        match (self.encryption, self.integrity) {
            (encryption, "") => encryption.to_owned(),
            ("", integrity) => integrity.to_owned(),
            (encryption, integrity) => format!("{encryption}+{integrity}"),
        }
    }

    /// Whether the IV must never repeat under the key.
    pub fn is_aead(&self) -> bool {
        self.integrity.is_empty()
    }

    /// Bytes of a tunnel-mode ESP packet, outer IP header included, around `inner` bytes.
    pub fn sealed_length(&self, outer_header: usize, inner: usize) -> usize {
        let padded = (inner + 2).next_multiple_of(self.block_bytes);
        outer_header + 8 + self.iv_bytes + padded + self.icv_bytes
    }
}
