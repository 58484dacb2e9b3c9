//! Registers of one, two or four blocks under one set of operations, so that all forms of a kernel
//! are the same code.
//!
//! Methods are safe: a value of a register type stems from a [`Cpu`], and who made that answers
//! for the CPU. They are inlined into a function compiled for the form's features; called from
//! elsewhere they would be right, and slow.

use core::arch::x86_64::*;
use std::marker::PhantomData;

use super::text::{Text, mask};

/// Proof that the CPU has the features of registers `V`.
pub(super) struct Cpu<V>(PhantomData<V>);

impl<V> Clone for Cpu<V> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for Cpu<V> {}

impl<V: Lanes> Cpu<V> {
    /// # Safety
    /// The CPU has the features of `V` ([`Lanes`]).
    #[inline(always)]
    pub(super) const unsafe fn proven() -> Self {
        Self(PhantomData)
    }

    /// Wider registers take what those of one block take, and more.
    #[inline(always)]
    pub(super) const fn narrowest(self) -> Cpu<__m128i> {
        Cpu(PhantomData)
    }
}

/// A register. Features: `aes,pclmulqdq,ssse3,sse4.1` for one block; also `avx2,vaes,vpclmulqdq`
/// for two; also `avx512f,avx512bw,avx512vl,bmi2` for four.
pub(super) trait Lanes: Copy {
    /// Blocks of a register.
    const COUNT: usize;
    /// Whether the sums of the powers' halves are kept, rather than made.
    const KEEPS_SUMS: bool;
    /// Powers of the hash key that a packet takes at most.
    const POWERS: usize = Self::COUNT * (Self::GROUP + 1) + 1;
    /// Registers of a group.
    const GROUP: usize;
    /// Whether a group is enciphered and the one before hashed a piece at a time in turns.
    const BESIDE: bool = false;

    fn zero(cpu: Cpu<Self>) -> Self;
    /// A block in every lane.
    fn splat(cpu: Cpu<Self>, block: __m128i) -> Self;
    /// A block in the first lane, zeros in the others.
    fn only(cpu: Cpu<Self>, block: __m128i) -> Self;
    /// In each lane its number.
    fn numbers(cpu: Cpu<Self>) -> Self;

    fn xor(self, other: Self) -> Self;
    fn xor3(self, one: Self, other: Self) -> Self;
    /// Sums of 32 bits each.
    fn plus(self, other: Self) -> Self;
    fn round(self, key: Self) -> Self;
    fn last_round(self, key: Self) -> Self;
    /// Products of halves, as `_mm_clmulepi64_si128` chooses them.
    fn times<const HALVES: i32>(self, other: Self) -> Self;
    /// The bytes of each block in reverse.
    fn reversed(self, cpu: Cpu<Self>) -> Self;
    /// The halves of each block exchanged.
    fn swapped(self) -> Self;
    /// The block in the first lane.
    fn first(self) -> __m128i;
    /// With another block in the first lane.
    fn with_first(self, block: __m128i) -> Self;
    /// The sum of all lanes.
    fn total(self) -> __m128i;
    /// The first `count` bytes, and zeros behind them.
    fn kept(self, count: usize) -> Self;

    /// With [`Self::BESIDE`]: nothing that follows from one of these registers is done before all
    /// of them are known.
    #[inline(always)]
    fn side_by_side(_group: &mut [Self], _sum: [&mut Self; 3]) {}

    /// # Safety
    /// A register's bytes may be read; with `BEHIND` those of the first lane need not, and it is
    /// zero.
    unsafe fn load<const BEHIND: bool>(cpu: Cpu<Self>, from: *const u8) -> Self;
    /// # Safety
    /// A register's bytes may be written; with `BEHIND` those of the first lane are left alone.
    unsafe fn store<const BEHIND: bool>(self, to: *mut u8);

    /// What [`Self::load_end`] wants done before, if the payload is not all of the text.
    ///
    /// # Safety
    /// The promises of `text` hold, and nothing of it was written yet.
    unsafe fn join(cpu: Cpu<Self>, text: Text);
    /// The register that starts `place` bytes behind the block in front of the text, where the
    /// payload may end unless `WHOLE` says that it is all of the text, and where with `LAST` the
    /// text ends; what the register holds behind it means nothing. With a `place` of 0, which
    /// `FIRST` says, the first lane is zero.
    ///
    /// # Safety
    /// The promises of `text` hold, [`Self::join`] was called, and the text ends within the
    /// register with `LAST` and not before the register's end without.
    unsafe fn load_end<const FIRST: bool, const LAST: bool, const WHOLE: bool>(
        cpu: Cpu<Self>,
        text: Text,
        place: usize,
    ) -> Self;
    /// The reverse; what the last block is short of may be overwritten.
    ///
    /// # Safety
    /// As [`Self::load_end`].
    unsafe fn store_end<const FIRST: bool, const LAST: bool>(self, text: Text, place: usize);
}

/// Calls what wants CPU features.
macro_rules! featured {
    ($call:expr) => {
        // SAFETY: the operands stem from a `Cpu`, whose maker answers for these features.
        unsafe { $call }
    };
}
pub(super) use featured;

