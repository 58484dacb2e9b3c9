//! Putting fragments together in front of IPsec (RFC 4303 §3.4.1; RFC 791 §3.2, RFC 815, RFC 8200
//! §4.5).
//!
//! One table a worker. Fragments wait as copies, in places that come as they are needed up to the
//! bounds and then go round, so that nothing is allocated once the table has seen its traffic. The
//! fragment that completes a packet is never copied into the table. No fragment costs more than a
//! bounded number of steps, whatever was sent before it.
//!
//! **No byte of a packet has two sources**: an exact duplicate ends alone, any other overlap ends
//! all fragments of its packet, those that are still to come included (RFC 5722 §4). Sooner or
//! later every fragment leaves: merged into a packet, or `lost`.

// Import order, top to bottom. Blank lines keep rustfmt from sorting it.
mod slab;

mod piece;

mod datagram;

mod store;

use std::hash::BuildHasher;

use hashbrown::HashTable;

use crate::limits::PACKET;
use crate::packet::{Packet, Version};
use crate::time::{SECOND, Time};
use crate::verdict::DropReason;
use crate::wire::checksum::Sum;

use datagram::{Datagram, SPANS};
use piece::{Key, Piece};
use slab::{NONE, Slab};
use store::{BLOCK, Store};

/// Longest time that fragments wait, nanoseconds (RFC 8200 §4.5).
pub const TIMEOUT_MAXIMUM: u64 = 60 * SECOND;

/// The ECN fields Not-ECT and CE, a bit each.
const NOT_ECT_AND_CE: u8 = 0b1001;

/// What a table may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Packets under reassembly.
    pub packets: usize,
    /// Bytes of fragments, their IP headers included.
    pub bytes: usize,
    /// Nanoseconds from a packet's first-arriving fragment to its last; [`TIMEOUT_MAXIMUM`] at
    /// most.
    pub timeout_ns: u64,
}

/// What became of an offered fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A copy waits for the others.
    Held,
    /// It is dropped. Those that it took with it are `lost`.
    Dropped(DropReason),
    /// The packet is complete.
    Whole {
        /// Its length, bytes.
        length: u16,
        /// Fragments that waited for this one: merged now.
        waited: u16,
    },
}

/// The table of one worker.
#[derive(Debug)]
pub struct Reassembly {
    bounds: Bounds,
    hasher: foldhash::fast::RandomState,
    index: HashTable<u32>,
    datagrams: Slab<Datagram>,
    store: Store,
    oldest: u32,
    newest: u32,
    bytes: usize,
    held: u64,
}

/// The number of the worker, below `workers`, at which the fragments of `packet`'s datagram meet.
/// `seed` is the same for all workers.
#[must_use]
pub fn meeting_point(packet: &Packet, seed: u64, workers: u16) -> u16 {
    Key::of(packet).share(seed, workers)
}

