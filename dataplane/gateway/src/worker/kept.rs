//! Packets that a worker cannot end at once: handed over to their SA's home, handed over to us, or
//! on the shelf until their numbers are reserved.

use std::sync::atomic::Ordering;

use arrayvec::ArrayVec;
use ipsec::limits::BATCH;
use ipsec::packet::Packet;
use ipsec::sa::association::Direction;
use ipsec::sa::{SaSlot, SaState};
use ipsec::time::Time;
use ipsec::verdict::DropReason;

use crate::port::settings::Side;
use crate::port::{Frame, Port};
use crate::snapshot::Snapshot;
use crate::worker::frame::{Arrival, Look, Source};
use crate::worker::handoff::{LooseParcel, Parcel};
use crate::worker::held;
use crate::worker::host::Host;
use crate::worker::process::{Kept, Worker};
use crate::worker::reassembly::{Gathered, Keeps, kept};

impl<P: Port, H: Host> Worker<P, H> {
    /// Hands over or shelves what must be kept. Answers the frame if it is done with.
    pub(super) fn keep(
        &mut self,
        lane: usize,
        frame: P::Received,
        (kept, packet): (Kept, Packet),
        arrival: Arrival,
        now: Time,
    ) -> Option<P::Received> {
        match kept {
            Kept::For(to) => {
                match self.desk.send(
                    to,
                    Parcel {
                        frame,
                        lane,
                        packet,
                        arrival,
                        cut: self.cut,
                    },
                ) {
                    Ok(()) => {
                        self.tally.hold(1);
                        self.lender.count_handed_over();
                        return None;
                    }
                    Err(parcel) => {
                        self.tally.drop(DropReason::HandoffFull);
                        self.lender.count_handed_over();
                        return Some(parcel.frame);
                    }
                }
            }
            Kept::Held(slot, end) => {
                self.shelve(frame.bytes(), packet, arrival, (None, slot, end), now);
            }
            Kept::Lent => {
                self.lend_frame(lane, frame);
                return None;
            }
            Kept::No => {}
        }
        Some(frame)
    }

    /// Hands over a packet whose frame cannot be: a copy of it, over a queue of
    /// [`crate::worker::handoff::PARCELS`].
    pub(super) fn hand_over_copy(&mut self, to: u16, source: &Source<'_>, direction: Direction) {
        let parcel = LooseParcel {
            frame: source.frame.to_vec(),
            packet: source.packet,
            arrival: source.arrival,
            direction,
            cut: self.cut,
        };
        match self.desk.send_loose(to, parcel) {
            Ok(()) => self.tally.hold(1),
            Err(_) => self.tally.drop(DropReason::HandoffFull),
        }
    }

    pub(super) fn shelve(
        &mut self,
        frame: &[u8],
        packet: Packet,
        arrival: Arrival,
        sas: (Option<SaSlot>, SaSlot, u64),
        now: Time,
    ) {
        if self.shelf.keep(frame, packet, arrival, sas, now) {
            self.tally.hold(1);
        } else {
            // Unless others of its SA wait: what comes behind must not overtake those.
            if !self.shelf.keeps_any_of(sas.1) {
                self.states.of(sas.1).map(SaState::offer_again);
            }
            self.tally.drop(DropReason::NoReservation);
        }
    }

    /// Offers the packets on the shelf again.
    pub(super) fn retry_shelf(&mut self, snapshot: &Snapshot, now: Time) {
        if self.shelf.is_empty() {
            return;
        }
        let waiting = self.shelf.take();
        // Once for all of an SA's packets: one that is refused again holds up those behind it.
        for held in &waiting {
            if reserved_end(snapshot, held.slot) != Some(held.reserved_end) {
                self.states.of(held.slot).map(SaState::offer_again);
            }
        }
        for mut held in waiting {
            let over = now.since(held.since) >= held::PATIENCE;
            let reserved_end = reserved_end(snapshot, held.slot);
            // Without more numbers the answer would be the same: not decrypted for nothing.
            if reserved_end == Some(held.reserved_end) {
                if over {
                    self.tally.drop(DropReason::NoReservation);
                    self.tally.unhold(1);
                } else {
                    self.shelf.put_back(held);
                }
                continue;
            }
            let behind = match held.behind {
                Some(slot) => match snapshot.tables.sad.by_slot(slot) {
                    Some(sa) => Some(&**sa),
                    None => {
                        self.tally.drop(DropReason::SaExpired);
                        self.tally.unhold(1);
                        continue;
                    }
                },
                None => None,
            };
            let (packet, arrival) = (held.packet, held.arrival);
            let source = Source {
                frame: &mut held.frame,
                packet,
                arrival,
            };
            let sources = std::slice::from_ref(&source);
            let ends = self.inbound_behind(behind, sources, snapshot, now);
            match ends.first() {
                Some((_, Kept::Held(_, end))) if !over => {
                    held.reserved_end = *end;
                    self.shelf.put_back(held);
                    continue;
                }
                Some((_, Kept::Held(..))) => self.tally.drop(DropReason::NoReservation),
                Some((_, Kept::For(_))) => self.tally.drop(DropReason::HandoffFull),
                Some((_, Kept::No | Kept::Lent)) | None => {}
            }
            self.tally.unhold(1);
        }
        self.post(snapshot, now);
    }

    /// Ends what waits on the shelf: the worker stops.
    pub(super) fn clear_shelf(&mut self) {
        for _ in self.shelf.take() {
            self.tally.unhold(1);
            self.tally.drop(DropReason::NoReservation);
        }
    }

