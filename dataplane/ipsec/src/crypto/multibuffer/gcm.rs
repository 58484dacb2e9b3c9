//! AES-GCM in ESP (RFC 4106): all key lengths, all ICV lengths.

use core::arch::x86_64::{
    __m128i, __m256i, __m512i, _mm_cvtsi128_si64, _mm_or_si128, _mm_set_epi64x, _mm_unpackhi_epi64,
    _mm_xor_si128,
};
use std::sync::OnceLock;

use super::super::parts::{HEADER_LENGTH, Layout};
use super::super::suite::{Encryption, SALT_LENGTH, Suite, SuiteError};
use super::super::{KeyError, Keys, OpenJob, SealJob};
use super::block::{BLOCK, load, store};
use super::kernel::{Head, crypt};
use super::material::{Material, rounds};
use super::registers::{Cpu, Lanes};
use super::text::Text;

/// Code for one kind of CPU. There is a value only where the CPU can run it, which is what makes
/// calling it safe: [`Form::all`] makes them, nobody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Form(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Four blocks a register.
    Avx512,
    /// Two blocks a register.
    Vaes,
    /// One block a register.
    AesNi,
}

impl Form {
    /// What this CPU can run, the best first.
    pub(in super::super) fn all() -> impl Iterator<Item = Self> {
        let blocks = is_x86_feature_detected!("aes")
            && is_x86_feature_detected!("pclmulqdq")
            && is_x86_feature_detected!("ssse3")
            && is_x86_feature_detected!("sse4.1");
        let pairs = blocks
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("vaes")
            && is_x86_feature_detected!("vpclmulqdq");
        let fours = pairs
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("bmi2");
        let forms = [
            (fours, Kind::Avx512),
            (pairs, Kind::Vaes),
            (blocks, Kind::AesNi),
        ];
        forms
            .into_iter()
            .filter_map(|(runs, kind)| runs.then_some(Self(kind)))
    }

    /// The form that new keys are expanded for, if this CPU runs one. Found out once.
    pub(in super::super) fn chosen() -> Option<Self> {
        static CHOSEN: OnceLock<Option<Form>> = OnceLock::new();
        *CHOSEN.get_or_init(|| Self::all().next())
    }

    /// Whether kernels may take two blocks a register.
    pub(super) const fn is_paired(self) -> bool {
        matches!(self.0, Kind::Vaes | Kind::Avx512)
    }

    /// For operators.
    pub(in super::super) const fn name(self) -> &'static str {
        match self.0 {
            Kind::Avx512 => "avx512+vaes",
            Kind::Vaes => "avx2+vaes",
            Kind::AesNi => "aes-ni",
        }
    }
}

/// What all packets have in common, for divisions and differences to be made at compile time.
const LAYOUT: Layout = Layout::of(Suite {
    encryption: Encryption::AesGcm { bits: 128, icv: 16 },
    integrity: None,
});

/// Bytes in front of the text.
const FRONT: usize = HEADER_LENGTH + LAYOUT.iv;

/// One SA's expanded key and salt.
pub(in super::super) struct AesGcm {
    form: Form,
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
        let (Some(form), Encryption::AesGcm { .. }) = (form, encryption) else {
            return Err(SuiteError::Unknown.into());
        };
        let wrong = KeyError::EncryptionLength {
            given: key.len(),
            wanted: encryption.key_length(),
        };
        let (key, salt) = key.split_last_chunk::<SALT_LENGTH>().ok_or(wrong)?;
        rounds(key.len()).ok_or(wrong)?;
        let mut material = Box::new(Material::empty());
        let fill: unsafe fn(&mut Material, &[u8]) = match form.0 {
            Kind::Avx512 => Material::fill::<__m512i>,
            Kind::Vaes => Material::fill::<__m256i>,
            Kind::AesNi => Material::fill::<__m128i>,
        };
        // SAFETY: every form runs only where AES and PCLMULQDQ are (`Form::all`).
        unsafe { fill(&mut material, key) };
        Ok(Self {
            form,
            salt: u32::from_le_bytes(*salt),
            material,
        })
    }

    /// The keys, if they are for that form.
    #[inline(always)]
    fn of(keys: &Keys, form: Form) -> Option<&Self> {
        match keys {
            Keys::Own(own) if own.form == form => Some(own),
            _ => None,
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
            nonce: block(iv >> 32, u64::from(self.salt) | iv << 32),
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
        let tag = unsafe { crypt::<V, ROUNDS, GROUP, false>(cpu, &self.material, &head, text) };
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
        let tag = unsafe { crypt::<V, ROUNDS, GROUP, true>(cpu, &self.material, &head, text) };
        let icv = source.get(length..)?;
        let difference = if let Some(icv) = icv.first_chunk() {
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
        if unsafe { _mm_cvtsi128_si64(either) } != 0 {
            room.fill(0);
            return None;
        }
        Some(())
    }
}

#[inline(always)]
fn block(high: u64, low: u64) -> __m128i {
    // SAFETY: SSE2 is x86-64.
    unsafe { _mm_set_epi64x(high.cast_signed(), low.cast_signed()) }
}

impl Drop for AesGcm {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.salt);
    }
}