impl Reassembly {
    /// An empty table.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        // Twice what whole blocks would need, since fragments end inside of blocks; and however
        // finely one packet is cut, and however little of each packet came first, there is room.
        let blocks = 2 * bounds.bytes.div_ceil(BLOCK) + PACKET / 8 + bounds.packets.min(4096);
        Self {
            bounds: Bounds {
                timeout_ns: bounds.timeout_ns.min(TIMEOUT_MAXIMUM),
                ..bounds
            },
            hasher: foldhash::fast::RandomState::default(),
            // Twice the room, so that deletions never make the table rehash into a larger one.
            index: HashTable::with_capacity(2 * bounds.packets),
            datagrams: Slab::new(bounds.packets),
            store: Store::new(blocks),
            oldest: NONE,
            newest: NONE,
            bytes: 0,
            held: 0,
        }
    }

    /// Fragments that wait.
    #[must_use]
    pub const fn held(&self) -> u64 {
        self.held
    }

    /// Bytes of the fragments that wait, headers included.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// True when nothing waits and nothing is remembered.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.oldest == NONE
    }

    /// Takes the fragment `ip`, which parsed as `packet`. If it completes its packet, that is
    /// written to the start of `out`, which holds [`PACKET`] bytes. `tag` is the caller's name for
    /// the fragment; `lost` gets the tags of those that had waited and are dropped now, all of them
    /// as [`DropReason::Fragment`].
    //= T22 (RFC 4303 section 3.4.1)
    pub fn offer(
        &mut self,
        ip: &[u8],
        packet: &Packet,
        tag: u64,
        out: &mut [u8],
        now: Time,
        lost: &mut dyn FnMut(u64),
    ) -> Outcome {
        self.expire(now, lost);
        let ip = ip.get(..usize::from(packet.length)).unwrap_or(ip);
        let piece = match Piece::of(ip, packet) {
            Ok(piece) => piece,
            Err(reason) => return Outcome::Dropped(reason),
        };
        let key = Key::of(packet);
        let found = self.find(&key);
        if let Some(place) = found {
            match self.judge(place, &piece, ip) {
                Fit::Fits => {}
                Fit::Repeats => return Outcome::Dropped(DropReason::Fragment),
                Fit::Contradicts => {
                    self.condemn(place, lost);
                    return Outcome::Dropped(DropReason::Fragment);
                }
                Fit::Completes => return self.complete(place, &piece, ip, packet.version, out),
            }
        } else if usize::from(piece.headers) + usize::from(piece.end) > PACKET {
            return Outcome::Dropped(DropReason::Fragment);
        }
        match self.keep(found, key, (&piece, ip, tag), now, lost) {
            Some(()) => Outcome::Held,
            None => Outcome::Dropped(DropReason::Fragment),
        }
    }

    /// Drops what has waited for too long.
    pub fn expire(&mut self, now: Time, lost: &mut dyn FnMut(u64)) {
        while self.oldest != NONE
            && now.since(self.datagrams.at(self.oldest).born) >= self.bounds.timeout_ns
        {
            self.end(self.oldest, lost);
        }
    }

    /// Drops everything.
    pub fn clear(&mut self, lost: &mut dyn FnMut(u64)) {
        while self.oldest != NONE {
            self.end(self.oldest, lost);
        }
    }

    fn find(&self, key: &Key) -> Option<u32> {
        let hash = self.hasher.hash_one(key);
        let same = |place: &u32| self.datagrams.at(*place).key == *key;
        self.index.find(hash, same).copied()
    }

    /// How a fragment fits those of its packet.
    //= T133 (RFC 5722 section 4, RFC 8200 section 4.5)
    fn judge(&self, place: u32, piece: &Piece, ip: &[u8]) -> Fit {
        let datagram = self.datagrams.at(place);
        if datagram.condemned {
            return Fit::Repeats;
        }
        if datagram.overlaps(piece) {
            return if self.repeats(datagram, piece, ip) {
                Fit::Repeats
            } else {
                Fit::Contradicts
            };
        }
        let reach = datagram.reach.max(piece.end);
        let end = if piece.more {
            datagram.end
        } else {
            Some(piece.end)
        };
        let beyond = datagram
            .end
            .is_some_and(|end| piece.end > end || !piece.more)
            || (!piece.more && datagram.reach > piece.end);
        let headers = match datagram.first {
            _ if piece.start == 0 => piece.headers,
            NONE => 0,
            first => self.store.at(first).piece.headers,
        };
        if beyond || usize::from(headers) + usize::from(reach) > PACKET {
            return Fit::Contradicts;
        }
        // RFC 3168 §5.3: congestion, and nowhere to tell it.
        if (datagram.ecn | 1 << piece.ecn) & NOT_ECT_AND_CE == NOT_ECT_AND_CE {
            return Fit::Contradicts;
        }
        if end == Some(datagram.received + piece.length()) {
            Fit::Completes
        } else {
            Fit::Fits
        }
    }

    /// Whether the very same fragment waits already.
    fn repeats(&self, datagram: &Datagram, piece: &Piece, ip: &[u8]) -> bool {
        let mut place = datagram.near(piece.start);
        while place != NONE {
            let waiting = self.store.at(place);
            let other = &waiting.piece;
            if other.start == piece.start {
                return other.end == piece.end
                    && other.more == piece.more
                    && other.next_header == piece.next_header
                    && self
                        .store
                        .has_content(waiting, ip.get(piece.payload.into()..).unwrap_or(&[]));
            }
            place = waiting.next;
        }
        false
    }

    /// Copies a fragment into the table, for which the oldest packets must make room.
    fn keep(
        &mut self,
        found: Option<u32>,
        key: Key,
        (piece, ip, tag): (&Piece, &[u8], u64),
        now: Time,
        lost: &mut dyn FnMut(u64),
    ) -> Option<()> {
        if ip.len() > self.bounds.bytes || self.bounds.packets == 0 {
            return None;
        }
        while self.bytes + ip.len() > self.bounds.bytes
            || !self.store.has_room(ip.len())
            || (found.is_none() && self.datagrams.room() == 0)
        {
            let own = found == Some(self.oldest);
            self.end(self.oldest, lost);
            if own {
                return None;
            }
        }
        let place = match found {
            Some(place) => place,
            None => self.open(key, now)?,
        };
        let datagram = self.datagrams.at_mut(place);
        let list = datagram.span(piece.start);
        let own = self.store.keep(ip, *piece, tag, *list)?;
        *list = own;
        datagram.note(piece, own, ip.len());
        self.bytes += ip.len();
        self.held += 1;
        Some(())
    }

    /// A new packet, the newest.
    fn open(&mut self, key: Key, now: Time) -> Option<u32> {
        let place = self.datagrams.take()?;
        *self.datagrams.at_mut(place) = Datagram {
            key,
            born: now,
            older: self.newest,
            ..Datagram::default()
        };
        match self.newest {
            NONE => self.oldest = place,
            newest => self.datagrams.at_mut(newest).newer = place,
        }
        self.newest = place;
        let hash = self.hasher.hash_one(key);
        let (hasher, datagrams) = (&self.hasher, &self.datagrams);
        self.index.insert_unique(hash, place, |place| {
            hasher.hash_one(datagrams.at(*place).key)
        });
        Some(place)
    }

    /// Writes the packet that `piece` completes, and forgets its fragments.
    //= T79 (RFC 4303 section 3.4.1)
    fn complete(
        &mut self,
        place: u32,
        piece: &Piece,
        ip: &[u8],
        version: Version,
        out: &mut [u8],
    ) -> Outcome {
        let datagram = *self.datagrams.at(place);
        let first = match datagram.first {
            NONE => *piece,
            first => self.store.at(first).piece,
        };
        let headers = usize::from(first.headers);
        let length = headers + usize::from(datagram.end.unwrap_or(piece.end));
        let written = out.get_mut(..length).and_then(|out| {
            match datagram.first {
                NONE => out.get_mut(..headers)?.copy_from_slice(ip.get(..headers)?),
                first => self.store.load(first, 0, out.get_mut(..headers)?),
            }
            for list in datagram.spans {
                let mut next = list;
                while next != NONE {
                    let waiting = self.store.at(next);
                    let room = part(out, headers, &waiting.piece)?;
                    self.store.load(next, waiting.piece.payload.into(), room);
                    next = waiting.next;
                }
            }
            let payload = ip.get(piece.payload.into()..)?;
            part(out, headers, piece)?.copy_from_slice(payload);
            finish(out, version, &first, datagram.ecn | 1 << piece.ecn)
        });
        self.end(place, &mut |_| ());
        match (written, u16::try_from(length)) {
            (Some(()), Ok(length)) => Outcome::Whole {
                length,
                waited: datagram.count,
            },
            _ => {
                debug_assert!(false, "a complete packet fits {length} bytes");
                Outcome::Whole {
                    length: 0,
                    waited: datagram.count,
                }
            }
        }
    }

    /// Gives back all that a packet's fragments hold.
    fn release(&mut self, place: u32, lost: &mut dyn FnMut(u64)) {
        let datagram = self.datagrams.at_mut(place);
        let spans = std::mem::replace(&mut datagram.spans, [NONE; SPANS]);
        self.bytes -= std::mem::take(&mut datagram.bytes);
        self.held -= u64::from(std::mem::take(&mut datagram.count));
        for list in spans {
            let mut next = list;
            while next != NONE {
                let waiting = self.store.give_back(next);
                lost(waiting.tag);
                next = waiting.next;
            }
        }
    }

    /// Drops a packet's fragments; what still comes of it meets the same fate until its time is
    /// over.
    fn condemn(&mut self, place: u32, lost: &mut dyn FnMut(u64)) {
        self.release(place, lost);
        self.datagrams.at_mut(place).condemned = true;
    }

    /// Forgets a packet.
    fn end(&mut self, place: u32, lost: &mut dyn FnMut(u64)) {
        self.release(place, lost);
        let Datagram {
            key, older, newer, ..
        } = *self.datagrams.at(place);
        match older {
            NONE => self.oldest = newer,
            older => self.datagrams.at_mut(older).newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            newer => self.datagrams.at_mut(newer).older = older,
        }
        let hash = self.hasher.hash_one(key);
        if let Ok(entry) = self.index.find_entry(hash, |other| *other == place) {
            entry.remove();
        }
        self.datagrams.give_back(place);
    }
}

