//! AES-GCM in ESP (RFC 4106): all key lengths, all ICV lengths.

use core::arch::x86_64::{__m128i, _mm_set_epi64x};
use std::sync::OnceLock;

use super::super::parts::{AssociatedData, HEADER_LENGTH, Layout, nonce, open_parts};
use super::super::suite::{Encryption, SALT_LENGTH, SuiteError};
use super::super::{KeyError, Keys, OpenJob, SealJob};
use super::block::{BLOCK, store};
use super::material::{Material, rounds};
use super::{aesni, vaes};

/// Bytes that a kernel takes in one step.
pub(super) const STRIDE: usize = 8 * BLOCK;

/// Code for one kind of CPU. There is a value only where the CPU can run it, which is what makes
/// calling it safe: [`Form::all`] makes them, nobody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Form(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
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
        let forms = [(pairs, Kind::Vaes), (blocks, Kind::AesNi)];
        forms
            .into_iter()
            .filter_map(|(runs, kind)| runs.then_some(Self(kind)))
    }

    /// The form that new keys are expanded for, if this CPU runs one. Found out once.
    pub(in super::super) fn chosen() -> Option<Self> {
        static CHOSEN: OnceLock<Option<Form>> = OnceLock::new();
        *CHOSEN.get_or_init(|| Self::all().next())
    }

    /// Whether its kernels take two blocks a register.
    pub(super) const fn is_paired(self) -> bool {
        matches!(self.0, Kind::Vaes)
    }

    /// For operators.
    pub(in super::super) const fn name(self) -> &'static str {
        match self.0 {
            Kind::Vaes => "vaes+vpclmulqdq",
            Kind::AesNi => "aes-ni+pclmulqdq",
        }
    }
}

/// What a packet brings besides its text.
pub(super) struct Head {
    /// The counter block that hides the tag; those of the text follow it.
    pub counter: [u8; BLOCK],
    /// The associated data, filled up with zeros.
    pub data: [u8; BLOCK],
    data_length: usize,
    text_length: usize,
}

impl Head {
    //= T16 (RFC 4106 sections 4, 5)
    fn of(nonce: [u8; 12], data: &AssociatedData, text_length: usize) -> Self {
        let mut counter = [0; BLOCK];
        let (front, number) = counter.split_at_mut(nonce.len());
        front.copy_from_slice(&nonce);
        number.copy_from_slice(&1_u32.to_be_bytes());
        let mut block = [0; BLOCK];
        let data_length = data.as_ref().len();
        block[..data_length].copy_from_slice(data.as_ref());
        Self {
            counter,
            data: block,
            data_length,
            text_length,
        }
    }

    /// The last block of the hash, bytes reversed.
    #[inline]
    #[target_feature(enable = "sse2")]
    pub(super) fn lengths(&self) -> __m128i {
        let bits = |length: usize| (length as u64 * 8).cast_signed();
        _mm_set_epi64x(bits(self.data_length), bits(self.text_length))
    }
}

/// A text and the room behind it, in which a kernel may write what it likes.
pub(super) struct Text<'a> {
    pub room: &'a mut [u8],
    /// Bytes of the text, at least 1 and at most the room's.
    pub length: usize,
}

impl<'a> Text<'a> {
    /// Whole strides, and the last 1 to 128 bytes.
    #[inline]
    pub(super) fn split(self) -> (&'a mut [[u8; STRIDE]], Self) {
        let strides = (self.length - 1) / STRIDE * STRIDE;
        let (front, room) = self.room.split_at_mut(strides);
        let length = self.length - strides;
        (front.as_chunks_mut().0, Text { room, length })
    }

    /// Blocks of a tail, the last one perhaps not whole.
    #[inline]
    pub(super) const fn blocks(&self) -> usize {
        self.length.div_ceil(BLOCK)
    }
}