    /// Serves what other workers handed over. Answers the number of packets.
    pub(super) fn serve_parcels(&mut self, snapshot: &Snapshot, now: Time) -> usize {
        let mut served = 0;
        for from in 0..self.desk.workers() {
            let mut parcels: ArrayVec<Parcel<P::Received>, BATCH> = ArrayVec::new();
            while !parcels.is_full()
                && let Some(parcel) = self.desk.receive(from)
            {
                parcels.push(parcel);
            }
            served += parcels.len();
            self.lender.saw_burst(parcels.len(), parcels.is_full());
            self.come_to(parcels.iter().map(|parcel| parcel.cut).max().unwrap_or(0));
            // Runs of one side go through together.
            while let Some(first) = parcels.first() {
                let arrival = first.arrival;
                let same = |parcel: &&Parcel<_>| parcel.arrival == arrival;
                let run = parcels.iter().take_while(same).count();
                let run = parcels.drain(..run).collect();
                self.serve_run(from, run, arrival, snapshot, now);
            }
        }
        if !self.lender.is_home() {
            return served;
        }
        while let Some(mut parcel) = self.desk.receive_loose() {
            served += 1;
            self.come_to(parcel.cut);
            self.tally.unhold(1);
            match parcel.direction {
                Direction::In => self.serve_whole(&mut parcel, snapshot, now),
                Direction::Out => {
                    let look = Look::Packet(parcel.packet);
                    self.serve_look(&mut parcel.frame, look, parcel.arrival, snapshot, now);
                }
            }
        }
        if served > 0 {
            self.desk.ring();
            self.post(snapshot, now);
        }
        served
    }

    fn serve_run(
        &mut self,
        from: usize,
        mut run: ArrayVec<Parcel<P::Received>, BATCH>,
        arrival: Arrival,
        snapshot: &Snapshot,
        now: Time,
    ) {
        let mut rooms = self.assembly.rooms();
        let mut keeps = Keeps::new();
        let mut gathered = Gathered::new(&mut rooms, &mut keeps);
        for (place, parcel) in run.iter_mut().enumerate() {
            let source = Source {
                frame: parcel.frame.bytes_mut(),
                packet: parcel.packet,
                arrival,
            };
            gathered.add(Some(place), source);
            self.gather(&mut gathered, place, snapshot, now);
        }
        let in_frames = || gathered.lies_in_frames();
        self.begin_batch((arrival, Some(from)), in_frames, snapshot, now);
        let direction = match arrival {
            Arrival::Port(_, Side::Unprotected) => Direction::In,
            _ => Direction::Out,
        };
        let ends = match direction {
            Direction::In => self.inbound(&gathered.sources, snapshot, now),
            Direction::Out => self.outbound(&mut gathered.sources, snapshot, now),
        };
        self.settle_gathered(gathered, &ends, now);
        self.assembly.put_back(rooms);
        for (place, mut parcel) in run.into_iter().enumerate() {
            let kept = kept(&keeps, place);
            if let Some((Kept::Lent, _)) = kept {
                self.lend_frame(parcel.lane, parcel.frame);
                continue;
            }
            self.tally.unhold(1);
            match kept {
                None | Some((Kept::No | Kept::Lent, _)) => {}
                // It came here because its SA lived here; meanwhile that one died, and another one
                // of the policy serves.
                Some((Kept::For(to), _)) => {
                    let source = Source {
                        frame: parcel.frame.bytes_mut(),
                        packet: parcel.packet,
                        arrival,
                    };
                    self.hand_over_copy(to, &source, direction);
                }
                Some((Kept::Held(slot, end), _)) => {
                    let frame = parcel.frame.bytes();
                    self.shelve(frame, parcel.packet, arrival, (None, slot, end), now);
                }
            }
            self.desk.give_back(from, parcel.lane, parcel.frame);
        }
        self.end_batch(snapshot);
    }

    /// Hands over or shelves a packet that lies in no frame.
    pub(super) fn keep_copy(&mut self, end: Kept, source: &Source<'_>, now: Time) {
        match end {
            Kept::No | Kept::Lent => {}
            Kept::For(to) => self.hand_over_copy(to, source, Direction::In),
            Kept::Held(slot, end) => {
                let (packet, arrival) = (source.packet, source.arrival);
                self.shelve(source.frame, packet, arrival, (None, slot, end), now);
            }
        }
    }

    /// A packet from the unprotected side that another worker put together.
    fn serve_whole(&mut self, parcel: &mut LooseParcel, snapshot: &Snapshot, now: Time) {
        let source = Source {
            frame: &mut parcel.frame,
            packet: parcel.packet,
            arrival: parcel.arrival,
        };
        let ends = self.inbound(std::slice::from_ref(&source), snapshot, now);
        match ends.first() {
            // It came here because its SA lived here; meanwhile it moved.
            Some((_, Kept::For(_))) => self.tally.drop(DropReason::HandoffFull),
            Some((_, end)) => self.keep_copy(*end, &source, now),
            None => {}
        }
    }

    /// Puts the frames back that came home from other workers. Answers their number.
    pub(super) fn take_back(&mut self) -> usize {
        let mut count = 0;
        while let Some((lane, frame)) = self.desk.take_back() {
            self.lanes[lane].port.release(frame);
            count += 1;
        }
        count
    }
}

/// How far the numbers of the SA in `slot` are reserved; `None`: it is gone.
fn reserved_end(snapshot: &Snapshot, slot: SaSlot) -> Option<u64> {
    let sa = snapshot.tables.sad.by_slot(slot)?;
    Some(sa.published.reserved_end.load(Ordering::Relaxed))
}
