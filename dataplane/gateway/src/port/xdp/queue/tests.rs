//! The books on plain memory: a made-up kernel with small rings stands behind them. Whatever is
//! done, every frame is somewhere, exactly once.
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(
    unsafe_code,
    reason = "the made-up kernel writes into frames as the real one does"
)]

use std::collections::VecDeque;
use std::ptr::NonNull;

use proptest::prelude::*;

use super::*;
use crate::port::Frame;

const FRAME: usize = 64;
const RING: usize = 8;

/// A kernel in plain memory.
struct Plain {
    owner: u32,
    memory: NonNull<[u8]>,
    fill: VecDeque<Slot>,
    arrived: VecDeque<(Slot, u32, bool)>,
    transmit: VecDeque<Outgoing>,
    complete: VecDeque<Slot>,
    wire: Vec<Vec<u8>>,
    partial: Vec<u8>,
    /// Descriptors sent by one kick.
    portion: usize,
    answer: Answer,
}

// SAFETY: the memory is this object's own.
unsafe impl Send for Plain {}

impl Drop for Plain {
    fn drop(&mut self) {
        // SAFETY: the box was taken apart in `new` and nobody else frees it.
        drop(unsafe { Box::from_raw(self.memory.as_ptr()) });
    }
}

impl Plain {
    fn new(owner: u32, frames: usize) -> Self {
        let memory = vec![0_u8; frames * FRAME].into_boxed_slice();
        Self {
            owner,
            memory: NonNull::from(Box::leak(memory)),
            fill: VecDeque::new(),
            arrived: VecDeque::new(),
            transmit: VecDeque::new(),
            complete: VecDeque::new(),
            wire: Vec::new(),
            partial: Vec::new(),
            portion: RING,
            answer: Answer::Taken,
        }
    }

    fn pointer(&self, slot: &Slot) -> NonNull<u8> {
        // SAFETY: slots are numbered below the frames that the memory was made for.
        unsafe { self.memory.cast::<u8>().add(slot.index() as usize * FRAME) }
    }

    /// A packet arrives in pieces of the given bytes; false when the fill ring ran dry.
    fn arrive(&mut self, pieces: &[&[u8]]) -> bool {
        if self.fill.len() < pieces.len() {
            return false;
        }
        for (index, bytes) in pieces.iter().enumerate() {
            let slot = self.fill.pop_front().unwrap();
            let target = self.pointer(&slot).as_ptr();
            assert!(bytes.len() <= FRAME);
            // SAFETY: the frame is the kernel's while its slot is here, and `bytes` fit it.
            unsafe { target.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
            let length = u32::try_from(bytes.len()).unwrap();
            self.arrived
                .push_back((slot, length, index + 1 < pieces.len()));
        }
        true
    }
}

impl Queues for Plain {
    fn owner(&self) -> u32 {
        self.owner
    }

    fn capacity(&self) -> usize {
        FRAME
    }

    fn room(&mut self, slot: &Slot) -> NonNull<u8> {
        self.pointer(slot)
    }

    fn fill(&mut self, waiting: &mut Vec<Slot>) -> usize {
        let count = waiting.len().min(RING - self.fill.len());
        let from = waiting.len() - count;
        self.fill.extend(waiting.drain(from..));
        count
    }

    fn receive(&mut self, limit: usize, pieces: &mut ArrayVec<Piece, BATCH>) {
        for _ in 0..limit.min(self.arrived.len()) {
            let (slot, length, more) = self.arrived.pop_front().unwrap();
            let pointer = self.pointer(&slot);
            pieces.push(Piece {
                slot,
                pointer,
                length,
                more,
            });
        }
    }

    fn submit(&mut self, outgoing: &mut Vec<Outgoing>) {
        self.transmit.extend(outgoing.drain(..));
        assert!(self.transmit.len() <= RING, "the books reserved places");
    }

