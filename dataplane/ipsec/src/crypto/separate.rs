//! A cipher and a MAC, one after the other (RFC 4303 §3.3.2.1, §3.4.4.1).

use arrayvec::ArrayVec;

use super::cipher::Cipher;
use super::mac::{self, Mac, Signed};
#[cfg(target_arch = "x86_64")]
use super::multibuffer::{self, CbcKey, Chain, Counted, CtrKey};
use super::parts::{HEADER_LENGTH, high_half, open_parts, same, seal_parts};
use super::suite::Suite;
use super::{Backend, KeyError, Keys, OpenJob, SealJob, Transform};
use crate::limits::BATCH;
use crate::secret::Secret;

/// One SA's two keys.
pub(super) struct Separate {
    cipher: Cipher,
    mac: Mac,
}

impl Separate {
    pub(super) fn new(
        backend: Backend,
        suite: Suite,
        encryption_key: &Secret,
        integrity_key: &Secret,
    ) -> Result<Option<Self>, KeyError> {
        let Some(integrity) = suite.integrity else {
            return Ok(None);
        };
        Ok(Some(Self {
            cipher: Cipher::new(backend, suite.encryption, encryption_key.expose())?,
            mac: Mac::new(backend, integrity, integrity_key.expose())?,
        }))
    }

    /// The MAC alone, as AH uses it.
    pub(super) const fn mac(&self) -> &Mac {
        &self.mac
    }

    fn of(transform: &Transform) -> Option<&Self> {
        match &transform.keys {
            Keys::Separate(keys) => Some(keys),
            _ => None,
        }
    }
}

