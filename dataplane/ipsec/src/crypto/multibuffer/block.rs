//! Blocks of 16 bytes in registers.

use core::arch::x86_64::{
    __m128i, __m256i, _mm_loadu_si128, _mm_set_epi8, _mm_shuffle_epi8, _mm_storeu_si128,
    _mm256_loadu_si256, _mm256_storeu_si256,
};

use arrayvec::ArrayVec;

use crate::limits::BATCH;

/// Bytes of a block.
pub(super) const BLOCK: usize = 16;

#[inline(always)]
pub(super) fn load(from: &[u8; BLOCK]) -> __m128i {
    // SAFETY: 16 bytes behind a reference may be read, at any alignment; SSE2 is x86-64.
    unsafe { _mm_loadu_si128(from.as_ptr().cast()) }
}

#[inline(always)]
pub(super) fn store(to: &mut [u8; BLOCK], value: __m128i) {
    // SAFETY: 16 bytes behind a reference may be written, at any alignment; SSE2 is x86-64.
    unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), value) }
}

#[inline]
#[target_feature(enable = "avx")]
pub(super) fn load_pair(from: &[u8; 2 * BLOCK]) -> __m256i {
    // SAFETY: 32 bytes behind a reference may be read, at any alignment.
    unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx")]
pub(super) fn load_both(from: &[[u8; BLOCK]; 2]) -> __m256i {
    // SAFETY: 32 bytes behind a reference may be read, at any alignment.
    unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx")]
pub(super) fn store_pair(to: &mut [u8; 2 * BLOCK], value: __m256i) {
    // SAFETY: 32 bytes behind a reference may be written, at any alignment.
    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), value) }
}

/// The order of bytes that reverses a block.
#[inline]
#[target_feature(enable = "sse2")]
pub(super) fn reversal() -> __m128i {
    _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
}

#[inline]
#[target_feature(enable = "ssse3")]
pub(super) fn reversed(block: __m128i) -> __m128i {
    _mm_shuffle_epi8(block, reversal())
}

/// Nothing that follows from one of these registers is done before all of them are known.
///
/// Left to itself a compiler may put the work of lanes, none of which depends on another, one lane
/// after the other, and then the time in which each instruction waits for the one before stays
/// empty. One, two, four or eight registers.
#[inline(always)]
pub(super) fn side_by_side<const N: usize>(mut registers: [&mut __m128i; N]) {
    match &mut registers[..] {
        [a, b] => {
            // SAFETY: there is no instruction in it.
            unsafe {
                core::arch::asm!(
                    "/* {0} {1} */",
                    inout(xmm_reg) * *a,
                    inout(xmm_reg) * *b,
                    options(pure, nomem, nostack, preserves_flags),
                );
            }
        }
        [a, b, c, d] => {
            // SAFETY: there is no instruction in it.
            unsafe {
                core::arch::asm!(
                    "/* {0} {1} {2} {3} */",
                    inout(xmm_reg) * *a,
                    inout(xmm_reg) * *b,
                    inout(xmm_reg) * *c,
                    inout(xmm_reg) * *d,
                    options(pure, nomem, nostack, preserves_flags),
                );
            }
        }
        [a, b, c, d, e, f, g, h] => {
            // SAFETY: there is no instruction in it.
            unsafe {
                core::arch::asm!(
                    "/* {0} {1} {2} {3} {4} {5} {6} {7} */",
                    inout(xmm_reg) * *a,
                    inout(xmm_reg) * *b,
                    inout(xmm_reg) * *c,
                    inout(xmm_reg) * *d,
                    inout(xmm_reg) * *e,
                    inout(xmm_reg) * *f,
                    inout(xmm_reg) * *g,
                    inout(xmm_reg) * *h,
                    options(pure, nomem, nostack, preserves_flags),
                );
            }
        }
        _ => {}
    }
}

/// The places of lengths, the longest first: lanes that take them in this order end at about the
/// same time. Lengths of 0 and 1 alone stay as they come.
pub(super) struct LongestFirst(ArrayVec<usize, BATCH>);

/// Bits of a number for the place; what is left is for the length.
const PLACE: u32 = BATCH.next_power_of_two().trailing_zeros();

/// Numbers that are compared at a time.
const LANES: usize = 16;

/// All longer lengths count as this.
const LONGEST: u16 = u16::MAX >> PLACE;

impl LongestFirst {
    /// Of at most [`BATCH`] lengths.
    #[inline]
    pub(super) fn of(lengths: impl Iterator<Item = usize>) -> Self {
        let mut order = ArrayVec::new();
        // Lengths with their places, so that no two are the same.
        let mut numbers = [[0; LANES]; BATCH.div_ceil(LANES)];
        let (mut least, mut most) = (usize::MAX, 0);
        let places = numbers.as_flattened_mut().iter_mut();
        for ((place, number), length) in (0_u16..).zip(places).zip(lengths) {
            (least, most) = (least.min(length), most.max(length));
            let length = u16::try_from(length).unwrap_or(LONGEST).min(LONGEST);
            *number = length << PLACE | place;
            order.push(usize::from(place));
        }
        // Of lanes with one step, or none, all orders are the same.
        if most <= least.max(1) {
            return Self(order);
        }
        // For each of them, how many are longer: comparisons without a branch, many at once, which
        // take less time than to guess wrong at a few.
        let filled = &numbers[..order.len().div_ceil(LANES)];
        let mut longer = [[0_u16; LANES]; BATCH.div_ceil(LANES)];
        for number in &filled.as_flattened()[..order.len()] {
            for (counts, others) in longer.iter_mut().zip(filled) {
                for (count, other) in counts.iter_mut().zip(others) {
                    *count += u16::from(number > other);
                }
            }
        }
        let longer = longer.as_flattened().iter().take(order.len());
        for (place, count) in longer.enumerate() {
            order[usize::from(*count)] = place;
        }
        Self(order)
    }

    #[inline]
    pub(super) fn places(&self) -> impl Iterator<Item = usize> {
        self.0.iter().copied()
    }
}
