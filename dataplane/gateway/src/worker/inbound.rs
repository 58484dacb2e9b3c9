//! A burst from an unprotected port: `ipsec::inbound`, then the machine or forwarding.

use std::slice::ChunksExactMut;

use arrayvec::ArrayVec;
use ipsec::inbound::{self, Consumed, Item, Verdict};
use ipsec::ip::hop;
use ipsec::limits::{BATCH, PACKET};
use ipsec::packet::Packet;
use ipsec::sa::association::Direction;
use ipsec::sa::{Sa, SaSlot};
use ipsec::time::Time;
use ipsec::verdict::DropReason;

use crate::counters::{Cell, PortCell};
use crate::port::settings::Side;
use crate::port::{Buffer, Port};
use crate::route::PortIndex;
use crate::snapshot::Snapshot;
use crate::worker::clamp::clamp;
use crate::worker::egress::{Carrier, Transit};
use crate::worker::exit::Exit;
use crate::worker::frame::{Arrival, Source};
use crate::worker::host::{ETHERNET, Host};
use crate::worker::outbox::Way;
use crate::worker::process::{Ends, Kept, Worker, note};
use crate::worker::room::Room;

/// One for each packet of a burst that is opened.
type Buffers<'a, T> = [Option<Room<'a, T>>; BATCH];

/// What is known of a packet once its borrowed buffers are given back.
pub(super) struct Fate {
    verdict: Verdict,
    /// Of what was opened; else nothing.
    inner: Packet,
    slot: SaSlot,
    /// What waits came out of this SA, and is `inner`.
    behind: Option<SaSlot>,
}

/// What became of a burst.
pub(super) type Fates = ArrayVec<Fate, BATCH>;

