//! A cipher and a MAC, one after the other (RFC 4303 §3.3.2.1, §3.4.4.1).

use subtle::ConstantTimeEq;

use super::cipher::{Cipher, Encipher};
use super::mac::{Authenticate, Mac};
use super::parts::{high_half, open_parts, seal_parts};
use super::suite::Suite;
use super::{KeyError, Keys, OpenJob, SealJob};
use crate::secret::Secret;

/// One SA's two keys.
pub(super) struct Separate {
    cipher: Cipher,
    mac: Mac,
}

impl Separate {
    pub(super) fn new(
        suite: Suite,
        encryption_key: &Secret,
        integrity_key: &Secret,
    ) -> Result<Option<Self>, KeyError> {
        let Some(integrity) = suite.integrity else {
            return Ok(None);
        };
        Ok(Some(Self {
            cipher: Cipher::new(suite.encryption, encryption_key.expose())?,
            mac: Mac::new(integrity, integrity_key.expose())?,
        }))
    }

    /// The MAC alone, as AH uses it.
    pub(super) const fn mac(&self) -> &Mac {
        &self.mac
    }

    fn of(keys: &Keys) -> Option<&Self> {
        match keys {
            Keys::Separate(keys) => Some(keys),
            _ => None,
        }
    }
}

/// Calls `$run` for the group with the algorithm that all its jobs share: the choice is made here,
/// once, and what `$run` asks of each job is a comparison that always comes out the same.
macro_rules! dispatch {
    ($run:ident, $jobs:ident, $shared:expr, $algorithms:ident: $($variant:ident)+) => {
        match $shared {
            $($algorithms::$variant(_) => $run($jobs, |it| match it {
                $algorithms::$variant(key) => Some(&**key),
                _ => None,
            }),)+
        }
    };
}

/// Seals jobs of one suite that all carry [`Keys::Separate`]: first encrypts, then authenticates
/// what was encrypted.
//= T10 (RFC 4303 section 3.3.2.1)
pub(super) fn seal(jobs: &mut [SealJob<'_>]) {
    let Some(keys) = jobs
        .first()
        .and_then(|job| Separate::of(&job.transform.keys))
    else {
        return;
    };
    dispatch!(encrypt, jobs, &keys.cipher, Cipher:
        Null Cbc128 Cbc192 Cbc256 Ctr128 Ctr192 Ctr256 TripleDes);
    dispatch!(sign, jobs, &keys.mac, Mac: Md5 Sha1 Sha256 Sha384 Sha512 Aes);
}

/// Opens jobs of one suite that all carry [`Keys::Separate`]: nothing is decrypted before its ICV
/// was right.
//= T31 T83 (RFC 4303 section 3.4.4.1)
pub(super) fn open(jobs: &mut [OpenJob<'_>]) {
    let Some(keys) = jobs
        .first()
        .and_then(|job| Separate::of(&job.transform.keys))
    else {
        return;
    };
    dispatch!(verify, jobs, &keys.mac, Mac: Md5 Sha1 Sha256 Sha384 Sha512 Aes);
    dispatch!(decrypt, jobs, &keys.cipher, Cipher:
        Null Cbc128 Cbc192 Cbc256 Ctr128 Ctr192 Ctr256 TripleDes);
}

fn encrypt<C: Encipher>(jobs: &mut [SealJob<'_>], key: impl Fn(&Cipher) -> Option<&C>) {
    for job in jobs {
        let cipher = Separate::of(&job.transform.keys).and_then(|keys| key(&keys.cipher));
        let layout = job.transform.layout;
        let sealed = cipher.and_then(|cipher| {
            let parts = seal_parts(job.destination, job.source, layout)?;
            cipher.encrypt(parts.iv, parts.text)
        });
        if sealed.is_none() {
            job.destination.fill(0);
        }
    }
}

/// Passes over what [`encrypt`] zeroed, by the same lengths.
fn sign<M: Authenticate>(jobs: &mut [SealJob<'_>], key: impl Fn(&Mac) -> Option<&M>) {
    for job in jobs {
        let mac = Separate::of(&job.transform.keys).and_then(|keys| key(&keys.mac));
        let layout = job.transform.layout;
        let covered = layout.covered_with(job.destination.len(), job.source.len());
        if let (Some(mac), Some(covered)) = (mac, covered) {
            let (packet, icv) = job.destination.split_at_mut(covered);
            let tag = mac.tag(packet, high(&high_half(job.sequence), job.esn));
            icv.copy_from_slice(&tag[..icv.len()]);
        }
    }
}

//= T31 (RFC 4303 section 3.4.4.1)
fn verify<M: Authenticate>(jobs: &mut [OpenJob<'_>], key: impl Fn(&Mac) -> Option<&M>) {
    for job in jobs {
        job.authentic = false;
        let mac = Separate::of(&job.transform.keys).and_then(|keys| key(&keys.mac));
        let (Some(mac), Some(length)) = (mac, job.transform.layout.covered(job.source.len()))
        else {
            continue;
        };
        let (packet, icv) = job.source.split_at(length);
        let tag = mac.tag(packet, high(&high_half(job.sequence), job.esn));
        job.authentic = tag[..icv.len()].ct_eq(icv).into();
    }
}

fn decrypt<C: Encipher>(jobs: &mut [OpenJob<'_>], key: impl Fn(&Cipher) -> Option<&C>) {
    for job in jobs.iter_mut().filter(|job| job.authentic) {
        let cipher = Separate::of(&job.transform.keys).and_then(|keys| key(&keys.cipher));
        let opened = cipher.and_then(|cipher| {
            let parts = open_parts(job.source, job.transform.layout)?;
            let text = job.destination.get_mut(..parts.text.len())?;
            cipher.decrypt(parts.iv, parts.text, text)
        });
        job.authentic = opened.is_some();
    }
}

/// The high half of a 64-bit sequence number stands behind all else that the MAC covers; it does
/// not travel.
//= T05 (RFC 4303 section 2.2.1)
const fn high(half: &[u8; 4], esn: bool) -> &[u8] {
    if esn { half } else { &[] }
}
