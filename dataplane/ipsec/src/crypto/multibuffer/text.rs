//! Where a packet's text comes from and where it goes, and its last blocks one by one.
//!
//! Out of place the text has two parts: the payload is read elsewhere, the trailer stands where it
//! is encrypted, and one block may hold the end of the one and the start of the other.

use core::arch::x86_64::{
    __m128i, _mm_andnot_si128, _mm_loadu_si128, _mm_or_si128, _mm_shuffle_epi8, _mm_storeu_si128,
};

use super::block::{BLOCK, load, store};

/// Where a text comes from and where it goes. Who makes one answers for what the fields say.
#[derive(Clone, Copy)]
pub(super) struct Text {
    /// `payload` bytes may be read here; if that is all of the text, the rest of its last block,
    /// too.
    pub source: *const u8,
    /// `length` bytes and the rest of their last block may be written here. Behind the payload
    /// stands what else is to be encrypted.
    pub destination: *mut u8,
    /// Bytes that come from `source`, at most `length`.
    pub payload: usize,
    /// Bytes, not 0.
    pub length: usize,
    /// The rest of the last block may not be touched after all.
    pub narrow: bool,
}

/// 32 bytes to keep and 32 to clear.
static MASKS: [u8; 64] = {
    let mut masks = [0; 64];
    let mut index = 0;
    while index < 32 {
        masks[index] = 0xff;
        index += 1;
    }
    masks
};

/// 32 bytes, the first `count` of them all ones; all for a higher `count`.
#[inline(always)]
pub(super) fn mask(count: usize) -> *const u8 {
    MASKS[32 - count.min(32)..].as_ptr()
}

/// From index 16 − n on: the order that moves the last n of 16 bytes to the front, in front of
/// zeros.
static MOVES: [u8; 2 * BLOCK] = {
    let mut moves = [0x80; 2 * BLOCK];
    let mut index = 0;
    while index < 16 {
        moves[index as usize] = index;
        index += 1;
    }
    moves
};

impl Text {
    /// Writes the block that holds payload and trailer where it goes, from where
    /// [`Self::load_block`] takes it.
    ///
    /// # Safety
    /// The fields' promises hold, nothing was written yet, and the CPU has SSSE3.
    #[inline(always)]
    pub(super) unsafe fn join(self) {
        let rest = self.payload % BLOCK;
        let whole = self.payload - rest;
        if rest == 0 || self.payload == self.length {
            return;
        }
        let from = self.source.wrapping_add(whole);
        let to = self.destination.wrapping_add(whole);
        if whole == 0 || self.narrow && self.length - whole < BLOCK {
            // SAFETY: what the payload still has; the caller's two buffers are two.
            unsafe { from.copy_to_nonoverlapping(to, rest) };
            return;
        }
        // SAFETY: the last 16 bytes of a payload that is longer.
        let payload =
            unsafe { _mm_loadu_si128(from.wrapping_add(rest).wrapping_sub(BLOCK).cast()) };
        let order = MOVES[BLOCK - rest..].as_ptr();
        // SAFETY: `rest` is 1 to 15, the table 32 bytes long.
        let order = unsafe { _mm_loadu_si128(order.cast()) };
        // SAFETY: a mask has 32 bytes.
        let kept = unsafe { _mm_loadu_si128(mask(rest).cast()) };
        // SAFETY: a block that is not narrow may be read and written whole.
        let trailer = unsafe { _mm_loadu_si128(to.cast_const().cast()) };
        // SAFETY: the caller's CPU has SSSE3.
        let payload = unsafe { _mm_shuffle_epi8(payload, order) };
        // SAFETY: SSE2 is x86-64.
        let trailer = unsafe { _mm_andnot_si128(kept, trailer) };
        // SAFETY: SSE2 is x86-64.
        let joined = unsafe { _mm_or_si128(payload, trailer) };
        // SAFETY: as for the trailer.
        unsafe { _mm_storeu_si128(to.cast(), joined) };
    }

    /// The block at `offset`; what is in it behind the text's end means nothing. `WHOLE` says that
    /// the payload is all of the text.
    ///
    /// # Safety
    /// The fields' promises hold, [`Self::join`] was called unless `WHOLE`, and `offset`, a
    /// multiple of 16, lies in the text.
    #[inline(always)]
    pub(super) unsafe fn load_block<const WHOLE: bool>(self, offset: usize) -> __m128i {
        let joined = !WHOLE && offset >= self.payload / BLOCK * BLOCK;
        let from = if joined {
            self.destination.cast_const()
        } else {
            self.source
        };
        let from = from.wrapping_add(offset);
        if self.narrow && offset + BLOCK > self.length {
            let mut block = [0; BLOCK];
            // SAFETY: as many bytes as the text still has, less than a block.
            unsafe { from.copy_to_nonoverlapping(block.as_mut_ptr(), self.length - offset) };
            return load(&block);
        }
        // SAFETY: a block that is not narrow may be read whole.
        unsafe { _mm_loadu_si128(from.cast()) }
    }

    /// Writes the block at `offset`, and what stands behind the text in it with it.
    ///
    /// # Safety
    /// As [`Self::load_block`].
    #[inline(always)]
    pub(super) unsafe fn store_block(self, offset: usize, block: __m128i) {
        let to = self.destination.wrapping_add(offset);
        if self.narrow && offset + BLOCK > self.length {
            let mut bytes = [0; BLOCK];
            store(&mut bytes, block);
            // SAFETY: as many bytes as the text still has, less than a block.
            return unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), self.length - offset) };
        }
        // SAFETY: a block that is not narrow may be written whole.
        unsafe { _mm_storeu_si128(to.cast(), block) }
    }
}