impl Lanes for __m128i {
    const COUNT: usize = 1;
    const GROUP: usize = 6;
    const KEEPS_SUMS: bool = true;

    #[inline(always)]
    fn zero(_: Cpu<Self>) -> Self {
        featured!(_mm_setzero_si128())
    }
    #[inline(always)]
    fn splat(_: Cpu<Self>, block: __m128i) -> Self {
        block
    }
    #[inline(always)]
    fn only(_: Cpu<Self>, block: __m128i) -> Self {
        block
    }
    #[inline(always)]
    fn numbers(cpu: Cpu<Self>) -> Self {
        Self::zero(cpu)
    }
    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        featured!(_mm_xor_si128(self, other))
    }
    #[inline(always)]
    fn xor3(self, one: Self, other: Self) -> Self {
        self.xor(one).xor(other)
    }
    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        featured!(_mm_add_epi32(self, other))
    }
    #[inline(always)]
    fn round(self, key: Self) -> Self {
        featured!(_mm_aesenc_si128(self, key))
    }
    #[inline(always)]
    fn last_round(self, key: Self) -> Self {
        featured!(_mm_aesenclast_si128(self, key))
    }
    #[inline(always)]
    fn times<const HALVES: i32>(self, other: Self) -> Self {
        featured!(_mm_clmulepi64_si128::<HALVES>(self, other))
    }
    #[inline(always)]
    fn reversed(self, _: Cpu<Self>) -> Self {
        featured!(_mm_shuffle_epi8(self, reversal()))
    }
    #[inline(always)]
    fn swapped(self) -> Self {
        featured!(_mm_shuffle_epi32::<0b0100_1110>(self))
    }
    #[inline(always)]
    fn first(self) -> __m128i {
        self
    }
    #[inline(always)]
    fn with_first(self, block: __m128i) -> Self {
        block
    }
    #[inline(always)]
    fn total(self) -> __m128i {
        self
    }
    #[inline(always)]
    fn kept(self, count: usize) -> Self {
        // SAFETY: a mask has 32 bytes.
        let mask = unsafe { _mm_loadu_si128(mask(count).cast()) };
        featured!(_mm_and_si128(self, mask))
    }

    #[inline(always)]
    unsafe fn load<const BEHIND: bool>(_: Cpu<Self>, from: *const u8) -> Self {
        if BEHIND {
            return featured!(_mm_setzero_si128());
        }
        // SAFETY: the caller says that these bytes may be read.
        unsafe { _mm_loadu_si128(from.cast()) }
    }
    #[inline(always)]
    unsafe fn store<const BEHIND: bool>(self, to: *mut u8) {
        if !BEHIND {
            // SAFETY: the caller says that these bytes may be written.
            unsafe { _mm_storeu_si128(to.cast(), self) }
        }
    }

    #[inline(always)]
    unsafe fn join(_: Cpu<Self>, text: Text) {
        // SAFETY: the caller's promise is the same.
        unsafe { text.join() }
    }
    #[inline(always)]
    unsafe fn load_end<const FIRST: bool, const LAST: bool, const WHOLE: bool>(
        cpu: Cpu<Self>,
        text: Text,
        place: usize,
    ) -> Self {
        if FIRST {
            return Self::zero(cpu);
        }
        // SAFETY: the caller's promise is the same.
        unsafe { text.load_block::<WHOLE>(place - 16) }
    }
    #[inline(always)]
    unsafe fn store_end<const FIRST: bool, const LAST: bool>(self, text: Text, place: usize) {
        if !FIRST {
            // SAFETY: the caller's promise is the same.
            unsafe { text.store_block(place - 16, self) }
        }
    }
}

/// The order of bytes that reverses a block.
#[inline(always)]
pub(super) fn reversal() -> __m128i {
    // SAFETY: SSE2 is x86-64.
    unsafe { _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15) }
}

/// Where the second lane of a register at that place lies in the text: if the text does not reach
/// it, where the first one does.
#[inline(always)]
fn second<const LAST: bool>(text: Text, place: usize) -> usize {
    if LAST && place >= text.length {
        place - 16
    } else {
        place
    }
}

