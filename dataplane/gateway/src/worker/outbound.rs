//! A burst from a protected port or the machine itself: `ipsec::outbound`, with routing between
//! its doors.

use std::slice::ChunksExactMut;

use arrayvec::ArrayVec;
use ipsec::ip::fragment;
use ipsec::limits::{BATCH, OVERHEAD, PACKET};
use ipsec::outbound::{self, Item, Verdict};
use ipsec::packet::{self, Packet, Version};
use ipsec::policy::PolicyIndex;
use ipsec::sa::association::Direction;
use ipsec::sa::{Sa, SaSlot};
use ipsec::time::Time;
use ipsec::verdict::DropReason;

use crate::counters::Cell;
use crate::port::settings::Side;
use crate::port::{Buffer, Port};
use crate::snapshot::Snapshot;
use crate::worker::clamp::clamp;
use crate::worker::egress::{Carrier, Transit};
use crate::worker::exit::{Exit, outer_destination, outer_version};
use crate::worker::frame::{Arrival, Source};
use crate::worker::host::{ETHERNET, Host};
use crate::worker::originate::Complaint;
use crate::worker::outbox::Way;
use crate::worker::process::{Ends, Kept, Worker, note};
use crate::worker::room::Room;

/// What the caller learns of an item once its borrowed buffers are given back.
#[derive(Clone, Copy)]
pub(super) struct Fate {
    pub(super) verdict: Verdict,
    sa: Option<SaSlot>,
    policy: Option<PolicyIndex>,
    /// The first SA of a bundle.
    inner_sa: Option<SaSlot>,
    /// Of the sealed packet.
    outer: Version,
    /// The sealed packet is longer than the way allows and must leave in fragments.
    split: bool,
    pub(super) way: Option<Exit>,
}

/// A burst of packets on their way through the stages.
pub(super) type Items<'a> = ArrayVec<Item<'a>, BATCH>;

/// One for each packet of a burst that is sealed.
pub(super) type Buffers<'a, T> = [Option<Room<'a, T>>; BATCH];

/// Room for a sealed packet that is longer than a frame, and its Ethernet header.
pub(super) const LONG: usize = ETHERNET + PACKET + OVERHEAD;

/// What became of them.
pub(super) type Fates = ArrayVec<Fate, BATCH>;

