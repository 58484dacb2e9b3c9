//! Frame tokens. A [`Slot`] is the ownership of one frame of one UMEM: made once per frame when
//! the UMEM is made, never cloned, given up to a ring and taken back from a ring. What workers hold
//! are [`Received`] and [`Transmit`]: a slot with the address of its bytes, or a scratch buffer
//! that a packet of several frames was gathered in.
//!
//! Tokens outlive no memory: a port that is dropped while tokens are out leaks its UMEM, so the
//! addresses in them stay valid for ever. That is what lets another worker read a lent frame.
#![expect(
    unsafe_code,
    reason = "the bytes of a token lie in the UMEM, outside of what the compiler sees"
)]

use std::ptr::NonNull;
use std::slice;

use arrayvec::ArrayVec;
use ipsec::limits::PACKET;

use crate::port::{Buffer, Frame};

/// Frames that one packet may be cut into. 5: 16 KiB of packet at 3 840 bytes a frame, and well
/// under the 17 fragments that the kernel carries.
pub(super) const PIECES: usize = 5;

/// Ownership of one frame. Dropping it loses the frame to its port, nothing worse.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Slot {
    index: u32,
    owner: u32,
}

impl Slot {
    /// Frame `index` of the UMEM whose identity is `owner`. The caller makes each slot once, or
    /// again only after it was given up.
    pub(super) const fn new(index: u32, owner: u32) -> Self {
        Self { index, owner }
    }

    /// Position of the frame in its UMEM.
    pub(super) const fn index(&self) -> u32 {
        self.index
    }

    /// Identity of its UMEM.
    pub(super) const fn owner(&self) -> u32 {
        self.owner
    }
}

/// A slot as the receive ring gave it: one frame of a packet.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) slot: Slot,
    /// Its first byte; `length` bytes from there lie in the frame and belong to the slot.
    pub(super) pointer: NonNull<u8>,
    pub(super) length: u32,
    /// The packet goes on in the next piece.
    pub(super) more: bool,
}

impl Piece {
    /// The bytes that arrived.
    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: the ring that made the piece vouches for `length` bytes at `pointer`, the slot is
        // their only owner, and it is borrowed for as long as the slice.
        unsafe { slice::from_raw_parts(self.pointer.as_ptr(), self.length as usize) }
    }
}

/// A slot on its way to the transmit ring.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) slot: Slot,
    pub(super) length: u32,
    /// The packet goes on in the next one.
    pub(super) more: bool,
}

/// Contiguous room for a packet of several frames, and the frames it will leave by.
#[derive(Debug)]
pub(super) struct Scratch {
    pub(super) owner: u32,
    pub(super) bytes: Box<[u8]>,
    pub(super) slots: ArrayVec<Slot, PIECES>,
}

impl Scratch {
    /// An empty one for the port with identity `owner`.
    pub(super) fn new(owner: u32) -> Box<Self> {
        Box::new(Self {
            owner,
            bytes: vec![0; PACKET].into_boxed_slice(),
            slots: ArrayVec::new(),
        })
    }
}

/// Where a token's bytes lie.
#[derive(Debug)]
pub(super) enum Backing {
    /// In a frame of the UMEM.
    Frame(Slot, NonNull<u8>),
    /// In a scratch buffer.
    Scratch(Box<Scratch>),
}

/// A received packet. Back to its port by `release`.
#[derive(Debug)]
#[must_use = "a frame that is not released is lost to its port"]
pub struct Received {
    pub(super) backing: Backing,
    pub(super) length: u32,
}

// SAFETY: the slot is the only owner of the bytes at its pointer, whichever thread holds it, and
// they stay mapped (module documentation).
unsafe impl Send for Received {}

// SAFETY: a shared reference reads only, and writing needs a unique one.
unsafe impl Sync for Received {}

impl Frame for Received {
    fn bytes(&self) -> &[u8] {
        match &self.backing {
            Backing::Frame(_, pointer) => {
                // SAFETY: as `Piece::bytes`, from which slot, pointer and length were taken.
                unsafe { slice::from_raw_parts(pointer.as_ptr(), self.length as usize) }
            }
            Backing::Scratch(scratch) => &scratch.bytes[..self.length as usize],
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.backing {
            Backing::Frame(_, pointer) => {
                // SAFETY: as `bytes`; the token is borrowed uniquely, and it is the only one.
                unsafe { slice::from_raw_parts_mut(pointer.as_ptr(), self.length as usize) }
            }
            Backing::Scratch(scratch) => &mut scratch.bytes[..self.length as usize],
        }
    }
}

/// A frame to be sent, with its place in the transmit ring. Back to its port by `transmit` or
/// `discard`.
#[derive(Debug)]
#[must_use = "a frame that is neither transmitted nor discarded is lost to its port"]
pub struct Transmit {
    pub(super) backing: Backing,
    pub(super) room: u32,
}

// SAFETY: as for `Received`.
unsafe impl Send for Transmit {}

impl Buffer for Transmit {
    fn room(&mut self) -> &mut [u8] {
        match &mut self.backing {
            Backing::Frame(_, pointer) => {
                // SAFETY: the port gives `room` bytes at `pointer` to the slot, which is their only
                // owner and is borrowed uniquely.
                unsafe { slice::from_raw_parts_mut(pointer.as_ptr(), self.room as usize) }
            }
            Backing::Scratch(scratch) => &mut scratch.bytes[..self.room as usize],
        }
    }
}

const _: () = assert!(
    size_of::<Received>() <= 32,
    "a burst of tokens is moved often"
);
