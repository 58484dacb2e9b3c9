//! A port that never runs dry, for measuring workers as fast as they go: frames that were released
//! arrive again, in the order of a ring, with the headers that they had; what is sent is counted
//! and its frame is free again. Payloads are not touched, as a NIC's would be in memory and not in
//! the worker's caches.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;

use ipsec::verdict::DropReason;
use xipsec::port::{Buffer, Burst, Frame, Ledger, Port};

/// Frames of each side: as many as a port's ring has entries by default.
const FRAMES: usize = 2048;

/// Ethernet and IPv4 header: what a worker writes to in a received frame.
const HEADERS: usize = 14 + 20;

/// Of the ESP header of a frame with an outer IPv4 header: the sequence number.
const SEQUENCE: std::ops::Range<usize> = 14 + 20 + 4..14 + 20 + 8;

/// A frame: its room and the length in use.
pub struct EndlessFrame {
    room: Box<[u8]>,
    length: usize,
}

impl Frame for EndlessFrame {
    fn bytes(&self) -> &[u8] {
        &self.room[..self.length]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.room[..self.length]
    }
}

impl Buffer for EndlessFrame {
    fn room(&mut self) -> &mut [u8] {
        &mut self.room
    }
}

/// The port.
pub struct Endless {
    ready: VecDeque<EndlessFrame>,
    headers: Option<[u8; HEADERS]>,
    supply: usize,
    free: VecDeque<EndlessFrame>,
    received: u64,
    allocated: u64,
    /// The last sequence number that left.
    last: Option<u32>,
    /// Packets sent.
    pub sent: u64,
}

impl Endless {
    /// A port at which nothing arrives, with room for packets of `size` bytes in its frames.
    #[must_use]
    pub fn silent(size: usize) -> Self {
        Self::new(&[], 0, size)
    }

    /// A port at which `frames` arrive in turns, `supply` at once at most.
    #[must_use]
    pub fn new(frames: &[Vec<u8>], supply: usize, size: usize) -> Self {
        let received = (0..FRAMES).map(|index| {
            let mut room = vec![0; size].into_boxed_slice();
            let length = match frames.get(index % frames.len().max(1)) {
                Some(frame) => {
                    room[..frame.len()].copy_from_slice(frame);
                    frame.len()
                }
                None => 0,
            };
            EndlessFrame { room, length }
        });
        let free = (0..FRAMES).map(|_| EndlessFrame {
            room: vec![0; size].into_boxed_slice(),
            length: 0,
        });
        let all_alike = frames.windows(2).all(|two| two[0] == two[1]);
        Self {
            ready: received.collect(),
            headers: frames
                .first()
                .filter(|_| all_alike)
                .and_then(|frame| frame.first_chunk().copied()),
            supply,
            free: free.collect(),
            received: 0,
            allocated: 0,
            last: None,
            sent: 0,
        }
    }

    /// From now on the port holds that what it sends is ESP in IPv4 whose numbers rise.
    pub fn expect_rising(&mut self) {
        self.last = Some(0);
    }
}

impl Port for Endless {
    type Received = EndlessFrame;
    type Transmit = EndlessFrame;

    fn receive(&mut self, burst: &mut Burst<EndlessFrame>, limit: usize) {
        let count = limit.min(self.supply).min(self.ready.len());
        for mut frame in self.ready.drain(..count) {
            if let Some(headers) = &self.headers {
                frame.room[..HEADERS].copy_from_slice(headers);
            }
            burst.push(frame);
        }
        self.received += count as u64;
    }

    fn release(&mut self, frame: EndlessFrame) {
        self.received -= 1;
        self.ready.push_back(frame);
    }

    fn allocate(&mut self, length: usize) -> Result<EndlessFrame, DropReason> {
        let frame = self.free.pop_front().ok_or(DropReason::NoFrame)?;
        assert!(
            length <= frame.room.len(),
            "the bench's frames are large enough"
        );
        self.allocated += 1;
        Ok(frame)
    }

    fn discard(&mut self, buffer: EndlessFrame) {
        self.allocated -= 1;
        self.free.push_back(buffer);
    }

    fn transmit(&mut self, buffer: EndlessFrame, _: usize) {
        if let Some(last) = &mut self.last {
            let number = buffer.room[SEQUENCE].try_into().map(u32::from_be_bytes);
            let number = number.unwrap_or_default();
            assert!(number > *last, "{number} left behind {last}");
            *last = number;
        }
        self.allocated -= 1;
        self.sent += 1;
        self.free.push_back(buffer);
    }

    fn flush(&mut self) -> bool {
        false
    }

    fn ledger(&self) -> Ledger {
        Ledger {
            receive_total: FRAMES as u64,
            fill: self.ready.len() as u64,
            received: self.received,
            transmit_total: FRAMES as u64,
            free: self.free.len() as u64,
            allocated: self.allocated,
            queued: 0,
        }
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}