impl<P: Port, H: Host> Worker<P, H> {
    /// Takes a burst from the protected side through. Answers which frames must be kept, and why;
    /// all others are done with.
    pub(super) fn outbound(
        &mut self,
        sources: &mut [Source<'_>],
        snapshot: &Snapshot,
        now: Time,
    ) -> Ends {
        // Taken out, so that packets may lie in them while the worker works.
        let mut long = std::mem::take(&mut self.long);
        let mut rooms = long.chunks_exact_mut(LONG);
        let mut buffers: Buffers<'_, P::Transmit> = [const { None }; BATCH];
        let mut fates = Fates::new();
        {
            // They borrow from the buffers, and end before those are looked at again.
            let mut items = Items::new();
            fill(&mut items, sources);
            outbound::select(&mut items, &mut self.outbound_context(snapshot, now));
            if snapshot.tables.clamps() {
                for item in &mut items {
                    if item.verdict == Verdict::Protect {
                        let (ip, packet) = (&mut *item.source, &item.packet);
                        clamp(snapshot, ip, packet, Direction::Out, (self.number, now));
                    }
                }
            }
            let room = (&mut buffers, &mut rooms);
            self.seal(&mut items, room, &mut fates, snapshot, now);
        }
        self.lend_sealed(&fates, &mut buffers);
        let mut ends = Ends::new();
        let packets = fates.iter().zip(sources).zip(&mut buffers);
        for (index, ((fate, source), buffer)) in packets.enumerate() {
            let left = self.tally.left();
            let kept = self.end_outbound(fate, source, buffer.take(), snapshot, now);
            note(&mut ends, index, kept);
            if source.arrival == Arrival::Own && self.tally.left() > left {
                self.count_policy(fate.policy, source.packet.length);
            }
        }
        drop(buffers);
        self.long = long;
        ends
    }

    /// From `select` to sealed packets in frames of their egress ports; what is to be cut behind
    /// its SA and longer than a frame goes into one of `rooms`. The items stay where they are and
    /// live no longer than the buffers are lent: moved to a shorter life they would be copied.
    pub(super) fn seal<'i, 'r>(
        &mut self,
        items: &mut Items<'i>,
        (buffers, rooms): (
            &'i mut Buffers<'r, P::Transmit>,
            &mut ChunksExactMut<'r, u8>,
        ),
        fates: &mut Fates,
        snapshot: &Snapshot,
        now: Time,
    ) {
        let mut ways: ArrayVec<Option<Exit>, BATCH> = ArrayVec::new();
        self.ways.forget();
        let mut last = None;
        let mut in_frames = true;
        for (item, buffer) in items.iter_mut().zip(buffers) {
            let (Verdict::Protect, Some(sa)) = (item.verdict, item.sa) else {
                ways.push(None);
                continue;
            };
            let mut way = self.way_behind(&mut last, snapshot, sa, &item.packet);
            item.mtu = way.map_or(u16::MAX, Exit::mtu);
            outbound::fit(std::slice::from_mut(item));
            if item.verdict == Verdict::Protect {
                match self.place(item, way, rooms, snapshot) {
                    Ok((found, room)) => {
                        way = Some(found);
                        in_frames &= matches!(room, Room::Frame(_));
                        item.destination = Some(&mut buffer.insert(room).bytes()[ETHERNET..]);
                    }
                    Err(reason) => item.verdict = Verdict::Drop(reason),
                }
            }
            ways.push(way);
        }
        let all = || {
            let mut packets = items.iter().zip(&ways);
            in_frames && packets.all(|(item, way)| is_lendable(item, *way))
        };
        let lent = self.filling(all, snapshot, now);
        let mut context = self.outbound_context(snapshot, now);
        match lent {
            None => outbound::protect(items, &mut context),
            Some(mut batch) => {
                outbound::write(items, &mut context);
                batch.add_sealings(items);
                self.keep_filling(batch);
            }
        }
        self.ask_for_numbers();
        for (item, &way) in items.iter().zip(&ways) {
            fates.push(Fate {
                verdict: item.verdict,
                sa: item.sa.map(|sa| sa.slot),
                policy: item.policy,
                inner_sa: item.inner_sa.map(|sa| sa.slot),
                outer: item.sa.map_or(Version::V4, outer_version),
                split: item.fragment_outer,
                way,
            });
        }
    }

    /// The way of the sealed packet; `last` is the way of those of an SA that came before, where
    /// all of them go one way, so that a burst of one SA asks once.
    #[inline(always)]
    fn way_behind(
        &mut self,
        last: &mut Option<(SaSlot, Exit)>,
        snapshot: &Snapshot,
        sa: &Sa,
        packet: &Packet,
    ) -> Option<Exit> {
        match *last {
            Some((slot, exit)) if slot == sa.slot => Some(exit),
            _ => {
                let way = self.outer_way(snapshot, sa, packet);
                let kept = way.filter(|_| self.goes_one_way(sa));
                *last = kept.map(|exit| (sa.slot, exit));
                way
            }
        }
    }

    /// What a packet is sealed into, and the way out.
    #[inline]
    fn place<'r>(
        &mut self,
        item: &Item<'_>,
        way: Option<Exit>,
        rooms: &mut ChunksExactMut<'r, u8>,
        snapshot: &Snapshot,
    ) -> Result<(Exit, Room<'r, P::Transmit>), DropReason> {
        let (Some(exit), Some(sa)) = (way, item.sa) else {
            return Err(DropReason::NoRoute);
        };
        let exit = self.link(snapshot, exit, outer_destination(sa), &item.packet)?;
        // An error of our own does not wait for a neighbour once it is sealed: its SA would have
        // counted what perhaps never leaves.
        if item.own && exit.link.is_open() {
            return Err(DropReason::NoNeighbor);
        }
        match self.allocate(exit.port(), item.sealed_length().into()) {
            Ok(frame) => Ok((exit, Room::Frame(frame))),
            Err(DropReason::Unsupported) if item.fragment_outer => {
                let room = rooms.next().ok_or(DropReason::Unsupported)?;
                Ok((exit, Room::Own(room)))
            }
            Err(reason) => Err(reason),
        }
    }

