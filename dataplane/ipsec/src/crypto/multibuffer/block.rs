//! Blocks of 16 bytes in registers, and multiplication in GHASH's field (NIST SP 800-38D §6.3).
//!
//! In registers the bytes of a block stand reversed, and keys of the hash are multiplied by x
//! beforehand: then a product needs no shift, and its reduction is two multiplications by the
//! upper half of the polynomial.

use core::arch::x86_64::{
    __m128i, __m256i, _mm_clmulepi64_si128, _mm_loadu_si128, _mm_set_epi8, _mm_set_epi64x,
    _mm_shuffle_epi8, _mm_shuffle_epi32, _mm_storeu_si128, _mm_unpackhi_epi64, _mm_xor_si128,
    _mm256_loadu_si256, _mm256_storeu_si256,
};

/// Bytes of a block.
pub(super) const BLOCK: usize = 16;

/// Swaps the halves of a register (`_mm_shuffle_epi32`).
pub(super) const SWAP_HALVES: i32 = 0b0100_1110;

#[inline]
pub(super) fn load(from: &[u8; BLOCK]) -> __m128i {
    // SAFETY: 16 bytes behind a reference may be read, at any alignment; SSE2 is x86-64.
    unsafe { _mm_loadu_si128(from.as_ptr().cast()) }
}

#[inline]
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

/// The polynomial without its highest term, as the reduction wants it.
#[inline]
#[target_feature(enable = "sse2")]
pub(super) fn polynomial() -> __m128i {
    _mm_set_epi64x(POLYNOMIAL.cast_signed(), 1)
}

/// x¹²⁸ + x¹²⁷ + x¹²⁶ + x¹²¹, from x¹²⁷ down.
pub(super) const POLYNOMIAL: u64 = 0xc200_0000_0000_0000;

/// Sums of products before their reduction: by Karatsuba the low halves', the crosswise, the high
/// halves'.
#[derive(Clone, Copy)]
pub(super) struct Products {
    pub low: __m128i,
    pub cross: __m128i,
    pub high: __m128i,
}

impl Products {
    /// `block` times the power of the hash key whose halves' sum is `folded`.
    #[inline]
    #[target_feature(enable = "pclmulqdq,ssse3")]
    pub(super) fn of(block: __m128i, power: __m128i, folded: __m128i) -> Self {
        let halves = _mm_xor_si128(block, _mm_unpackhi_epi64(block, block));
        Self {
            low: _mm_clmulepi64_si128::<0x00>(block, power),
            cross: _mm_clmulepi64_si128::<0x00>(halves, folded),
            high: _mm_clmulepi64_si128::<0x11>(block, power),
        }
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            low: _mm_xor_si128(self.low, other.low),
            cross: _mm_xor_si128(self.cross, other.cross),
            high: _mm_xor_si128(self.high, other.high),
        }
    }

    /// The element of the field that the sum is.
    #[inline]
    #[target_feature(enable = "pclmulqdq,ssse3")]
    pub(super) fn reduced(self) -> __m128i {
        let polynomial = polynomial();
        let middle = _mm_xor_si128(self.cross, _mm_xor_si128(self.low, self.high));
        let folded = _mm_clmulepi64_si128::<0x01>(polynomial, self.low);
        let low = _mm_shuffle_epi32::<SWAP_HALVES>(self.low);
        let middle = _mm_xor_si128(middle, _mm_xor_si128(low, folded));
        let folded = _mm_clmulepi64_si128::<0x01>(polynomial, middle);
        let middle = _mm_shuffle_epi32::<SWAP_HALVES>(middle);
        _mm_xor_si128(self.high, _mm_xor_si128(middle, folded))
    }
}

/// Nothing that follows from one of these registers is done before all of them are known.
///
/// Left to itself a compiler may put the work of lanes, none of which depends on another, one lane
/// after the other, and then the time in which each instruction waits for the one before stays
/// empty. One, two or four registers.
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
        _ => {}
    }
}