/// Functions for one form, whole bursts of one suite: what they call is inlined and compiled for
/// the form's features.
macro_rules! bursts {
    ($kind:ident, $seal:ident, $open:ident, $lanes:ty, $features:literal) => {
        #[target_feature(enable = $features)]
        fn $seal<const ROUNDS: usize>(jobs: &mut [SealJob<'_>]) {
            // SAFETY: these are the features that this function is compiled for.
            let cpu = unsafe { Cpu::<$lanes>::proven() };
            const GROUP: usize = <$lanes as Lanes>::GROUP;
            for job in jobs {
                let own = AesGcm::of(&job.transform.keys, Form(Kind::$kind));
                let sealed = match own {
                    Some(own) => own.seal::<$lanes, ROUNDS, GROUP>(cpu, job),
                    None => None,
                };
                if sealed.is_none() {
                    job.destination.fill(0);
                }
            }
        }

        #[target_feature(enable = $features)]
        fn $open<const ROUNDS: usize>(jobs: &mut [OpenJob<'_>]) {
            // SAFETY: these are the features that this function is compiled for.
            let cpu = unsafe { Cpu::<$lanes>::proven() };
            const GROUP: usize = <$lanes as Lanes>::GROUP;
            for job in jobs {
                let own = AesGcm::of(&job.transform.keys, Form(Kind::$kind));
                let opened = match own {
                    Some(own) => own.open::<$lanes, ROUNDS, GROUP>(cpu, job),
                    None => None,
                };
                job.authentic = opened.is_some();
            }
        }
    };
}

bursts!(
    Avx512,
    seal_fours,
    open_fours,
    __m512i,
    "aes,pclmulqdq,ssse3,sse4.1,avx2,vaes,vpclmulqdq,avx512f,avx512bw,avx512vl,bmi2"
);
bursts!(
    Vaes,
    seal_pairs,
    open_pairs,
    __m256i,
    "aes,pclmulqdq,ssse3,sse4.1,avx2,vaes,vpclmulqdq"
);
bursts!(
    AesNi,
    seal_blocks,
    open_blocks,
    __m128i,
    "aes,pclmulqdq,ssse3,sse4.1"
);

/// Form and rounds of the keys that all jobs of a burst have in common.
fn shared(keys: &Keys, encryption: Encryption) -> Option<(Kind, usize)> {
    match keys {
        Keys::Own(own) => Some((own.form.0, rounds(encryption.cipher_key_length())?)),
        _ => None,
    }
}

/// Seals jobs of one suite.
pub(in super::super) fn seal(jobs: &mut [SealJob<'_>]) {
    let Some(transform) = jobs.first().map(|job| job.transform) else {
        return;
    };
    let burst: unsafe fn(&mut [SealJob<'_>]) =
        match shared(&transform.keys, transform.suite.encryption) {
            Some((Kind::Avx512, 10)) => seal_fours::<10>,
            Some((Kind::Avx512, 12)) => seal_fours::<12>,
            Some((Kind::Avx512, _)) => seal_fours::<14>,
            Some((Kind::Vaes, 10)) => seal_pairs::<10>,
            Some((Kind::Vaes, 12)) => seal_pairs::<12>,
            Some((Kind::Vaes, _)) => seal_pairs::<14>,
            Some((Kind::AesNi, 10)) => seal_blocks::<10>,
            Some((Kind::AesNi, 12)) => seal_blocks::<12>,
            Some((Kind::AesNi, _)) => seal_blocks::<14>,
            None => return jobs.iter_mut().for_each(|job| job.destination.fill(0)),
        };
    // SAFETY: a form exists only where the CPU has its features (`Form::all`).
    unsafe { burst(jobs) };
}

/// Opens jobs of one suite.
pub(in super::super) fn open(jobs: &mut [OpenJob<'_>]) {
    let Some(transform) = jobs.first().map(|job| job.transform) else {
        return;
    };
    let burst: unsafe fn(&mut [OpenJob<'_>]) =
        match shared(&transform.keys, transform.suite.encryption) {
            Some((Kind::Avx512, 10)) => open_fours::<10>,
            Some((Kind::Avx512, 12)) => open_fours::<12>,
            Some((Kind::Avx512, _)) => open_fours::<14>,
            Some((Kind::Vaes, 10)) => open_pairs::<10>,
            Some((Kind::Vaes, 12)) => open_pairs::<12>,
            Some((Kind::Vaes, _)) => open_pairs::<14>,
            Some((Kind::AesNi, 10)) => open_blocks::<10>,
            Some((Kind::AesNi, 12)) => open_blocks::<12>,
            Some((Kind::AesNi, _)) => open_blocks::<14>,
            None => return jobs.iter_mut().for_each(|job| job.authentic = false),
        };
    // SAFETY: a form exists only where the CPU has its features (`Form::all`).
    unsafe { burst(jobs) };
}
