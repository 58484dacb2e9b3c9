//! Registers of four blocks: AVX-512, whose masks take the place of most cases at a text's ends.

use core::arch::x86_64::*;

use super::registers::{Cpu, Lanes, featured, reversal};
use super::text::Text;

/// Ones for the bytes of a register, which starts `place` bytes behind the block in front of the
/// text, that stand in front of the text's first `count` bytes' end; with `FIRST` none in the first
/// lane.
#[inline(always)]
fn bytes<const FIRST: bool>(count: usize, place: usize) -> u64 {
    // The instruction takes 8 bits of it, and no higher number means more.
    let count = (count + 16).saturating_sub(place).min(64);
    #[expect(clippy::cast_possible_truncation, reason = "at most 64")]
    let count = count as u32;
    // SAFETY: BMI2 is among the features of registers of four blocks, which alone call this.
    let bytes = unsafe { _bzhi_u64(u64::MAX, count) };
    if FIRST { bytes & BEHIND_FIRST } else { bytes }
}

/// The bytes of all lanes but the first.
const BEHIND_FIRST: u64 = !0xffff;

impl Lanes for __m512i {
    const COUNT: usize = 4;
    const GROUP: usize = 4;
    const KEEPS_SUMS: bool = false;

    #[inline(always)]
    fn zero(_: Cpu<Self>) -> Self {
        featured!(_mm512_setzero_si512())
    }
    #[inline(always)]
    fn splat(_: Cpu<Self>, block: __m128i) -> Self {
        featured!(_mm512_broadcast_i32x4(block))
    }
    #[inline(always)]
    fn only(_: Cpu<Self>, block: __m128i) -> Self {
        featured!(_mm512_zextsi128_si512(block))
    }
    #[inline(always)]
    fn numbers(_: Cpu<Self>) -> Self {
        featured!(_mm512_set_epi64(0, 3, 0, 2, 0, 1, 0, 0))
    }
    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        featured!(_mm512_xor_si512(self, other))
    }
    #[inline(always)]
    fn xor3(self, one: Self, other: Self) -> Self {
        featured!(_mm512_ternarylogic_epi64::<0x96>(self, one, other))
    }
    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        featured!(_mm512_add_epi32(self, other))
    }
    #[inline(always)]
    fn round(self, key: Self) -> Self {
        featured!(_mm512_aesenc_epi128(self, key))
    }
    #[inline(always)]
    fn last_round(self, key: Self) -> Self {
        featured!(_mm512_aesenclast_epi128(self, key))
    }
    #[inline(always)]
    fn times<const HALVES: i32>(self, other: Self) -> Self {
        featured!(_mm512_clmulepi64_epi128::<HALVES>(self, other))
    }
    #[inline(always)]
    fn reversed(self, cpu: Cpu<Self>) -> Self {
        featured!(_mm512_shuffle_epi8(self, Self::splat(cpu, reversal())))
    }
    #[inline(always)]
    fn swapped(self) -> Self {
        featured!(_mm512_shuffle_epi32::<0b0100_1110>(self))
    }
    #[inline(always)]
    fn first(self) -> __m128i {
        featured!(_mm512_castsi512_si128(self))
    }
    #[inline(always)]
    fn with_first(self, block: __m128i) -> Self {
        featured!(_mm512_inserti32x4::<0>(self, block))
    }
    #[inline(always)]
    fn total(self) -> __m128i {
        let lower = featured!(_mm512_castsi512_si256(self));
        let upper = featured!(_mm512_extracti64x4_epi64::<1>(self));
        lower.xor(upper).total()
    }
    #[inline(always)]
    fn kept(self, count: usize) -> Self {
        featured!(_mm512_maskz_mov_epi8(bytes::<false>(count, 16), self))
    }

    #[inline(always)]
    unsafe fn load<const BEHIND: bool>(_: Cpu<Self>, from: *const u8) -> Self {
        if BEHIND {
            // SAFETY: the caller says that these bytes may be read; others are not touched.
            return unsafe { _mm512_maskz_loadu_epi8(BEHIND_FIRST, from.cast()) };
        }
        // SAFETY: the caller says that these bytes may be read.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }
    #[inline(always)]
    unsafe fn store<const BEHIND: bool>(self, to: *mut u8) {
        if BEHIND {
            // SAFETY: the caller says that these bytes may be written; others are not touched.
            return unsafe { _mm512_mask_storeu_epi8(to.cast(), BEHIND_FIRST, self) };
        }
        // SAFETY: the caller says that these bytes may be written.
        unsafe { _mm512_storeu_si512(to.cast(), self) }
    }

    #[inline(always)]
    unsafe fn join(_: Cpu<Self>, _: Text) {}

    #[inline(always)]
    unsafe fn load_end<const FIRST: bool, const LAST: bool, const WHOLE: bool>(
        cpu: Cpu<Self>,
        text: Text,
        place: usize,
    ) -> Self {
        let from = text.source.wrapping_add(place).wrapping_sub(16);
        if WHOLE && !LAST {
            // SAFETY: the text reaches all lanes but perhaps the first.
            return unsafe { Self::load::<FIRST>(cpu, from) };
        }
        let payload = bytes::<FIRST>(text.payload, place);
        // SAFETY: bytes of the payload alone are touched.
        let read = unsafe { _mm512_maskz_loadu_epi8(payload, from.cast()) };
        if WHOLE {
            return read;
        }
        let trailer = bytes::<FIRST>(text.length, place) & !payload;
        let from = text.destination.wrapping_add(place).wrapping_sub(16);
        // SAFETY: bytes of the text behind the payload alone are touched.
        unsafe { _mm512_mask_loadu_epi8(read, trailer, from.cast_const().cast()) }
    }
    #[inline(always)]
    unsafe fn store_end<const FIRST: bool, const LAST: bool>(self, text: Text, place: usize) {
        let to = text.destination.wrapping_add(place).wrapping_sub(16);
        if !LAST {
            // SAFETY: the text reaches all lanes but perhaps the first.
            return unsafe { self.store::<FIRST>(to) };
        }
        let written = bytes::<FIRST>(text.length, place);
        // SAFETY: bytes of the text alone are touched.
        unsafe { _mm512_mask_storeu_epi8(to.cast(), written, self) }
    }
}
