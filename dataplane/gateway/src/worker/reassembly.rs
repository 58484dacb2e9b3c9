//! Fragments of what is ours to open meet on one worker, wait there as copies, and go on as the
//! packet that they were (design: the order of `inbound` begins with whole packets).
//!
//! Fragments of one packet arrive on several queues, so a hash of what they share names the worker
//! that puts them together; the others hand theirs over. A packet that is complete takes the place
//! of the fragment that completed it, behind that one's Ethernet header.
//!
//! The machine's own fragments, where an SA in transport mode may carry their packet, wait in a
//! table of their own: what arrives on a wire cannot push them out. They meet of themselves, since
//! the host port's flows are told by their addresses.

use std::slice::ChunksExactMut;

use arrayvec::ArrayVec;
use ipsec::ip::reassemble::{Bounds, Outcome, Reassembly, meeting_point};
use ipsec::limits::{BATCH, PACKET};
use ipsec::packet::{Fragment, Packet, Version, parse};
use ipsec::time::Time;
use ipsec::verdict::DropReason;

use crate::counters::Cell;
use crate::port::Port;
use crate::port::settings::Side;
use crate::snapshot::Snapshot;
use crate::worker::frame::{Arrival, Look, Source};
use crate::worker::host::{ETHERNET, Host};
use crate::worker::process::{Ends, Kept, Worker};

/// Room for one packet and its Ethernet header.
const ROOM: usize = ETHERNET + PACKET;

/// Fragments that wait, and room for what a burst completes.
pub(super) struct Assembly {
    /// From the unprotected side.
    table: Reassembly,
    /// From the machine.
    own: Reassembly,
    /// Room for what those complete.
    whole: Box<[u8]>,
    udp: bool,
    seed: u64,
    rooms: Box<[u8]>,
    /// The caller's name for the frame that is being served.
    tag: u64,
    /// Names of the frames whose fragments were dropped while they waited; `None`: nobody asks.
    lost: Option<Vec<u64>>,
}

impl Assembly {
    pub(super) fn new(bounds: Bounds, udp: bool, seed: u64) -> Self {
        Self {
            table: Reassembly::new(bounds),
            own: Reassembly::new(bounds),
            whole: vec![0; ROOM].into_boxed_slice(),
            udp,
            seed,
            rooms: vec![0; BATCH * ROOM].into_boxed_slice(),
            tag: 0,
            lost: None,
        }
    }

    /// Taken out, so that packets may lie in them while the worker works.
    pub(super) fn rooms(&mut self) -> Box<[u8]> {
        std::mem::take(&mut self.rooms)
    }

    pub(super) fn put_back(&mut self, rooms: Box<[u8]>) {
        self.rooms = rooms;
    }
}

/// Whose fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Wire,
    Machine,
}

/// The few frames of a burst that must be kept: which, why, and the packet in it. It stands beside
/// what borrows the frames, since it outlives that.
pub(super) type Keeps = ArrayVec<(usize, Kept, Packet), BATCH>;

/// Why frame `place` must be kept, if it must.
#[inline]
pub(super) fn kept(keeps: &Keeps, place: usize) -> Option<(Kept, Packet)> {
    if keeps.is_empty() {
        return None;
    }
    // Where all are kept, as in a burst that is lent, each stands at its place.
    let found = match keeps.get(place) {
        Some(at_place) if at_place.0 == place => at_place,
        _ => keeps.iter().find(|(of, ..)| *of == place)?,
    };
    Some((found.1, found.2))
}

/// What a burst goes on with: packets as they came, and packets that its fragments completed.
pub(super) struct Gathered<'a> {
    pub sources: ArrayVec<Source<'a>, BATCH>,
    /// Of each source: which frame of the burst it lies in, if it lies in one.
    places: ArrayVec<Option<usize>, BATCH>,
    keeps: &'a mut Keeps,
    room: Option<&'a mut [u8]>,
    rooms: ChunksExactMut<'a, u8>,
}

