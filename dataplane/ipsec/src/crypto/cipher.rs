//! Ciphers that want a MAC beside them: NULL (RFC 2410), AES-CBC (RFC 3602), AES-CTR (RFC 3686),
//! 3DES-CBC (RFC 2451).

use aes::{Aes128, Aes192, Aes256};
use cbc::cipher::{
    BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, BlockSizeUser,
    InnerIvInit, KeyInit, StreamCipher,
};
use cbc::cipher::{array::Array, consts::U16};
use des::TdesEde3;

#[cfg(target_arch = "x86_64")]
use super::multibuffer::{CbcKey, CtrKey};
use super::parts::nonce;
use super::suite::{Encryption, SALT_LENGTH, SuiteError};
use super::{Backend, KeyError};
use crate::secret::Sealed;

/// One SA's expanded key.
pub(super) enum Cipher {
    Null(Sealed<Null>),
    Cbc128(Sealed<Cbc<Aes128>>),
    Cbc192(Sealed<Cbc<Aes192>>),
    Cbc256(Sealed<Cbc<Aes256>>),
    Ctr128(Sealed<Ctr<Aes128>>),
    Ctr192(Sealed<Ctr<Aes192>>),
    Ctr256(Sealed<Ctr<Aes256>>),
    TripleDes(Sealed<Cbc<TdesEde3>>),
    /// AES-CBC where the CPU has what our own kernels take.
    #[cfg(target_arch = "x86_64")]
    Own128(Box<CbcKey<11>>),
    #[cfg(target_arch = "x86_64")]
    Own192(Box<CbcKey<13>>),
    #[cfg(target_arch = "x86_64")]
    Own256(Box<CbcKey<15>>),
    /// AES-CTR there.
    #[cfg(target_arch = "x86_64")]
    OwnCtr(Box<CtrKey>),
}

impl Cipher {
    /// `key` ends with the nonce where the algorithm has one.
    pub(super) fn new(
        backend: Backend,
        encryption: Encryption,
        key: &[u8],
    ) -> Result<Self, KeyError> {
        let wrong = KeyError::EncryptionLength {
            given: key.len(),
            wanted: encryption.key_length(),
        };
        #[cfg(target_arch = "x86_64")]
        if let (Some(form), Encryption::AesCbc { bits }) = (backend.0, encryption) {
            let cipher = match bits {
                128 => CbcKey::new(form, key).map(Self::Own128),
                192 => CbcKey::new(form, key).map(Self::Own192),
                _ => CbcKey::new(form, key).map(Self::Own256),
            };
            return cipher.ok_or(wrong);
        }
        #[cfg(target_arch = "x86_64")]
        if let (Some(form), Encryption::AesCtr { .. }) = (backend.0, encryption) {
            return CtrKey::new(form, key).map(Self::OwnCtr).ok_or(wrong);
        }
        let cipher = match encryption {
            Encryption::Null => Some(Self::Null(Sealed::new(Null))),
            Encryption::AesCbc { bits: 128 } => cbc(key).map(Self::Cbc128),
            Encryption::AesCbc { bits: 192 } => cbc(key).map(Self::Cbc192),
            Encryption::AesCbc { bits: 256 } => cbc(key).map(Self::Cbc256),
            Encryption::AesCtr { bits: 128 } => ctr(key).map(Self::Ctr128),
            Encryption::AesCtr { bits: 192 } => ctr(key).map(Self::Ctr192),
            Encryption::AesCtr { bits: 256 } => ctr(key).map(Self::Ctr256),
            Encryption::TripleDes if has_equal_parts(key) => return Err(KeyError::WeakKey),
            Encryption::TripleDes => cbc(key).map(Self::TripleDes),
            _ => return Err(SuiteError::Unknown.into()),
        };
        cipher.ok_or(wrong)
    }

    /// Encrypts `text` in place by a library. `None` when a length is wrong, or where a kernel of
    /// our own takes many packets at once; `text` then means nothing.
    pub(super) fn encrypt(&self, iv: &[u8], text: &mut [u8]) -> Option<()> {
        match self {
            Self::Null(cipher) => cipher.encrypt(iv, text),
            Self::Cbc128(cipher) => cipher.encrypt(iv, text),
            Self::Cbc192(cipher) => cipher.encrypt(iv, text),
            Self::Cbc256(cipher) => cipher.encrypt(iv, text),
            Self::Ctr128(cipher) => cipher.encrypt(iv, text),
            Self::Ctr192(cipher) => cipher.encrypt(iv, text),
            Self::Ctr256(cipher) => cipher.encrypt(iv, text),
            Self::TripleDes(cipher) => cipher.encrypt(iv, text),
            #[cfg(target_arch = "x86_64")]
            Self::Own128(_) | Self::Own192(_) | Self::Own256(_) | Self::OwnCtr(_) => None,
        }
    }

