//! Ciphers and MACs over batches of independent packets.
//!
//! A job reads one buffer and writes another (`source → destination`), so that a kernel of our own
//! can fuse copy and cipher, and a library's in-place call costs one copy.
//!
//! Of ESP the module knows the layout from the first byte of the ESP header to the last of the ICV
//! and nothing of what stands in front of it; [`ah`] covers whole packets. Lengths that do not fit
//! are refused, never trusted: no content of a job can make it panic.

pub mod suite;

pub mod iv;

mod parts;

mod aead;

mod cbc_mac;

mod mac;

mod cipher;

mod separate;

mod gcm;

#[cfg(target_arch = "x86_64")]
mod multibuffer;

pub mod ah;

use crate::secret::Secret;
use aead::RingAead;
use gcm::Gcm;
use parts::Layout;
use separate::Separate;
use suite::{Encryption, Integrity, Protocol, Suite, SuiteError};

/// Expanded keys of one SA, ready for [`seal`] and [`open`]. Wiped on drop.
pub struct Transform {
    suite: Suite,
    layout: Layout,
    keys: Keys,
}

/// Whose code does AES-GCM, AES-GMAC, AES-CBC, AES-CTR, HMAC-SHA1 and HMAC-SHA256: kernels of our
/// own, or the libraries. (The HMACs want SHA-NI besides; without, they are the libraries'
/// everywhere.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend(#[cfg(target_arch = "x86_64")] Option<multibuffer::Form>);

impl Backend {
    /// What this machine can run, the best first; the libraries run everywhere.
    pub fn all() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        return multibuffer::Form::all().map(Some).chain([None]).map(Self);
        #[cfg(not(target_arch = "x86_64"))]
        return [Self()].into_iter();
    }

    /// The one that keys are expanded for.
    #[must_use]
    pub fn chosen() -> Self {
        #[cfg(target_arch = "x86_64")]
        return Self(multibuffer::Form::chosen());
        #[cfg(not(target_arch = "x86_64"))]
        return Self();
    }

    /// The CPU features that it builds on, or `library`.
    #[must_use]
    pub fn name(self) -> &'static str {
        #[cfg(target_arch = "x86_64")]
        if let Some(form) = self.0 {
            return form.name();
        }
        "library"
    }

    /// Whose code does each family of algorithms: what [`Self::name`] says, `sha-ni`, `ring`, or
    /// `library`.
    #[must_use]
    pub fn by_family(self) -> [(&'static str, &'static str); 7] {
        let own = self.name();
        #[cfg(target_arch = "x86_64")]
        let sha = self.0.is_some() && multibuffer::Sha::found().is_some();
        #[cfg(not(target_arch = "x86_64"))]
        let sha = false;
        [
            ("aes-gcm", own),
            ("aes-gmac", own),
            ("aes-cbc", own),
            ("aes-ctr", own),
            (
                "hmac-sha1 hmac-sha256",
                if sha { "sha-ni" } else { "library" },
            ),
            ("chacha20-poly1305", "ring"),
            ("others", "library"),
        ]
    }
}

/// The expanded keys, by the code that uses them.
enum Keys {
    Ring(RingAead),
    Separate(Separate),
    Gcm(Gcm),
    /// AES-GCM where the CPU has what our own kernels take.
    #[cfg(target_arch = "x86_64")]
    Own(multibuffer::AesGcm),
    /// AES-GMAC in ESP there.
    #[cfg(target_arch = "x86_64")]
    EspGmac(multibuffer::AesGcm),
    /// AES-GMAC in AH: [`ah`] alone takes it, [`seal`] and [`open`] refuse.
    Gmac(Gcm),
    #[cfg(target_arch = "x86_64")]
    AhGmac(multibuffer::AesGcm),
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
    /// Algorithms that serve together neither in ESP nor in AH.
    #[error(transparent)]
    Suite(#[from] SuiteError),
}

impl Transform {
    /// Expands the keys of a suite.
    ///
    /// # Errors
    /// [`KeyError`] when a key does not fit the suite, or the suite is legal in no protocol.
    pub fn new(
        suite: Suite,
        encryption_key: &Secret,
        integrity_key: &Secret,
    ) -> Result<Self, KeyError> {
        Self::with(Backend::chosen(), suite, encryption_key, integrity_key)
    }