impl<P: Port, H: Host> Worker<P, H> {
    /// Takes a burst from the unprotected side through. Answers which frames must be kept, and
    /// why; all others are done with.
    pub(super) fn inbound(
        &mut self,
        sources: &[Source<'_>],
        snapshot: &Snapshot,
        now: Time,
    ) -> Ends {
        self.inbound_behind(None, sources, snapshot, now)
    }

    /// The same for packets that came out of the SA `behind` and waited for the next one.
    pub(super) fn inbound_behind(
        &mut self,
        behind: Option<&Sa>,
        sources: &[Source<'_>],
        snapshot: &Snapshot,
        now: Time,
    ) -> Ends {
        self.ways.forget();
        // Taken out, so that packets may lie in them while the worker works.
        let mut own = std::mem::take(&mut self.opened);
        let mut rooms = own.chunks_exact_mut(ETHERNET + PACKET);
        let mut buffers: Buffers<'_, P::Transmit> = [const { None }; BATCH];
        let place = self.predicted(snapshot);
        let mut fates = Fates::new();
        let room = (&mut buffers, &mut rooms);
        self.open((sources, behind), room, place, &mut fates, snapshot, now);
        self.lend_rooms(&fates, &mut buffers);
        let mut ends = Ends::new();
        let packets = fates.iter().zip(sources).zip(&mut buffers);
        for (index, ((fate, source), buffer)) in packets.enumerate() {
            let kept = self.end_inbound(fate, source, (buffer.take(), place), snapshot, now);
            note(&mut ends, index, kept);
        }
        drop(buffers);
        self.opened = own;
        ends
    }

    /// The buffers of packets that were prepared for the batch go into it.
    fn lend_rooms(&mut self, fates: &Fates, buffers: &mut Buffers<'_, P::Transmit>) {
        let Some(mut batch) = self.current_batch() else {
            return;
        };
        for (fate, buffer) in fates.iter().zip(buffers).rev() {
            if fate.verdict == Verdict::Continue
                && let Some(Room::Frame(frame)) = buffer.take()
            {
                batch.buffers.push(frame);
            }
        }
        self.keep_filling(batch);
    }

    /// The port by which opened packets will probably leave: that of the last one. A wrong guess
    /// costs a copy.
    fn predicted(&self, snapshot: &Snapshot) -> PortIndex {
        self.predicted.unwrap_or(snapshot.first_protected)
    }

    fn port_after(&self, port: PortIndex) -> PortIndex {
        let next = (port.index() + 1) % self.egress.len().max(1);
        PortIndex(u16::try_from(next).unwrap_or(0))
    }

    fn open<'r>(
        &mut self,
        (sources, behind): (&[Source<'_>], Option<&Sa>),
        (buffers, rooms): (&mut Buffers<'r, P::Transmit>, &mut ChunksExactMut<'r, u8>),
        place: PortIndex,
        fates: &mut Fates,
        snapshot: &Snapshot,
        now: Time,
    ) {
        // Loops that push: what is collected from an iterator is copied once more.
        let mut items: ArrayVec<Item<'_>, BATCH> = ArrayVec::new();
        for source in sources {
            items.push(match behind {
                None => Item::new(source.ip(), source.packet),
                Some(outer) => Item::resumed(source.ip(), source.packet, outer),
            });
        }
        let mut context = self.inbound_context(snapshot, now);
        match behind {
            None => inbound::admit(&mut items, &mut context),
            Some(_) => inbound::resume(&mut items, &mut context),
        }
        for (item, buffer) in items.iter_mut().zip(&mut *buffers) {
            if item.verdict != Verdict::Continue {
                continue;
            }
            match self.allocate(place, item.source.len()) {
                Ok(fresh) => *buffer = Some(Room::Frame(fresh)),
                // Longer than the port's frames: it will leave in pieces, or not at all.
                Err(DropReason::Unsupported) => *buffer = rooms.next().map(Room::Own),
                Err(reason) => {
                    item.verdict = Verdict::Drop(reason);
                    // A port that is stuck must not hold up what goes to others: the next burst
                    // tries another one.
                    self.predicted = Some(self.port_after(place));
                }
            }
        }
        let in_frames = |buffer: &Option<Room<'_, _>>| !matches!(buffer, Some(Room::Own(_)));
        let lent = self.filling(|| buffers.iter().all(in_frames), snapshot, now);
        for (item, buffer) in items.iter_mut().zip(&mut *buffers) {
            item.destination = buffer
                .as_mut()
                .map(|buffer| &mut buffer.bytes()[ETHERNET..]);
        }
        match lent {
            None => inbound::open(&mut items, &mut self.inbound_context(snapshot, now)),
            Some(mut batch) => {
                inbound::prepare(&mut items);
                batch.add_openings(&items, place);
                self.keep_filling(batch);
            }
        }
        self.fates_of(&items, fates);
    }

    /// What became of packets that were opened, and what others are to know of it.
    pub(super) fn fates_of(&mut self, items: &[Item<'_>], fates: &mut Fates) {
        self.ask_for_numbers();
        for item in items {
            fates.push(Fate {
                verdict: item.verdict,
                inner: item.inner,
                slot: item.sa.map_or(SaSlot(u32::MAX), |sa| sa.slot),
                behind: item.held_behind(),
            });
        }
    }

    pub(super) fn end_inbound(
        &mut self,
        fate: &Fate,
        source: &Source<'_>,
        (buffer, place): (Option<Room<'_, P::Transmit>>, PortIndex),
        snapshot: &Snapshot,
        now: Time,
    ) -> Kept {
        match (fate.verdict, buffer) {
            (Verdict::Opened, Some(buffer)) => {
                self.deliver(&fate.inner, source, (buffer, place), snapshot, now);
                return Kept::No;
            }
            (Verdict::Held(end), Some(mut room)) if fate.behind.is_some() => {
                let bytes = &mut room.bytes()[..ETHERNET + usize::from(fate.inner.length)];
                bytes[..ETHERNET].copy_from_slice(&source.ethernet(fate.inner.version));
                let sas = (fate.behind, fate.slot, end);
                self.shelve(bytes, fate.inner, source.arrival, sas, now);
                self.leave_room(place, room);
                return Kept::No;
            }
            (_, Some(Room::Frame(unused))) => self.discard(place, unused),
            (_, Some(Room::Own(_)) | None) => {}
        }
        self.end_unopened(fate, source, snapshot, now)
    }

    fn end_unopened(
        &mut self,
        fate: &Fate,
        source: &Source<'_>,
        snapshot: &Snapshot,
        now: Time,
    ) -> Kept {
        match fate.verdict {
            Verdict::Drop(reason) => self.drop(reason, source.arrival),
            Verdict::Host => self.pass(source.frame, source.arrival),
            Verdict::Forward => {
                let transit = Transit {
                    arrival: source.arrival,
                    answer: Way::Policy,
                    opened: false,
                    crossing: Some(Direction::In),
                };
                let carrier = Carrier::Copy(source.ip());
                self.forward(snapshot, &source.packet, carrier, transit, now);
            }
            Verdict::Consumed(Consumed::Dummy) => self.tally.add(Cell::Dummy, 1),
            Verdict::Consumed(Consumed::Keepalive) => self.tally.add(Cell::Keepalive, 1),
            Verdict::Elsewhere(worker) => return Kept::For(worker),
            Verdict::Held(end) => return Kept::Held(fate.slot, end),
            // Nothing else goes on from there.
            Verdict::Continue => return Kept::Lent,
            Verdict::Opened => {
                debug_assert!(false, "open() decides every packet that has a buffer");
                self.drop(DropReason::NoFrame, source.arrival);
            }
        }
        Kept::No
    }

    /// An opened packet: to the machine itself, or on its way.
    fn deliver(
        &mut self,
        inner: &Packet,
        source: &Source<'_>,
        (mut buffer, place): (Room<'_, P::Transmit>, PortIndex),
        snapshot: &Snapshot,
        now: Time,
    ) {
        let packet = &mut buffer.bytes()[ETHERNET..ETHERNET + usize::from(inner.length)];
        if snapshot.tables.clamps() {
            clamp(snapshot, packet, inner, Direction::In, (self.number, now));
        }
        if snapshot
            .tables
            .local
            .contains(inner.version, inner.destination)
        {
            let ethernet = source.ethernet(inner.version);
            //= T120 (RFC 4301 section 6.1.2)
            let delivered = if self.heeded.admits(inner) {
                self.host.deliver(&ethernet, packet)
            } else {
                Err(DropReason::PolicyDiscard)
            };
            match delivered {
                Ok(()) => self.count_to_host(source.arrival),
                Err(reason) => self.drop(reason, source.arrival),
            }
            self.leave_room(place, buffer);
            return;
        }
        let next = self.way(snapshot, (inner.version, inner.destination), inner);
        let unprotected =
            |exit: Exit| snapshot.ports[exit.port().index()].side == Side::Unprotected;
        if next.is_some_and(unprotected) {
            // It would cross the boundary again: the outbound policy decides.
            //= T51 (RFC 4301 section 5.1)
            self.send_on(inner, source, (buffer, place), snapshot, now);
            return;
        }
        if let Some(exit) = next {
            self.predicted = Some(exit.port());
        }
        let buffer = match (next, buffer) {
            // It lies in its frame already, and nothing is left to ask.
            (Some(exit), Room::Frame(mut frame))
                if exit.port() == place && goes_at_once(inner, exit, source.arrival) =>
            {
                let length = usize::from(inner.length);
                let ip = &mut frame.room()[ETHERNET..ETHERNET + length];
                hop::decrement(ip).unwrap_or_default();
                let size = (inner.version, length);
                return self.finish(snapshot, exit, frame, size, source.arrival, now);
            }
            (_, buffer) => buffer,
        };
        let transit = Transit {
            arrival: source.arrival,
            answer: Way::Policy,
            opened: true,
            crossing: None,
        };
        let carrier = match buffer {
            Room::Frame(frame) => Carrier::Placed(frame, place),
            Room::Own(bytes) => Carrier::Copy(&bytes[ETHERNET..]),
        };
        self.forward(snapshot, inner, carrier, transit, now);
    }

    /// An opened packet that goes on to another peer: through the outbound policy.
    fn send_on(
        &mut self,
        inner: &Packet,
        source: &Source<'_>,
        (mut buffer, place): (Room<'_, P::Transmit>, PortIndex),
        snapshot: &Snapshot,
        now: Time,
    ) {
        let header = source.ethernet(inner.version);
        let frame = &mut buffer.bytes()[..ETHERNET + usize::from(inner.length)];
        frame[..ETHERNET].copy_from_slice(&header);
        let mut again = Source {
            frame,
            packet: *inner,
            arrival: source.arrival,
        };
        if !self.wait_for_batches(&again, now) {
            let ends = self.outbound(std::slice::from_mut(&mut again), snapshot, now);
            if let Some((_, Kept::For(to))) = ends.first() {
                // Its plaintext lies in a frame of ours, which cannot be handed over.
                self.hand_over_copy(*to, &again, Direction::Out);
            }
        }
        self.leave_room(place, buffer);
    }

    /// Gives back the frame of a room, if it is one.
    pub(super) fn leave_room(&mut self, port: PortIndex, room: Room<'_, P::Transmit>) {
        if let Room::Frame(frame) = room {
            self.discard(port, frame);
        }
    }

    /// False for an ICMP error to the machine that it is not to hear from the protected side.
    //= T120 (RFC 4301 section 6.1.2)
    pub(super) fn heeds(&self, arrival: Arrival, packet: &Packet) -> bool {
        !matches!(arrival, Arrival::Port(_, Side::Protected)) || self.heeded.admits(packet)
    }

    /// A frame for the machine, as received.
    pub(super) fn pass(&mut self, frame: &[u8], arrival: Arrival) {
        match self.host.pass(frame) {
            Ok(()) => self.count_to_host(arrival),
            Err(reason) => self.drop(reason, arrival),
        }
    }

    pub(super) fn count_to_host(&mut self, arrival: Arrival) {
        if arrival == Arrival::Own {
            self.tally.add(Cell::Created, 1);
        }
        self.tally.add(Cell::ToHost, 1);
        if let Arrival::Port(port, _) = arrival {
            self.tally.port(port.index(), PortCell::ToHostPackets, 1);
        }
    }
}

/// An opened packet in transit about which nobody is to be told anything.
#[inline]
const fn goes_at_once(inner: &Packet, exit: Exit, arrival: Arrival) -> bool {
    !exit.link.is_open() && inner.hop_limit > 1 && inner.length <= exit.mtu() && !arrival.is_local()
}
