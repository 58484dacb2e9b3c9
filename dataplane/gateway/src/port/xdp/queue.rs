//! One queue's books: which frame is where, between the worker and the rings. No system call and
//! no address arithmetic here, so all of it runs on plain memory under test.

use arrayvec::ArrayVec;
use ipsec::limits::{BATCH, PACKET};
use ipsec::verdict::DropReason;

use super::frame::{Backing, Outgoing, PIECES, Piece, Received, Scratch, Slot, Transmit};
use super::gather::{Gathered, Gatherer};
use super::rings::Queues;
use super::wakeup::{Answer, Kicker, Step};
use crate::port::{Buffer, Burst, Ledger, Losses};

/// Scratch buffers of one direction of one queue where packets of several frames are on: two
/// batches, one being worked on and one held or on its way back from another worker.
const SCRATCH: usize = 2 * BATCH;

/// Scratch buffers at hand: tokens carry the box, which keeps them small.
type Pool = Vec<Box<Scratch>>;

/// What a queue counts about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kicks {
    /// System calls that told the kernel to transmit.
    pub kicks: u64,
    /// Descriptors given to the transmit ring.
    pub descriptors: u64,
    /// Flushes that left a kick pending.
    pub pending: u64,
    /// Kicks answered by "the interface is down" or "gone".
    pub refused: u64,
}

/// The frames of one socket and where they are.
#[derive(Debug)]
pub(super) struct Queue<Q> {
    waiting: Vec<Slot>,
    with_kernel: u64,
    received: u64,
    receive_total: u64,
    receive_scratch: Pool,
    gatherer: Gatherer,
    free: Vec<Slot>,
    allocated: u64,
    queued: u64,
    transmit_total: u64,
    transmit_scratch: Pool,
    /// Places in the transmit ring that nobody has reserved, as far as last known.
    places: u32,
    /// Places reserved by allocated or staged frames.
    reserved: u32,
    staged: Vec<Outgoing>,
    /// Packets of several frames are on.
    frags: bool,
    losses: Losses,
    kicks: Kicks,
    /// Last: the memory goes after everything that points into it.
    queues: Q,
}

impl<Q: Queues> Queue<Q> {
    /// `slots`: all frames; half of them receive, half transmit. The fill ring is full afterwards.
    pub(super) fn new(queues: Q, mut slots: Vec<Slot>, frags: bool) -> Self {
        let transmit = slots.split_off(slots.len() / 2);
        let scratch = if frags { SCRATCH } else { 0 };
        let pool = || -> Pool { (0..scratch).map(|_| Scratch::new(queues.owner())).collect() };
        let mut queue = Self {
            receive_total: (slots.len() + scratch) as u64,
            waiting: slots,
            with_kernel: 0,
            received: 0,
            receive_scratch: pool(),
            gatherer: Gatherer::default(),
            transmit_total: (transmit.len() + scratch) as u64,
            allocated: 0,
            queued: 0,
            transmit_scratch: pool(),
            places: 0,
            reserved: 0,
            staged: Vec::with_capacity(transmit.len()),
            free: transmit,
            frags,
            losses: Losses::default(),
            kicks: Kicks::default(),
            queues,
        };
        queue.fill();
        queue
    }

    pub(super) const fn queues(&self) -> &Q {
        &self.queues
    }

    pub(super) const fn kicks(&self) -> Kicks {
        self.kicks
    }

    pub(super) fn take_losses(&mut self) -> Losses {
        std::mem::take(&mut self.losses)
    }

    pub(super) fn receive(&mut self, burst: &mut Burst<Received>, limit: usize) {
        let mut pieces: ArrayVec<Piece, BATCH> = ArrayVec::new();
        self.queues
            .receive(limit.min(burst.remaining_capacity()), &mut pieces);
        self.with_kernel -= pieces.len() as u64;
        self.received += pieces.len() as u64;
        for piece in pieces {
            if self.gatherer.is_idle() && !piece.more {
                burst.push(Received {
                    length: piece.length,
                    backing: Backing::Frame(piece.slot, piece.pointer),
                });
            } else if let Some(packet) = self.gather(piece) {
                burst.push(packet);
            }
        }
    }