    /// [`Self::new`], for one of the backends that this machine has. Jobs of one combined mode in
    /// one burst must have one backend: [`seal`] zeroes, and [`open`] refuses, what differs from
    /// its neighbour.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with(
        backend: Backend,
        suite: Suite,
        encryption_key: &Secret,
        integrity_key: &Secret,
    ) -> Result<Self, KeyError> {
        let esp = suite.check(Protocol::Esp);
        if suite.check(Protocol::Ah).is_err() {
            esp?;
        }
        check_lengths(suite, encryption_key, integrity_key)?;
        let keys = match suite.encryption {
            _ if esp.is_err() => gmac(backend, suite, integrity_key)?,
            #[cfg(target_arch = "x86_64")]
            Encryption::AesGcm { .. } if backend.0.is_some() => {
                let (form, key) = (backend.0, encryption_key.expose());
                Keys::Own(multibuffer::AesGcm::new(form, suite.encryption, key)?)
            }
            #[cfg(target_arch = "x86_64")]
            Encryption::AesGmac { .. } if backend.0.is_some() => {
                let (form, key) = (backend.0, encryption_key.expose());
                Keys::EspGmac(multibuffer::AesGcm::new(form, suite.encryption, key)?)
            }
            Encryption::AesGcm {
                icv: 16,
                bits: 128 | 256,
            }
            | Encryption::ChaCha20Poly1305 => {
                Keys::Ring(RingAead::new(suite.encryption, encryption_key.expose())?)
            }
            Encryption::AesGcm { .. } | Encryption::AesGmac { .. } => {
                Keys::Gcm(Gcm::new(suite.encryption, encryption_key.expose())?)
            }
            Encryption::Null
            | Encryption::AesCbc { .. }
            | Encryption::AesCtr { .. }
            | Encryption::TripleDes => {
                match Separate::new(backend, suite, encryption_key, integrity_key)? {
                    Some(keys) => Keys::Separate(keys),
                    None => return Err(SuiteError::IntegrityMissing.into()),
                }
            }
        };
        Ok(Self {
            suite,
            layout: Layout::of(suite),
            keys,
        })
    }

    /// Asks memory for the keys.
    #[inline]
    pub(crate) fn prefetch(&self) {
        match &self.keys {
            #[cfg(target_arch = "x86_64")]
            Keys::Own(own) | Keys::EspGmac(own) => own.prefetch(),
            // The library's keys lie beside what leads to them, or are too many kinds.
            _ => {}
        }
    }

    /// The algorithms that the keys are for.
    #[must_use]
    pub const fn suite(&self) -> Suite {
        self.suite
    }
}

/// The key of AES-GMAC in AH, the one suite of AH that ESP does not have.
//= T151 (RFC 4543 section 4)
fn gmac(backend: Backend, suite: Suite, key: &Secret) -> Result<Keys, KeyError> {
    let Some(Integrity::AesGmac { bits }) = suite.integrity else {
        return Err(SuiteError::IntegrityMissing.into());
    };
    let encryption = Encryption::AesGmac { bits };
    #[cfg(target_arch = "x86_64")]
    if backend.0.is_some() {
        let key = multibuffer::AesGcm::new(backend.0, encryption, key.expose())?;
        return Ok(Keys::AhGmac(key));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = backend;
    Gcm::new(encryption, key.expose()).map(Keys::Gmac)
}

//= T19 T20 T154 (RFC 2403 section 3, RFC 2404 section 3, RFC 4868 section 2.1.1, RFC 3566)
fn check_lengths(suite: Suite, encryption: &Secret, integrity: &Secret) -> Result<(), KeyError> {
    let wanted = suite.encryption.key_length();
    if encryption.len() != wanted {
        let given = encryption.len();
        return Err(KeyError::EncryptionLength { given, wanted });
    }
    let wanted = suite.integrity.map_or(0, Integrity::key_length);
    if integrity.len() != wanted {
        let given = integrity.len();
        return Err(KeyError::IntegrityLength { given, wanted });
    }
    Ok(())
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
///
/// A job whose lengths do not fit (a caller's mistake) has its whole destination zeroed: SPI 0, so
/// that what might leave by a further mistake holds no plaintext.
pub fn seal(jobs: &mut [SealJob<'_>]) {
    let mut separate = false;
    // Neighbours of one suite form a group, so that the choice of the code is made once for each.
    for group in jobs.chunk_by_mut(|a, b| a.transform.suite == b.transform.suite) {
        match group.first().map(|job| &job.transform.keys) {
            Some(Keys::Ring(_)) => aead::seal(group),
            Some(Keys::Separate(_)) => separate = true,
            Some(Keys::Gcm(_)) => gcm::seal(group),
            #[cfg(target_arch = "x86_64")]
            Some(Keys::Own(_)) => multibuffer::seal(group),
            #[cfg(target_arch = "x86_64")]
            Some(Keys::EspGmac(_)) => multibuffer::seal_gmac(group),
            Some(_) => group.iter_mut().for_each(|job| job.destination.fill(0)),
            None => {}
        }
    }
    if separate {
        separate::seal(jobs);
    }
}

/// Verifies and decrypts every job; the answer is in [`OpenJob::authentic`].
pub fn open(jobs: &mut [OpenJob<'_>]) {
    let mut separate = false;
    for group in jobs.chunk_by_mut(|a, b| a.transform.suite == b.transform.suite) {
        match group.first().map(|job| &job.transform.keys) {
            Some(Keys::Ring(_)) => aead::open(group),
            Some(Keys::Separate(_)) => separate = true,
            Some(Keys::Gcm(_)) => gcm::open(group),
            #[cfg(target_arch = "x86_64")]
            Some(Keys::Own(_)) => multibuffer::open(group),
            #[cfg(target_arch = "x86_64")]
            Some(Keys::EspGmac(_)) => multibuffer::open_gmac(group),
            Some(_) => group.iter_mut().for_each(|job| job.authentic = false),
            None => {}
        }
    }
    if separate {
        separate::open(jobs);
    }
}

#[cfg(test)]
mod tests;