/// As `block::side_by_side` has it.
#[inline]
#[target_feature(enable = "avx2")]
fn side_by_side([a, b, c, d]: &mut [__m256i; 4], [x, y, z]: [&mut __m256i; 3]) {
    // SAFETY: there is no instruction in it.
    unsafe {
        core::arch::asm!(
            "/* {0} {1} {2} {3} {4} {5} {6} */",
            inout(ymm_reg) * a,
            inout(ymm_reg) * b,
            inout(ymm_reg) * c,
            inout(ymm_reg) * d,
            inout(ymm_reg) * x,
            inout(ymm_reg) * y,
            inout(ymm_reg) * z,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
}

impl Lanes for __m256i {
    const COUNT: usize = 2;
    const GROUP: usize = 4;
    const KEEPS_SUMS: bool = true;
    const BESIDE: bool = true;

    #[inline(always)]
    fn zero(_: Cpu<Self>) -> Self {
        featured!(_mm256_setzero_si256())
    }
    #[inline(always)]
    fn splat(_: Cpu<Self>, block: __m128i) -> Self {
        featured!(_mm256_broadcastsi128_si256(block))
    }
    #[inline(always)]
    fn only(_: Cpu<Self>, block: __m128i) -> Self {
        featured!(_mm256_zextsi128_si256(block))
    }
    #[inline(always)]
    fn numbers(_: Cpu<Self>) -> Self {
        featured!(_mm256_set_epi64x(0, 1, 0, 0))
    }
    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        featured!(_mm256_xor_si256(self, other))
    }
    #[inline(always)]
    fn xor3(self, one: Self, other: Self) -> Self {
        self.xor(one).xor(other)
    }
    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        featured!(_mm256_add_epi32(self, other))
    }
    #[inline(always)]
    fn round(self, key: Self) -> Self {
        featured!(_mm256_aesenc_epi128(self, key))
    }
    #[inline(always)]
    fn last_round(self, key: Self) -> Self {
        featured!(_mm256_aesenclast_epi128(self, key))
    }
    #[inline(always)]
    fn times<const HALVES: i32>(self, other: Self) -> Self {
        featured!(_mm256_clmulepi64_epi128::<HALVES>(self, other))
    }
    #[inline(always)]
    fn reversed(self, cpu: Cpu<Self>) -> Self {
        featured!(_mm256_shuffle_epi8(self, Self::splat(cpu, reversal())))
    }
    #[inline(always)]
    fn swapped(self) -> Self {
        featured!(_mm256_shuffle_epi32::<0b0100_1110>(self))
    }
    #[inline(always)]
    fn first(self) -> __m128i {
        featured!(_mm256_castsi256_si128(self))
    }
    #[inline(always)]
    fn with_first(self, block: __m128i) -> Self {
        featured!(_mm256_inserti128_si256::<0>(self, block))
    }
    #[inline(always)]
    fn total(self) -> __m128i {
        let upper = featured!(_mm256_extracti128_si256::<1>(self));
        self.first().xor(upper)
    }
    #[inline(always)]
    fn kept(self, count: usize) -> Self {
        // SAFETY: a mask has 32 bytes.
        let mask = unsafe { _mm256_loadu_si256(mask(count).cast()) };
        featured!(_mm256_and_si256(self, mask))
    }

    #[inline(always)]
    fn side_by_side(group: &mut [Self], sum: [&mut Self; 3]) {
        if let Some(group) = group.as_mut_array() {
            featured!(side_by_side(group, sum));
        }
    }

    #[inline(always)]
    unsafe fn load<const BEHIND: bool>(cpu: Cpu<Self>, from: *const u8) -> Self {
        if BEHIND {
            // SAFETY: the caller says that the second lane's bytes may be read.
            let second = unsafe { _mm_loadu_si128(from.wrapping_add(16).cast()) };
            let zero = Self::only(cpu, featured!(_mm_setzero_si128()));
            return featured!(_mm256_inserti128_si256::<1>(zero, second));
        }
        // SAFETY: the caller says that these bytes may be read.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }
    #[inline(always)]
    unsafe fn store<const BEHIND: bool>(self, to: *mut u8) {
        if BEHIND {
            let second = featured!(_mm256_extracti128_si256::<1>(self));
            // SAFETY: the caller says that the second lane's bytes may be written.
            return unsafe { _mm_storeu_si128(to.wrapping_add(16).cast(), second) };
        }
        // SAFETY: the caller says that these bytes may be written.
        unsafe { _mm256_storeu_si256(to.cast(), self) }
    }

    #[inline(always)]
    unsafe fn join(_: Cpu<Self>, text: Text) {
        // SAFETY: the caller's promise is the same.
        unsafe { text.join() }
    }
    #[inline(always)]
    unsafe fn load_end<const FIRST: bool, const LAST: bool, const WHOLE: bool>(
        cpu: Cpu<Self>,
        text: Text,
        place: usize,
    ) -> Self {
        let first = if FIRST {
            featured!(_mm_setzero_si128())
        } else {
            // SAFETY: the text reaches the first lane, or the register would not be there.
            unsafe { text.load_block::<WHOLE>(place - 16) }
        };
        // SAFETY: chosen within the text; it does reach the second lane of its first register.
        let second = unsafe { text.load_block::<WHOLE>(second::<LAST>(text, place)) };
        let first = Self::only(cpu, first);
        featured!(_mm256_inserti128_si256::<1>(first, second))
    }
    #[inline(always)]
    unsafe fn store_end<const FIRST: bool, const LAST: bool>(self, text: Text, place: usize) {
        let upper = featured!(_mm256_extracti128_si256::<1>(self));
        // SAFETY: chosen within the text; if it is the first lane's place, that one comes after.
        unsafe { text.store_block(second::<LAST>(text, place), upper) };
        if !FIRST {
            // SAFETY: the text reaches the first lane, or the register would not be there.
            unsafe { text.store_block(place - 16, self.first()) };
        }
    }
}