/// How a fragment fits those that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    Fits,
    /// With it the packet is complete.
    Completes,
    /// It ends alone.
    Repeats,
    /// It ends all of them.
    Contradicts,
}

/// The room of a fragment's part in the packet `out`.
fn part<'o>(out: &'o mut [u8], headers: usize, piece: &Piece) -> Option<&'o mut [u8]> {
    out.get_mut(headers + usize::from(piece.start)..headers + usize::from(piece.end))
}

/// Makes the headers those of a packet that was never cut.
fn finish(out: &mut [u8], version: Version, first: &Piece, ecn: u8) -> Option<()> {
    const CE: u8 = 3;
    let congested = if ecn & 1 << CE == 0 { 0 } else { CE };
    let length = out.len();
    match version {
        Version::V4 => {
            let header = out.get_mut(..first.headers.into())?;
            header[1] |= congested;
            header[2..4].copy_from_slice(&u16::try_from(length).ok()?.to_be_bytes());
            // More-fragments and the offset; "don't fragment" and the reserved bit stay.
            header[6] &= 0xc0;
            header[7] = 0;
            header[10..12].fill(0);
            let checksum = Sum::ZERO.bytes(header).checksum();
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
        Version::V6 => {
            let payload = u16::try_from(length.checked_sub(40)?).ok()?;
            out.get_mut(4..6)?.copy_from_slice(&payload.to_be_bytes());
            *out.get_mut(1)? |= congested << 4;
            *out.get_mut(usize::from(first.next_header_at))? = first.next_header;
        }
    }
    Some(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panic")]
#[expect(clippy::cast_possible_truncation, reason = "test data is small")]
mod tests;
