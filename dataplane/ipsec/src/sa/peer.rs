//! A peer behind a NAT, whose address and port may change while its SAs live (RFC 7296 §2.23).
//!
//! A [`Peer`] is shared by the SAs of both directions between the same two ends. Whoever opens its
//! packets moves it, whoever sends to it reads where it is, on any worker and without waiting.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU16, AtomicU64, fence};
use std::sync::{Arc, Mutex};

use crate::time::{SECOND, Time};

/// Least time between two moves: a peer whose packets come by two ways must not make every one of
/// them change where the answers go.
const REST: u64 = SECOND;

/// Where one end of an SA is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The address, in [`crate::packet::Packet`]'s form; the SA says of which IP version.
    pub address: u128,
    /// The UDP port of the encapsulation; 0 without one.
    pub port: u16,
}

/// A place in atomics, to be read and written in parts.
#[derive(Debug, Default)]
struct Parts {
    high: AtomicU64,
    low: AtomicU64,
    port: AtomicU16,
}

impl Parts {
    fn store(&self, place: Place) {
        let address = place.address;
        self.high.store((address >> 64) as u64, Relaxed);
        self.low
            .store((address & 0xffff_ffff_ffff_ffff) as u64, Relaxed);
        self.port.store(place.port, Relaxed);
    }

    fn load(&self) -> Place {
        let high = u128::from(self.high.load(Relaxed));
        Place {
            address: high << 64 | u128::from(self.low.load(Relaxed)),
            port: self.port.load(Relaxed),
        }
    }
}

/// A peer that is followed.
#[derive(Debug)]
pub struct Peer {
    /// How often it moved. Of the two places the one with the parity of this number holds, so that
    /// the next one is written where nobody reads.
    moves: AtomicU64,
    places: [Parts; 2],
    /// When it moved last, if it did.
    moved: AtomicU64,
    /// Held by the worker that moves it; nobody ever waits for it.
    moving: Mutex<()>,
    /// How often any peer of the gateway moved.
    news: Arc<AtomicU64>,
}

impl Peer {
    /// A peer at the place that configuration gives it. `news` counts the moves of all peers that
    /// share it.
    #[must_use]
    pub fn new(place: Place, news: Arc<AtomicU64>) -> Self {
        let places = [Parts::default(), Parts::default()];
        places[0].store(place);
        Self {
            moves: AtomicU64::new(0),
            places,
            moved: AtomicU64::new(0),
            moving: Mutex::new(()),
            news,
        }
    }

    /// The peer as [`Self::new`] makes it. For whoever owns every worker: none may look meanwhile.
    pub fn restart(&self, place: Place) {
        self.places[0].store(place);
        self.moves.store(0, Relaxed);
    }

    /// Where it is.
    #[inline]
    #[must_use]
    pub fn place(&self) -> Place {
        loop {
            let moves = self.moves.load(Acquire);
            let place = self.at(moves).load();
            // What was read is whole unless it has been written over, which takes two moves.
            fence(Acquire);
            if self.moves.load(Relaxed) == moves {
                return place;
            }
        }
    }

    /// How often it moved.
    #[must_use]
    pub fn moves(&self) -> u64 {
        self.moves.load(Relaxed)
    }

    /// The count of the moves of this peer and all others.
    #[must_use]
    pub const fn news(&self) -> &Arc<AtomicU64> {
        &self.news
    }

    /// The peer was seen at `seen`, by a packet that is authentic and newer than all before, since
    /// anybody can send an old one again from elsewhere. True: it has moved there. It moves at most
    /// once a second.
    //= T160 (RFC 7296 section 2.23)
    pub fn follow(&self, seen: Place, now: Time) -> bool {
        if self.place() == seen || !self.has_rested(now) {
            return false;
        }
        // Another worker is at it: its packet is as new as ours.
        let Ok(_moving) = self.moving.try_lock() else {
            return false;
        };
        if !self.has_rested(now) {
            return false;
        }
        let next = self.moves.load(Relaxed) + 1;
        // Whoever reads a part of what comes now finds that the count has gone on.
        fence(Release);
        self.at(next).store(seen);
        self.moved.store(now.0, Relaxed);
        self.moves.store(next, Release);
        self.news.fetch_add(1, Release);
        true
    }

    fn has_rested(&self, now: Time) -> bool {
        self.moves() == 0 || now.since(Time(self.moved.load(Relaxed))) >= REST
    }

    const fn at(&self, moves: u64) -> &Parts {
        let [even, odd] = &self.places;
        if moves.is_multiple_of(2) { even } else { odd }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::AtomicBool;

    use super::*;

    fn peer() -> Peer {
        Peer::new(place(0), Arc::default())
    }

    /// A place whose parts belong together.
    fn place(number: u16) -> Place {
        let half = u128::from(number) << 3;
        Place {
            address: half << 64 | half,
            port: number,
        }
    }

    //= test T160
    #[test]
    fn a_peer_moves_at_most_once_a_second() {
        let peer = peer();
        let start = Time(5 * SECOND);
        assert!(!peer.follow(place(0), start), "it is there");
        assert!(
            peer.follow(place(1), start),
            "the first move waits for none"
        );
        assert_eq!((peer.place(), peer.moves()), (place(1), 1));
        assert!(!peer.follow(place(2), start.plus(SECOND - 1)));
        assert!(!peer.follow(place(2), Time(0)), "time that runs backwards");
        assert_eq!(peer.place(), place(1));
        assert!(peer.follow(place(2), start.plus(SECOND)));
        assert!(peer.follow(place(0), start.plus(2 * SECOND)), "and back");
        assert_eq!((peer.place(), peer.moves()), (place(0), 3));
        assert_eq!(peer.news().load(Relaxed), 3);
    }

    #[test]
    fn a_restarted_peer_is_where_configuration_has_it_and_moves_at_once() {
        let peer = peer();
        for (number, time) in [(1, 5), (2, 6)] {
            assert!(peer.follow(place(number), Time(time * SECOND)));
        }
        for moved in [place(3), place(4)] {
            peer.restart(place(9));
            assert_eq!((peer.place(), peer.moves()), (place(9), 0));
            assert!(peer.follow(moved, Time(6 * SECOND)), "as a new one does");
            assert_eq!((peer.place(), peer.moves()), (moved, 1));
        }
    }

    #[test]
    fn whoever_reads_while_others_move_it_finds_a_whole_place() {
        const MOVES: u16 = 20_000;
        let peer = peer();
        let done = AtomicBool::new(false);
        // On a busy machine all moves may else be over before a reader's thread runs.
        let all_run = Barrier::new(4);
        std::thread::scope(|scope| {
            let reader = || {
                all_run.wait();
                while !done.load(Acquire) {
                    let found = peer.place();
                    assert_eq!(found, place(found.port), "a torn place");
                }
            };
            let readers = [scope.spawn(reader), scope.spawn(reader)];
            // Two who move it, in one time line of seconds.
            let mover = |first: u16| {
                let (peer, all_run) = (&peer, &all_run);
                move || {
                    all_run.wait();
                    (first..MOVES)
                        .step_by(2)
                        .filter(|&number| {
                            peer.follow(place(number), Time(u64::from(number) * SECOND))
                        })
                        .count()
                }
            };
            let movers = [scope.spawn(mover(1)), scope.spawn(mover(2))];
            let moved: usize = movers
                .into_iter()
                .map(|mover| mover.join().unwrap_or_default())
                .sum();
            done.store(true, Release);
            for reader in readers {
                assert!(reader.join().is_ok());
            }
            assert_eq!(u64::try_from(moved), Ok(peer.moves()));
            assert!(moved > 0);
        });
    }
}
