//! Places in which batches are lent: the protocol of offering, claiming and returning, and nothing
//! of what is in them.
//!
//! A place is offered by the home, claimed by exactly one side (compare and swap), and returned by
//! the side that claimed it; the home alone fetches, in the order in which it offered. The mutex of
//! a place moves ownership without `unsafe` and is never contended: the state says whose turn it
//! is. `tests/lend_loom.rs` compiles this file with loom's atomics in `super::sync` and goes
//! through every interleaving.

use crossbeam::utils::CachePadded;

use super::sync::{AtomicU8, AtomicUsize, Mutex, Ordering};

/// The home has it, or nothing is in it.
const HOME: u8 = 0;
/// Whoever comes first may claim it.
const OFFERED: u8 = 1;
/// One side works on it.
const CLAIMED: u8 = 2;
/// It has been worked on and waits for the home.
const RETURNED: u8 = 3;

struct Place<T> {
    state: AtomicU8,
    content: Mutex<Option<T>>,
}

impl<T> Place<T> {
    fn put(&self, content: T, state: u8) {
        let uncontended = self.content.try_lock();
        debug_assert!(uncontended.is_ok(), "the state says whose turn it is");
        if let Ok(mut place) = uncontended {
            *place = Some(content);
        }
        self.state.store(state, Ordering::Release);
    }

    fn take(&self) -> Option<T> {
        let uncontended = self.content.try_lock();
        debug_assert!(uncontended.is_ok(), "the state says whose turn it is");
        uncontended.ok()?.take()
    }
}

/// The places of one home. Positions count up for ever; a position's place is that number modulo
/// the number of places.
pub(crate) struct Ring<T> {
    places: Box<[CachePadded<Place<T>>]>,
    /// The first position that was not offered yet.
    offered: CachePadded<AtomicUsize>,
}

impl<T> Ring<T> {
    pub(crate) fn new(places: usize) -> Self {
        let place = |_| {
            CachePadded::new(Place {
                state: AtomicU8::new(HOME),
                content: Mutex::new(None),
            })
        };
        Self {
            places: (0..places).map(place).collect(),
            offered: CachePadded::new(AtomicUsize::new(0)),
        }
    }

    fn place(&self, position: usize) -> &Place<T> {
        &self.places[position % self.places.len()]
    }

    /// By the home, for the next position, whose place it has fetched from before.
    pub(crate) fn offer(&self, position: usize, content: T) {
        self.place(position).put(content, OFFERED);
        let next = position.wrapping_add(1);
        self.offered.store(next, Ordering::Release);
    }

    /// True while nobody has claimed what was offered there. By the home.
    pub(crate) fn is_offered(&self, position: usize) -> bool {
        self.place(position).state.load(Ordering::Relaxed) == OFFERED
    }

    /// Claims what is offered in a position's place. By anyone; one of them gets it.
    pub(crate) fn claim(&self, position: usize) -> Option<T> {
        let place = self.place(position);
        place
            .state
            .compare_exchange(OFFERED, CLAIMED, Ordering::Acquire, Ordering::Relaxed)
            .ok()?;
        place.take()
    }

    /// By a helper: claims the first that is still offered from `cursor` on, which is the helper's
    /// own, and says from where.
    pub(crate) fn claim_next(&self, cursor: &mut usize) -> Option<(usize, T)> {
        let offered = self.offered.load(Ordering::Acquire);
        if offered.wrapping_sub(*cursor) > self.places.len() {
            *cursor = offered.wrapping_sub(self.places.len());
        }
        while *cursor != offered {
            let position = *cursor;
            *cursor = cursor.wrapping_add(1);
            if let Some(content) = self.claim(position) {
                return Some((position, content));
            }
        }
        None
    }

    /// True when something was offered behind `cursor`; perhaps others have claimed it.
    pub(crate) fn is_ahead_of(&self, cursor: usize) -> bool {
        self.offered.load(Ordering::Acquire) != cursor
    }

    /// By the side that claimed it.
    pub(crate) fn give_back(&self, position: usize, content: T) {
        self.place(position).put(content, RETURNED);
    }

    /// By the home: what was returned to a position, once it was.
    pub(crate) fn fetch(&self, position: usize) -> Option<T> {
        let place = self.place(position);
        if place.state.load(Ordering::Acquire) != RETURNED {
            return None;
        }
        let content = place.take();
        place.state.store(HOME, Ordering::Relaxed);
        content
    }
}
