//! AES-CBC with one block a register (AES-NI), eight registers at a time: the form for older CPUs.

use core::arch::x86_64::{
    _mm_aesdec_si128, _mm_aesdeclast_si128, _mm_aesenc_si128, _mm_aesenclast_si128,
    _mm_loadu_si128, _mm_setzero_si128, _mm_storeu_si128, _mm_xor_si128,
};
use core::ops::Range;

use super::block::{BLOCK, load, side_by_side, store};
use super::lanes::{self, Chain, Kernel};
use super::material::RoundKeys;

/// Registers at a time, which is packets at a time.
const REGISTERS: usize = 8;

/// Encrypts every chain, eight packets at a time.
#[target_feature(enable = "aes,sse2")]
pub(super) fn encrypt<const KEYS: usize>(chains: &mut [Chain<'_, KEYS>]) {
    let kernel = |keys| Encryption([keys; REGISTERS]);
    // SAFETY: this function is built with what the kernel takes.
    unsafe { lanes::encrypt(kernel, chains) };
}

/// The keys of all lanes.
struct Encryption<'k, const KEYS: usize>([&'k RoundKeys<KEYS>; REGISTERS]);

impl<'k, const KEYS: usize> Kernel<'k, KEYS, REGISTERS> for Encryption<'k, KEYS> {
    #[inline(always)]
    fn set_keys(&mut self, lane: usize, keys: &'k RoundKeys<KEYS>) {
        self.0[lane] = keys;
    }

    #[inline(always)]
    unsafe fn run(&mut self, places: &[*mut u8; REGISTERS], steps: Range<usize>) {
        // SAFETY: as the caller has it.
        unsafe { run(&self.0, places, steps) }
    }
}

/// # Safety
/// As [`Kernel::run`] has it.
#[inline]
#[target_feature(enable = "aes,sse2")]
unsafe fn run<const KEYS: usize>(
    keys: &[&RoundKeys<KEYS>; REGISTERS],
    places: &[*mut u8; REGISTERS],
    steps: Range<usize>,
) {
    let mut blocks = [_mm_setzero_si128(); REGISTERS];
    for (block, at) in blocks.iter_mut().zip(places) {
        let before = at.wrapping_add(steps.start * BLOCK).wrapping_sub(BLOCK);
        // SAFETY: in front of the first block one can be read, at any alignment.
        *block = unsafe { _mm_loadu_si128(before.cast_const().cast()) };
    }
    for step in steps {
        let offset = step * BLOCK;
        for ((block, at), keys) in blocks.iter_mut().zip(places).zip(keys) {
            // SAFETY: each step's block can be read, at any alignment.
            let text = unsafe { _mm_loadu_si128(at.wrapping_add(offset).cast_const().cast()) };
            *block = _mm_xor_si128(*block, _mm_xor_si128(text, load(&keys[0])));
        }
        for round in 1..KEYS - 1 {
            for (block, keys) in blocks.iter_mut().zip(keys) {
                *block = _mm_aesenc_si128(*block, load(&keys[round]));
            }
            side_by_side(blocks.each_mut());
        }
        for (block, keys) in blocks.iter_mut().zip(keys) {
            *block = _mm_aesenclast_si128(*block, load(&keys[KEYS - 1]));
        }
        for (block, at) in blocks.iter().zip(places) {
            // SAFETY: each step's block can be written, at any alignment.
            unsafe { _mm_storeu_si128(at.wrapping_add(offset).cast(), *block) };
        }
    }
}

/// Decrypts `source`, an IV and whole blocks, to `text`, which is as long as these blocks.
#[target_feature(enable = "aes,sse2")]
pub(super) fn decrypt<const KEYS: usize>(keys: &RoundKeys<KEYS>, source: &[u8], text: &mut [u8]) {
    const STRIDE: usize = REGISTERS * BLOCK;
    let strides = text.len() / STRIDE * STRIDE;
    for at in (0..strides).step_by(STRIDE) {
        let source = &source[at..at + BLOCK + STRIDE];
        stride::<REGISTERS, KEYS>(keys, source, &mut text[at..at + STRIDE]);
    }
    let (source, text) = (&source[strides..], &mut text[strides..]);
    match text.len() / BLOCK {
        0 => {}
        1 => stride::<1, KEYS>(keys, source, text),
        2 => stride::<2, KEYS>(keys, source, text),
        3 => stride::<3, KEYS>(keys, source, text),
        4 => stride::<4, KEYS>(keys, source, text),
        5 => stride::<5, KEYS>(keys, source, text),
        6 => stride::<6, KEYS>(keys, source, text),
        _ => stride::<7, KEYS>(keys, source, text),
    }
}

/// `N` blocks.
#[inline]
#[target_feature(enable = "aes,sse2")]
fn stride<const N: usize, const KEYS: usize>(
    keys: &RoundKeys<KEYS>,
    source: &[u8],
    text: &mut [u8],
) {
    let (before, cipher) = (source.as_chunks().0, source[BLOCK..].as_chunks().0);
    // Arrays, lest the loops become calls that copy memory.
    let (Some(before), Some(cipher), Some(places)) = (
        before.first_chunk::<N>(),
        cipher.first_chunk::<N>(),
        text.as_chunks_mut().0.first_chunk_mut::<N>(),
    ) else {
        return;
    };
    let mut blocks = [_mm_setzero_si128(); N];
    for (block, cipher) in blocks.iter_mut().zip(cipher) {
        *block = _mm_xor_si128(load(cipher), load(&keys[0]));
    }
    for key in &keys[1..KEYS - 1] {
        for block in &mut blocks {
            *block = _mm_aesdec_si128(*block, load(key));
        }
    }
    for ((block, before), place) in blocks.into_iter().zip(before).zip(places) {
        let block = _mm_aesdeclast_si128(block, load(&keys[KEYS - 1]));
        store(place, _mm_xor_si128(block, load(before)));
    }
}
