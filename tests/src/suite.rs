//! The algorithms as the tests need them: configuration names, key lengths, scapy's names.

/// A cipher with its integrity algorithm, as an SA names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suite {
    /// Value of `encryption`.
    pub encryption: &'static str,
    /// Value of `integrity`; empty with an AEAD.
    pub integrity: &'static str,
    /// Bytes of `encryption_key`, salt included.
    pub encryption_key_bytes: usize,
    /// Bytes of `integrity_key`.
    pub integrity_key_bytes: usize,
    /// Bytes of IV in each packet.
    pub iv_bytes: usize,
    /// Bytes of integrity check value in each packet.
    pub icv_bytes: usize,
    /// scapy's name of the cipher.
    pub scapy_cipher: &'static str,
    /// scapy's name of the integrity algorithm.
    pub scapy_integrity: &'static str,
}

/// AES-GCM with a 128-bit key: what tests use when the algorithm is not their subject.
pub const AES128GCM16: Suite = aead("aes128gcm16", 20, "AES-GCM");
/// AES-GCM with a 256-bit key.
pub const AES256GCM16: Suite = aead("aes256gcm16", 36, "AES-GCM");
/// ChaCha20-Poly1305.
pub const CHACHA20POLY1305: Suite = aead("chacha20poly1305", 36, "CHACHA20-POLY1305");
/// No encryption, HMAC-SHA1-96.
pub const NULL_SHA1: Suite = null("sha1_96", 20, 12, "HMAC-SHA1-96");
/// No encryption, HMAC-SHA256-128.
pub const NULL_SHA256: Suite = null("sha256_128", 32, 16, "SHA2-256-128");

/// Every suite that the gateway must offer.
pub const ALL: [Suite; 5] = [
    AES128GCM16,
    AES256GCM16,
    CHACHA20POLY1305,
    NULL_SHA1,
    NULL_SHA256,
];

const fn aead(encryption: &'static str, key_bytes: usize, scapy: &'static str) -> Suite {
    Suite {
        encryption,
        integrity: "",
        encryption_key_bytes: key_bytes,
        integrity_key_bytes: 0,
        iv_bytes: 8,
        icv_bytes: 16,
        scapy_cipher: scapy,
        scapy_integrity: "NULL",
    }
}

const fn null(
    integrity: &'static str,
    key_bytes: usize,
    icv_bytes: usize,
    scapy: &'static str,
) -> Suite {
    Suite {
        encryption: "null",
        integrity,
        encryption_key_bytes: 0,
        integrity_key_bytes: key_bytes,
        iv_bytes: 0,
        icv_bytes,
        scapy_cipher: "NULL",
        scapy_integrity: scapy,
    }
}

impl Suite {
    /// The integrity algorithm's name, or the cipher's where it brings its own.
    pub fn name(&self) -> String {
        match self.integrity {
            "" => self.encryption.to_owned(),
            integrity => format!("{}+{integrity}", self.encryption),
        }
    }

    /// Whether the IV must never repeat under the key.
    pub fn is_aead(&self) -> bool {
        self.integrity.is_empty()
    }

    /// Bytes of a tunnel-mode ESP packet, outer IP header included, around `inner` bytes.
    pub fn sealed_length(&self, outer_header: usize, inner: usize) -> usize {
        let padded = (inner + 2).next_multiple_of(4);
        outer_header + 8 + self.iv_bytes + padded + self.icv_bytes
    }
}
