//! AES-GCM in ESP (RFC 4106): all key lengths, all ICV lengths.

use core::arch::x86_64::{
    __m128i, __m256i, __m512i, _mm_cvtsi128_si64, _mm_or_si128, _mm_set_epi64x, _mm_unpackhi_epi64,
    _mm_xor_si128,
};

use super::super::parts::{HEADER_LENGTH, Layout};
use super::super::suite::{Encryption, SALT_LENGTH, Suite, SuiteError};
use super::super::{KeyError, Keys, OpenJob, SealJob, Transform};
use super::block::{BLOCK, load, store};
use super::field::Sum;
use super::form::{Form, compiled};
use super::kernel::{Expanded, Head, crypt};
use super::material::{Material, rounds};
use super::mode::{GcmOpen, GcmSeal};
use super::registers::{Cpu, Lanes};
use super::text::Text;

/// What all packets have in common, for divisions and differences to be made at compile time.
const LAYOUT: Layout = Layout::of(Suite {
    encryption: Encryption::AesGcm { bits: 128, icv: 16 },
    integrity: None,
});

/// Bytes in front of the text.
const FRONT: usize = HEADER_LENGTH + LAYOUT.iv;

/// One SA's expanded key and salt, of AES-GCM or AES-GMAC.
pub(in super::super) struct AesGcm {
    form: Form,
    rounds: u8,
    salt: u32,
    material: Box<Material>,
}

impl AesGcm {
    /// `key` ends with the salt.
    pub(in super::super) fn new(
        form: Option<Form>,
        encryption: Encryption,
        key: &[u8],
    ) -> Result<Self, KeyError> {
        let Some(form) = form else {
            return Err(SuiteError::Unknown.into());
        };
        let wrong = KeyError::EncryptionLength {
            given: key.len(),
            wanted: encryption.key_length(),
        };
        let (key, salt) = key.split_last_chunk::<SALT_LENGTH>().ok_or(wrong)?;
        let rounds = rounds(key.len()).ok_or(wrong)?.try_into();
        let mut material = Box::new(Material::empty());
        let fill: unsafe fn(&mut Material, &[u8]) = match form.blocks() {
            4 => Material::fill::<__m512i>,
            2 => Material::fill::<__m256i>,
            _ => Material::fill::<__m128i>,
        };
        // SAFETY: every form runs only where AES and PCLMULQDQ are (`Form::all`).
        unsafe { fill(&mut material, key) };
        Ok(Self {
            form,
            rounds: rounds.map_err(|_| wrong)?,
            salt: u32::from_le_bytes(*salt),
            material,
        })
    }

    /// Asks memory for what a short packet takes of the keys: a long one has time to wait for more.
    #[inline]
    pub(in super::super) fn prefetch(&self) {
        let powers = match self.form.blocks() {
            4 => <__m512i as Lanes>::POWERS,
            2 => <__m256i as Lanes>::POWERS,
            _ => <__m128i as Lanes>::POWERS,
        };
        self.material.prefetch(self.rounds.into(), powers);
    }

    /// The keys, if they are for registers `V`.
    #[inline(always)]
    fn of<V: Lanes>(keys: &Keys) -> Option<&Self> {
        match keys {
            Keys::Own(own) if own.form.blocks() == V::COUNT => Some(own),
            _ => None,
        }
    }

    pub(super) const fn form(&self) -> Form {
        self.form
    }

    pub(super) const fn salt(&self) -> u32 {
        self.salt
    }

    /// A block times the hash key.
    #[inline(always)]
    pub(super) fn times_hash_key<V: Lanes>(&self, cpu: Cpu<V>, block: __m128i) -> __m128i {
        let power = load(&self.material.powers[V::POWERS - 1]);
        let folded = power.xor(power.swapped());
        Sum::of(block, (power, folded)).reduced(cpu.narrowest())
    }