    /// Decrypts what stands behind the IV in `source` to `text`, which is as long. `None` when a
    /// length is wrong, or where a kernel of our own takes many packets at once.
    pub(super) fn decrypt(&self, source: &[u8], iv: usize, text: &mut [u8]) -> Option<()> {
        let (iv, cipher) = source.split_at_checked(iv)?;
        match self {
            Self::Null(key) => key.decrypt(iv, cipher, text),
            Self::Cbc128(key) => key.decrypt(iv, cipher, text),
            Self::Cbc192(key) => key.decrypt(iv, cipher, text),
            Self::Cbc256(key) => key.decrypt(iv, cipher, text),
            Self::Ctr128(key) => key.decrypt(iv, cipher, text),
            Self::Ctr192(key) => key.decrypt(iv, cipher, text),
            Self::Ctr256(key) => key.decrypt(iv, cipher, text),
            Self::TripleDes(key) => key.decrypt(iv, cipher, text),
            #[cfg(target_arch = "x86_64")]
            Self::Own128(key) => key.decrypt(source, text),
            #[cfg(target_arch = "x86_64")]
            Self::Own192(key) => key.decrypt(source, text),
            #[cfg(target_arch = "x86_64")]
            Self::Own256(key) => key.decrypt(source, text),
            #[cfg(target_arch = "x86_64")]
            Self::OwnCtr(_) => None,
        }
    }
}

fn cbc<C: KeyInit>(key: &[u8]) -> Option<Sealed<Cbc<C>>> {
    Some(Sealed::new(Cbc(C::new_from_slice(key).ok()?)))
}

fn ctr<C: KeyInit>(key: &[u8]) -> Option<Sealed<Ctr<C>>> {
    let (key, nonce) = key.split_last_chunk()?;
    Some(Sealed::new(Ctr {
        cipher: C::new_from_slice(key).ok()?,
        nonce: *nonce,
    }))
}

/// The lowest bit of each byte is parity and does not count.
//= T152 (RFC 2451 section 2.3)
fn has_equal_parts(key: &[u8]) -> bool {
    let (parts, _) = key.as_chunks::<8>();
    let bare = |part: &[u8; 8]| u64::from_be_bytes(*part) & 0xfefe_fefe_fefe_fefe;
    parts
        .windows(2)
        .any(|pair| bare(&pair[0]) == bare(&pair[1]))
}

/// A keyed cipher.
pub(super) trait Encipher {
    /// Encrypts `text` in place. `None` when a length is wrong; `text` then means nothing.
    fn encrypt(&self, iv: &[u8], text: &mut [u8]) -> Option<()>;

    /// Decrypts `source` to `destination`, which is as long. `None` when a length is wrong.
    fn decrypt(&self, iv: &[u8], source: &[u8], destination: &mut [u8]) -> Option<()>;
}

/// No confidentiality.
//= T11 (RFC 2410 section 3)
pub(super) struct Null;

impl Encipher for Null {
    fn encrypt(&self, _iv: &[u8], _text: &mut [u8]) -> Option<()> {
        Some(())
    }

    fn decrypt(&self, _iv: &[u8], source: &[u8], destination: &mut [u8]) -> Option<()> {
        (source.len() == destination.len()).then(|| destination.copy_from_slice(source))
    }
}

/// A block cipher chained.
pub(super) struct Cbc<C>(C);

impl<C: BlockCipherEncrypt + BlockCipherDecrypt> Encipher for Cbc<C> {
    fn encrypt(&self, iv: &[u8], text: &mut [u8]) -> Option<()> {
        let iv = Array::try_from(iv).ok()?;
        let (blocks, rest) = Array::slice_as_chunks_mut(text);
        cbc::Encryptor::inner_iv_init(&self.0, &iv).encrypt_blocks(blocks);
        rest.is_empty().then_some(())
    }

    fn decrypt(&self, iv: &[u8], source: &[u8], destination: &mut [u8]) -> Option<()> {
        let iv = Array::try_from(iv).ok()?;
        let (source, rest) = Array::slice_as_chunks(source);
        let (destination, behind) = Array::slice_as_chunks_mut(destination);
        if !rest.is_empty() || !behind.is_empty() {
            return None;
        }
        cbc::Decryptor::inner_iv_init(&self.0, &iv)
            .decrypt_blocks_b2b(source, destination)
            .ok()
    }
}

/// AES in counter mode.
pub(super) struct Ctr<C> {
    cipher: C,
    nonce: [u8; SALT_LENGTH],
}

impl<C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>> Ctr<C> {
    /// The key stream of one packet; its block counter starts at 1.
    //= T18 (RFC 3686 section 4)
    fn stream(&self, iv: &[u8]) -> Option<ctr::Ctr32BE<&C>> {
        Some(key_stream(&self.cipher, nonce(self.nonce, iv)?, 1))
    }
}

/// Blocks of `cipher` over `nonce` and a counter of 32 bits that starts at `first`.
pub(super) fn key_stream<C>(cipher: &C, nonce: [u8; 12], first: u32) -> ctr::Ctr32BE<&C>
where
    C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>,
{
    let mut block = Array::default();
    let (head, counter) = block.split_at_mut(nonce.len());
    head.copy_from_slice(&nonce);
    counter.copy_from_slice(&first.to_be_bytes());
    let core = ctr::CtrCore::inner_iv_init(cipher, &block);
    ctr::Ctr32BE::from_core(core)
}

impl<C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>> Encipher for Ctr<C> {
    fn encrypt(&self, iv: &[u8], text: &mut [u8]) -> Option<()> {
        self.stream(iv)?.try_apply_keystream(text).ok()
    }

    fn decrypt(&self, iv: &[u8], source: &[u8], destination: &mut [u8]) -> Option<()> {
        self.stream(iv)?
            .try_apply_keystream_b2b(source, destination)
            .ok()
    }
}