    fn end_outbound(
        &mut self,
        fate: &Fate,
        source: &Source<'_>,
        buffer: Option<Room<'_, P::Transmit>>,
        snapshot: &Snapshot,
        now: Time,
    ) -> Kept {
        let arrival = source.arrival;
        match (fate.verdict, fate.way, buffer) {
            (Verdict::Sealed(length), Some(way), Some(buffer)) => {
                self.leave(
                    fate,
                    way,
                    (buffer, usize::from(length)),
                    snapshot,
                    arrival,
                    now,
                );
                return Kept::No;
            }
            (_, Some(exit), Some(unused)) => self.leave_room(exit.port(), unused),
            // Its buffer has gone into a batch.
            (Verdict::Sealed(_), ..) => return Kept::Lent,
            _ => {}
        }
        let transit = Transit {
            arrival,
            answer: answer(arrival),
            opened: matches!(arrival, Arrival::Port(_, Side::Unprotected)),
            crossing: Some(Direction::Out),
        };
        match fate.verdict {
            Verdict::Drop(reason) => {
                if let Some(complaint) = self.complaint(reason) {
                    let about = (source.ip(), &source.packet);
                    self.complain(snapshot, complaint, about, transit, None, now);
                }
                self.drop(reason, arrival);
            }
            Verdict::TooBig(mtu) => {
                let about = (source.ip(), &source.packet);
                self.complain(snapshot, Complaint::TooBig(mtu), about, transit, None, now);
                self.drop(DropReason::TooBig, arrival);
            }
            Verdict::Fragment(limit) => self.fragment(fate, source, limit, snapshot, now),
            Verdict::Bypass => {
                let carrier = Carrier::Copy(source.ip());
                self.forward(snapshot, &source.packet, carrier, transit, now);
            }
            Verdict::Host if !self.heeds(arrival, &source.packet) => {
                self.drop(DropReason::PolicyDiscard, arrival);
            }
            Verdict::Host => self.pass(source.frame, arrival),
            Verdict::Elsewhere(worker) => return Kept::For(worker),
            Verdict::Protect | Verdict::Sealed(_) => {
                debug_assert!(false, "protect() decides every packet that has a buffer");
                self.drop(DropReason::NoFrame, arrival);
            }
        }
        Kept::No
    }