    /// What hides the tag of a packet with that counter block, by code for any number of rounds.
    #[inline(always)]
    pub(super) fn hiding(&self, cpu: Cpu<__m128i>, nonce: __m128i) -> __m128i {
        let (keys, rounds) = (&self.material.round_keys, usize::from(self.rounds));
        let one = <__m128i as Lanes>::only(cpu, block(0, 1)).reversed(cpu);
        let mut state = nonce.xor(one).xor(load(&keys[0]));
        for key in &keys[1..rounds] {
            state = state.round(load(key));
        }
        state.last_round(load(&keys[rounds]))
    }

    #[inline(always)]
    pub(super) fn expanded(&self) -> Expanded<'_> {
        Expanded {
            round_keys: &self.material.round_keys,
            powers: &self.material.powers,
        }
    }

    /// What stands in front of the text.
    //= T16 (RFC 4106 sections 4, 5)
    #[inline(always)]
    fn head(&self, packet: &[u8], sequence: u64, esn: bool) -> Option<Head> {
        let (header, rest) = packet.split_first_chunk::<HEADER_LENGTH>()?;
        let iv = u64::from_le_bytes(*rest.first_chunk()?);
        let header = u64::from_be_bytes(*header);
        let (spi, low) = (header >> 32 << 32, header << 32);
        let (data, data_length) = if esn {
            ((spi | sequence >> 32, low), 12)
        } else {
            ((header, 0), HEADER_LENGTH)
        };
        Some(Head {
            nonce: nonce(self.salt, iv),
            data: block(data.0, data.1),
            data_length,
        })
    }

    #[inline(always)]
    fn seal<V: Lanes, const ROUNDS: usize, const GROUP: usize>(
        &self,
        cpu: Cpu<V>,
        job: &mut SealJob<'_>,
    ) -> Option<()> {
        let layout = Layout {
            icv: job.transform.layout.icv,
            ..LAYOUT
        };
        let covered = layout.covered_with(job.destination.len(), job.source.len())?;
        let head = self.head(job.destination, job.sequence, job.esn)?;
        let (_, room) = job.destination.split_at_mut_checked(FRONT)?;
        let length = covered - FRONT;
        let text = Text {
            source: job.source.as_ptr(),
            destination: room.as_mut_ptr(),
            payload: job.source.len(),
            length,
            narrow: length.next_multiple_of(BLOCK) > room.len(),
        };
        // SAFETY: source and destination are borrowed for as long as this takes; the payload fits
        // in (`covered_with`), and so does the last block unless it is narrow.
        let tag = unsafe { crypt::<V, GcmSeal, ROUNDS, GROUP>(cpu, self.expanded(), &head, text) };
        let icv = room.get_mut(length..)?;
        if let Some(icv) = icv.first_chunk_mut() {
            store(icv, tag);
        } else {
            let mut bytes = [0; BLOCK];
            store(&mut bytes, tag);
            icv.copy_from_slice(bytes.get(..icv.len())?);
        }
        Some(())
    }

    //= T31 T82 T83 (RFC 4303 section 3.4.4.2)
    #[inline(always)]
    fn open<V: Lanes, const ROUNDS: usize, const GROUP: usize>(
        &self,
        cpu: Cpu<V>,
        job: &mut OpenJob<'_>,
    ) -> Option<()> {
        let layout = Layout {
            icv: job.transform.layout.icv,
            ..LAYOUT
        };
        let covered = layout.covered(job.source.len())?;
        let head = self.head(job.source, job.sequence, job.esn)?;
        let source = job.source.get(FRONT..)?;
        let length = covered - FRONT;
        let room = job.destination.len().min(job.source.len());
        let room = job.destination.get_mut(..room)?;
        if room.len() < length {
            return None;
        }
        let text = Text {
            source: source.as_ptr(),
            destination: room.as_mut_ptr(),
            payload: length,
            length,
            narrow: length.next_multiple_of(BLOCK) > source.len().min(room.len()),
        };
        // SAFETY: source and destination are borrowed for as long as this takes; both are as long
        // as the text, and have its last block unless it is narrow.
        let tag = unsafe { crypt::<V, GcmOpen, ROUNDS, GROUP>(cpu, self.expanded(), &head, text) };
        let icv = source.get(length..)?;
        if !agrees(tag, icv)? {
            room.fill(0);
            return None;
        }
        Some(())
    }
}