/// A call of a kernel: from the second buffer, which may lie anywhere, into the text; the tag.
type Call = unsafe fn(&Material, &Head, &[u8], Text<'_>) -> __m128i;

/// The kernel of one form for one key length.
#[derive(Clone, Copy)]
struct Kernel {
    seal: Call,
    open: Call,
}

impl Kernel {
    fn of(form: Form, rounds: usize) -> Self {
        let (seal, open): (Call, Call) = match (form.0, rounds) {
            (Kind::Vaes, 10) => (vaes::seal::<10>, vaes::open::<10>),
            (Kind::Vaes, 12) => (vaes::seal::<12>, vaes::open::<12>),
            (Kind::Vaes, _) => (vaes::seal::<14>, vaes::open::<14>),
            (Kind::AesNi, 10) => (aesni::seal::<10>, aesni::open::<10>),
            (Kind::AesNi, 12) => (aesni::seal::<12>, aesni::open::<12>),
            (Kind::AesNi, _) => (aesni::seal::<14>, aesni::open::<14>),
        };
        Self { seal, open }
    }
}

/// One SA's expanded key and salt.
pub(in super::super) struct AesGcm {
    kernel: Kernel,
    salt: [u8; SALT_LENGTH],
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
        let (key, salt) = key.split_last_chunk().ok_or(wrong)?;
        let rounds = rounds(key.len()).ok_or(wrong)?;
        let mut material = Box::new(Material::empty());
        // SAFETY: every form runs only where AES and PCLMULQDQ are (`Form::all`).
        unsafe { material.fill(key) };
        Ok(Self {
            kernel: Kernel::of(form, rounds),
            salt: *salt,
            material,
        })
    }

    fn of(keys: &Keys) -> Option<&Self> {
        match keys {
            Keys::Own(own) => Some(own),
            _ => None,
        }
    }

    fn seal(&self, job: &mut SealJob<'_>) -> Option<()> {
        let layout = job.transform.layout;
        let covered = layout.covered_with(job.destination.len(), job.source.len())?;
        let (header, rest) = job.destination.split_first_chunk_mut::<HEADER_LENGTH>()?;
        let (iv, room) = rest.split_at_mut_checked(layout.iv)?;
        let length = covered - HEADER_LENGTH - layout.iv;
        let data = AssociatedData::new(header, job.sequence, job.esn);
        let head = Head::of(nonce(self.salt, iv)?, &data, length);
        // What does not fill a stride stands in front of the trailer and goes with it.
        let whole = job.source.len() / STRIDE * STRIDE;
        let rest = job.source.get(whole..)?;
        room.get_mut(whole..job.source.len())?.copy_from_slice(rest);
        let tag = self.sealed(&head, job.source, Text { room, length });
        room.get_mut(length..)?
            .copy_from_slice(tag.get(..layout.icv)?);
        Some(())
    }

    fn sealed(&self, head: &Head, payload: &[u8], text: Text<'_>) -> [u8; BLOCK] {
        let mut tag = [0; BLOCK];
        // SAFETY: the form of the kernel exists, so the CPU has what it takes (`Form::all`).
        let value = unsafe { (self.kernel.seal)(&self.material, head, payload, text) };
        store(&mut tag, value);
        tag
    }

    //= T31 T82 T83 (RFC 4303 section 3.4.4.2)
    fn open(&self, job: &mut OpenJob<'_>) -> Option<()> {
        let layout: Layout = job.transform.layout;
        let parts = open_parts(job.source, layout)?;
        let length = parts.text.len();
        let room = job.destination.len().min(job.source.len());
        let room = job.destination.get_mut(..room)?;
        if room.len() < length {
            return None;
        }
        let data = AssociatedData::new(parts.header, job.sequence, job.esn);
        let head = Head::of(nonce(self.salt, parts.iv)?, &data, length);
        // With the ICV, which may be read though not used.
        let source = job.source.get(HEADER_LENGTH + layout.iv..)?;
        let tag = self.opened(
            &head,
            source,
            Text {
                room: &mut *room,
                length,
            },
        );
        let mut difference = 0;
        for (ours, theirs) in tag.iter().zip(parts.icv) {
            difference |= ours ^ theirs;
        }
        if std::hint::black_box(difference) != 0 {
            room.fill(0);
            return None;
        }
        Some(())
    }

    fn opened(&self, head: &Head, source: &[u8], text: Text<'_>) -> [u8; BLOCK] {
        let mut tag = [0; BLOCK];
        // SAFETY: the form of the kernel exists, so the CPU has what it takes (`Form::all`).
        let value = unsafe { (self.kernel.open)(&self.material, head, source, text) };
        store(&mut tag, value);
        tag
    }
}

impl Drop for AesGcm {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.salt);
    }
}

/// Seals jobs that all carry [`Keys::Own`].
pub(in super::super) fn seal(jobs: &mut [SealJob<'_>]) {
    for job in jobs {
        let own = AesGcm::of(&job.transform.keys);
        if own.and_then(|own| own.seal(job)).is_none() {
            job.destination.fill(0);
        }
    }
}

/// Opens jobs that all carry [`Keys::Own`].
pub(in super::super) fn open(jobs: &mut [OpenJob<'_>]) {
    for job in jobs {
        let own = AesGcm::of(&job.transform.keys);
        job.authentic = own.and_then(|own| own.open(job)).is_some();
    }
}
