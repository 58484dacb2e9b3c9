//! SHA-256 (FIPS 180-4 §6.2) by the CPU's own instructions, two messages side by side, which is all
//! that their throughput has room for. As in SHA-1, nothing here may be built with AVX.

use core::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_set_epi8, _mm_setzero_si128, _mm_sha256msg1_epu32,
    _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8, _mm_shuffle_epi32,
    _mm_unpackhi_epi64, _mm_unpacklo_epi64,
};

use super::block::{BLOCK, load, reversed, side_by_side, store};
use super::hmac::{Block, Hash, State};

/// The words a, b, e, f stand in a state's first register, a in its highest part; c, d, g, h in
/// the second.
pub(in super::super) struct Sha256;

impl Hash for Sha256 {
    const LENGTH: usize = 32;
    const INITIAL: State = State([
        0x6a09_e667_bb67_ae85_510e_527f_9b05_688c_u128.to_le_bytes(),
        0x3c6e_f372_a54f_f53a_1f83_d9ab_5be0_cd19_u128.to_le_bytes(),
    ]);

    #[inline(always)]
    unsafe fn digest(state: &State) -> [__m128i; 2] {
        // SAFETY: the caller found the CPU to have SSSE3.
        unsafe { digest(state) }
    }

    #[inline(always)]
    unsafe fn compress<const N: usize>(states: &mut [State; N], data: [&[Block]; N]) {
        // SAFETY: the caller found the CPU to have SHA-NI, SSSE3 and SSE4.1.
        unsafe { compress(states, data) }
    }
}

/// The round constants (FIPS 180-4 §4.2.2), as a register takes them.
static CONSTANTS: [[u8; BLOCK]; 16] = {
    let words: [u32; 64] = [
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4,
        0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe,
        0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f,
        0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7,
        0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc,
        0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b,
        0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116,
        0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
        0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
        0xc67178f2,
    ];
    let mut constants = [[0; BLOCK]; 16];
    let mut index = 0;
    while index < words.len() {
        let word = words[index].to_le_bytes();
        let mut byte = 0;
        while byte < word.len() {
            constants[index / 4][index % 4 * 4 + byte] = word[byte];
            byte += 1;
        }
        index += 1;
    }
    constants
};

#[inline]
#[target_feature(enable = "ssse3")]
fn digest(state: &State) -> [__m128i; 2] {
    let [abef, cdgh] = [reversed(load(&state.0[0])), reversed(load(&state.0[1]))];
    [
        _mm_unpacklo_epi64(abef, cdgh),
        _mm_unpackhi_epi64(abef, cdgh),
    ]
}

/// One message's registers.
#[derive(Clone, Copy)]
struct Lane {
    abef: __m128i,
    cdgh: __m128i,
    /// The last sixteen words of the message schedule.
    words: [__m128i; 4],
}

/// Takes as many blocks of each message as the first has.
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn compress<const N: usize>(states: &mut [State; N], data: [&[Block]; N]) {
    let none = _mm_setzero_si128();
    let mut lanes = [Lane {
        abef: none,
        cdgh: none,
        words: [none; 4],
    }; N];
    for (lane, state) in lanes.iter_mut().zip(&*states) {
        lane.abef = load(&state.0[0]);
        lane.cdgh = load(&state.0[1]);
    }
    for step in 0..data[0].len() {
        let first = lanes;
        let mut blocks = [&data[0][step]; N];
        for (block, data) in blocks.iter_mut().zip(data) {
            *block = &data[step];
        }
        macro_rules! rounds {
            ($($quad:literal)+) => { $(rounds::<$quad, N>(&mut lanes, &blocks);)+ };
        }
        rounds!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
        for (lane, first) in lanes.iter_mut().zip(first) {
            lane.abef = _mm_add_epi32(lane.abef, first.abef);
            lane.cdgh = _mm_add_epi32(lane.cdgh, first.cdgh);
        }
    }
    for (lane, state) in lanes.iter().zip(states) {
        store(&mut state.0[0], lane.abef);
        store(&mut state.0[1], lane.cdgh);
    }
}

/// Four rounds of each message, the `QUAD`th of sixteen.
#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn rounds<const QUAD: usize, const N: usize>(lanes: &mut [Lane; N], blocks: &[&Block; N]) {
    let constants = load(&CONSTANTS[QUAD]);
    let big_endian = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
    for (lane, block) in lanes.iter_mut().zip(blocks) {
        let words = &mut lane.words;
        words[QUAD % 4] = if QUAD < 4 {
            _mm_shuffle_epi8(load(&block[QUAD]), big_endian)
        } else {
            let last = words[(QUAD + 3) % 4];
            let mixed = _mm_sha256msg1_epu32(words[QUAD % 4], words[(QUAD + 1) % 4]);
            let mixed = _mm_add_epi32(mixed, _mm_alignr_epi8::<4>(last, words[(QUAD + 2) % 4]));
            _mm_sha256msg2_epu32(mixed, last)
        };
    }
    for lane in &mut *lanes {
        let words = _mm_add_epi32(lane.words[QUAD % 4], constants);
        lane.cdgh = _mm_sha256rnds2_epu32(lane.cdgh, lane.abef, words);
        let words = _mm_shuffle_epi32::<0x0e>(words);
        lane.abef = _mm_sha256rnds2_epu32(lane.abef, lane.cdgh, words);
    }
    side_by_side(lanes.each_mut().map(|lane| &mut lane.abef));
}