/// Whether a tag begins with the bytes of `icv`, in a time that does not tell where they differ.
/// `None` for more bytes than a tag has.
#[inline(always)]
pub(super) fn agrees(tag: __m128i, icv: &[u8]) -> Option<bool> {
    let difference = if let Ok(icv) = icv.try_into() {
        // SAFETY: SSE2 is x86-64.
        unsafe { _mm_xor_si128(tag, load(icv)) }
    } else {
        let (mut ours, mut theirs) = ([0; BLOCK], [0; BLOCK]);
        store(&mut ours, tag);
        ours.get_mut(icv.len()..)?.fill(0);
        theirs.get_mut(..icv.len())?.copy_from_slice(icv);
        // SAFETY: SSE2 is x86-64.
        unsafe { _mm_xor_si128(load(&ours), load(&theirs)) }
    };
    // SAFETY: SSE2 is x86-64.
    let high = unsafe { _mm_unpackhi_epi64(difference, difference) };
    // SAFETY: SSE2 is x86-64.
    let either = unsafe { _mm_or_si128(difference, high) };
    // SAFETY: SSE2 is x86-64.
    Some(unsafe { _mm_cvtsi128_si64(either) } == 0)
}

/// The counter block of a packet with the counter at zero; salt and IV as they stand in memory.
#[inline(always)]
pub(super) fn nonce(salt: u32, iv: u64) -> __m128i {
    block(iv >> 32, u64::from(salt) | iv << 32)
}

#[inline(always)]
pub(super) fn block(high: u64, low: u64) -> __m128i {
    // SAFETY: SSE2 is x86-64.
    unsafe { _mm_set_epi64x(high.cast_signed(), low.cast_signed()) }
}

impl Drop for AesGcm {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.salt);
    }
}

#[inline(always)]
fn seal_burst<V: Lanes, const ROUNDS: usize, const GROUP: usize>(
    cpu: Cpu<V>,
    jobs: &mut [SealJob<'_>],
) {
    for job in jobs {
        let sealed = match AesGcm::of::<V>(&job.transform.keys) {
            Some(own) => own.seal::<V, ROUNDS, GROUP>(cpu, job),
            None => None,
        };
        if sealed.is_none() {
            job.destination.fill(0);
        }
    }
}

#[inline(always)]
fn open_burst<V: Lanes, const ROUNDS: usize, const GROUP: usize>(
    cpu: Cpu<V>,
    jobs: &mut [OpenJob<'_>],
) {
    for job in jobs {
        let opened = match AesGcm::of::<V>(&job.transform.keys) {
            Some(own) => own.open::<V, ROUNDS, GROUP>(cpu, job),
            None => None,
        };
        job.authentic = opened.is_some();
    }
}

compiled!(sealing[rounds]: seal_burst(jobs: &mut [SealJob<'_>]));
compiled!(opening[rounds]: open_burst(jobs: &mut [OpenJob<'_>]));

/// Form and rounds of the keys that all jobs of a burst have in common.
fn shared(transform: &Transform) -> Option<(Form, usize)> {
    match &transform.keys {
        Keys::Own(own) => Some((own.form, own.rounds.into())),
        _ => None,
    }
}

/// Seals jobs of one suite.
pub(in super::super) fn seal(jobs: &mut [SealJob<'_>]) {
    let Some((form, rounds)) = jobs.first().and_then(|job| shared(job.transform)) else {
        return jobs.iter_mut().for_each(|job| job.destination.fill(0));
    };
    // SAFETY: a form exists only where the CPU has its features (`Form::all`).
    unsafe { sealing(form, rounds)(jobs) };
}

/// Opens jobs of one suite.
pub(in super::super) fn open(jobs: &mut [OpenJob<'_>]) {
    let Some((form, rounds)) = jobs.first().and_then(|job| shared(job.transform)) else {
        return jobs.iter_mut().for_each(|job| job.authentic = false);
    };
    // SAFETY: a form exists only where the CPU has its features (`Form::all`).
    unsafe { opening(form, rounds)(jobs) };
}