impl<'a> Gathered<'a> {
    pub(super) fn new(rooms: &'a mut [u8], keeps: &'a mut Keeps) -> Self {
        Self {
            sources: ArrayVec::new(),
            places: ArrayVec::new(),
            keeps,
            room: None,
            rooms: rooms.chunks_exact_mut(ROOM),
        }
    }

    /// Every packet lies in a frame of the burst.
    pub(super) fn lies_in_frames(&self) -> bool {
        self.places.iter().all(Option::is_some)
    }

    /// Adds the packet that lies in frame `place` of the burst, if it lies in one.
    #[inline(always)]
    pub(super) fn add(&mut self, place: Option<usize>, source: Source<'a>) {
        self.sources.push(source);
        self.places.push(place);
    }

    /// Adds the packet that lies in frame `place` of the burst and is yet to be looked at.
    #[inline(always)]
    pub(super) fn begin(
        &mut self,
        place: usize,
        frame: &'a mut [u8],
        arrival: Arrival,
    ) -> &mut Source<'a> {
        let source = Source {
            frame,
            packet: Packet::nothing(Version::V4),
            arrival,
        };
        self.add(Some(place), source);
        let last = self.sources.len() - 1;
        &mut self.sources[last]
    }

    /// Takes the packet that was added last out again.
    pub(super) fn take_last(&mut self) -> Option<Source<'a>> {
        self.places.pop();
        self.sources.pop()
    }
}

impl<P: Port, H: Host> Worker<P, H> {
    /// Looks at the packet that was added last, the one in frame `place` of a burst. A fragment
    /// that is ours to put together goes and meets the others of its packet first.
    #[inline(always)]
    pub(super) fn gather(
        &mut self,
        gathered: &mut Gathered<'_>,
        place: usize,
        snapshot: &Snapshot,
        now: Time,
    ) {
        let is_fragment = |source: &Source<'_>| source.packet.fragment != Fragment::Whole;
        if gathered.sources.last().is_some_and(is_fragment) {
            self.gather_fragment(gathered, place, snapshot, now);
        }
    }

