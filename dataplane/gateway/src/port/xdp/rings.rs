//! The four rings of one socket, and the only place where xsk-rs is told what to do with frames.
//!
//! Ownership: xsk-rs' descriptors are `Copy` and its ring calls unsafe, because handing one frame
//! to two rings is a data race with the kernel. Here every call takes or gives [`Slot`]s, which
//! exist once per frame: a slot goes in, its frame belongs to the kernel; the kernel gives the
//! frame back, a slot comes out. No address is made up: descriptors come from the table that
//! [`super::umem`] filled when the UMEM was made, and rings give their own.
//!
//! [`Queues`] is the seam at which tests put plain memory in place of the kernel.
#![expect(
    unsafe_code,
    reason = "xsk-rs leaves the ownership of frames to its caller"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

use arrayvec::ArrayVec;
use ipsec::limits::BATCH;
use rustix::io::Errno;
use rustix::net::SendFlags;
use xsk_rs::umem::frame::FrameDesc;
use xsk_rs::{CompQueue, FillQueue, RxQueue, TxQueue};

use super::frame::{Outgoing, Piece, Slot};
use super::napi::Napi;
use super::options;
use super::umem::Memory;
use super::wakeup::Answer;

/// XDP_PKT_CONTD: the packet goes on in the next descriptor.
const CONTINUED: u32 = 1;

/// What a port needs of its rings.
pub(super) trait Queues: Send {
    /// Identity of the UMEM, which its slots carry.
    fn owner(&self) -> u32;

    /// Bytes of packet that one frame takes.
    fn capacity(&self) -> usize;

    /// The `capacity` bytes of the frame that `slot` owns.
    fn room(&mut self, slot: &Slot) -> NonNull<u8>;

    /// Moves slots from `waiting` into the fill ring, as many as it takes, and wakes the kernel if
    /// it asks for that. Answers how many went.
    fn fill(&mut self, waiting: &mut Vec<Slot>) -> usize;

    /// Takes up to `limit` frames from the receive ring.
    fn receive(&mut self, limit: usize, pieces: &mut ArrayVec<Piece, BATCH>);

    /// Puts all of `outgoing` into the transmit ring, which has room for them.
    fn submit(&mut self, outgoing: &mut Vec<Outgoing>);

    /// Moves what the kernel has sent from the completion ring to `free`. Answers how many came.
    fn complete(&mut self, free: &mut Vec<Slot>) -> usize;

    /// Descriptors that the transmit ring can hold.
    fn transmit_size(&self) -> u32;

    /// Descriptors in the transmit ring that the kernel has not taken yet.
    fn outstanding(&mut self) -> u32;

    /// The kernel asks to be kicked for the transmit ring.
    fn wakeup_wanted(&self) -> bool;

    /// Kicks it.
    fn kick(&mut self) -> Answer;
}

/// The rings of a bound AF_XDP socket. The socket closes when all four are dropped.
#[derive(Debug)]
pub(super) struct KernelQueues {
    fill: FillQueue,
    completion: CompQueue,
    receive: RxQueue,
    transmit: TxQueue,
    transmit_size: u32,
    /// With busy polling: what a look at an empty receive ring has the kernel poll first.
    polled: Option<Napi>,
    /// Descriptors on their way, kept to spare allocating them.
    staged: Vec<FrameDesc>,
    /// Last: the memory stays mapped until the socket is closed.
    memory: Memory,
}

impl KernelQueues {
    pub(super) fn new(
        (transmit, receive): (TxQueue, RxQueue),
        (fill, completion): (FillQueue, CompQueue),
        transmit_size: u32,
        memory: Memory,
    ) -> Self {
        Self {
            fill,
            completion,
            receive,
            transmit,
            transmit_size,
            polled: None,
            staged: Vec::with_capacity(memory.frames()),
            memory,
        }
    }

    /// From now on the worker drives the NIC. `known`: the number of its NAPI, if not 0.
    pub(super) fn poll_busily(&mut self, known: u32) {
        let napi = Napi::default();
        if known > 0 {
            napi.learn(|| known);
        }
        self.polled = Some(napi);
    }

    /// What it drives.
    pub(super) const fn polled(&self) -> Option<&Napi> {
        self.polled.as_ref()
    }