    /// One frame of a packet of several: copied out, and the frame goes home at once.
    fn gather(&mut self, piece: Piece) -> Option<Received> {
        let pool = &mut self.receive_scratch;
        let gathered = self.gatherer.add(piece.bytes(), piece.more, || pool.pop());
        self.received -= 1;
        self.waiting.push(piece.slot);
        match gathered {
            Gathered::Partly => None,
            Gathered::Whole(scratch, length) => {
                self.received += 1;
                Some(Received {
                    backing: Backing::Scratch(scratch),
                    length,
                })
            }
            Gathered::Lost(reason, scratch) => {
                self.losses.count(reason);
                self.receive_scratch.extend(scratch);
                None
            }
        }
    }

    pub(super) fn release(&mut self, frame: Received) {
        self.received -= 1;
        match frame.backing {
            Backing::Frame(slot, _) => {
                self.check_owner(slot.owner());
                self.waiting.push(slot);
            }
            Backing::Scratch(scratch) => {
                self.check_owner(scratch.owner);
                self.receive_scratch.push(scratch);
            }
        }
    }

    pub(super) fn allocate(&mut self, length: usize) -> Result<Transmit, DropReason> {
        let capacity = self.queues.capacity();
        if length > capacity {
            return self.allocate_pieces(length.div_ceil(capacity), length);
        }
        self.reserve(1)?;
        let slot = self.free.pop().ok_or(DropReason::NoFrame)?;
        self.count_allocated(1, 1);
        Ok(self.frame(slot))
    }

    /// The slot with its room.
    fn frame(&mut self, slot: Slot) -> Transmit {
        let pointer = self.queues.room(&slot);
        #[expect(clippy::cast_possible_truncation, reason = "a frame's size is 32 bits")]
        Transmit {
            backing: Backing::Frame(slot, pointer),
            room: self.queues.capacity() as u32,
        }
    }

    fn allocate_pieces(&mut self, pieces: usize, length: usize) -> Result<Transmit, DropReason> {
        if !self.frags || pieces > PIECES || length > PACKET {
            return Err(DropReason::Unsupported);
        }
        self.reserve(pieces)?;
        let mut scratch = self.transmit_scratch.pop().ok_or(DropReason::NoFrame)?;
        let from = self.free.len() - pieces;
        scratch.slots.extend(self.free.drain(from..));
        #[expect(clippy::cast_possible_truncation, reason = "at most PIECES")]
        self.count_allocated(pieces as u64 + 1, pieces as u32);
        let room = PACKET.min(pieces * self.queues.capacity());
        #[expect(clippy::cast_possible_truncation, reason = "at most PACKET")]
        Ok(Transmit {
            backing: Backing::Scratch(scratch),
            room: room as u32,
        })
    }

    /// Sees that `pieces` places in the ring and as many free frames are there.
    fn reserve(&mut self, pieces: usize) -> Result<(), DropReason> {
        if (self.places as usize) < pieces {
            let taken = self.queues.outstanding() + self.reserved;
            self.places = self.queues.transmit_size().saturating_sub(taken);
            if (self.places as usize) < pieces {
                return Err(DropReason::TxFull);
            }
        }
        if self.free.len() < pieces {
            self.complete();
            if self.free.len() < pieces {
                return Err(DropReason::NoFrame);
            }
        }
        Ok(())
    }

    const fn count_allocated(&mut self, frames: u64, places: u32) {
        self.allocated += frames;
        self.places -= places;
        self.reserved += places;
    }

    pub(super) fn discard(&mut self, buffer: Transmit) {
        match buffer.backing {
            Backing::Frame(slot, _) => {
                self.check_owner(slot.owner());
                self.give_back(slot);
            }
            Backing::Scratch(mut scratch) => {
                self.check_owner(scratch.owner);
                for slot in scratch.slots.drain(..) {
                    self.give_back(slot);
                }
                self.allocated -= 1;
                self.transmit_scratch.push(scratch);
            }
        }
    }

