//! A port in plain memory: the same pipeline without a NIC, for tests and benches.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;

use ipsec::verdict::DropReason;

use crate::port::{Buffer, Burst, Frame, Ledger, Port};

/// A frame of a [`MemoryPort`]: a buffer of fixed room and the length in use.
#[derive(Debug)]
pub struct MemoryFrame {
    room: Box<[u8]>,
    length: usize,
}

impl Frame for MemoryFrame {
    fn bytes(&self) -> &[u8] {
        &self.room[..self.length]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.room[..self.length]
    }
}

impl Buffer for MemoryFrame {
    fn room(&mut self) -> &mut [u8] {
        &mut self.room
    }
}

/// Frames wait in `incoming` until received; what was sent waits in `outgoing`. No allocation
/// after construction: both sides take their frames from pools.
pub struct MemoryPort {
    frame_size: usize,
    idle: Vec<MemoryFrame>,
    incoming: VecDeque<MemoryFrame>,
    received: u64,
    free: Vec<MemoryFrame>,
    outgoing: VecDeque<MemoryFrame>,
    allocated: u64,
    total: u64,
    capacity: usize,
}

impl MemoryPort {
    /// A port with `frames` frames of `frame_size` bytes on each side.
    #[must_use]
    pub fn new(frames: usize, frame_size: usize) -> Self {
        let frame = || MemoryFrame {
            room: vec![0; frame_size].into_boxed_slice(),
            length: 0,
        };
        Self {
            frame_size,
            idle: (0..frames).map(|_| frame()).collect(),
            incoming: VecDeque::with_capacity(frames),
            received: 0,
            free: (0..frames).map(|_| frame()).collect(),
            outgoing: VecDeque::with_capacity(frames),
            allocated: 0,
            total: frames as u64,
            capacity: frames,
        }
    }

    /// Puts a frame on the wire towards this port. False: no frame was free, as when a NIC drops.
    pub fn inject(&mut self, bytes: &[u8]) -> bool {
        if bytes.len() > self.frame_size {
            return false;
        }
        let Some(mut frame) = self.idle.pop() else {
            return false;
        };
        frame.room[..bytes.len()].copy_from_slice(bytes);
        frame.length = bytes.len();
        self.incoming.push_back(frame);
        true
    }

    /// Takes the oldest frame that was sent off the wire and shows it to `look`.
    pub fn collect<T>(&mut self, look: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let frame = self.outgoing.pop_front()?;
        let answer = look(frame.bytes());
        self.free.push(frame);
        Some(answer)
    }

    /// Frames sent and not collected yet.
    #[must_use]
    pub fn outgoing(&self) -> usize {
        self.outgoing.len()
    }
}

impl Port for MemoryPort {
    type Received = MemoryFrame;
    type Transmit = MemoryFrame;

    fn receive(&mut self, burst: &mut Burst<MemoryFrame>, limit: usize) {
        let count = limit
            .min(burst.remaining_capacity())
            .min(self.incoming.len());
        burst.extend(self.incoming.drain(..count));
        self.received += count as u64;
    }

    fn release(&mut self, frame: MemoryFrame) {
        self.received -= 1;
        self.idle.push(frame);
    }

    fn allocate(&mut self, length: usize) -> Result<MemoryFrame, DropReason> {
        if length > self.frame_size {
            return Err(DropReason::Unsupported);
        }
        if self.outgoing.len() + usize::try_from(self.allocated).unwrap_or(0) >= self.capacity {
            return Err(DropReason::TxFull);
        }
        let frame = self.free.pop().ok_or(DropReason::NoFrame)?;
        self.allocated += 1;
        Ok(frame)
    }

    fn discard(&mut self, buffer: MemoryFrame) {
        self.allocated -= 1;
        self.free.push(buffer);
    }

    fn transmit(&mut self, mut buffer: MemoryFrame, length: usize) {
        self.allocated -= 1;
        buffer.length = length;
        self.outgoing.push_back(buffer);
    }

    fn flush(&mut self) -> bool {
        false
    }

    fn ledger(&self) -> Ledger {
        Ledger {
            receive_total: self.total,
            fill: (self.idle.len() + self.incoming.len()) as u64,
            received: self.received,
            transmit_total: self.total,
            free: self.free.len() as u64,
            allocated: self.allocated,
            queued: self.outgoing.len() as u64,
        }
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_go_round_and_the_ledger_balances() {
        let mut port = MemoryPort::new(2, 128);
        assert!(port.inject(&[1; 60]) && port.inject(&[2; 61]) && !port.inject(&[3; 62]));
        let mut burst = Burst::new();
        port.receive(&mut burst, 64);
        assert_eq!(burst.len(), 2);
        assert!(port.ledger().balances() && !port.ledger().is_home());
        for frame in burst.drain(..) {
            let mut out = port.allocate(frame.bytes().len()).expect("a free frame");
            out.room()[..frame.bytes().len()].copy_from_slice(frame.bytes());
            port.transmit(out, frame.bytes().len());
            port.release(frame);
        }
        assert!(matches!(port.allocate(10), Err(DropReason::TxFull)));
        assert!(matches!(port.allocate(129), Err(DropReason::Unsupported)));
        assert_eq!(port.collect(<[u8]>::len), Some(60));
        assert_eq!(port.collect(<[u8]>::len), Some(61));
        assert!(port.ledger().is_home());
    }
}