    /// The socket.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket is open as long as `receive` is, and that as long as `self`.
        unsafe { BorrowedFd::borrow_raw(self.receive.fd().as_raw_fd()) }
    }

    /// What the kernel counted on this socket.
    pub(super) fn statistics(&self) -> io::Result<xsk_rs::socket::XdpStatistics> {
        self.receive.fd().xdp_statistics()
    }

    /// Takes what waits in the receive ring, as much as `arrived` has room for.
    fn consume(&mut self, arrived: &mut [FrameDesc]) -> usize {
        // SAFETY: the descriptors are written, not read; the ring is that of this UMEM.
        unsafe { self.receive.consume(arrived) }
    }

    /// With busy polling, what comes when nothing waited. `waited`: frames that did.
    fn poll_for(&mut self, arrived: &mut [FrameDesc], waited: usize) -> usize {
        if waited > 0 || !self.polled.as_ref().is_some_and(Napi::may_be_polled) {
            return waited;
        }
        options::poll_once(self.descriptor());
        self.consume(arrived)
    }

    /// With busy polling, what the first frame tells.
    fn learn(&self) {
        if let Some(napi) = &self.polled {
            napi.learn(|| options::napi_of(self.descriptor()));
        }
    }

    /// Keeps the memory mapped for ever: somebody still holds a frame of it.
    pub(super) fn leak_memory(&self) {
        self.memory.leak();
    }
}

impl Queues for KernelQueues {
    fn owner(&self) -> u32 {
        self.memory.owner()
    }

    fn capacity(&self) -> usize {
        self.memory.capacity()
    }

    fn room(&mut self, slot: &Slot) -> NonNull<u8> {
        self.memory.room(slot)
    }

    fn fill(&mut self, waiting: &mut Vec<Slot>) -> usize {
        if waiting.is_empty() && !self.fill.needs_wakeup() {
            return 0;
        }
        let free = self.fill.nb_free_exact() as usize;
        let count = waiting.len().min(free);
        self.staged.clear();
        let from = waiting.len() - count;
        for slot in waiting.drain(from..) {
            self.staged.push(self.memory.descriptor(&slot));
        }
        // SAFETY: the slots behind these descriptors belonged to us alone and were consumed just
        // now; all are of this UMEM (`Memory::descriptor` asserts it).
        let put = unsafe { self.fill.produce(&self.staged) };
        debug_assert_eq!(put, count, "the ring had room");
        if self.fill.needs_wakeup() {
            let fd = self.receive.fd_mut();
            // An error here is the interface's end; the transmit side reports it.
            self.fill.wakeup(fd, 0).unwrap_or_default();
        }
        count
    }

    fn receive(&mut self, limit: usize, pieces: &mut ArrayVec<Piece, BATCH>) {
        let mut arrived = [FrameDesc::default(); BATCH];
        let arrived = &mut arrived[..limit.min(BATCH)];
        let count = self.consume(arrived);
        let count = self.poll_for(arrived, count);
        if count > 0 {
            self.learn();
        }
        for descriptor in &mut arrived[..count] {
            pieces.push(self.memory.arrived(descriptor));
        }
    }

    fn submit(&mut self, outgoing: &mut Vec<Outgoing>) {
        if outgoing.is_empty() {
            return;
        }
        self.staged.clear();
        for Outgoing { slot, length, more } in outgoing.drain(..) {
            let mut descriptor = self.memory.sized(&slot, length);
            descriptor.set_options(if more { CONTINUED } else { 0 });
            self.staged.push(descriptor);
        }
        // SAFETY: as in `fill`.
        let put = unsafe { self.transmit.produce(&self.staged) };
        debug_assert_eq!(put, self.staged.len(), "allocate reserves the places");
    }

    fn complete(&mut self, free: &mut Vec<Slot>) -> usize {
        let mut total = 0;
        let mut sent = [FrameDesc::default(); BATCH];
        loop {
            // SAFETY: as in `consume`.
            let count = unsafe { self.completion.consume(&mut sent) };
            for descriptor in &sent[..count] {
                free.push(self.memory.returned(descriptor));
            }
            total += count;
            if count < sent.len() {
                return total;
            }
        }
    }

    fn transmit_size(&self) -> u32 {
        self.transmit_size
    }

    fn outstanding(&mut self) -> u32 {
        self.transmit_size - self.transmit.nb_free_exact()
    }

    fn wakeup_wanted(&self) -> bool {
        self.transmit.needs_wakeup()
    }

    fn kick(&mut self) -> Answer {
        // Not xsk-rs' own, which hides what the kernel said.
        match rustix::net::send(self.descriptor(), &[], SendFlags::DONTWAIT) {
            Err(Errno::NETDOWN) => Answer::Down,
            Err(Errno::NXIO | Errno::NODEV | Errno::BADF) => Answer::Gone,
            _ => Answer::Taken,
        }
    }
}
