//! The anti-replay window and ESN reconstruction (RFC 4303 §3.4.3, Appendix A).
//!
//! Two operations: [`Window::check`] before any key is used changes nothing, and
//! [`Window::accept`] after authentication decides again and moves. The bitmap is a ring of bits
//! indexed by the number itself, so that moving the right edge clears bits instead of shifting
//! them: the cost is the words passed over, at most the bitmap. The window is exact for any size.

use crate::limits::REPLAY_WINDOW_MAXIMUM;
use crate::verdict::DropReason;

/// Words kept beside the state: windows up to 256 packets touch no other memory.
const INLINE_WORDS: usize = 4;

const WORD_BITS: u64 = u64::BITS as u64;

/// What anti-replay knows of one inbound SA, ESP or AH.
//= T48 (RFC 4302 section 3.4.3)
//= exception T86: a window that lost more than 2³² packets is not searched for, the peer rekeys
pub struct Window {
    /// The highest number accepted; 0 before the first.
    right: u64,
    /// Packets; 0: anti-replay is off.
    size: u32,
    esn: bool,
    bitmap: Bitmap,
}

/// Power-of-two many words. One bit for each number modulo the bits there are; at least as many
/// as the window has packets.
enum Bitmap {
    Inline([u64; INLINE_WORDS]),
    Heap(Box<[u64]>),
}

/// How an accepted number moved the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advance {
    /// A new right edge: the newest packet so far (what `follow_peer` asks for).
    Right,
    /// A number inside the window.
    Inside,
}

/// A window as it was at a clean stop: [`Window::export`] makes it, [`Window::restored`] reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SavedWindow {
    /// The highest number accepted.
    pub right: u64,
    /// The window's size, packets.
    pub size: u32,
    /// The word `right / 64` and those before it that the window reaches, first to last: bit
    /// `n % 64` of the word `n / 64` tells whether `n` was seen.
    pub words: Vec<u64>,
}

impl SavedWindow {
    /// As bytes for a file, big endian: right edge, size, words.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(12 + self.words.len() * 8);
        bytes.extend(self.right.to_be_bytes());
        bytes.extend(self.size.to_be_bytes());
        for word in &self.words {
            bytes.extend(word.to_be_bytes());
        }
        bytes
    }

    /// The reverse of [`Self::to_bytes`]; `None` for what it cannot have written.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (right, rest) = bytes.split_first_chunk()?;
        let (size, rest) = rest.split_first_chunk()?;
        let (words, rest) = rest.as_chunks();
        let size = u32::from_be_bytes(*size);
        let longest = (size as usize).div_ceil(u64::BITS as usize) + 1;
        if !rest.is_empty() || size > REPLAY_WINDOW_MAXIMUM || words.len() > longest {
            return None;
        }
        Some(Self {
            right: u64::from_be_bytes(*right),
            size,
            words: words.iter().map(|word| u64::from_be_bytes(*word)).collect(),
        })
    }
}

impl Window {
    /// A window in which every number up to and including `right` counts as seen, 0 always.
    ///
    /// `size` 0 switches anti-replay off; sizes above [`REPLAY_WINDOW_MAXIMUM`] are cut to it.
    //= T24 T25 T81 (RFC 4303 section 3.4.3)
    //= T87 (RFC 4303 appendix A2)
    #[must_use]
    pub fn new(size: u32, esn: bool, right: u64) -> Self {
        let size = size.min(REPLAY_WINDOW_MAXIMUM);
        let words = (size as usize)
            .div_ceil(u64::BITS as usize)
            .max(1)
            .next_power_of_two();
        // Bits ahead of the right edge are never read before an advance has cleared them.
        let bitmap = if words <= INLINE_WORDS {
            Bitmap::Inline([u64::MAX; INLINE_WORDS])
        } else {
            Bitmap::Heap(vec![u64::MAX; words].into_boxed_slice())
        };
        Self {
            right,
            size,
            esn,
            bitmap,
        }
    }

    /// The window of an earlier run. What `saved` does not know counts as seen.
    #[must_use]
    pub fn restored(size: u32, esn: bool, saved: &SavedWindow) -> Self {
        let mut window = Self::new(size, esn, saved.right);
        let span = u64::from(window.size.min(saved.size));
        if span == 0 {
            return window;
        }
        let first = saved.right.saturating_sub(span - 1).max(1);
        let newest = saved.right / WORD_BITS;
        for (age, &word) in (0..).zip(saved.words.iter().rev()) {
            let Some(index) = newest
                .checked_sub(age)
                .filter(|it| *it >= first / WORD_BITS)
            else {
                break;
            };
            let mask = mask(index, first, saved.right);
            *window.bitmap.word_mut(index) &= word | !mask;
        }
        window
    }

    /// The window to save at a clean stop.
    #[must_use]
    pub fn export(&self) -> SavedWindow {
        let mut words = Vec::new();
        if self.size > 0 {
            let first = self.left();
            for index in first / WORD_BITS..=self.right / WORD_BITS {
                words.push(self.bitmap.word(index) & mask(index, first, self.right));
            }
        }
        SavedWindow {
            right: self.right,
            size: self.size,
            words,
        }
    }