    /// A sealed packet leaves, whole or (RFC 2473 §7.1) in fragments.
    pub(super) fn leave(
        &mut self,
        fate: &Fate,
        way: Exit,
        (room, length): (Room<'_, P::Transmit>, usize),
        snapshot: &Snapshot,
        arrival: Arrival,
        now: Time,
    ) {
        let mut room = match room {
            Room::Frame(buffer) if !fate.split => {
                let size = (fate.outer, length);
                return self.finish(snapshot, way, buffer, size, arrival, now);
            }
            room => room,
        };
        let outer = &room.bytes()[ETHERNET..ETHERNET + length];
        match packet::parse(outer) {
            Ok(packet) => self.leave_in_fragments((outer, &packet), way, snapshot, arrival, now),
            Err(reason) => self.drop(reason, arrival),
        }
        self.leave_room(way.port(), room);
    }

    fn leave_in_fragments(
        &mut self,
        (outer, packet): (&[u8], &Packet),
        way: Exit,
        snapshot: &Snapshot,
        arrival: Arrival,
        now: Time,
    ) {
        let mtu = way.mtu();
        self.identification = self.identification.wrapping_add(1);
        let Some(plan) = fragment::Plan::own(outer, self.identification, mtu) else {
            return self.drop(DropReason::TooBig, arrival);
        };
        for index in 0..plan.count() {
            if index > 0 && arrival != Arrival::Own {
                self.tally.add(Cell::Created, 1);
            }
            match self.allocate(way.port(), usize::from(mtu)) {
                Ok(mut buffer) => match plan.write(outer, index, &mut buffer.room()[ETHERNET..]) {
                    Some(length) => {
                        let size = (packet.version, length);
                        self.finish(snapshot, way, buffer, size, arrival, now);
                    }
                    None => {
                        self.discard(way.port(), buffer);
                        self.drop(DropReason::NoFrame, arrival);
                    }
                },
                Err(reason) => self.drop(reason, arrival),
            }
        }
    }

    /// Cuts a packet that is too long before sealing and offers each piece to the same SA.
    fn fragment(
        &mut self,
        fate: &Fate,
        source: &Source<'_>,
        limit: u16,
        snapshot: &Snapshot,
        now: Time,
    ) {
        let ip = source.ip();
        let Some(plan) = self.plan(ip, &source.packet, limit) else {
            return self.drop(DropReason::TooBig, source.arrival);
        };
        // Taken out, so that the pieces may be borrowed while the worker works on them.
        let mut scratch = std::mem::take(&mut self.scratch);
        let room = ETHERNET + usize::from(limit);
        for first in (0..plan.count()).step_by(BATCH) {
            let mut pieces: ArrayVec<Source<'_>, BATCH> = ArrayVec::new();
            let indices = first..plan.count().min(first + BATCH);
            for (index, piece) in indices.zip(scratch.chunks_exact_mut(room)) {
                piece[..ETHERNET].copy_from_slice(&source.frame[..ETHERNET]);
                if index > 0 && source.arrival != Arrival::Own {
                    self.tally.add(Cell::Created, 1);
                }
                let written = plan.write(ip, index, &mut piece[ETHERNET..]);
                match written.map(|length| packet::parse(&piece[ETHERNET..ETHERNET + length])) {
                    Some(Ok(packet)) => {
                        pieces.push(Source {
                            frame: piece,
                            packet,
                            arrival: source.arrival,
                        });
                    }
                    Some(Err(reason)) => self.drop(reason, source.arrival),
                    None => self.drop(DropReason::NoFrame, source.arrival),
                }
            }
            self.seal_pieces(fate, &mut pieces, snapshot, now);
        }
        self.scratch = scratch;
    }

    fn seal_pieces(
        &mut self,
        whole: &Fate,
        pieces: &mut [Source<'_>],
        snapshot: &Snapshot,
        now: Time,
    ) {
        let sa = |slot: Option<SaSlot>| snapshot.tables.sad.by_slot(slot?).map(|sa| &**sa);
        let mut buffers: Buffers<'_, P::Transmit> = [const { None }; BATCH];
        let mut fates = Fates::new();
        {
            let mut items = Items::new();
            fill(&mut items, pieces);
            for item in &mut items {
                item.inner_sa = sa(whole.inner_sa);
                item.sa = sa(whole.sa);
            }
            let room = (&mut buffers, &mut [].chunks_exact_mut(LONG));
            self.seal(&mut items, room, &mut fates, snapshot, now);
        }
        for ((fate, piece), buffer) in fates.iter().zip(pieces).zip(&mut buffers) {
            match (fate.verdict, fate.way, buffer.take()) {
                (Verdict::Sealed(length), Some(way), Some(buffer)) => {
                    let sealed = (buffer, usize::from(length));
                    self.leave(fate, way, sealed, snapshot, piece.arrival, now);
                }
                (verdict, way, buffer) => {
                    if let (Some(exit), Some(unused)) = (way, buffer) {
                        self.leave_room(exit.port(), unused);
                    }
                    let reason = match verdict {
                        Verdict::Drop(reason) => reason,
                        _ => DropReason::TooBig,
                    };
                    self.drop(reason, piece.arrival);
                }
            }
        }
    }
}

/// False for what leaves behind the others of its burst, with two SAs, or perhaps not at once.
fn is_lendable(item: &Item<'_>, way: Option<Exit>) -> bool {
    match item.verdict {
        Verdict::Fragment(_) => false,
        Verdict::Protect => item.inner_sa.is_none() && way.is_some_and(|it| !it.link.is_open()),
        _ => true,
    }
}

/// Makes items of sources. A loop that pushes: what is collected from an iterator is copied once
/// more.
fn fill<'a>(items: &mut Items<'a>, sources: &'a mut [Source<'_>]) {
    for source in sources {
        let length = usize::from(source.packet.length);
        let arrival = source.arrival;
        let ip = &mut source.frame[ETHERNET..ETHERNET + length];
        items.push(Item::new(ip, source.packet, arrival.is_local()));
        if arrival == Arrival::Own
            && let Some(item) = items.last_mut()
        {
            item.own = true;
        }
    }
}

/// How an ICMP error about a packet goes back.
const fn answer(arrival: Arrival) -> Way {
    match arrival {
        Arrival::Host => Way::Host,
        Arrival::Port(_, Side::Protected) => Way::Route,
        Arrival::Port(_, Side::Unprotected) | Arrival::Own => Way::Policy,
    }
}