    fn give_back(&mut self, slot: Slot) {
        self.allocated -= 1;
        self.reserved -= 1;
        self.places += 1;
        self.free.push(slot);
    }

    pub(super) fn transmit(&mut self, buffer: Transmit, length: usize) {
        debug_assert!(length <= buffer.room as usize, "the packet fits its room");
        let length = length.min(buffer.room as usize);
        if length == 0 {
            // The kernel would swallow the descriptor and never give the frame back.
            self.discard(buffer);
            return;
        }
        match buffer.backing {
            Backing::Frame(slot, _) => {
                self.check_owner(slot.owner());
                self.stage(slot, length, false);
            }
            Backing::Scratch(scratch) => self.cut(scratch, length),
        }
    }

    /// The packet in `scratch` into as many of its frames as it fills; the others are given back.
    fn cut(&mut self, mut scratch: Box<Scratch>, length: usize) {
        self.check_owner(scratch.owner);
        let capacity = self.queues.capacity();
        let pieces = length.div_ceil(capacity);
        for (index, slot) in scratch.slots.drain(..).enumerate() {
            if index >= pieces {
                self.give_back(slot);
                continue;
            }
            let chunk = &scratch.bytes[index * capacity..length.min((index + 1) * capacity)];
            let mut target = self.frame(slot);
            target.room()[..chunk.len()].copy_from_slice(chunk);
            let Backing::Frame(slot, _) = target.backing else {
                unreachable!("made of a frame just now");
            };
            self.stage(slot, chunk.len(), index + 1 < pieces);
        }
        self.allocated -= 1;
        self.transmit_scratch.push(scratch);
    }

    fn stage(&mut self, slot: Slot, length: usize, more: bool) {
        self.allocated -= 1;
        self.queued += 1;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "at most a frame's capacity"
        )]
        self.staged.push(Outgoing {
            slot,
            length: length as u32,
            more,
        });
    }

    pub(super) fn flush(&mut self) -> bool {
        self.complete();
        self.fill();
        #[expect(clippy::cast_possible_truncation, reason = "at most the ring's size")]
        let staged = self.staged.len() as u32;
        if staged > 0 {
            self.queues.submit(&mut self.staged);
            self.reserved -= staged;
            self.kicks.descriptors += u64::from(staged);
        }
        self.kick()
    }

    /// True: something is left to kick for.
    fn kick(&mut self) -> bool {
        let mut kicker = Kicker::new(self.queues.transmit_size());
        loop {
            let outstanding = self.queues.outstanding();
            match kicker.step(outstanding, self.queues.wakeup_wanted()) {
                Step::Rest => return false,
                Step::Pending => {
                    self.kicks.pending += 1;
                    return true;
                }
                Step::Kick => {
                    self.kicks.kicks += 1;
                    if self.queues.kick() != Answer::Taken {
                        self.kicks.refused += 1;
                        return false;
                    }
                }
            }
        }
    }

    fn complete(&mut self) {
        self.queued -= self.queues.complete(&mut self.free) as u64;
    }

    fn fill(&mut self) {
        self.with_kernel += self.queues.fill(&mut self.waiting) as u64;
    }

    pub(super) fn ledger(&self) -> Ledger {
        let gathering = u64::from(self.gatherer.holds_scratch());
        let scratch = self.receive_scratch.len() as u64 + gathering;
        Ledger {
            receive_total: self.receive_total,
            fill: self.waiting.len() as u64 + self.with_kernel + scratch,
            received: self.received,
            transmit_total: self.transmit_total,
            free: (self.free.len() + self.transmit_scratch.len()) as u64,
            allocated: self.allocated,
            queued: self.queued,
        }
    }

    /// A token of another port would let two owners share memory.
    fn check_owner(&self, owner: u32) {
        assert_eq!(
            owner,
            self.queues.owner(),
            "a frame goes back to its own port"
        );
    }
}

#[cfg(test)]
mod tests;
