//! AES-CBC with two blocks a register (VAES, AVX2), eight registers at a time: fewer do not fill
//! the four cycles that each of a block's rounds takes.

use core::arch::x86_64::{
    __m256i, _mm_aesdec_si128, _mm_aesdeclast_si128, _mm_loadu_si128, _mm_storeu_si128,
    _mm_xor_si128, _mm256_aesdec_epi128, _mm256_aesdeclast_epi128, _mm256_aesenc_epi128,
    _mm256_aesenclast_epi128, _mm256_broadcastsi128_si256, _mm256_castsi128_si256,
    _mm256_castsi256_si128, _mm256_extracti128_si256, _mm256_inserti128_si256,
    _mm256_setzero_si256, _mm256_xor_si256,
};
use core::ops::Range;

use zeroize::Zeroize;

use super::block::{BLOCK, load, load_both, load_pair, store, store_pair};
use super::lanes::{self, Chain, Kernel};
use super::material::RoundKeys;

/// Registers at a time.
const REGISTERS: usize = 8;

/// Packets at a time.
const LANES: usize = 2 * REGISTERS;

/// Bytes of a register.
const PAIR: usize = 2 * BLOCK;

/// Encrypts every chain, sixteen packets at a time.
#[target_feature(enable = "avx2,aes,vaes")]
pub(super) fn encrypt<const KEYS: usize>(chains: &mut [Chain<'_, KEYS>]) {
    // SAFETY: this function is built with what the kernel takes.
    unsafe { lanes::encrypt(|_| Rows::empty(), chains) };
}

/// The same where all chains have the same keys.
#[target_feature(enable = "avx2,aes,vaes")]
pub(super) fn encrypt_same<'k, const KEYS: usize>(
    chains: &mut [Chain<'k, KEYS>],
    keys: &'k RoundKeys<KEYS>,
) {
    // SAFETY: this function is built with what the kernel takes.
    unsafe { lanes::encrypt(|_| Same(keys), chains) };
}

/// Round keys of sixteen lanes.
trait LaneKeys {
    /// # Safety
    /// The CPU has AVX2.
    unsafe fn key(&self, round: usize, register: usize) -> __m256i;
}

/// The keys that all lanes have in common.
struct Same<'k, const KEYS: usize>(&'k RoundKeys<KEYS>);

impl<const KEYS: usize> LaneKeys for Same<'_, KEYS> {
    #[inline(always)]
    unsafe fn key(&self, round: usize, _: usize) -> __m256i {
        // SAFETY: the caller found the CPU to have AVX2.
        unsafe { key(self.0, round) }
    }
}

/// For each round the keys of all lanes; wiped on drop. Aligned, for half of all loads would touch
/// two lines else.
#[repr(align(64))]
struct Rows<const KEYS: usize>([[[[u8; BLOCK]; 2]; REGISTERS]; KEYS]);

impl<const KEYS: usize> Rows<KEYS> {
    const fn empty() -> Self {
        Self([[[[0; BLOCK]; 2]; REGISTERS]; KEYS])
    }
}

impl<const KEYS: usize> Drop for Rows<KEYS> {
    #[inline(always)]
    fn drop(&mut self) {
        let blocks = self.0.as_flattened_mut().as_flattened_mut();
        blocks.as_flattened_mut().zeroize();
    }
}

impl<const KEYS: usize> LaneKeys for Rows<KEYS> {
    #[inline(always)]
    unsafe fn key(&self, round: usize, register: usize) -> __m256i {
        // SAFETY: the caller found the CPU to have AVX2.
        unsafe { load_both(&self.0[round][register]) }
    }
}

impl<'k, const KEYS: usize> Kernel<'k, KEYS, LANES> for Same<'k, KEYS> {
    #[inline(always)]
    fn set_keys(&mut self, _: usize, _: &'k RoundKeys<KEYS>) {}

    #[inline(always)]
    unsafe fn run(&mut self, places: &[*mut u8; LANES], steps: Range<usize>) {
        // SAFETY: as the caller has it.
        unsafe { run::<KEYS>(self, places, steps) }
    }
}

