//! The members of the GCM family that ring lacks: 192-bit keys and ICVs of 8 and 12 bytes
//! (RFC 4106), and AES-GMAC as ESP without confidentiality (RFC 4543).

use aes::cipher::{BlockCipherEncrypt, BlockSizeUser, KeyInit, StreamCipher, consts::U16};
use aes::{Aes128, Aes192, Aes256};
use ghash::GHash;
use ghash::universal_hash::UniversalHash;
use subtle::ConstantTimeEq;

use super::cipher::key_stream;
use super::mac::Pieces;
use super::parts::{AssociatedData, Layout, nonce, open_parts, seal_parts};
use super::suite::{Encryption, SALT_LENGTH, SuiteError};
use super::{KeyError, Keys, OpenJob, SealJob};
use crate::secret::Sealed;

/// One SA's expanded key.
pub(super) enum Gcm {
    Aes128(Sealed<Key<Aes128>>),
    Aes192(Sealed<Key<Aes192>>),
    Aes256(Sealed<Key<Aes256>>),
}

impl Gcm {
    /// `key` ends with the salt.
    pub(super) fn new(encryption: Encryption, key: &[u8]) -> Result<Self, KeyError> {
        let wrong = KeyError::EncryptionLength {
            given: key.len(),
            wanted: encryption.key_length(),
        };
        let (bits, encrypts) = match encryption {
            Encryption::AesGcm { bits, .. } => (bits, true),
            Encryption::AesGmac { bits } => (bits, false),
            _ => return Err(SuiteError::Unknown.into()),
        };
        match bits {
            128 => Key::new(key, encrypts).map(Self::Aes128),
            192 => Key::new(key, encrypts).map(Self::Aes192),
            _ => Key::new(key, encrypts).map(Self::Aes256),
        }
        .ok_or(wrong)
    }

    fn of(keys: &Keys) -> Option<&Self> {
        match keys {
            Keys::Gcm(gcm) => Some(gcm),
            _ => None,
        }
    }
}

/// A cipher with the hash key made from it.
pub(super) struct Key<C> {
    cipher: C,
    hash: GHash,
    salt: [u8; SALT_LENGTH],
    /// GCM; else GMAC, which hashes the text as it stands.
    encrypts: bool,
}

impl<C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16> + KeyInit> Key<C> {
    fn new(key: &[u8], encrypts: bool) -> Option<Sealed<Self>> {
        let (key, salt) = key.split_last_chunk()?;
        let cipher = C::new_from_slice(key).ok()?;
        let mut hash_key = Default::default();
        cipher.encrypt_block(&mut hash_key);
        Some(Sealed::new(Self {
            hash: GHash::new(&hash_key),
            cipher,
            salt: *salt,
            encrypts,
        }))
    }

    //= T16 (RFC 4106 section 6)
    fn seal(&self, job: &mut SealJob<'_>) -> Option<()> {
        let layout = job.transform.layout;
        let parts = seal_parts(job.destination, job.source, layout)?;
        let nonce = nonce(self.salt, parts.iv)?;
        let data = AssociatedData::new(parts.header, job.sequence, job.esn);
        if self.encrypts {
            let mut stream = key_stream(&self.cipher, nonce, 2);
            stream.try_apply_keystream(parts.text).ok()?;
        }
        let tag = self.tag(nonce, data.as_ref(), parts.iv, parts.text)?;
        parts.icv.copy_from_slice(tag.get(..layout.icv)?);
        Some(())
    }

    //= T31 T82 T83 (RFC 4303 section 3.4.4.2)
    fn open(&self, job: &mut OpenJob<'_>) -> Option<()> {
        let layout: Layout = job.transform.layout;
        let parts = open_parts(job.source, layout)?;
        let nonce = nonce(self.salt, parts.iv)?;
        let data = AssociatedData::new(parts.header, job.sequence, job.esn);
        let tag = self.tag(nonce, data.as_ref(), parts.iv, parts.text)?;
        if !bool::from(tag.get(..layout.icv)?.ct_eq(parts.icv)) {
            return None;
        }
        let text = job.destination.get_mut(..parts.text.len())?;
        if !self.encrypts {
            text.copy_from_slice(parts.text);
            return Some(());
        }
        let mut stream = key_stream(&self.cipher, nonce, 2);
        stream.try_apply_keystream_b2b(parts.text, text).ok()
    }

    /// The whole tag. `text` is the ciphertext, of GMAC the clear text.
    fn tag(&self, nonce: [u8; 12], data: &[u8], iv: &[u8], text: &[u8]) -> Option<[u8; 16]> {
        let mut hash = self.hash.clone();
        let (data_length, text_length) = if self.encrypts {
            hash.update_padded(data);
            hash.update_padded(text);
            (data.len(), text.len())
        } else {
            hash_gmac(&mut hash, data, iv, text)?;
            (data.len() + iv.len() + text.len(), 0)
        };
        self.finish(hash, nonce, (data_length, text_length))
    }
}

impl Gcm {
    /// The GMAC over the pieces that `pieces` gives, under the IV of AH. `None` for an IV of
    /// another length than 8 bytes.
    //= T151 (RFC 4543 section 4)
    pub(super) fn over(&self, iv: &[u8], pieces: &mut Pieces<'_>) -> Option<[u8; 16]> {
        match self {
            Self::Aes128(key) => key.over(iv, pieces),
            Self::Aes192(key) => key.over(iv, pieces),
            Self::Aes256(key) => key.over(iv, pieces),
        }
    }
}