    fn complete(&mut self, free: &mut Vec<Slot>) -> usize {
        let count = self.complete.len();
        free.extend(self.complete.drain(..));
        count
    }

    fn transmit_size(&self) -> u32 {
        u32::try_from(RING).unwrap()
    }

    fn outstanding(&mut self) -> u32 {
        u32::try_from(self.transmit.len()).unwrap()
    }

    fn wakeup_wanted(&self) -> bool {
        true
    }

    fn kick(&mut self) -> Answer {
        for _ in 0..self.portion.min(self.transmit.len()) {
            let Outgoing { slot, length, more } = self.transmit.pop_front().unwrap();
            assert!(length > 0, "the kernel swallows empty descriptors");
            // SAFETY: the frame is the kernel's while its slot is here.
            let bytes = unsafe {
                std::slice::from_raw_parts(self.pointer(&slot).as_ptr(), length as usize)
            };
            self.partial.extend_from_slice(bytes);
            if !more {
                self.wire.push(std::mem::take(&mut self.partial));
            }
            self.complete.push_back(slot);
        }
        self.answer
    }
}

fn queue_of(owner: u32, frames: usize, frags: bool) -> Queue<Plain> {
    let slots = (0..u32::try_from(frames).unwrap()).map(|index| Slot::new(index, owner));
    Queue::new(Plain::new(owner, frames), slots.collect(), frags)
}

fn receive(queue: &mut Queue<Plain>) -> Burst<Received> {
    let mut burst = Burst::new();
    queue.receive(&mut burst, BATCH);
    assert!(queue.ledger().balances());
    burst
}

#[test]
fn a_frame_comes_in_goes_out_and_both_come_home() {
    let mut queue = queue_of(0, 16, false);
    assert!(queue.queues.arrive(&[b"hello"]));
    let mut burst = receive(&mut queue);
    let mut frame = burst.pop().unwrap();
    frame.bytes_mut()[0] = b'j';
    let mut buffer = queue.allocate(5).unwrap();
    assert_eq!(buffer.room().len(), FRAME);
    buffer.room()[..5].copy_from_slice(frame.bytes());
    let ledger = queue.ledger();
    assert!(ledger.balances() && !ledger.is_home());
    assert_eq!((ledger.received, ledger.allocated), (1, 1));
    queue.transmit(buffer, 5);
    queue.release(frame);
    assert!(!queue.flush());
    assert_eq!(queue.queues.wire, [b"jello"]);
    assert!(queue.ledger().is_home());
    assert!(!queue.flush());
    assert_eq!(queue.ledger().queued, 0);
    assert_eq!(queue.kicks().kicks, 1);
}

#[test]
fn the_ring_is_full_before_frames_run_out_and_places_come_back() {
    let mut queue = queue_of(0, 64, false);
    let mut held: Vec<_> = (0..RING).map(|_| queue.allocate(1).unwrap()).collect();
    assert_eq!(queue.allocate(1).unwrap_err(), DropReason::TxFull);
    queue.discard(held.pop().unwrap());
    held.push(queue.allocate(1).unwrap());
    for buffer in held {
        queue.transmit(buffer, 1);
    }
    assert_eq!(queue.allocate(1).unwrap_err(), DropReason::TxFull);
    queue.flush();
    let buffer = queue.allocate(1).unwrap();
    queue.discard(buffer);
    assert!(queue.ledger().is_home());
}

#[test]
fn frames_run_out_before_the_ring_and_completions_are_looked_for() {
    let mut queue = queue_of(0, 8, false);
    for _ in 0..4 {
        let buffer = queue.allocate(1).unwrap();
        queue.transmit(buffer, 1);
    }
    assert_eq!(queue.allocate(1).unwrap_err(), DropReason::NoFrame);
    queue.flush();
    // Sent by the kick, completed but not collected: allocate collects.
    assert_eq!(queue.ledger().queued, 4);
    let buffer = queue.allocate(1).unwrap();
    assert_eq!(queue.ledger().queued, 0);
    queue.discard(buffer);
}

#[test]
fn what_a_kick_leaves_behind_is_pending() {
    let mut queue = queue_of(0, 64, false);
    queue.queues.portion = 1;
    for _ in 0..3 {
        let buffer = queue.allocate(1).unwrap();
        queue.transmit(buffer, 1);
    }
    // A ring of eight allows one kick a flush.
    assert!(queue.flush());
    assert!(queue.flush());
    assert!(!queue.flush());
    assert_eq!(queue.queues.wire.len(), 3);
}

#[test]
fn an_interface_that_is_down_is_not_waited_for() {
    let mut queue = queue_of(0, 64, false);
    queue.queues.portion = 0;
    queue.queues.answer = Answer::Down;
    let buffer = queue.allocate(1).unwrap();
    queue.transmit(buffer, 1);
    assert!(!queue.flush());
    assert_eq!(queue.kicks().refused, 1);
    assert_eq!(queue.ledger().queued, 1);
}

#[test]
fn an_empty_packet_is_given_back_instead_of_sent() {
    let mut queue = queue_of(0, 16, false);
    let buffer = queue.allocate(10).unwrap();
    queue.transmit(buffer, 0);
    assert_eq!(queue.ledger().queued, 0);
    assert!(queue.ledger().is_home());
}

#[test]
fn a_packet_of_pieces_is_gathered_and_its_frames_are_free_at_once() {
    let mut queue = queue_of(0, 32, true);
    let pieces: [&[u8]; 3] = [&[1; FRAME], &[2; FRAME], &[3; 10]];
    assert!(queue.queues.arrive(&pieces));
    assert!(queue.queues.arrive(&[b"single"]));
    let burst = receive(&mut queue);
    assert_eq!(burst[0].bytes(), pieces.concat());
    assert_eq!(burst[1].bytes(), b"single");
    assert_eq!(queue.ledger().received, 2);
    for frame in burst {
        queue.release(frame);
    }
    assert!(queue.ledger().is_home());
}

#[test]
fn a_packet_may_be_gathered_over_several_reads() {
    let mut queue = queue_of(0, 32, true);
    assert!(queue.queues.arrive(&[&[1; 5], &[2; 5]]));
    let mut burst = Burst::new();
    queue.receive(&mut burst, 1);
    assert!(burst.is_empty() && queue.ledger().is_home());
    queue.receive(&mut burst, 1);
    assert_eq!(burst[0].bytes().len(), 10);
    queue.release(burst.pop().unwrap());
}

#[test]
fn too_many_pieces_are_counted_and_leave_nothing_behind() {
    let mut queue = queue_of(0, 32, true);
    assert!(queue.queues.arrive(&[&[1][..]; PIECES + 1]));
    assert!(receive(&mut queue).is_empty());
    assert_eq!(
        queue.take_losses().by_reason()[0],
        (DropReason::Unsupported, 1)
    );
    assert_eq!(queue.take_losses().total(), 0);
    assert!(queue.ledger().is_home());
}

#[test]
fn pieces_without_frags_find_no_room() {
    let mut queue = queue_of(0, 32, false);
    assert!(queue.queues.arrive(&[&[1], &[2]]));
    assert!(receive(&mut queue).is_empty());
    assert_eq!(queue.take_losses().by_reason()[1], (DropReason::NoFrame, 1));
    assert!(queue.ledger().is_home());
    assert_eq!(
        queue.allocate(FRAME + 1).unwrap_err(),
        DropReason::Unsupported
    );
}

#[test]
fn a_long_packet_is_cut_and_unused_frames_come_back() {
    let mut queue = queue_of(0, 32, true);
    let content: Vec<u8> = (0..=255).cycle().take(3 * FRAME - 5).collect();
    let mut buffer = queue.allocate(3 * FRAME).unwrap();
    assert_eq!(queue.ledger().allocated, 4);
    buffer.room()[..content.len()].copy_from_slice(&content);
    queue.transmit(buffer, content.len());
    let mut short = queue.allocate(2 * FRAME).unwrap();
    short.room()[0] = 9;
    queue.transmit(short, 1);
    queue.flush();
    assert_eq!(queue.queues.wire, [content, vec![9]]);
    assert!(queue.ledger().is_home());
    assert_eq!(queue.ledger().queued, 4);
    assert_eq!(
        queue.allocate((PIECES + 1) * FRAME).unwrap_err(),
        DropReason::Unsupported
    );
}

#[test]
#[should_panic(expected = "a frame goes back to its own port")]
fn a_frame_of_another_port_is_refused() {
    let mut one = queue_of(1, 16, false);
    let mut other = queue_of(2, 16, false);
    assert!(one.queues.arrive(&[b"x"]));
    let frame = receive(&mut one).pop().unwrap();
    assert!(other.queues.arrive(&[b"y"]));
    let _own = receive(&mut other);
    other.release(frame);
}

#[test]
fn a_token_may_be_read_by_another_thread() {
    let mut queue = queue_of(0, 16, false);
    assert!(queue.queues.arrive(&[b"lent"]));
    let frame = receive(&mut queue).pop().unwrap();
    let frame = std::thread::spawn(move || {
        assert_eq!(frame.bytes(), b"lent");
        frame
    });
    queue.release(frame.join().unwrap());
    assert!(queue.ledger().is_home());
}

/// One thing that happens to a queue.
#[derive(Clone, Debug)]
enum Event {
    Arrive(usize),
    Receive(usize),
    Release,
    Allocate(usize),
    Transmit(usize),
    Discard,
    Flush(usize),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (1_usize..=PIECES + 1).prop_map(Event::Arrive),
        (0_usize..5).prop_map(Event::Receive),
        Just(Event::Release),
        (0_usize..=FRAME * (PIECES + 1)).prop_map(Event::Allocate),
        (0_usize..=FRAME * 2).prop_map(Event::Transmit),
        Just(Event::Discard),
        (0_usize..=RING).prop_map(Event::Flush),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_every_frame_is_somewhere(
        events in proptest::collection::vec(event(), 0..200),
        frags: bool,
    ) {
        let mut queue = queue_of(0, 24, frags);
        let (mut received, mut allocated) = (Vec::new(), Vec::new());
        for event in events {
            match event {
                Event::Arrive(pieces) => {
                    queue.queues.arrive(&vec![&b"piece"[..]; pieces]);
                }
                Event::Receive(limit) => {
                    let mut burst = Burst::new();
                    queue.receive(&mut burst, limit);
                    received.extend(burst);
                }
                Event::Release => received.pop().into_iter().for_each(|frame| queue.release(frame)),
                Event::Allocate(length) => allocated.extend(queue.allocate(length)),
                Event::Transmit(length) => {
                    if let Some(mut buffer) = allocated.pop() {
                        let length = length.min(buffer.room().len());
                        queue.transmit(buffer, length);
                    }
                }
                Event::Discard => {
                    allocated.pop().into_iter().for_each(|buffer| queue.discard(buffer));
                }
                Event::Flush(portion) => {
                    queue.queues.portion = portion;
                    queue.flush();
                }
            }
            prop_assert!(queue.ledger().balances(), "{:?}", queue.ledger());
        }
        received.into_iter().for_each(|frame| queue.release(frame));
        allocated.into_iter().for_each(|buffer| queue.discard(buffer));
        prop_assert!(queue.ledger().is_home());
        queue.queues.portion = RING;
        queue.flush();
        queue.flush();
        let ledger = queue.ledger();
        prop_assert_eq!(ledger.free, ledger.transmit_total);
        prop_assert_eq!(ledger.fill, ledger.receive_total);
    }
}
