//! Ports: where frames come from and go to. One [`Port`] is one queue of one interface as its
//! worker sees it; or a capture file; or plain memory.
//!
//! **A frame is a token**: neither `Clone` nor `Copy`. What was received goes back by
//! [`Port::release`]; what was allocated leaves by [`Port::transmit`] or [`Port::discard`].
//! [`Ledger`]s prove it.

pub mod settings;

mod interface;

pub mod bell;

pub mod xdp;

pub mod host;

pub mod memory;

use arrayvec::ArrayVec;
use ipsec::limits::BATCH;
use ipsec::verdict::DropReason;

/// A received frame, from the first byte of its Ethernet header.
pub trait Frame: Send {
    /// Its bytes.
    fn bytes(&self) -> &[u8];

    /// Its bytes, to complete a checksum or lower a hop limit in place. The owner alone has them.
    fn bytes_mut(&mut self) -> &mut [u8];
}

/// A frame to be sent: the whole room that it has, from the first byte of its Ethernet header.
pub trait Buffer: Send {
    /// The room, at least the length that was asked for.
    fn room(&mut self) -> &mut [u8];
}

/// Up to a batch of received frames.
pub type Burst<F> = ArrayVec<F, BATCH>;

/// Where all frames of a port are. Receive: `fill + received + lent = receive_total`; transmit:
/// `free + allocated + queued = transmit_total`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Frames that belong to the receive side.
    pub receive_total: u64,
    /// With the kernel, to be filled, or waiting to be put back.
    pub fill: u64,
    /// Handed out by `receive` and not yet released.
    pub received: u64,
    /// Frames that belong to the transmit side.
    pub transmit_total: u64,
    /// Ready to be allocated.
    pub free: u64,
    /// Handed out by `allocate` and neither transmitted nor discarded yet.
    pub allocated: u64,
    /// In the transmit ring, with the kernel, or in the completion ring.
    pub queued: u64,
}

impl Ledger {
    /// Every frame is accounted for.
    #[must_use]
    pub const fn balances(&self) -> bool {
        self.fill + self.received == self.receive_total
            && self.free + self.allocated + self.queued == self.transmit_total
    }

    /// Every frame is accounted for and none is in the workers' hands.
    #[must_use]
    pub const fn is_home(&self) -> bool {
        self.balances() && self.received == 0 && self.allocated == 0
    }
}

/// Packets that a port received and had to drop itself, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Of more pieces than the port gathers.
    pub unsupported: u64,
    /// No room to gather the pieces in.
    pub no_frame: u64,
}

impl Losses {
    /// One packet more. Anything but [`DropReason::NoFrame`] counts as unsupported.
    pub const fn count(&mut self, reason: DropReason) {
        match reason {
            DropReason::NoFrame => self.no_frame += 1,
            _ => self.unsupported += 1,
        }
    }

    /// Each reason with its packets.
    #[must_use]
    pub const fn by_reason(&self) -> [(DropReason, u64); 2] {
        [
            (DropReason::Unsupported, self.unsupported),
            (DropReason::NoFrame, self.no_frame),
        ]
    }

    /// All of them.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.unsupported + self.no_frame
    }
}

/// One queue of one port, owned by one worker.
pub trait Port: Send {
    /// Token of a received frame.
    type Received: Frame;
    /// Token of a frame to be sent.
    type Transmit: Buffer;

    /// Takes up to `limit` waiting frames into `burst` (which is empty).
    fn receive(&mut self, burst: &mut Burst<Self::Received>, limit: usize);

    /// Puts a received frame back. It may have been read by another worker meanwhile.
    fn release(&mut self, frame: Self::Received);

    /// A frame for a packet of `length` bytes, Ethernet header included, with its place in the
    /// transmit ring, so that [`Port::transmit`] cannot fail.
    ///
    /// # Errors
    /// [`DropReason::TxFull`] when the ring has no place, [`DropReason::NoFrame`] when no frame is
    /// free, [`DropReason::Unsupported`] when the port cannot send packets of that length.
    fn allocate(&mut self, length: usize) -> Result<Self::Transmit, DropReason>;

    /// Gives an allocated frame back unused.
    fn discard(&mut self, buffer: Self::Transmit);

    /// Queues the first `length` bytes of the frame for sending.
    fn transmit(&mut self, buffer: Self::Transmit, length: usize);

    /// End of a batch: completions are collected, the fill ring is filled, what was queued is
    /// submitted and the kernel kicked as far as it is needed. True: the port wants to be
    /// flushed again although nothing new arrives (a kick is pending), so do not sleep.
    fn flush(&mut self) -> bool;

    /// What the port dropped since the last call, to be counted as received and as dropped.
    fn take_losses(&mut self) -> Losses {
        Losses::default()
    }

    /// Where the frames are.
    fn ledger(&self) -> Ledger;

    /// The descriptor that becomes readable when frames wait, if the port has one.
    fn descriptor(&self) -> Option<std::os::fd::BorrowedFd<'_>>;
}
