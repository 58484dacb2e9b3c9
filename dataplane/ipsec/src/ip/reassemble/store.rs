//! Where fragments wait: their content in chains of blocks.

use crate::ip::reassemble::piece::Piece;
use crate::ip::reassemble::slab::{NONE, Slab};

/// Bytes of a block's content: most fragments take a handful of blocks, the smallest one.
pub(super) const BLOCK: usize = 252;

/// A fragment that waits. Its content, from its IP header on, is a chain of blocks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Waiting {
    pub piece: Piece,
    pub tag: u64,
    /// The next one that starts in the same span.
    pub next: u32,
    block: u32,
}

#[derive(Clone, Copy, Debug)]
struct Block {
    next: u32,
    bytes: [u8; BLOCK],
}

impl Default for Block {
    fn default() -> Self {
        Self {
            next: NONE,
            bytes: [0; BLOCK],
        }
    }
}

/// All fragments of a table.
#[derive(Debug)]
pub(super) struct Store {
    waiting: Slab<Waiting>,
    blocks: Slab<Block>,
}

impl Store {
    /// Room for `blocks` blocks; no fragment takes less than one.
    pub(super) fn new(blocks: usize) -> Self {
        Self {
            waiting: Slab::new(blocks),
            blocks: Slab::new(blocks),
        }
    }

    /// Whether `bytes` of content find room.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.blocks.room() >= bytes.div_ceil(BLOCK) && self.waiting.room() > 0
    }

    /// The fragment at `place`.
    pub(super) fn at(&self, place: u32) -> &Waiting {
        self.waiting.at(place)
    }

    /// Chunks made so far.
    #[cfg(test)]
    pub(super) fn chunks(&self) -> [usize; 2] {
        [self.waiting.chunks(), self.blocks.chunks()]
    }

    /// Copies a fragment for which there is room, in front of the list `next`.
    pub(super) fn keep(&mut self, ip: &[u8], piece: Piece, tag: u64, next: u32) -> Option<u32> {
        let place = self.waiting.take()?;
        let block = self.store(ip);
        *self.waiting.at_mut(place) = Waiting {
            piece,
            tag,
            next,
            block,
        };
        Some(place)
    }

    /// Gives back a fragment and its content.
    pub(super) fn give_back(&mut self, place: u32) -> Waiting {
        let waiting = *self.waiting.at(place);
        let mut block = waiting.block;
        while block != NONE {
            let behind = self.blocks.at(block).next;
            self.blocks.give_back(block);
            block = behind;
        }
        self.waiting.give_back(place);
        waiting
    }

    /// Whether the fragment's part of the packet is `payload`.
    pub(super) fn has_content(&self, waiting: &Waiting, payload: &[u8]) -> bool {
        let mut skip = usize::from(waiting.piece.payload);
        let mut rest = payload;
        let mut place = waiting.block;
        while place != NONE && !rest.is_empty() {
            let block = self.blocks.at(place);
            let there = block.bytes.get(skip..).unwrap_or(&[]);
            let (compared, behind) = rest.split_at(there.len().min(rest.len()));
            if there.get(..compared.len()) != Some(compared) {
                return false;
            }
            rest = behind;
            skip = skip.saturating_sub(BLOCK);
            place = block.next;
        }
        rest.is_empty()
    }

    /// Copies the fragment's content from `skip` on.
    pub(super) fn load(&self, place: u32, mut skip: usize, out: &mut [u8]) {
        let mut place = self.waiting.at(place).block;
        let mut rest = out;
        while place != NONE && !rest.is_empty() {
            let block = self.blocks.at(place);
            let there = block.bytes.get(skip..).unwrap_or(&[]);
            let (room, behind) = rest.split_at_mut(there.len().min(rest.len()));
            room.copy_from_slice(there.get(..room.len()).unwrap_or(&[]));
            rest = behind;
            skip = skip.saturating_sub(BLOCK);
            place = block.next;
        }
    }

    /// A chain of blocks with these bytes.
    fn store(&mut self, bytes: &[u8]) -> u32 {
        let mut next = NONE;
        for part in bytes.chunks(BLOCK).rev() {
            let Some(place) = self.blocks.take() else {
                break;
            };
            let block = self.blocks.at_mut(place);
            block.next = std::mem::replace(&mut next, place);
            if let Some(room) = block.bytes.get_mut(..part.len()) {
                room.copy_from_slice(part);
            }
        }
        next
    }
}
