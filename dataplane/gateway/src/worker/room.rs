//! Where a packet is written: a frame of the port by which it leaves, or the worker's own memory.

use crate::port::Buffer;

/// Where a packet is opened or sealed into.
pub(super) enum Room<'a, T> {
    /// A frame of the port by which it will probably leave.
    Frame(T),
    /// It is longer than that port's frames, and will leave in pieces or not at all.
    Own(&'a mut [u8]),
}

impl<T: Buffer> Room<'_, T> {
    /// Its bytes, room for the Ethernet header included.
    pub(super) fn bytes(&mut self) -> &mut [u8] {
        match self {
            Self::Frame(frame) => frame.room(),
            Self::Own(bytes) => bytes,
        }
    }
}
