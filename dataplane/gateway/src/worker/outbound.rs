//! A burst from a protected port or the machine itself: `ipsec::outbound`, with routing between
//! its doors.

use arrayvec::ArrayVec;
use ipsec::ip::fragment;
use ipsec::limits::{BATCH, OVERHEAD};
use ipsec::outbound::{self, Item, Verdict};
use ipsec::packet::{self, Packet, Version};
use ipsec::policy::PolicyIndex;
use ipsec::sa::SaSlot;
use ipsec::sa::association::Direction;
use ipsec::time::Time;
use ipsec::verdict::DropReason;

use crate::counters::Cell;
use crate::port::settings::Side;
use crate::port::{Buffer, Port};
use crate::route::Mac;
use crate::snapshot::Snapshot;
use crate::worker::egress::{Carrier, Link, Path, Transit, clamp, outer_version};
use crate::worker::frame::{Arrival, Source};
use crate::worker::host::{ETHERNET, Host};
use crate::worker::originate::Complaint;
use crate::worker::outbox::Way;
use crate::worker::process::{Ends, Kept, Worker};

/// What the caller learns of an item once its borrowed buffers are given back.
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
    pub(super) way: Option<(Path, Link)>,
}

impl<P: Port, H: Host> Worker<P, H> {
    /// Takes a burst from the protected side through. Answers which frames must be kept, and why;
    /// all others are done with.
    pub(super) fn outbound(
        &mut self,
        sources: &mut [Source<'_>],
        snapshot: &Snapshot,
        now: Time,
    ) -> Ends {
        let mut items = items(sources);
        outbound::select(&mut items, &mut self.outbound_context(snapshot, now));
        for item in &mut items {
            if item.verdict == Verdict::Protect {
                let (ip, packet) = (&mut *item.source, &item.packet);
                clamp(snapshot, ip, packet, Direction::Out, self.number);
            }
        }
        let mut buffers: [Option<P::Transmit>; BATCH] = [const { None }; BATCH];
        let mut fates = self.seal(items, &mut buffers, snapshot, now);
        let mut ends = Ends::new();
        for ((fate, source), buffer) in fates.drain(..).zip(sources).zip(&mut buffers) {
            let left = self.tally.left();
            ends.push(self.end_outbound(&fate, source, buffer.take(), snapshot, now));
            if source.arrival == Arrival::Own && self.tally.left() > left {
                self.count_policy(fate.policy, source.packet.length);
            }
        }
        ends
    }

    /// From `select` to sealed packets in frames of their egress ports.
    pub(super) fn seal(
        &mut self,
        items: ArrayVec<Item<'_>, BATCH>,
        buffers: &mut [Option<P::Transmit>; BATCH],
        snapshot: &Snapshot,
        now: Time,
    ) -> ArrayVec<Fate, BATCH> {
        // A shorter life, so that the items may borrow the buffers too.
        let mut items: ArrayVec<Item<'_>, BATCH> = items;
        let mut ways: ArrayVec<Option<(Path, Option<Mac>)>, BATCH> = ArrayVec::new();
        self.ways.forget();
        for item in &mut items {
            let way = match (item.verdict, item.sa) {
                (Verdict::Protect, Some(sa)) => self.outer_way(snapshot, sa, &item.packet),
                _ => None,
            };
            item.mtu = way.map_or(u16::MAX, |(path, _)| path.mtu);
            ways.push(way);
        }
        outbound::fit(&mut items);
        let mut links: ArrayVec<Option<Link>, BATCH> = ArrayVec::new();
        for ((item, way), buffer) in items.iter_mut().zip(&ways).zip(&mut *buffers) {
            let mut link = None;
            if item.verdict == Verdict::Protect {
                let placed = self.place(room_of(item), *way);
                match placed.and_then(|placed| self.no_wait_of_our_own(item, placed)) {
                    Ok((fresh, found)) => {
                        *buffer = Some(fresh);
                        link = Some(found);
                    }
                    Err(reason) => item.verdict = Verdict::Drop(reason),
                }
            }
            links.push(link);
        }
        for (item, buffer) in items.iter_mut().zip(&mut *buffers) {
            item.destination = buffer.as_mut().map(|buffer| &mut buffer.room()[ETHERNET..]);
        }
        outbound::protect(&mut items, &mut self.outbound_context(snapshot, now));
        self.show_policies(items.iter().map(|item| item.policy));
        self.ask_for_numbers();
        let ways = ways
            .into_iter()
            .zip(links)
            .map(|(way, link)| way.map(|(path, _)| path).zip(link));
        items
            .iter()
            .zip(ways)
            .map(|(item, way)| Fate {
                verdict: item.verdict,
                sa: item.sa.map(|sa| sa.slot),
                policy: item.policy,
                inner_sa: item.inner_sa.map(|sa| sa.slot),
                outer: item.sa.map_or(Version::V4, outer_version),
                split: item.fragment_outer,
                way,
            })
            .collect()
    }

    fn place(
        &mut self,
        room: usize,
        way: Option<(Path, Option<Mac>)>,
    ) -> Result<(P::Transmit, (Path, Link)), DropReason> {
        let (path, mac) = way.ok_or(DropReason::NoRoute)?;
        let link = self.link(path.next, mac)?;
        let buffer = self.allocate(path.next.port, room)?;
        Ok((buffer, (path, link)))
    }

    /// An error of our own does not wait for a neighbour once it is sealed: its SA would have
    /// counted what perhaps never leaves.
    fn no_wait_of_our_own(
        &mut self,
        item: &Item<'_>,
        (buffer, (path, link)): (P::Transmit, (Path, Link)),
    ) -> Result<(P::Transmit, Link), DropReason> {
        match link {
            Link::Wait if item.own => {
                self.discard(path.next.port, buffer);
                Err(DropReason::NoNeighbor)
            }
            link => Ok((buffer, link)),
        }
    }

    fn end_outbound(
        &mut self,
        fate: &Fate,
        source: &Source<'_>,
        buffer: Option<P::Transmit>,
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
            (_, Some((path, _)), Some(unused)) => self.discard(path.next.port, unused),
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
                if reason == DropReason::HopLimit {
                    let about = (source.ip(), &source.packet);
                    self.complain(snapshot, Complaint::TimeExceeded, about, transit, None, now);
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
        way: (Path, Link),
        (mut buffer, length): (P::Transmit, usize),
        snapshot: &Snapshot,
        arrival: Arrival,
        now: Time,
    ) {
        if !fate.split {
            return self.finish(snapshot, way, buffer, (fate.outer, length), arrival, now);
        }
        let outer = &buffer.room()[ETHERNET..ETHERNET + length];
        match packet::parse(outer) {
            Ok(packet) => self.leave_in_fragments((outer, &packet), way, snapshot, arrival, now),
            Err(reason) => self.drop(reason, arrival),
        }
        self.discard(way.0.next.port, buffer);
    }

    fn leave_in_fragments(
        &mut self,
        (outer, packet): (&[u8], &Packet),
        way: (Path, Link),
        snapshot: &Snapshot,
        arrival: Arrival,
        now: Time,
    ) {
        let mtu = way.0.mtu;
        self.identification = self.identification.wrapping_add(1);
        let Some(plan) = fragment::Plan::own(outer, self.identification, mtu) else {
            return self.drop(DropReason::TooBig, arrival);
        };
        for index in 0..plan.count() {
            if index > 0 && arrival != Arrival::Own {
                self.tally.add(Cell::Created, 1);
            }
            match self.allocate(way.0.next.port, usize::from(mtu)) {
                Ok(mut buffer) => match plan.write(outer, index, &mut buffer.room()[ETHERNET..]) {
                    Some(length) => {
                        let size = (packet.version, length);
                        self.finish(snapshot, way, buffer, size, arrival, now);
                    }
                    None => {
                        self.discard(way.0.next.port, buffer);
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
        let Some(plan) = fragment::Plan::transit(ip, &source.packet, limit) else {
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
        let mut items = items(pieces);
        for item in &mut items {
            item.inner_sa = sa(whole.inner_sa);
            item.sa = sa(whole.sa);
        }
        let mut buffers: [Option<P::Transmit>; BATCH] = [const { None }; BATCH];
        let mut fates = self.seal(items, &mut buffers, snapshot, now);
        for ((fate, piece), buffer) in fates.drain(..).zip(pieces).zip(&mut buffers) {
            match (fate.verdict, fate.way, buffer.take()) {
                (Verdict::Sealed(length), Some(way), Some(buffer)) => {
                    let sealed = (buffer, usize::from(length));
                    self.leave(&fate, way, sealed, snapshot, piece.arrival, now);
                }
                (verdict, way, buffer) => {
                    if let (Some((path, _)), Some(unused)) = (way, buffer) {
                        self.discard(path.next.port, unused);
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

fn items<'a>(sources: &'a mut [Source<'_>]) -> ArrayVec<Item<'a>, BATCH> {
    sources
        .iter_mut()
        .map(|source| {
            let length = usize::from(source.packet.length);
            let arrival = source.arrival;
            let ip = &mut source.frame[ETHERNET..ETHERNET + length];
            let mut item = Item::new(ip, source.packet, arrival.is_local());
            item.own = arrival == Arrival::Own;
            item
        })
        .collect()
}

/// The longest that the sealed packet may be, bytes.
fn room_of(item: &Item<'_>) -> usize {
    let both = [item.inner_sa, item.sa];
    let padded = both.iter().flatten().map(|sa| sa.parameters.tfc_pad_to);
    let padded = usize::from(padded.max().unwrap_or(0));
    let longest = item.source.len().max(padded) + OVERHEAD;
    if item.fragment_outer {
        longest
    } else {
        longest.min(usize::from(item.mtu))
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
