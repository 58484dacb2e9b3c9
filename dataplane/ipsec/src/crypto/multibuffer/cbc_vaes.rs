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

use super::block::{BLOCK, load, load_pair, store, store_pair};
use super::lanes::{Kernel, Lanes};
use super::material::RoundKeys;

/// Registers at a time.
const REGISTERS: usize = 8;

/// Packets at a time.
const LANES: usize = 2 * REGISTERS;

/// Bytes of a register.
const PAIR: usize = 2 * BLOCK;

/// For each round the keys of all lanes.
type Rows<const KEYS: usize> = [[[u8; PAIR]; REGISTERS]; KEYS];

/// Encrypts sixteen packets at a time.
pub(super) struct Encryption<const KEYS: usize> {
    /// Filled in as soon as two lanes differ in their keys; wiped on drop then.
    rows: Rows<KEYS>,
    /// Whose keys the rows hold.
    owners: [*const RoundKeys<KEYS>; LANES],
}

impl<const KEYS: usize> Encryption<KEYS> {
    pub(super) const fn new() -> Self {
        Self {
            rows: [[[0; PAIR]; REGISTERS]; KEYS],
            owners: [core::ptr::null(); LANES],
        }
    }
}

impl<const KEYS: usize> Drop for Encryption<KEYS> {
    fn drop(&mut self) {
        if self.owners.iter().any(|owner| !owner.is_null()) {
            self.rows.as_flattened_mut().as_flattened_mut().zeroize();
        }
    }
}

impl<const KEYS: usize> Kernel<KEYS, LANES> for Encryption<KEYS> {
    unsafe fn run(&mut self, lanes: &Lanes<'_, KEYS, LANES>, steps: Range<usize>) {
        let [first, ..] = lanes.keys;
        if lanes.keys.iter().all(|keys| core::ptr::eq(*keys, first)) {
            // SAFETY: as the caller has it.
            unsafe { encrypt::<KEYS, true>(first, &self.rows, lanes, steps) };
        } else {
            // SAFETY: the caller found the CPU to have AVX2.
            unsafe { self.gather(&lanes.keys) };
            // SAFETY: as the caller has it.
            unsafe { encrypt::<KEYS, false>(first, &self.rows, lanes, steps) };
        }
    }
}

impl<const KEYS: usize> Encryption<KEYS> {
    /// Puts into the rows the keys of the lanes that have changed.
    #[target_feature(enable = "avx2")]
    fn gather(&mut self, keys: &[&RoundKeys<KEYS>; LANES]) {
        let pairs = keys.as_chunks::<2>().0.iter().enumerate();
        for ((index, [low, high]), owners) in pairs.zip(self.owners.as_chunks_mut().0) {
            let new: [*const RoundKeys<KEYS>; 2] = [*low, *high];
            if *owners == new {
                continue;
            }
            *owners = new;
            for ((row, low), high) in self.rows.iter_mut().zip(*low).zip(*high) {
                // In one piece: the kernel could not read halves so soon after.
                let pair = _mm256_castsi128_si256(load(low));
                store_pair(
                    &mut row[index],
                    _mm256_inserti128_si256::<1>(pair, load(high)),
                );
            }
        }
    }
}

/// Encrypts a block of each lane in each step, with the keys of `one` if they are everybody's, else
/// with those of `rows`.
///
/// # Safety
/// As [`Kernel::run`] has it.
#[target_feature(enable = "avx2,aes,vaes")]
unsafe fn encrypt<const KEYS: usize, const ONE: bool>(
    one: &RoundKeys<KEYS>,
    rows: &Rows<KEYS>,
    lanes: &Lanes<'_, KEYS, LANES>,
    steps: Range<usize>,
) {
    let (source, destination) = (&lanes.source, &lanes.destination);
    let mut blocks = [_mm256_setzero_si256(); REGISTERS];
    for (block, pair) in blocks.iter_mut().zip(destination.as_chunks::<2>().0) {
        let before = |at: *mut u8| at.wrapping_add(steps.start * BLOCK).wrapping_sub(BLOCK);
        // SAFETY: in front of the first block one can be read.
        *block = unsafe { gather(pair.map(|at| before(at).cast_const())) };
    }
    for step in steps {
        let offset = step * BLOCK;
        for (index, (block, pair)) in blocks.iter_mut().zip(source.as_chunks::<2>().0).enumerate() {
            // SAFETY: each step's block can be read.
            let text = unsafe { gather(pair.map(|at| at.wrapping_add(offset))) };
            let text = _mm256_xor_si256(text, lane_key::<KEYS, ONE>(one, rows, 0, index));
            *block = _mm256_xor_si256(*block, text);
        }
        for round in 1..KEYS - 1 {
            for (index, block) in blocks.iter_mut().enumerate() {
                *block =
                    _mm256_aesenc_epi128(*block, lane_key::<KEYS, ONE>(one, rows, round, index));
            }
        }
        for (index, block) in blocks.iter_mut().enumerate() {
            let key = lane_key::<KEYS, ONE>(one, rows, KEYS - 1, index);
            *block = _mm256_aesenclast_epi128(*block, key);
        }
        for (block, pair) in blocks.iter().zip(destination.as_chunks::<2>().0) {
            // SAFETY: each step's block can be written.
            unsafe { scatter(pair.map(|at| at.wrapping_add(offset)), *block) };
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn lane_key<const KEYS: usize, const ONE: bool>(
    one: &RoundKeys<KEYS>,
    rows: &Rows<KEYS>,
    round: usize,
    register: usize,
) -> __m256i {
    if ONE {
        key(one, round)
    } else {
        load_pair(&rows[round][register])
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn key<const KEYS: usize>(keys: &RoundKeys<KEYS>, round: usize) -> __m256i {
    _mm256_broadcastsi128_si256(load(&keys[round]))
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
