//! What is known of a packet whose fragments wait.

use crate::ip::reassemble::piece::{Key, Piece};
use crate::ip::reassemble::slab::NONE;
use crate::limits::PACKET;
use crate::time::Time;

/// Bytes of a packet for which one list of fragments is kept: at most 64 fragments start in them.
const SPAN: usize = 512;

pub(super) const SPANS: usize = PACKET / SPAN;

/// Words of a bitmap over a packet in units of 8 bytes.
const WORDS: usize = PACKET / 8 / 64;

/// A packet whose fragments wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Datagram {
    pub key: Key,
    pub born: Time,
    pub older: u32,
    pub newer: u32,
    /// Lists of fragments, by the span in which they start.
    pub spans: [u32; SPANS],
    /// Which units of 8 bytes are there.
    pub covered: [u64; WORDS],
    /// Bytes of its parts.
    pub received: u16,
    /// Where the last part ends, once it is there.
    pub end: Option<u16>,
    /// The furthest end of all parts.
    pub reach: u16,
    /// The fragment at offset 0.
    pub first: u32,
    /// Bytes of its fragments, headers included.
    pub bytes: usize,
    pub count: u16,
    /// ECN fields that were seen, a bit each.
    pub ecn: u8,
    /// An overlap ended it: nothing is held, and what still comes is dropped.
    pub condemned: bool,
}

impl Default for Datagram {
    fn default() -> Self {
        Self {
            key: Key::default(),
            born: Time(0),
            older: NONE,
            newer: NONE,
            spans: [NONE; SPANS],
            covered: [0; WORDS],
            received: 0,
            end: None,
            reach: 0,
            first: NONE,
            bytes: 0,
            count: 0,
            ecn: 0,
            condemned: false,
        }
    }
}

impl Datagram {
    /// The head of the list in which a fragment stands that starts at `start`.
    pub(super) fn span(&mut self, start: u16) -> &mut u32 {
        &mut self.spans[usize::from(start) / SPAN]
    }

    /// The fragments that start near `start`.
    pub(super) const fn near(&self, start: u16) -> u32 {
        self.spans[start as usize / SPAN]
    }

    /// Notes a fragment of `bytes` in all that stands at `place`.
    pub(super) fn note(&mut self, piece: &Piece, place: u32, bytes: usize) {
        self.cover(piece);
        self.received += piece.length();
        self.reach = self.reach.max(piece.end);
        if !piece.more {
            self.end = Some(piece.end);
        }
        if piece.start == 0 {
            self.first = place;
        }
        self.ecn |= 1 << piece.ecn;
        self.bytes += bytes;
        self.count += 1;
    }

    /// Whether a byte of the part is there already.
    pub(super) fn overlaps(&self, piece: &Piece) -> bool {
        let there = |word: usize| self.covered.get(word).copied().unwrap_or(0);
        words(piece).any(|(word, bits)| there(word) & bits != 0)
    }

    fn cover(&mut self, piece: &Piece) {
        for (word, bits) in words(piece) {
            if let Some(there) = self.covered.get_mut(word) {
                *there |= bits;
            }
        }
    }
}

/// The bits of a part, word by word.
fn words(piece: &Piece) -> impl Iterator<Item = (usize, u64)> {
    let (from, to) = (piece.start / 8, piece.end.div_ceil(8));
    (from / 64..to.div_ceil(64)).map(move |word| {
        let below = |unit: u16| {
            let bit = unit.saturating_sub(word * 64).min(64);
            u64::MAX.checked_shr(64 - u32::from(bit)).unwrap_or(0)
        };
        (usize::from(word), below(to) & !below(from))
    })
}
