//! What AES-GCM makes of a key before the first packet: round keys and powers of the hash key.

use core::arch::x86_64::{
    __m128i, __m256i, __m512i, _mm_aesenc_si128, _mm_aesenclast_si128, _mm_aeskeygenassist_si128,
    _mm_cvtsi128_si32, _mm_set1_epi32, _mm_setzero_si128, _mm_xor_si128,
};

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::block::{BLOCK, load, store};
use super::field::{POLYNOMIAL, Sum};
use super::registers::{Cpu, Lanes};
use crate::prefetch::slice;

/// Round keys of AES-256; shorter keys have fewer.
pub(super) const ROUND_KEYS: usize = 15;

/// Room for the powers of the hash key, and behind them either the sums of their halves or zeros:
/// registers of four blocks read up to three places behind the first power.
const POWERS: usize = 24;

/// Blocks of a packet of 64 bytes in tunnel mode, header and lengths included.
const SHORT: usize = 8;

const _: () = assert!(<__m128i as Lanes>::POWERS * 2 <= POWERS);
const _: () = assert!(<__m256i as Lanes>::POWERS * 2 <= POWERS);
const _: () = assert!(<__m512i as Lanes>::POWERS + 3 <= POWERS);

/// Round keys alone, in the order in which they are used.
pub(super) type RoundKeys<const KEYS: usize> = [[u8; BLOCK]; KEYS];

/// Powers of a hash key, as [`Material`] has them.
pub(super) type Powers = [[u8; BLOCK]; POWERS];

/// For kernels that do not hash.
pub(super) static NO_POWERS: Powers = [[0; BLOCK]; POWERS];

/// Rounds of AES with a key of so many bytes, if there is such a key.
pub(super) const fn rounds(key_length: usize) -> Option<usize> {
    match key_length {
        16 => Some(10),
        24 => Some(12),
        32 => Some(14),
        _ => None,
    }
}

/// The expanded key. Filled in where it stays, so that no copy is left behind on a stack.
#[derive(Zeroize, ZeroizeOnDrop)]
#[repr(C, align(64))]
pub(super) struct Material {
    pub round_keys: RoundKeys<ROUND_KEYS>,
    /// As many powers of the hash key as registers `V` take ([`Lanes::POWERS`]), the first one
    /// last, each times x, bytes reversed. Behind them, if [`Lanes::KEEPS_SUMS`], the sum of each
    /// one's halves, in both halves.
    pub powers: Powers,
}

impl Material {
    pub(super) const fn empty() -> Self {
        Self {
            round_keys: [[0; BLOCK]; ROUND_KEYS],
            powers: [[0; BLOCK]; POWERS],
        }
    }

    /// Asks memory for the round keys of so many rounds, and for the first of so many powers.
    #[inline]
    pub(super) fn prefetch(&self, rounds: usize, powers: usize) {
        slice(&self.round_keys[..=rounds]);
        slice(&self.powers[powers.saturating_sub(SHORT)..powers]);
    }

    /// Fills in what a key of 16, 24 or 32 bytes gives to kernels with registers `V`; other lengths
    /// are the caller's mistake and give something useless.
    #[target_feature(enable = "aes,pclmulqdq,ssse3,sse4.1")]
    pub(super) fn fill<V: Lanes>(&mut self, key: &[u8]) {
        expand(&mut self.round_keys, key);
        let hash_key = match rounds(key.len()) {
            Some(10) => encrypted::<10>(self, _mm_setzero_si128()),
            Some(12) => encrypted::<12>(self, _mm_setzero_si128()),
            _ => encrypted::<14>(self, _mm_setzero_si128()),
        };
        let mut bytes = [0; BLOCK];
        store(&mut bytes, hash_key);
        let mut element = u128::from_be_bytes(bytes);
        let reduction = (u128::from(POLYNOMIAL) << 64 | 1) & 0_u128.wrapping_sub(element >> 127);
        element = (element << 1) ^ reduction;
        bytes = element.to_le_bytes();
        let first = load(&bytes);
        element.zeroize();
        bytes.zeroize();

        // SAFETY: this function's features are those of registers of one block.
        let cpu = unsafe { Cpu::<__m128i>::proven() };
        let (powers, behind) = self.powers.split_at_mut(V::POWERS);
        let mut power = first;
        for (index, place) in powers.iter_mut().enumerate().rev() {
            store(place, power);
            if V::KEEPS_SUMS {
                store(&mut behind[index], power.xor(power.swapped()));
            }
            power = Sum::of(power, (first, first.xor(first.swapped()))).reduced(cpu);
        }
    }
}

/// The key schedule of FIPS 197 §5.2, word by word: the CPU's help with it looks nothing up in
/// tables. Fills in one round key more than there are [`rounds`], as far as there is room.
#[target_feature(enable = "aes,sse2")]
pub(super) fn expand(round_keys: &mut [[u8; BLOCK]], key: &[u8]) {
    let key_words = key.len() / 4;
    let words = round_keys.as_flattened_mut().as_chunks_mut::<4>().0;
    let mut constant = 1_u32;
    for index in 0..words.len().min(4 * (key_words + 7)) {
        let Some(before) = index.checked_sub(key_words) else {
            if let Some(word) = key.as_chunks::<4>().0.get(index) {
                words[index] = *word;
            }
            continue;
        };
        let last = u32::from_le_bytes(words[index - 1]);
        let mixed = if index % key_words == 0 {
            let mixed = substituted(last).rotate_right(8) ^ constant;
            // Doubled in the field of AES: 80 becomes 1b.
            constant = (constant << 1) ^ ((constant >> 7) * 0x11b);
            mixed
        } else if key_words > 6 && index % key_words == 4 {
            substituted(last)
        } else {
            last
        };
        words[index] = (u32::from_le_bytes(words[before]) ^ mixed).to_le_bytes();
    }
}

/// The S-box on each byte.
#[inline]
#[target_feature(enable = "aes,sse2")]
fn substituted(word: u32) -> u32 {
    let words = _mm_aeskeygenassist_si128::<0>(_mm_set1_epi32(word.cast_signed()));
    _mm_cvtsi128_si32(words).cast_unsigned()
}

/// One block through the cipher.
#[inline]
#[target_feature(enable = "aes,sse2")]
pub(super) fn encrypted<const ROUNDS: usize>(material: &Material, block: __m128i) -> __m128i {
    let keys = &material.round_keys;
    let mut state = _mm_xor_si128(block, load(&keys[0]));
    for key in &keys[1..ROUNDS] {
        state = _mm_aesenc_si128(state, load(key));
    }
    _mm_aesenclast_si128(state, load(&keys[ROUNDS]))
}
