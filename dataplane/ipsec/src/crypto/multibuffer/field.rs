//! Multiplication in GHASH's field (NIST SP 800-38D §6.3), lane by lane.
//!
//! In registers the bytes of a block stand reversed, and keys of the hash are multiplied by x
//! beforehand: then a product needs no shift, and its reduction is two multiplications by the
//! upper half of the polynomial.

use core::arch::x86_64::{__m128i, _mm_set_epi64x};

use super::registers::{Cpu, Lanes};

/// x¹²⁸ + x¹²⁷ + x¹²⁶ + x¹²¹, from x¹²⁷ down.
pub(super) const POLYNOMIAL: u64 = 0xc200_0000_0000_0000;

/// A sum of products before its reduction, by Karatsuba: of the low halves, of the halves' sums, of
/// the high halves.
#[derive(Clone, Copy)]
pub(super) struct Sum<V> {
    low: V,
    cross: V,
    high: V,
}

impl<V: Lanes> Sum<V> {
    /// Of no products.
    #[inline(always)]
    pub(super) fn zero(cpu: Cpu<V>) -> Self {
        let zero = V::zero(cpu);
        Self {
            low: zero,
            cross: zero,
            high: zero,
        }
    }

    /// `block` times the power of the hash key, the sum of whose halves is `folded`.
    #[inline(always)]
    pub(super) fn of(block: V, (power, folded): (V, V)) -> Self {
        Self {
            low: block.times::<0x00>(power),
            cross: block.xor(block.swapped()).times::<0x00>(folded),
            high: block.times::<0x11>(power),
        }
    }

    #[inline(always)]
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            low: self.low.xor(other.low),
            cross: self.cross.xor(other.cross),
            high: self.high.xor(other.high),
        }
    }

    /// Its three registers.
    #[inline(always)]
    pub(super) const fn parts(&mut self) -> [&mut V; 3] {
        [&mut self.low, &mut self.cross, &mut self.high]
    }

    /// The element of the field that the sum is.
    #[inline(always)]
    pub(super) fn reduced(self, cpu: Cpu<V>) -> V {
        let polynomial = V::splat(cpu, polynomial());
        let cross = self.cross.xor3(self.low, self.high);
        let folded = polynomial.times::<0x01>(self.low);
        let cross = cross.xor3(self.low.swapped(), folded);
        let folded = polynomial.times::<0x01>(cross);
        self.high.xor3(cross.swapped(), folded)
    }
}

/// The polynomial without its highest term, as the reduction wants it.
#[inline(always)]
fn polynomial() -> __m128i {
    // SAFETY: SSE2 is x86-64.
    unsafe { _mm_set_epi64x(POLYNOMIAL.cast_signed(), 1) }
}
