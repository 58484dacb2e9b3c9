//! The packet memory of one socket: where a slot's bytes are.
//!
//! Every address comes from xsk-rs for one descriptor at a time, so no pointer ever reaches beyond
//! its frame.
#![expect(
    unsafe_code,
    reason = "xsk-rs leaves it to its caller to know who owns a frame"
)]

use std::io;
use std::mem;
use std::num::NonZeroU32;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use xsk_rs::Umem;
use xsk_rs::config::UmemConfig;
use xsk_rs::umem::frame::FrameDesc;

use super::frame::{Piece, Slot};
use crate::port::settings;

/// Identities of UMEMs, so that a token given back to another port than its own is found out.
static NEXT_OWNER: AtomicU32 = AtomicU32::new(0);

/// One UMEM and the descriptors of its frames, as they were when it was made.
#[derive(Debug)]
pub(super) struct Memory {
    umem: Umem,
    descriptors: Box<[FrameDesc]>,
    owner: u32,
    frame_shift: u32,
    capacity: usize,
}

impl Memory {
    /// Maps and registers the memory. The slots are the frames, each once.
    pub(super) fn new(
        size: settings::Umem,
        rings: settings::Rings,
    ) -> io::Result<(Self, Vec<Slot>)> {
        let config = UmemConfig::builder()
            .frame_size(size.frame_size.try_into().map_err(io::Error::other)?)
            .fill_queue_size(rings.fill.try_into().map_err(io::Error::other)?)
            .comp_queue_size(rings.completion.try_into().map_err(io::Error::other)?)
            .build()
            .map_err(io::Error::other)?;
        let frames = NonZeroU32::new(size.frames).ok_or(io::ErrorKind::InvalidInput)?;
        let (umem, descriptors) =
            Umem::new(config, frames, size.huge_pages).map_err(super::diagnose::cause)?;
        let owner = NEXT_OWNER.fetch_add(1, Ordering::Relaxed);
        let memory = Self {
            umem,
            descriptors: descriptors.into_boxed_slice(),
            owner,
            frame_shift: size.frame_size.trailing_zeros(),
            capacity: config.mtu() as usize,
        };
        let slots = (0..size.frames).map(|index| Slot::new(index, owner));
        Ok((memory, slots.collect()))
    }

    /// What sockets are made from.
    pub(super) const fn umem(&self) -> &Umem {
        &self.umem
    }

    pub(super) const fn owner(&self) -> u32 {
        self.owner
    }

    pub(super) const fn frames(&self) -> usize {
        self.descriptors.len()
    }

    /// Bytes of packet that a frame takes: its size without the headroom of XDP.
    pub(super) const fn capacity(&self) -> usize {
        self.capacity
    }

    /// The descriptor of a frame of ours.
    pub(super) fn descriptor(&self, slot: &Slot) -> FrameDesc {
        assert_eq!(
            slot.owner(),
            self.owner,
            "a frame goes back to its own port"
        );
        self.descriptors[slot.index() as usize]
    }

    /// The same, saying that the frame holds `length` bytes.
    pub(super) fn sized(&self, slot: &Slot, length: u32) -> FrameDesc {
        let mut descriptor = self.descriptor(slot);
        // SAFETY: the descriptor is of this UMEM, and the caller holds its only slot.
        let mut data = unsafe { self.umem.data_mut(&mut descriptor) };
        data.cursor().set_pos(length as usize);
        descriptor
    }

    /// The room of the frame.
    pub(super) fn room(&self, slot: &Slot) -> NonNull<u8> {
        let mut descriptor = self.sized(slot, u32::MAX);
        self.bytes(&mut descriptor)
    }

    /// What the receive ring gave.
    pub(super) fn arrived(&self, descriptor: &mut FrameDesc) -> Piece {
        Piece {
            slot: self.returned(descriptor),
            #[expect(
                clippy::cast_possible_truncation,
                reason = "the ring's length is 32 bits"
            )]
            length: descriptor.lengths().data() as u32,
            more: descriptor.has_more_frames(),
            pointer: self.bytes(descriptor),
        }
    }

    /// The frame of a descriptor that a ring gave back: the kernel gives each back once.
    pub(super) fn returned(&self, descriptor: &FrameDesc) -> Slot {
        let index = descriptor.addr() >> self.frame_shift;
        debug_assert!(index < self.frames(), "the kernel gives back what it got");
        #[expect(
            clippy::cast_possible_truncation,
            reason = "frames are counted in 32 bits"
        )]
        Slot::new(index as u32, self.owner)
    }

    /// Never unmaps the memory.
    pub(super) fn leak(&self) {
        mem::forget(self.umem.clone());
    }

    fn bytes(&self, descriptor: &mut FrameDesc) -> NonNull<u8> {
        // SAFETY: the descriptor is of this UMEM: from the table or from a ring of its socket. Its
        // frame belongs to nobody but the caller, who holds the slot or is about to make it.
        let mut data = unsafe { self.umem.data_mut(descriptor) };
        NonNull::from(data.contents_mut()).cast()
    }
}
