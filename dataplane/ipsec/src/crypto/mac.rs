//! Integrity algorithms beside a cipher: HMACs (RFC 2403, 2404, 4868) and MACs over AES in CBC
//! mode (RFC 3566, 4494). All are cut to their leftmost bytes.

use aes::Aes128;
use aes::cipher::{BlockCipherEncrypt, consts::U16};
use hmac::{Hmac, KeyInit};
use md5::Md5;
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};

use super::KeyError;
use super::cbc_mac::CbcMac;
use super::suite::{Integrity, SuiteError};
use crate::ip::mutable::Feed;
use crate::limits::ICV_LENGTH;
use crate::secret::Sealed;

/// One SA's key, absorbed into the algorithm's state: a packet does not touch the key again.
pub(super) enum Mac {
    Md5(Sealed<Hmac<Md5>>),
    Sha1(Sealed<Hmac<Sha1>>),
    Sha256(Sealed<Hmac<Sha256>>),
    Sha384(Sealed<Hmac<Sha384>>),
    Sha512(Sealed<Hmac<Sha512>>),
    Aes(Sealed<CbcMac<Aes128>>),
}

impl Mac {
    //= T19 T20 T154 (RFC 2403 section 2, RFC 2404 section 2, RFC 4868 section 2.3, RFC 3566)
    pub(super) fn new(integrity: Integrity, key: &[u8]) -> Result<Self, KeyError> {
        let wrong = KeyError::IntegrityLength {
            given: key.len(),
            wanted: integrity.key_length(),
        };
        if key.len() != integrity.key_length() {
            return Err(wrong);
        }
        Ok(match integrity {
            Integrity::Md5_96 => Self::Md5(sealed(key).ok_or(wrong)?),
            Integrity::Sha1_96 => Self::Sha1(sealed(key).ok_or(wrong)?),
            Integrity::Sha256_128 => Self::Sha256(sealed(key).ok_or(wrong)?),
            Integrity::Sha384_192 => Self::Sha384(sealed(key).ok_or(wrong)?),
            Integrity::Sha512_256 => Self::Sha512(sealed(key).ok_or(wrong)?),
            Integrity::Aes128Xcbc96 => {
                let key = key.try_into().map_err(|_| wrong)?;
                Self::Aes(Sealed::new(CbcMac::xcbc(key)))
            }
            Integrity::Aes128Cmac96 => {
                let key = key.try_into().map_err(|_| wrong)?;
                Self::Aes(Sealed::new(CbcMac::cmac(key)))
            }
            Integrity::AesGmac { .. } => return Err(SuiteError::GmacIsEncryption.into()),
        })
    }
}

fn sealed<M: KeyInit>(key: &[u8]) -> Option<Sealed<M>> {
    M::new_from_slice(key).ok().map(Sealed::new)
}

/// A keyed MAC.
//= exception T78: no algorithm of the table wants its input brought to whole blocks
pub(super) trait Authenticate {
    /// The MAC's first bytes over `packet` and behind it `high`, as many as any ICV takes.
    fn tag(&self, packet: &[u8], high: &[u8]) -> [u8; ICV_LENGTH];

    /// The same over the pieces that `pieces` gives.
    fn over(&self, pieces: &mut Pieces<'_>) -> [u8; ICV_LENGTH];
}

/// Gives the bytes to authenticate, piece by piece, to what it is called with.
pub(super) type Pieces<'p> = dyn FnMut(&mut Feed<'_>) + 'p;

impl<M: hmac::Mac + Clone> Authenticate for M {
    fn tag(&self, packet: &[u8], high: &[u8]) -> [u8; ICV_LENGTH] {
        let mut state = self.clone();
        state.update(packet);
        state.update(high);
        first_bytes(&state.finalize().into_bytes())
    }

    fn over(&self, pieces: &mut Pieces<'_>) -> [u8; ICV_LENGTH] {
        let mut state = self.clone();
        pieces(&mut |piece| state.update(piece));
        first_bytes(&state.finalize().into_bytes())
    }
}

impl<C: BlockCipherEncrypt<BlockSize = U16>> Authenticate for CbcMac<C> {
    fn tag(&self, packet: &[u8], high: &[u8]) -> [u8; ICV_LENGTH] {
        first_bytes(&self.mac(packet, high))
    }

    fn over(&self, pieces: &mut Pieces<'_>) -> [u8; ICV_LENGTH] {
        first_bytes(&self.over(pieces))
    }
}

fn first_bytes(full: &[u8]) -> [u8; ICV_LENGTH] {
    let mut tag = [0; ICV_LENGTH];
    for (byte, full) in tag.iter_mut().zip(full) {
        *byte = *full;
    }
    tag
}

impl Mac {
    /// The MAC's first bytes over the pieces that `pieces` gives.
    pub(super) fn over(&self, pieces: &mut Pieces<'_>) -> [u8; ICV_LENGTH] {
        match self {
            Self::Md5(mac) => Authenticate::over(&**mac, pieces),
            Self::Sha1(mac) => Authenticate::over(&**mac, pieces),
            Self::Sha256(mac) => Authenticate::over(&**mac, pieces),
            Self::Sha384(mac) => Authenticate::over(&**mac, pieces),
            Self::Sha512(mac) => Authenticate::over(&**mac, pieces),
            Self::Aes(mac) => Authenticate::over(&**mac, pieces),
        }
    }
}