/// Seals those of the jobs that carry [`Keys::Separate`]: first encrypts, then authenticates what
/// was encrypted. Jobs of one algorithm go through its kernel together, wherever they stand.
//= T10 (RFC 4303 section 3.3.2.1)
pub(super) fn seal(jobs: &mut [SealJob<'_>]) {
    for jobs in jobs.chunks_mut(BATCH) {
        encrypt(jobs);
        sign(jobs);
    }
}

/// Opens those of the jobs that carry [`Keys::Separate`]: nothing is decrypted before its ICV was
/// right.
//= T31 T83 (RFC 4303 section 3.4.4.1)
pub(super) fn open(jobs: &mut [OpenJob<'_>]) {
    for jobs in jobs.chunks_mut(BATCH) {
        verify(jobs);
        decrypt(jobs);
    }
}

/// Zeroes the destination of a job whose lengths do not fit.
fn encrypt(jobs: &mut [SealJob<'_>]) {
    // Which of our own kernels has something to do.
    #[cfg(target_arch = "x86_64")]
    let mut own = [false; 4];
    for job in &mut *jobs {
        let Some(keys) = Separate::of(job.transform) else {
            continue;
        };
        match &keys.cipher {
            #[cfg(target_arch = "x86_64")]
            Cipher::Own128(_) => own[0] = true,
            #[cfg(target_arch = "x86_64")]
            Cipher::Own192(_) => own[1] = true,
            #[cfg(target_arch = "x86_64")]
            Cipher::Own256(_) => own[2] = true,
            #[cfg(target_arch = "x86_64")]
            Cipher::OwnCtr(_) => own[3] = true,
            cipher => {
                let sealed = seal_parts(job.destination, job.source, job.transform.layout)
                    .and_then(|parts| cipher.encrypt(parts.iv, parts.text));
                if sealed.is_none() {
                    job.destination.fill(0);
                }
            }
        }
    }
    #[cfg(target_arch = "x86_64")]
    macro_rules! run {
        ($index:literal, $variant:ident) => {
            if own[$index] {
                chained(jobs, |cipher| match cipher {
                    Cipher::$variant(key) => Some(key),
                    _ => None,
                });
            }
        };
    }
    #[cfg(target_arch = "x86_64")]
    {
        run!(0, Own128);
        run!(1, Own192);
        run!(2, Own256);
        if own[3] {
            count(jobs);
        }
    }
}

/// The key of a job for our own AES-CTR.
#[cfg(target_arch = "x86_64")]
fn counting(transform: &Transform) -> Option<&CtrKey> {
    match &Separate::of(transform)?.cipher {
        Cipher::OwnCtr(key) => Some(key),
        _ => None,
    }
}

/// Encrypts the jobs of AES-CTR together.
#[cfg(target_arch = "x86_64")]
fn count(jobs: &mut [SealJob<'_>]) {
    let mut texts: ArrayVec<Counted<'_>, BATCH> = ArrayVec::new();
    for job in jobs {
        let Some(key) = counting(job.transform) else {
            continue;
        };
        let layout = job.transform.layout;
        match layout.covered_with(job.destination.len(), job.source.len()) {
            Some(covered) => {
                let length = covered - HEADER_LENGTH - layout.iv;
                let packet = &mut job.destination[HEADER_LENGTH..];
                texts.extend(key.sealing(job.source, packet, length));
            }
            None => job.destination.fill(0),
        }
    }
    multibuffer::encrypt_counted(&mut texts);
}

/// Encrypts the jobs for which there is a `key`, together.
#[cfg(target_arch = "x86_64")]
fn chained<const KEYS: usize>(
    jobs: &mut [SealJob<'_>],
    key: impl Fn(&Cipher) -> Option<&CbcKey<KEYS>>,
) {
    let mut chains: ArrayVec<Chain<'_, KEYS>, BATCH> = ArrayVec::new();
    for job in jobs {
        let Some(key) = Separate::of(job.transform).and_then(|keys| key(&keys.cipher)) else {
            continue;
        };
        let layout = job.transform.layout;
        match layout.covered_with(job.destination.len(), job.source.len()) {
            Some(covered) => {
                let packet = &mut job.destination[HEADER_LENGTH..covered];
                chains.extend(key.chain(job.source, packet));
            }
            None => job.destination.fill(0),
        }
    }
    multibuffer::encrypt(&mut chains);
}

/// Passes over what [`encrypt`] zeroed, by the same lengths.
fn sign(jobs: &mut [SealJob<'_>]) {
    fn covered<'j>(job: &SealJob<'j>) -> Option<(&'j Separate, usize)> {
        let keys = Separate::of(job.transform)?;
        let layout = job.transform.layout;
        let covered = layout.covered_with(job.destination.len(), job.source.len())?;
        Some((keys, covered))
    }
    let signed = jobs.iter().filter_map(|job| {
        let (keys, covered) = covered(job)?;
        Some(Signed {
            mac: &keys.mac,
            packet: &job.destination[..covered],
            high: high(job.sequence, job.esn),
        })
    });
    let tags = mac::tags(&signed.collect());
    let mut tags = tags.iter();
    for job in jobs {
        if let Some((_, covered)) = covered(job)
            && let Some(tag) = tags.next()
        {
            let icv = &mut job.destination[covered..];
            icv.copy_from_slice(&tag[..icv.len()]);
        }
    }
}

//= T31 (RFC 4303 section 3.4.4.1)
fn verify(jobs: &mut [OpenJob<'_>]) {
    /// The packet without its ICV, and the ICV.
    fn covered<'j>(job: &OpenJob<'j>) -> Option<(&'j Separate, &'j [u8], &'j [u8])> {
        let keys = Separate::of(job.transform)?;
        let covered = job.transform.layout.covered(job.source.len())?;
        let (packet, icv) = job.source.split_at(covered);
        Some((keys, packet, icv))
    }
    let signed = jobs.iter().filter_map(|job| {
        let (keys, packet, _) = covered(job)?;
        Some(Signed {
            mac: &keys.mac,
            packet,
            high: high(job.sequence, job.esn),
        })
    });
    let tags = mac::tags(&signed.collect());
    let mut tags = tags.iter();
    for job in jobs {
        if let Some((_, _, icv)) = covered(job)
            && let Some(tag) = tags.next()
        {
            job.authentic = same(&tag[..icv.len()], icv);
        } else if Separate::of(job.transform).is_some() {
            job.authentic = false;
        }
    }
}

fn decrypt(jobs: &mut [OpenJob<'_>]) {
    #[cfg(target_arch = "x86_64")]
    let mut counted = false;
    for job in jobs.iter_mut().filter(|job| job.authentic) {
        let Some(keys) = Separate::of(job.transform) else {
            continue;
        };
        #[cfg(target_arch = "x86_64")]
        if matches!(keys.cipher, Cipher::OwnCtr(_)) {
            counted = true;
            continue;
        }
        let layout = job.transform.layout;
        let opened = open_parts(job.source, layout).and_then(|parts| {
            let text = job.destination.get_mut(..parts.text.len())?;
            let ciphertext = &job.source[HEADER_LENGTH..job.source.len() - layout.icv];
            keys.cipher.decrypt(ciphertext, layout.iv, text)
        });
        job.authentic = opened.is_some();
    }
    #[cfg(target_arch = "x86_64")]
    if counted {
        count_back(jobs);
    }
}

/// Decrypts the authentic jobs of AES-CTR together.
#[cfg(target_arch = "x86_64")]
fn count_back(jobs: &mut [OpenJob<'_>]) {
    let mut texts: ArrayVec<Counted<'_>, BATCH> = ArrayVec::new();
    for job in jobs.iter_mut().filter(|job| job.authentic) {
        let Some(key) = counting(job.transform) else {
            continue;
        };
        let layout = job.transform.layout;
        let text = layout.covered(job.source.len()).and_then(|covered| {
            let room = job.destination.len().min(job.source.len());
            let room = &mut job.destination[..room];
            let length = covered - HEADER_LENGTH - layout.iv;
            key.opening(&job.source[HEADER_LENGTH..], room, length)
        });
        job.authentic = text.is_some();
        texts.extend(text);
    }
    multibuffer::decrypt_counted(&mut texts);
}

/// The high half of a 64-bit sequence number stands behind all else that the MAC covers; it does
/// not travel.
//= T05 (RFC 4303 section 2.2.1)
fn high(sequence: u64, esn: bool) -> Option<[u8; 4]> {
    esn.then(|| high_half(sequence))
}