    fn gather_fragment(
        &mut self,
        gathered: &mut Gathered<'_>,
        place: usize,
        snapshot: &Snapshot,
        now: Time,
    ) {
        let ours = |source: &Source<'_>| {
            matches!(source.arrival, Arrival::Port(_, Side::Unprotected))
                && snapshot
                    .tables
                    .reassembles(&source.packet, self.assembly.udp)
        };
        if !gathered.sources.last().is_some_and(ours) {
            return;
        }
        let Some(source) = gathered.take_last() else {
            return;
        };
        let packet = &source.packet;
        let workers = u16::try_from(self.desk.workers()).unwrap_or(u16::MAX);
        let point = meeting_point(packet, self.assembly.seed, workers);
        if point == self.number {
            self.assemble(gathered, &source, now);
        } else {
            gathered.keeps.push((place, Kept::For(point), *packet));
        }
    }

    fn assemble(&mut self, gathered: &mut Gathered<'_>, source: &Source<'_>, now: Time) {
        let room = gathered.room.take().or_else(|| gathered.rooms.next());
        let Some(room) = room else {
            return self.tally.drop(DropReason::NoFrame);
        };
        let (ip, packet) = (source.ip(), &source.packet);
        let out = &mut room[ETHERNET..];
        let outcome = self.with_table(Whose::Wire, |table, tag, lost| {
            table.offer(ip, packet, tag, out, now, lost)
        });
        let Some(packet) = self.completed(outcome, out) else {
            gathered.room = Some(room);
            return;
        };
        room[..ETHERNET].copy_from_slice(&source.ethernet(packet.version));
        let whole = Source {
            frame: &mut room[..ETHERNET + usize::from(packet.length)],
            packet,
            arrival: source.arrival,
        };
        gathered.add(None, whole);
    }

    /// Counts what became of a fragment; the packet, if it completed one that makes sense.
    fn completed(&mut self, outcome: Outcome, written: &[u8]) -> Option<Packet> {
        match outcome {
            Outcome::Held => self.tally.hold(1),
            Outcome::Dropped(reason) => self.tally.drop(reason),
            Outcome::Whole { length, waited } => {
                self.tally.unhold(waited.into());
                self.tally.add(Cell::Merged, waited.into());
                match parse(&written[..usize::from(length)]) {
                    Ok(packet) => return Some(packet),
                    Err(reason) => self.tally.drop(reason),
                }
            }
        }
        None
    }

    /// A fragment that the machine sent, behind an Ethernet header: the packet that it completes
    /// goes on as if it had never been cut, and may be cut again.
    //= T14 (RFC 4303 section 3.3.4)
    pub(super) fn gather_own(
        &mut self,
        (frame, packet): (&[u8], &Packet),
        snapshot: &Snapshot,
        now: Time,
    ) {
        // Taken out, so that the packet may be borrowed while the worker works on it.
        let mut room = std::mem::take(&mut self.assembly.whole);
        let (ethernet, out) = room.split_at_mut(ETHERNET);
        let ip = &frame[ETHERNET..ETHERNET + usize::from(packet.length)];
        let outcome = self.with_table(Whose::Machine, |table, tag, lost| {
            table.offer(ip, packet, tag, out, now, lost)
        });
        if let Some(mut whole) = self.completed(outcome, out) {
            ethernet.copy_from_slice(&frame[..ETHERNET]);
            whole.dont_fragment = false;
            let end = ETHERNET + usize::from(whole.length);
            let look = Look::Packet(whole);
            self.serve_look(&mut room[..end], look, Arrival::Host, snapshot, now);
        }
        self.assembly.whole = room;
    }

    /// Keeps what must be kept of the packets that lie in no frame, and notes the frames that must.
    pub(super) fn settle_gathered(&mut self, gathered: Gathered<'_>, ends: &Ends, now: Time) {
        for (index, end) in ends {
            let source = &gathered.sources[*index];
            match gathered.places[*index] {
                Some(place) => gathered.keeps.push((place, *end, source.packet)),
                None => self.keep_copy(*end, source, now),
            }
        }
    }

    /// Ends the waits of fragments that are over.
    pub(super) fn expire_fragments(&mut self, now: Time) {
        for whose in [Whose::Wire, Whose::Machine] {
            self.with_table(whose, |table, _, lost| table.expire(now, lost));
        }
    }

    /// Ends every wait of fragments: the worker stops, or a capture is over.
    pub fn abandon_fragments(&mut self) {
        for whose in [Whose::Wire, Whose::Machine] {
            self.with_table(whose, |table, _, lost| table.clear(lost));
        }
    }

    /// Gives access to a table, with the name of the frame that is being served; what is lost is
    /// counted.
    fn with_table<T>(
        &mut self,
        whose: Whose,
        run: impl FnOnce(&mut Reassembly, u64, &mut dyn FnMut(u64)) -> T,
    ) -> T {
        let Assembly {
            table,
            own,
            tag,
            lost,
            ..
        } = &mut self.assembly;
        let table = match whose {
            Whose::Wire => table,
            Whose::Machine => own,
        };
        let tally = &mut self.tally;
        run(table, *tag, &mut |tag| {
            tally.unhold(1);
            tally.drop(DropReason::Fragment);
            if let Some(lost) = lost {
                lost.push(tag);
            }
        })
    }

    /// Names the frames that are served from now on, for [`Worker::take_lost`].
    pub fn name_frames(&mut self, tag: u64) {
        self.assembly.tag = tag;
        self.assembly.lost.get_or_insert_default();
    }

    /// The names of earlier frames whose fragments waited and were dropped since the last call.
    pub fn take_lost(&mut self) -> Vec<u64> {
        self.assembly
            .lost
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
    }
}