impl<C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16> + KeyInit> Key<C> {
    fn over(&self, iv: &[u8], pieces: &mut Pieces<'_>) -> Option<[u8; 16]> {
        let nonce = nonce(self.salt, iv)?;
        let mut hash = self.hash.clone();
        // Bytes that wait for their block.
        let mut rest = [0; BLOCK];
        let mut waiting = 0;
        let mut length = 0;
        pieces(&mut |mut piece| {
            length += piece.len();
            if waiting > 0 {
                let (taken, behind) = piece.split_at(piece.len().min(BLOCK - waiting));
                rest[waiting..waiting + taken.len()].copy_from_slice(taken);
                waiting += taken.len();
                piece = behind;
                if waiting < BLOCK {
                    return;
                }
                hash.update_padded(&rest);
                waiting = 0;
            }
            let (blocks, behind) = piece.split_at(piece.len() - piece.len() % BLOCK);
            hash.update_padded(blocks);
            rest[..behind.len()].copy_from_slice(behind);
            waiting = behind.len();
        });
        hash.update_padded(&rest[..waiting]);
        self.finish(hash, nonce, (length, 0))
    }

    /// The tag, once all is hashed but the lengths, which are in bytes.
    fn finish(
        &self,
        mut hash: GHash,
        nonce: [u8; 12],
        (data, text): (usize, usize),
    ) -> Option<[u8; 16]> {
        let mut lengths = [0; BLOCK];
        lengths[..8].copy_from_slice(&(data as u64 * 8).to_be_bytes());
        lengths[8..].copy_from_slice(&(text as u64 * 8).to_be_bytes());
        hash.update(&[lengths.into()]);
        let mut tag: [u8; BLOCK] = hash.finalize().into();
        let mut stream = key_stream(&self.cipher, nonce, 1);
        stream.try_apply_keystream(&mut tag).ok()?;
        Some(tag)
    }
}

/// Bytes of a block, which is also the tag's length.
const BLOCK: usize = 16;

/// Hashes all of the ESP packet in front of the ICV as associated data, the IV with it: as Figure 4
/// of RFC 4543 draws it and as its peers compute it, although its section 7 says otherwise.
//= T150 (RFC 4543 section 3.3)
fn hash_gmac(hash: &mut GHash, data: &[u8], iv: &[u8], text: &[u8]) -> Option<()> {
    // What stands in front of the text is 16 bytes long, or 20 with ESN; then 4 of them share a
    // block with the text's first 12.
    let mut head = [0; 32];
    let (front, free) = head.split_at_mut_checked(data.len() + iv.len())?;
    let (front_data, front_iv) = front.split_at_mut_checked(data.len())?;
    front_data.copy_from_slice(data);
    front_iv.copy_from_slice(iv);
    let shared = if front.len() > 16 {
        free.len().min(text.len())
    } else {
        0
    };
    let (beside, behind) = text.split_at_checked(shared)?;
    free.get_mut(..shared)?.copy_from_slice(beside);
    let length = data.len() + iv.len() + shared;
    hash.update_padded(head.get(..length)?);
    hash.update_padded(behind);
    Some(())
}

/// Calls `$run` for a group of one suite with the key type that its jobs share.
macro_rules! dispatch {
    ($run:ident, $jobs:ident) => {
        match $jobs.first().and_then(|job| Gcm::of(&job.transform.keys)) {
            Some(Gcm::Aes128(_)) => $run($jobs, |it| match it {
                Gcm::Aes128(key) => Some(&**key),
                _ => None,
            }),
            Some(Gcm::Aes192(_)) => $run($jobs, |it| match it {
                Gcm::Aes192(key) => Some(&**key),
                _ => None,
            }),
            Some(Gcm::Aes256(_)) => $run($jobs, |it| match it {
                Gcm::Aes256(key) => Some(&**key),
                _ => None,
            }),
            None => {}
        }
    };
}

/// Seals jobs of one suite that all carry [`Keys::Gcm`].
pub(super) fn seal(jobs: &mut [SealJob<'_>]) {
    dispatch!(seal_group, jobs);
}

/// Opens jobs of one suite that all carry [`Keys::Gcm`].
pub(super) fn open(jobs: &mut [OpenJob<'_>]) {
    dispatch!(open_group, jobs);
}

fn seal_group<C>(jobs: &mut [SealJob<'_>], key: impl Fn(&Gcm) -> Option<&Key<C>>)
where
    C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16> + KeyInit,
{
    for job in jobs {
        let key = Gcm::of(&job.transform.keys).and_then(&key);
        if key.and_then(|key| key.seal(job)).is_none() {
            job.destination.fill(0);
        }
    }
}

fn open_group<C>(jobs: &mut [OpenJob<'_>], key: impl Fn(&Gcm) -> Option<&Key<C>>)
where
    C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16> + KeyInit,
{
    for job in jobs {
        let key = Gcm::of(&job.transform.keys).and_then(&key);
        job.authentic = key.and_then(|key| key.open(job)).is_some();
    }
}
