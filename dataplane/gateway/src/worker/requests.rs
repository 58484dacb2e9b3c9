//! What workers ask the control side for: neighbours and reserved sequence numbers.

use crossbeam::queue::ArrayQueue;
use crossbeam::sync::Unparker;
use ipsec::sa::SaSlot;

/// Requests that may wait: more SAs than that rarely pass the half of their blocks at once, and
/// those that find no place ask again.
const WAITING: usize = 65_536;

/// SAs that want more numbers, and the keeper's wake-up.
pub struct NumberRequests {
    queue: ArrayQueue<SaSlot>,
    keeper: Unparker,
}

impl NumberRequests {
    /// Requests that wake `keeper`.
    #[must_use]
    pub fn new(keeper: Unparker) -> Self {
        Self {
            queue: ArrayQueue::new(WAITING),
            keeper,
        }
    }

    /// Asks for an SA. Once a block, so the wake-up's system call does not count.
    pub fn ask(&self, slot: SaSlot) {
        // A full queue means that the keeper is at it with all of them.
        let _ = self.queue.push(slot);
        self.keeper.unpark();
    }

    /// The next SA that asked.
    pub fn next(&self) -> Option<SaSlot> {
        self.queue.pop()
    }
}
