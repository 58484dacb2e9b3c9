//! Integrity algorithms beside a cipher: HMACs (RFC 2403, 2404, 4868) and MACs over AES in CBC
//! mode (RFC 3566, 4494). All are cut to their leftmost bytes.

use aes::Aes128;
use aes::cipher::{BlockCipherEncrypt, consts::U16};
use arrayvec::ArrayVec;
use hmac::{Hmac, KeyInit};
use md5::Md5;
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};

use super::cbc_mac::CbcMac;
#[cfg(target_arch = "x86_64")]
use super::multibuffer::{self, Hash, HmacKey, Message, Sha};
use super::suite::{Integrity, SuiteError};
use super::{Backend, KeyError};
use crate::ip::mutable::Feed;
use crate::limits::{BATCH, ICV_LENGTH};
use crate::secret::Sealed;

/// One SA's key, absorbed into the algorithm's state: a packet does not touch the key again.
pub(super) enum Mac {
    Md5(Sealed<Hmac<Md5>>),
    Sha1(Sealed<Hmac<Sha1>>),
    Sha256(Sealed<Hmac<Sha256>>),
    Sha384(Sealed<Hmac<Sha384>>),
    Sha512(Sealed<Hmac<Sha512>>),
    Aes(Sealed<CbcMac<Aes128>>),
    /// HMACs where the CPU has instructions for the hash.
    #[cfg(target_arch = "x86_64")]
    OwnSha1(Box<HmacKey<multibuffer::Sha1>>),
    #[cfg(target_arch = "x86_64")]
    OwnSha256(Box<HmacKey<multibuffer::Sha256>>),
}

impl Mac {
    //= T19 T20 T154 (RFC 2403 section 2, RFC 2404 section 2, RFC 4868 section 2.3, RFC 3566)
    pub(super) fn new(
        backend: Backend,
        integrity: Integrity,
        key: &[u8],
    ) -> Result<Self, KeyError> {
        let wrong = KeyError::IntegrityLength {
            given: key.len(),
            wanted: integrity.key_length(),
        };
        if key.len() != integrity.key_length() {
            return Err(wrong);
        }
        #[cfg(target_arch = "x86_64")]
        if let (Some(_), Some(sha)) = (backend.0, Sha::found()) {
            match integrity {
                Integrity::Sha1_96 => return Ok(Self::OwnSha1(HmacKey::new(sha, key))),
                Integrity::Sha256_128 => return Ok(Self::OwnSha256(HmacKey::new(sha, key))),
                _ => {}
            }
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
//= exception T78: each algorithm of the table fills its last block by a rule of its own: HMAC's
//= hash with a one bit and the length, XCBC and CMAC with a one bit, GMAC with zeroes inside
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
            #[cfg(target_arch = "x86_64")]
            Self::OwnSha1(key) => key.over(pieces),
            #[cfg(target_arch = "x86_64")]
            Self::OwnSha256(key) => key.over(pieces),
        }
    }

    /// [`Authenticate::tag`] by a library. `None` where a kernel of our own takes many packets at
    /// once.
    fn tag(&self, packet: &[u8], high: &[u8]) -> Option<[u8; ICV_LENGTH]> {
        Some(match self {
            Self::Md5(mac) => mac.tag(packet, high),
            Self::Sha1(mac) => mac.tag(packet, high),
            Self::Sha256(mac) => mac.tag(packet, high),
            Self::Sha384(mac) => mac.tag(packet, high),
            Self::Sha512(mac) => mac.tag(packet, high),
            Self::Aes(mac) => mac.tag(packet, high),
            #[cfg(target_arch = "x86_64")]
            Self::OwnSha1(_) | Self::OwnSha256(_) => return None,
        })
    }
}

/// What is to be authenticated: `packet`, and behind it `high`.
pub(super) struct Signed<'a> {
    pub mac: &'a Mac,
    pub packet: &'a [u8],
    pub high: Option<[u8; 4]>,
}

/// A MAC's first bytes, as many as any ICV takes.
type Tag = [u8; ICV_LENGTH];

/// The MACs, in the order of `signed`.
pub(super) fn tags(signed: &ArrayVec<Signed<'_>, BATCH>) -> ArrayVec<Tag, BATCH> {
    let mut tags = ArrayVec::new();
    // Which of our own kernels has something to do.
    #[cfg(target_arch = "x86_64")]
    let (mut sha1, mut sha256) = (false, false);
    for Signed { mac, packet, high } in signed {
        let high = high.as_ref().map_or(&[][..], <[u8; 4]>::as_slice);
        tags.push(mac.tag(packet, high).unwrap_or_default());
        #[cfg(target_arch = "x86_64")]
        {
            sha1 |= matches!(mac, Mac::OwnSha1(_));
            sha256 |= matches!(mac, Mac::OwnSha256(_));
        }
    }
    #[cfg(target_arch = "x86_64")]
    {
        if sha1 {
            together(signed, &mut tags, |mac| match mac {
                Mac::OwnSha1(key) => Some(key),
                _ => None,
            });
        }
        if sha256 {
            together(signed, &mut tags, |mac| match mac {
                Mac::OwnSha256(key) => Some(key),
                _ => None,
            });
        }
    }
    tags
}

/// Takes those for which there is a `key` through one kernel.
#[cfg(target_arch = "x86_64")]
fn together<H: Hash>(
    signed: &[Signed<'_>],
    tags: &mut [Tag],
    key: impl Fn(&Mac) -> Option<&HmacKey<H>>,
) {
    let messages = signed.iter().enumerate().filter_map(|(index, signed)| {
        Some(Message {
            index,
            key: key(signed.mac)?,
            data: signed.packet,
            high: signed.high,
        })
    });
    multibuffer::tags(&messages.collect(), tags);
}