    /// The highest number accepted, 64 bits with ESN; 0 before the first packet.
    #[must_use]
    pub const fn right(&self) -> u64 {
        self.right
    }

    /// Anti-replay is on.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.size > 0
    }

    /// The 64-bit number behind the 32 bits on the wire, if a packet with it may be new. Changes
    /// nothing.
    ///
    /// # Errors
    /// [`DropReason::Replay`]: seen, or left of the window, or before epoch 0.
    //= T26 T27 T80 (RFC 4303 section 3.4.3)
    pub fn check(&self, low: u32) -> Result<u64, DropReason> {
        let number = self.reconstruct(low).ok_or(DropReason::Replay)?;
        self.recheck(number)?;
        Ok(number)
    }

    /// Counts an authentic packet's number as seen and moves the window. Decides again, since the
    /// same number may have been accepted since the check.
    ///
    /// # Errors
    /// [`DropReason::Replay`] as [`Self::check`]; the window is then unchanged.
    //= T28 T29 (RFC 4303 section 3.4.3)
    pub fn accept(&mut self, number: u64) -> Result<Advance, DropReason> {
        self.recheck(number)?;
        let advance = if number > self.right {
            // The next number, which nearly every packet has: its own bit alone, set below.
            if number - self.right > 1 {
                self.bitmap.clear(self.right + 1, number);
            }
            self.right = number;
            Advance::Right
        } else {
            Advance::Inside
        };
        if self.is_on() {
            *self.bitmap.word_mut(number / WORD_BITS) |= 1 << (number % WORD_BITS);
        }
        Ok(advance)
    }

    /// Whether an authentic packet's number is still new. Changes nothing.
    ///
    /// # Errors
    /// [`DropReason::Replay`] as [`Self::check`].
    pub fn recheck(&self, number: u64) -> Result<(), DropReason> {
        if self.is_on() && self.is_seen(number) {
            return Err(DropReason::Replay);
        }
        Ok(())
    }

    /// Number of the window's left end, which is 0 until the window has filled.
    fn left(&self) -> u64 {
        self.right
            .saturating_sub(u64::from(self.size).saturating_sub(1))
    }

    fn is_seen(&self, number: u64) -> bool {
        if number > self.right {
            return false;
        }
        let word = self.bitmap.word(number / WORD_BITS);
        number < self.left() || word >> (number % WORD_BITS) & 1 == 1
    }

    /// Appendix A2.2, with T and B of the RFC as `right` and the window's left end. `None` for a
    /// number before epoch 0 or behind the last.
    //= T30 (RFC 4303 appendix A2.2)
    fn reconstruct(&self, low: u32) -> Option<u64> {
        if !self.esn {
            return Some(u64::from(low));
        }
        let (epoch, top) = (self.right >> 32, self.right & 0xffff_ffff);
        // Without anti-replay no window tells the epochs apart: the nearest one it is.
        let size = if self.is_on() {
            u64::from(self.size)
        } else {
            1 << 31
        };
        let low = u64::from(low);
        let epoch = match top.checked_sub(size - 1) {
            // Case A: the window lies within one epoch.
            Some(bottom) if low >= bottom => epoch,
            Some(_) => epoch.checked_add(1).filter(|it| *it <= 0xffff_ffff)?,
            // Case B: it reaches back into the epoch before.
            None if low >= (1 << 32) + top - (size - 1) => match epoch.checked_sub(1) {
                None if !self.is_on() => 0,
                before => before?,
            },
            None => epoch,
        };
        Some(epoch << 32 | low)
    }
}

impl Bitmap {
    fn words(&self) -> &[u64] {
        match self {
            Self::Inline(words) => words,
            Self::Heap(words) => words,
        }
    }

    fn words_mut(&mut self) -> &mut [u64] {
        match self {
            Self::Inline(words) => words,
            Self::Heap(words) => words,
        }
    }

    /// The word that holds the numbers of `index * 64` and on.
    fn word(&self, index: u64) -> u64 {
        let words = self.words();
        words[position(index, words.len())]
    }

    fn word_mut(&mut self, index: u64) -> &mut u64 {
        let words = self.words_mut();
        &mut words[position(index, words.len())]
    }

    /// Marks `first..=last` as unseen: what stood there belongs to numbers a whole ring older.
    fn clear(&mut self, first: u64, last: u64) {
        let bits = self.words().len() as u64 * WORD_BITS;
        if last - first >= bits {
            self.words_mut().fill(0);
            return;
        }
        for index in first / WORD_BITS..=last / WORD_BITS {
            *self.word_mut(index) &= !mask(index, first, last);
        }
    }
}

/// Where the word `index` lies in a ring of `length` words, a power of two.
const fn position(index: u64, length: usize) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the mask leaves less than the length"
    )]
    let position = (index & (length as u64 - 1)) as usize;
    position
}

/// The bits of the word `index` that stand for numbers in `first..=last`.
const fn mask(index: u64, first: u64, last: u64) -> u64 {
    let mut mask = u64::MAX;
    if index == first / WORD_BITS {
        mask &= u64::MAX << (first % WORD_BITS);
    }
    if index == last / WORD_BITS {
        mask &= u64::MAX >> (WORD_BITS - 1 - last % WORD_BITS);
    }
    mask
}

#[cfg(test)]
mod tests;
