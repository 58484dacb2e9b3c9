//! The home's side: when to lend, what goes into a batch, and what becomes of it when it is back.

use std::sync::Arc;
use std::time::Instant;

use arrayvec::ArrayVec;
use ipsec::inbound;
use ipsec::limits::BATCH;
use ipsec::outbound;
use ipsec::sa::association::Direction;
use ipsec::tables::Tables;
use ipsec::time::Time;
use ipsec::verdict::DropReason;

use super::batch::{Batch, Pair, sa};
use super::{BACKLOG, PAUSE, Waiting};
use crate::counters::Cell;
use crate::port::{Buffer, Frame, Port};
use crate::snapshot::Snapshot;
use crate::worker::exit::Exit;
use crate::worker::frame::{Arrival, Source};
use crate::worker::host::{ETHERNET, Host};
use crate::worker::inbound::Fates;
use crate::worker::outbound::{Buffers, Fate};
use crate::worker::process::{Kept, Worker};
use crate::worker::room::Room;

/// A batch of a worker's tokens.
type Load<P> = Batch<<P as Port>::Received, <P as Port>::Transmit>;

impl<P: Port, H: Host> Worker<P, H> {
    /// Whether the next burst goes into a batch: because others are out, or because there is more
    /// than this worker can do and another one has time.
    fn lends(&self, now: Time) -> bool {
        let lender = &self.lender;
        if !lender.is_home() {
            return true;
        }
        lender.full
            && lender.full_rounds >= BACKLOG
            && now >= lender.paused_until
            && !lender.stopped
            && lender.worth.lends()
            && self.desk.lending().free(self.desk.own()).next().is_some()
    }

    /// Before a burst of one arrival goes through: opens a batch for it if it is to be lent. A
    /// burst with packets that lie in no frame is not.
    pub(in crate::worker) fn begin_batch(
        &mut self,
        (arrival, from): (Arrival, Option<usize>),
        in_frames: impl FnOnce() -> bool,
        snapshot: &Snapshot,
        now: Time,
    ) {
        if !self.lends(now) {
            return;
        }
        if !in_frames() {
            return self.bring_home(snapshot, now);
        }
        while !self.lender.has_room() {
            self.work_off();
            self.reap(snapshot, now);
        }
        let mut batch = self.lender.unused.pop().unwrap_or_else(Batch::new);
        batch.arrival = arrival;
        batch.from = from;
        self.lender.filling = Some(batch);
    }

    /// The batch that the current burst goes into; the caller puts it back with
    /// [`Self::keep_filling`], or is about to do the work at once and everything out comes home.
    pub(in crate::worker) fn filling(
        &mut self,
        lendable: impl FnOnce() -> bool,
        snapshot: &Snapshot,
        now: Time,
    ) -> Option<Box<Load<P>>> {
        let batch = self.lender.filling.take()?;
        if lendable() {
            return Some(batch);
        }
        self.lender.unused.push(batch);
        self.bring_home(snapshot, now);
        None
    }

    /// The batch that the current burst goes into, to be put back with [`Self::keep_filling`].
    pub(in crate::worker) fn current_batch(&mut self) -> Option<Box<Load<P>>> {
        self.lender.filling.take()
    }

    /// Puts back what [`Self::filling`] gave.
    pub(in crate::worker) fn keep_filling(&mut self, batch: Box<Load<P>>) {
        self.lender.filling = Some(batch);
    }

    /// The buffers of packets that were written for the batch go into it.
    pub(in crate::worker) fn lend_sealed(
        &mut self,
        fates: &[Fate],
        buffers: &mut Buffers<'_, P::Transmit>,
    ) {
        let Some(batch) = &mut self.lender.filling else {
            return;
        };
        let sealed = |fate: &Fate| matches!(fate.verdict, outbound::Verdict::Sealed(_));
        batch.fates.extend(fates.iter().filter(|fate| sealed(fate)));
        for (fate, buffer) in fates.iter().zip(buffers).rev() {
            if sealed(fate)
                && let Some(Room::Frame(frame)) = buffer.take()
            {
                batch.buffers.push(frame);
            }
        }
    }

    /// A received frame joins its packet in the batch.
    pub(in crate::worker) fn lend_frame(&mut self, lane: usize, frame: P::Received) {
        let Some(batch) = &mut self.lender.filling else {
            debug_assert!(false, "a packet is lent only with its batch");
            return self.lanes[lane].port.release(frame);
        };
        // The buffers were put in in the order of the frames; `end_batch` turns them round.
        if let Some(buffer) = batch.buffers.pop() {
            batch.pairs.push(Pair {
                lane,
                frame,
                buffer,
            });
        }
    }

