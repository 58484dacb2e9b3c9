//! Packets between workers and the host thread: owned buffers of one size that go round between a
//! queue of full ones and a queue of empty ones, so that nothing is allocated on the way.

use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use ipsec::limits::PACKET;
use ipsec::verdict::DropReason;

use crate::port::bell::Bell;

/// Packets on the way in one direction of one worker: four batches, as much as a worker leaves
/// waiting while it works on full batches of its two ports.
pub(super) const DEPTH: usize = 256;

/// An IP packet in a buffer of the host port.
#[derive(Debug)]
pub struct HostPacket {
    bytes: Box<[u8]>,
    length: usize,
}

impl HostPacket {
    pub(super) fn new() -> Self {
        Self {
            bytes: vec![0; PACKET].into_boxed_slice(),
            length: 0,
        }
    }

    /// The packet.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// All the room there is: [`PACKET`] bytes.
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// The packet is the first `length` bytes of the room.
    pub fn set_length(&mut self, length: usize) {
        self.length = length.min(self.bytes.len());
    }
}

/// One direction: full buffers one way, empty ones back.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) full: ArrayQueue<HostPacket>,
    pub(super) empty: ArrayQueue<HostPacket>,
}

impl Exchange {
    pub(super) fn new(depth: usize) -> Self {
        let exchange = Self {
            full: ArrayQueue::new(depth),
            empty: ArrayQueue::new(depth),
        };
        for _ in 0..depth {
            exchange.give_back(HostPacket::new());
        }
        exchange
    }

    /// There are never more buffers than places, so none is refused.
    pub(super) fn give_back(&self, packet: HostPacket) {
        let refused = self.empty.push(packet);
        debug_assert!(refused.is_ok(), "a buffer goes back where it came from");
    }

    /// As `give_back`: never refused.
    pub(super) fn hand_over(&self, packet: HostPacket) {
        let refused = self.full.push(packet);
        debug_assert!(refused.is_ok(), "as many places as buffers");
    }
}

/// A worker's end of the host port.
#[derive(Debug)]
pub struct HostLink {
    pub(super) to_host: Arc<Exchange>,
    pub(super) from_host: Arc<Exchange>,
    pub(super) host: Arc<Bell>,
}

impl HostLink {
    /// An empty buffer for a packet to the machine.
    ///
    /// # Errors
    /// [`DropReason::HostFull`] while all of them are on their way.
    pub fn allocate(&mut self) -> Result<HostPacket, DropReason> {
        self.to_host.empty.pop().ok_or(DropReason::HostFull)
    }

    /// Gives a buffer of [`Self::allocate`] back unused.
    pub fn discard(&mut self, packet: HostPacket) {
        self.to_host.give_back(packet);
    }

    /// Sends a buffer of [`Self::allocate`] to the machine. Followed by [`Self::flush`] at the end
    /// of the batch.
    pub fn send(&mut self, packet: HostPacket) {
        self.to_host.hand_over(packet);
    }

    /// Sends a copy of `packet` to the machine.
    ///
    /// # Errors
    /// [`DropReason::HostFull`] while all buffers are on their way, [`DropReason::Unsupported`]
    /// for a packet larger than they are.
    pub fn send_copy(&mut self, packet: &[u8]) -> Result<(), DropReason> {
        if packet.len() > PACKET {
            return Err(DropReason::Unsupported);
        }
        let mut buffer = self.allocate()?;
        buffer.room()[..packet.len()].copy_from_slice(packet);
        buffer.set_length(packet.len());
        self.send(buffer);
        Ok(())
    }

    /// End of a batch in which something was sent: wakes the host thread if it sleeps.
    pub fn flush(&self) {
        self.host.ring();
    }

    /// The next packet that the machine sent.
    pub fn receive(&mut self) -> Option<HostPacket> {
        self.from_host.full.pop()
    }

    /// A packet waits: to be looked at once more before the worker sleeps.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.from_host.full.is_empty()
    }

    /// Gives a received packet's buffer back.
    pub fn release(&mut self, packet: HostPacket) {
        self.from_host.give_back(packet);
    }
}
