//! AES-GCM with 128 and 256 bits (RFC 4106) and ChaCha20-Poly1305 (RFC 7634), by ring.

use ring::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, Tag, UnboundKey,
};

use super::parts::{AssociatedData, nonce, open_parts, seal_parts};
use super::suite::{Encryption, SALT_LENGTH, SuiteError};
use super::{KeyError, Keys, OpenJob, SealJob};
use crate::secret::Sealed;

/// One SA's key and salt.
pub(super) struct RingAead {
    /// ring holds the raw key and never wipes it.
    key: Sealed<LessSafeKey>,
    salt: Sealed<[u8; SALT_LENGTH]>,
}

impl RingAead {
    /// `key` ends with the salt.
    pub(super) fn new(encryption: Encryption, key: &[u8]) -> Result<Self, KeyError> {
        let algorithm = match encryption {
            Encryption::AesGcm { bits: 128, icv: 16 } => &AES_128_GCM,
            Encryption::AesGcm { bits: 256, icv: 16 } => &AES_256_GCM,
            Encryption::ChaCha20Poly1305 => &CHACHA20_POLY1305,
            _ => return Err(SuiteError::Unknown.into()),
        };
        let wrong = KeyError::EncryptionLength {
            given: key.len(),
            wanted: encryption.key_length(),
        };
        let (key, salt) = key.split_last_chunk().ok_or(wrong)?;
        let key = UnboundKey::new(algorithm, key).map_err(|_| wrong)?;
        Ok(Self {
            key: Sealed::new(LessSafeKey::new(key)),
            salt: Sealed::new(*salt),
        })
    }

    fn of(keys: &Keys) -> Option<&Self> {
        match keys {
            Keys::Ring(aead) => Some(aead),
            _ => None,
        }
    }

    //= T16 T21 (RFC 4106 section 6, RFC 7634 section 2)
    fn seal(&self, job: &mut SealJob<'_>) -> Option<()> {
        let parts = seal_parts(job.destination, job.source, job.transform.layout)?;
        let nonce = Nonce::assume_unique_for_key(nonce(*self.salt, parts.iv)?);
        let data = Aad::from(AssociatedData::new(parts.header, job.sequence, job.esn));
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce, data, parts.text)
            .ok()?;
        parts.icv.copy_from_slice(tag.as_ref());
        Some(())
    }

    //= T31 T82 T83 (RFC 4303 section 3.4.4.2)
    fn open(&self, job: &mut OpenJob<'_>) -> Option<()> {
        let parts = open_parts(job.source, job.transform.layout)?;
        let nonce = Nonce::assume_unique_for_key(nonce(*self.salt, parts.iv)?);
        let data = Aad::from(AssociatedData::new(parts.header, job.sequence, job.esn));
        let tag = Tag::try_from(parts.icv).ok()?;
        let text = job.destination.get_mut(..parts.text.len())?;
        text.copy_from_slice(parts.text);
        // On a wrong tag ring zeroes what it decrypted.
        self.key
            .open_in_place_separate_tag(nonce, data, tag, text, 0..)
            .ok()?;
        Some(())
    }
}

/// Seals jobs that all carry [`Keys::Ring`].
pub(super) fn seal(jobs: &mut [SealJob<'_>]) {
    for job in jobs {
        let aead = RingAead::of(&job.transform.keys);
        if aead.and_then(|aead| aead.seal(job)).is_none() {
            job.destination.fill(0);
        }
    }
}

/// Opens jobs that all carry [`Keys::Ring`].
pub(super) fn open(jobs: &mut [OpenJob<'_>]) {
    for job in jobs {
        let aead = RingAead::of(&job.transform.keys);
        job.authentic = aead.and_then(|aead| aead.open(job)).is_some();
    }
}