    /// After the burst: what it put into a batch is offered.
    pub(in crate::worker) fn end_batch(&mut self, snapshot: &Snapshot) {
        let Some(mut batch) = self.lender.filling.take() else {
            return;
        };
        debug_assert!(batch.buffers.is_empty(), "each frame joined its packet");
        if batch.pairs.is_empty() {
            self.lender.unused.push(batch);
            return;
        }
        if batch.from.is_none() {
            self.tally.hold(batch.pairs.len() as u64);
        }
        batch.helped = false;
        batch.tables = Some(Arc::clone(&snapshot.tables));
        let position = self.lender.tail;
        self.lender.tail = position.wrapping_add(1);
        self.desk
            .lending()
            .ring_of(self.desk.own())
            .offer(position, batch);
        self.desk.wake_helper();
    }

    /// What must not overtake the batches that are out waits for them: then nothing new is taken
    /// in.
    pub(in crate::worker) fn must_settle(&self) -> bool {
        !self.lender.waiting.is_empty()
            || !self.outbox.is_empty()
            || !self.shelf.is_empty()
            || self.order.is_some()
            || self.desk.has_loose_mail()
            || self.host.is_waiting()
    }

    /// Whether a burst may be taken in now.
    pub(in crate::worker) fn takes_in(&mut self, now: Time) -> bool {
        if self.lender.is_home() {
            return true;
        }
        now >= self.lender.paused_until
            && self.lender.worth.lends()
            && self.lender.has_room()
            && self.unclaimed() < self.lender.ahead
            && !self.must_settle()
    }

    /// Batches that nobody has claimed yet, or a few more: they are claimed nearly in order.
    fn unclaimed(&mut self) -> usize {
        let ring = self.desk.lending().ring_of(self.desk.own());
        let lender = &mut self.lender;
        if lender.claimed.wrapping_sub(lender.head) > lender.places {
            lender.claimed = lender.head;
        }
        while lender.claimed != lender.tail && !ring.is_offered(lender.claimed) {
            lender.claimed = lender.claimed.wrapping_add(1);
        }
        lender.tail.wrapping_sub(lender.claimed)
    }

    /// Does one batch that nobody has claimed, the oldest. False: there is none.
    pub(in crate::worker) fn work_off(&mut self) -> bool {
        let mut position = self.lender.head;
        while position != self.lender.tail {
            let ring = self.desk.lending().ring_of(self.desk.own());
            if let Some(mut batch) = ring.claim(position) {
                let start = Instant::now();
                batch.run();
                ring.give_back(position, batch);
                let time = start.elapsed().as_nanos();
                self.lender.took(u64::try_from(time).unwrap_or(u64::MAX));
                return true;
            }
            position = position.wrapping_add(1);
        }
        false
    }

    /// Ends the packets of the batches at the head that are done. Answers their number.
    pub(in crate::worker) fn reap(&mut self, snapshot: &Snapshot, now: Time) -> usize {
        if self.lender.is_home() {
            return 0;
        }
        self.ways.forget();
        let mut ended = 0;
        while !self.lender.is_home() {
            let ring = self.desk.lending().ring_of(self.desk.own());
            let Some(mut batch) = ring.fetch(self.lender.head) else {
                break;
            };
            self.lender.head = self.lender.head.wrapping_add(1);
            self.lender.waits_since = None;
            ended += batch.pairs.len();
            self.lender.ended += batch.pairs.len();
            let done = if batch.helped {
                Cell::Lent
            } else {
                Cell::TakenBack
            };
            self.tally.add(done, 1);
            self.tally.unhold(batch.pairs.len() as u64);
            match batch.direction {
                Direction::In => self.retire_opened(&mut batch, snapshot, now),
                Direction::Out => self.retire_sealed(&mut batch, snapshot, now),
            }
            batch.tables = None;
            self.lender.unused.push(batch);
        }
        if self.lender.is_home() {
            self.serve_waiting(snapshot, now);
            self.post(snapshot, now);
        }
        self.desk.ring();
        ended
    }

    /// Everything that is out comes home at once. What others work on is waited for: never longer
    /// than it takes to do one batch, unless their thread does not run.
    pub(in crate::worker) fn bring_home(&mut self, snapshot: &Snapshot, now: Time) {
        self.lender.pause(now, PAUSE);
        while !self.lender.is_home() {
            if !self.work_off() {
                std::thread::yield_now();
            }
            self.reap(snapshot, now);
        }
    }

