//! SHA-1 (FIPS 180-4 §6.1) by the CPU's own instructions, several messages side by side.
//!
//! Four rounds of one message take six cycles in which nothing else of it can go on; four messages
//! fill them. None of these instructions has a VEX encoding: where the upper half of any register
//! is in use, each change of encoding costs over a hundred cycles. So nothing here is built with
//! AVX, and a function that was built with it clears the halves before it returns, as compilers
//! have it.

use core::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_setzero_si128, _mm_sha1msg1_epu32, _mm_sha1msg2_epu32,
    _mm_sha1nexte_epu32, _mm_sha1rnds4_epu32, _mm_xor_si128,
};

use super::block::{load, reversed, side_by_side, store};
use super::hmac::{Block, Hash, State};

/// The words a to d stand in a state's first register, a in its highest part; e in the highest
/// part of the second.
pub(in super::super) struct Sha1;

impl Hash for Sha1 {
    const LENGTH: usize = 20;
    const INITIAL: State = State([
        0x6745_2301_efcd_ab89_98ba_dcfe_1032_5476_u128.to_le_bytes(),
        0xc3d2_e1f0_0000_0000_0000_0000_0000_0000_u128.to_le_bytes(),
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

#[inline]
#[target_feature(enable = "ssse3")]
fn digest(state: &State) -> [__m128i; 2] {
    [reversed(load(&state.0[0])), reversed(load(&state.0[1]))]
}

/// One message's registers.
#[derive(Clone, Copy)]
struct Lane {
    abcd: __m128i,
    /// What abcd was four rounds ago, from which the next e comes; at first e itself.
    before: __m128i,
    /// The last sixteen words of the message schedule.
    words: [__m128i; 4],
}

/// Takes as many blocks of each message as the first has.
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn compress<const N: usize>(states: &mut [State; N], data: [&[Block]; N]) {
    let none = _mm_setzero_si128();
    let mut lanes = [Lane {
        abcd: none,
        before: none,
        words: [none; 4],
    }; N];
    for (lane, state) in lanes.iter_mut().zip(&*states) {
        lane.abcd = load(&state.0[0]);
        lane.before = load(&state.0[1]);
    }
    for step in 0..data[0].len() {
        let first = lanes;
        let mut blocks = [&data[0][step]; N];
        for (block, data) in blocks.iter_mut().zip(data) {
            *block = &data[step];
        }
        macro_rules! rounds {
            ($function:literal: $($quad:literal)+) => {
                $(rounds::<$function, $quad, N>(&mut lanes, &blocks);)+
            };
        }
        rounds!(0: 0 1 2 3 4);
        rounds!(1: 5 6 7 8 9);
        rounds!(2: 10 11 12 13 14);
        rounds!(3: 15 16 17 18 19);
        for (lane, first) in lanes.iter_mut().zip(first) {
            lane.abcd = _mm_add_epi32(lane.abcd, first.abcd);
            lane.before = _mm_sha1nexte_epu32(lane.before, first.before);
        }
    }
    for (lane, state) in lanes.iter().zip(states) {
        store(&mut state.0[0], lane.abcd);
        store(&mut state.0[1], lane.before);
    }
}

/// Four rounds of each message, the `QUAD`th of twenty, with one of the four round functions.
#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn rounds<const FUNCTION: i32, const QUAD: usize, const N: usize>(
    lanes: &mut [Lane; N],
    blocks: &[&Block; N],
) {
    for (lane, block) in lanes.iter_mut().zip(blocks) {
        let words = &mut lane.words;
        words[QUAD % 4] = if QUAD < 4 {
            reversed(load(&block[QUAD]))
        } else {
            let mixed = _mm_sha1msg1_epu32(words[QUAD % 4], words[(QUAD + 1) % 4]);
            let mixed = _mm_xor_si128(mixed, words[(QUAD + 2) % 4]);
            _mm_sha1msg2_epu32(mixed, words[(QUAD + 3) % 4])
        };
    }
    for lane in &mut *lanes {
        let words = lane.words[QUAD % 4];
        let e = if QUAD == 0 {
            _mm_add_epi32(lane.before, words)
        } else {
            _mm_sha1nexte_epu32(lane.before, words)
        };
        lane.before = lane.abcd;
        lane.abcd = _mm_sha1rnds4_epu32::<FUNCTION>(lane.abcd, e);
    }
    side_by_side(lanes.each_mut().map(|lane| &mut lane.abcd));
}