impl<'k, const KEYS: usize> Kernel<'k, KEYS, LANES> for Rows<KEYS> {
    #[inline(always)]
    fn set_keys(&mut self, lane: usize, keys: &'k RoundKeys<KEYS>) {
        for (row, key) in self.0.iter_mut().zip(keys) {
            row[lane / 2][lane % 2] = *key;
        }
    }

    #[inline(always)]
    unsafe fn run(&mut self, places: &[*mut u8; LANES], steps: Range<usize>) {
        // SAFETY: as the caller has it.
        unsafe { run::<KEYS>(self, places, steps) }
    }
}

/// Encrypts a block of each lane in each step.
///
/// # Safety
/// As [`Kernel::run`] has it.
#[inline]
#[target_feature(enable = "avx2,aes,vaes")]
unsafe fn run<const KEYS: usize>(
    keys: &impl LaneKeys,
    places: &[*mut u8; LANES],
    steps: Range<usize>,
) {
    let pairs = places.as_chunks::<2>().0;
    // SAFETY: this function is built with AVX2.
    let key = |round, register| unsafe { keys.key(round, register) };
    let mut blocks = [_mm256_setzero_si256(); REGISTERS];
    for (block, pair) in blocks.iter_mut().zip(pairs) {
        let before = |at: *mut u8| at.wrapping_add(steps.start * BLOCK).wrapping_sub(BLOCK);
        // SAFETY: in front of the first block one can be read.
        *block = unsafe { gather(pair.map(|at| before(at).cast_const())) };
    }
    for step in steps {
        let offset = step * BLOCK;
        for (index, (block, pair)) in blocks.iter_mut().zip(pairs).enumerate() {
            // SAFETY: each step's block can be read.
            let text = unsafe { gather(pair.map(|at| at.wrapping_add(offset).cast_const())) };
            let text = _mm256_xor_si256(text, key(0, index));
            *block = _mm256_xor_si256(*block, text);
        }
        for round in 1..KEYS - 1 {
            for (index, block) in blocks.iter_mut().enumerate() {
                *block = _mm256_aesenc_epi128(*block, key(round, index));
            }
            side_by_side(&mut blocks);
        }
        for (index, block) in blocks.iter_mut().enumerate() {
            *block = _mm256_aesenclast_epi128(*block, key(KEYS - 1, index));
        }
        for (block, pair) in blocks.iter().zip(pairs) {
            // SAFETY: each step's block can be written.
            unsafe { scatter(pair.map(|at| at.wrapping_add(offset)), *block) };
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn key<const KEYS: usize>(keys: &RoundKeys<KEYS>, round: usize) -> __m256i {
    _mm256_broadcastsi128_si256(load(&keys[round]))
}

/// Nothing that follows from one of these registers is done before all of them are known: with
/// other keys in each a compiler puts them one after the other, and no CPU looks far enough ahead
/// to put that right.
#[inline]
#[target_feature(enable = "avx2")]
fn side_by_side(registers: &mut [__m256i; REGISTERS]) {
    let [a, b, c, d, e, f, g, h] = registers;
    // SAFETY: there is no instruction in it.
    unsafe {
        core::arch::asm!(
            "/* {0} {1} {2} {3} {4} {5} {6} {7} */",
            inout(ymm_reg) * a,
            inout(ymm_reg) * b,
            inout(ymm_reg) * c,
            inout(ymm_reg) * d,
            inout(ymm_reg) * e,
            inout(ymm_reg) * f,
            inout(ymm_reg) * g,
            inout(ymm_reg) * h,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
}

/// # Safety
/// From both places a block can be read.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn gather([low, high]: [*const u8; 2]) -> __m256i {
    // SAFETY: as the caller has it, at any alignment.
    let low = unsafe { _mm_loadu_si128(low.cast()) };
    // SAFETY: as the caller has it, at any alignment.
    let high = unsafe { _mm_loadu_si128(high.cast()) };
    _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(low), high)
}

/// # Safety
/// From both places on a block can be written.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn scatter([low, high]: [*mut u8; 2], blocks: __m256i) {
    let (first, second) = (
        _mm256_castsi256_si128(blocks),
        _mm256_extracti128_si256::<1>(blocks),
    );
    // SAFETY: as the caller has it, at any alignment.
    unsafe { _mm_storeu_si128(low.cast(), first) };
    // SAFETY: as the caller has it, at any alignment.
    unsafe { _mm_storeu_si128(high.cast(), second) };
}

/// Decrypts `source`, an IV and whole blocks, to `text`, which is as long as these blocks.
#[target_feature(enable = "avx2,aes,vaes")]
pub(super) fn decrypt<const KEYS: usize>(keys: &RoundKeys<KEYS>, source: &[u8], text: &mut [u8]) {
    const STRIDE: usize = REGISTERS * PAIR;
    let strides = text.len() / STRIDE * STRIDE;
    for at in (0..strides).step_by(STRIDE) {
        let source = &source[at..at + BLOCK + STRIDE];
        stride::<REGISTERS, KEYS>(keys, source, &mut text[at..at + STRIDE]);
    }
    let (source, text) = (&source[strides..], &mut text[strides..]);
    match text.len() / PAIR {
        0 => stride::<0, KEYS>(keys, source, text),
        1 => stride::<1, KEYS>(keys, source, text),
        2 => stride::<2, KEYS>(keys, source, text),
        3 => stride::<3, KEYS>(keys, source, text),
        4 => stride::<4, KEYS>(keys, source, text),
        5 => stride::<5, KEYS>(keys, source, text),
        6 => stride::<6, KEYS>(keys, source, text),
        _ => stride::<7, KEYS>(keys, source, text),
    }
}

/// As many blocks as fill `N` registers, and perhaps one more.
#[inline]
#[target_feature(enable = "avx2,aes,vaes")]
fn stride<const N: usize, const KEYS: usize>(
    keys: &RoundKeys<KEYS>,
    source: &[u8],
    text: &mut [u8],
) {
    let (before, cipher) = (source.as_chunks().0, source[BLOCK..].as_chunks().0);
    let (places, odd) = text.as_chunks_mut();
    // Arrays, lest the loops become calls that copy memory.
    let (Some(before), Some(cipher), Some(places)) = (
        before.first_chunk::<N>(),
        cipher.first_chunk::<N>(),
        places.first_chunk_mut::<N>(),
    ) else {
        return;
    };
    let mut blocks = [_mm256_setzero_si256(); N];
    let first = key::<KEYS>(keys, 0);
    for (block, cipher) in blocks.iter_mut().zip(cipher) {
        *block = _mm256_xor_si256(load_pair(cipher), first);
    }
    for round in 1..KEYS - 1 {
        let key = key::<KEYS>(keys, round);
        for block in &mut blocks {
            *block = _mm256_aesdec_epi128(*block, key);
        }
    }
    let last = key::<KEYS>(keys, KEYS - 1);
    for ((block, before), place) in blocks.into_iter().zip(before).zip(places) {
        let block = _mm256_aesdeclast_epi128(block, last);
        store_pair(place, _mm256_xor_si256(block, load_pair(before)));
    }
    if let (Some(odd), Some(source)) = (odd.first_chunk_mut(), source.last_chunk()) {
        single(keys, source, odd);
    }
}

/// The block behind another one.
#[inline]
#[target_feature(enable = "avx2,aes")]
fn single<const KEYS: usize>(keys: &RoundKeys<KEYS>, source: &[u8; PAIR], text: &mut [u8; BLOCK]) {
    let [before, cipher] = [source.first_chunk(), source.last_chunk()];
    let (Some(before), Some(cipher)) = (before, cipher) else {
        return;
    };
    let mut block = _mm_xor_si128(load(cipher), load(&keys[0]));
    for key in &keys[1..KEYS - 1] {
        block = _mm_aesdec_si128(block, load(key));
    }
    block = _mm_aesdeclast_si128(block, load(&keys[KEYS - 1]));
    store(text, _mm_xor_si128(block, load(before)));
}