    fn retire_opened(&mut self, batch: &mut Load<P>, snapshot: &Snapshot, now: Time) {
        let (arrival, port) = (batch.arrival, batch.port);
        let mut expired: ArrayVec<bool, BATCH> = ArrayVec::new();
        let mut items: ArrayVec<inbound::Item<'_>, BATCH> = ArrayVec::new();
        for (pair, to) in batch.pairs.iter_mut().zip(&batch.openings) {
            let sa = same_sa(batch.tables.as_ref(), to.slot, snapshot);
            expired.push(sa.is_none());
            items.extend(sa.map(|sa| {
                let packet = (&pair.frame.bytes()[ETHERNET..][..to.length()], to.packet);
                let room = &mut pair.buffer.room()[ETHERNET..];
                inbound::Item::opened(&to.task, packet, sa, room)
            }));
        }
        inbound::accept(&mut items, &mut self.inbound_context(snapshot, now));
        let mut fates = Fates::new();
        self.fates_of(&items, &mut fates);
        drop(items);
        let mut fates = fates.iter();
        let tasks = batch.openings.drain(..).zip(expired);
        for (mut pair, (to, expired)) in batch.pairs.drain(..).zip(tasks) {
            let fate = if expired { None } else { fates.next() };
            let Some(fate) = fate else {
                self.discard(port, pair.buffer);
                self.drop(DropReason::SaExpired, arrival);
                self.frame_home(batch.from, pair.lane, pair.frame);
                continue;
            };
            let source = Source {
                frame: pair.frame.bytes_mut(),
                packet: to.packet,
                arrival,
            };
            let room = (Some(Room::Frame(pair.buffer)), port);
            let kept = self.end_inbound(fate, &source, room, snapshot, now);
            if let Kept::Held(slot, end) = kept {
                let frame = pair.frame.bytes();
                self.shelve(frame, to.packet, arrival, (None, slot, end), now);
            }
            self.frame_home(batch.from, pair.lane, pair.frame);
        }
    }

    fn retire_sealed(&mut self, batch: &mut Load<P>, snapshot: &Snapshot, now: Time) {
        let arrival = batch.arrival;
        let sealings = batch.sealings.drain(..).zip(batch.fates.drain(..));
        for (pair, (to, fate)) in batch.pairs.drain(..).zip(sealings) {
            let length = usize::from(to.task.length());
            let alive = same_sa(batch.tables.as_ref(), to.slot, snapshot).is_some();
            match (fate.way, alive, to.sealed) {
                (Some(way), true, true) => {
                    let sealed = (Room::Frame(pair.buffer), length);
                    self.leave(&fate, way, sealed, snapshot, arrival, now);
                }
                (Some(way), true, false) => {
                    self.give_up(way, pair.buffer, (DropReason::Malformed, arrival));
                }
                (Some(way), false, _) => {
                    self.give_up(way, pair.buffer, (DropReason::SaExpired, arrival));
                }
                (None, ..) => debug_assert!(false, "a lent packet has its way"),
            }
            self.frame_home(batch.from, pair.lane, pair.frame);
        }
    }

    fn give_up(
        &mut self,
        exit: Exit,
        buffer: P::Transmit,
        (reason, arrival): (DropReason, Arrival),
    ) {
        self.discard(exit.port(), buffer);
        self.drop(reason, arrival);
    }

    /// A received frame goes back to where it came from.
    fn frame_home(&mut self, from: Option<usize>, lane: usize, frame: P::Received) {
        match from {
            Some(worker) => self.desk.give_back(worker, lane, frame),
            None => self.lanes[lane].port.release(frame),
        }
    }

    /// A packet that lies in a frame of ours and must not overtake what is out: a copy of it waits,
    /// if there is anything to wait for.
    pub(in crate::worker) fn wait_for_batches(&mut self, source: &Source<'_>, now: Time) -> bool {
        if self.lender.is_home() && self.lender.waiting.is_empty() {
            return false;
        }
        self.lender.pause(now, PAUSE);
        self.lender.waiting.push_back(Waiting {
            frame: source.frame.to_vec(),
            arrival: source.arrival,
        });
        self.tally.hold(1);
        true
    }

    fn serve_waiting(&mut self, snapshot: &Snapshot, now: Time) {
        while let Some(mut waiting) = self.lender.waiting.pop_front() {
            self.tally.unhold(1);
            self.serve_loose(&mut waiting.frame, waiting.arrival, snapshot, now);
        }
    }
}

/// The SA in `slot` today, if it is the one of the batch's generation.
fn same_sa<'s>(
    then: Option<&Arc<Tables>>,
    slot: ipsec::sa::SaSlot,
    snapshot: &'s Snapshot,
) -> Option<&'s ipsec::sa::Sa> {
    let (then, today) = (sa(then?, slot)?, sa(&snapshot.tables, slot)?);
    std::ptr::eq(then, today).then_some(today)
}
