//! When the kernel is kicked: the policy alone, no system call.
//!
//! With `need_wakeup` the kernel says when it wants a kick. In copy mode one kick sends a bounded
//! number of descriptors and answers EAGAIN, which tells nothing; so the ring is the judge: kick,
//! look how much is left, kick again, at most as often as the ring has such portions. What is
//! left then stays *pending*: the worker must flush again before it sleeps.

/// Descriptors that one kick sends in copy mode: TX_BATCH_SIZE of the kernel's net/xdp/xsk.c,
/// unless XDP_MAX_TX_SKB_BUDGET (6.17) says more.
pub(super) const DESCRIPTORS_PER_KICK: u32 = 32;

/// What the kernel answered to a kick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Done as far as it goes, or there is more to do: the ring tells which.
    Taken,
    /// The interface is down: nothing will move until it is up, so there is nothing to wait for.
    Down,
    /// The socket is not bound any more: the interface is gone.
    Gone,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Kick, then ask again.
    Kick,
    /// Nothing left to kick for.
    Rest,
    /// Something is left that another flush must kick for.
    Pending,
}

/// The kicks of one flush.
#[derive(Debug)]
pub(super) struct Kicker {
    attempts: u32,
    outstanding_before: u32,
}

impl Kicker {
    /// For a transmit ring of `ring` descriptors.
    pub(super) const fn new(ring: u32) -> Self {
        Self {
            attempts: ring.div_ceil(DESCRIPTORS_PER_KICK),
            outstanding_before: u32::MAX,
        }
    }

    /// `outstanding`: descriptors in the ring that the kernel has not taken. `wanted`: the ring's
    /// need-wakeup flag.
    pub(super) const fn step(&mut self, outstanding: u32, wanted: bool) -> Step {
        if outstanding == 0 || !wanted {
            return Step::Rest;
        }
        // A kick that moved nothing met a busy device: at once again is too early.
        if self.attempts == 0 || outstanding >= self.outstanding_before {
            return Step::Pending;
        }
        self.attempts -= 1;
        self.outstanding_before = outstanding;
        Step::Kick
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs one flush against a kernel that takes `portion` descriptors a kick.
    fn flush(ring: u32, mut outstanding: u32, portion: u32) -> (u32, u32, Step) {
        let mut kicker = Kicker::new(ring);
        let mut kicks = 0;
        loop {
            match kicker.step(outstanding, true) {
                Step::Kick => {
                    kicks += 1;
                    outstanding = outstanding.saturating_sub(portion);
                }
                end => return (kicks, outstanding, end),
            }
        }
    }

    #[test]
    fn an_empty_ring_needs_no_kick() {
        assert_eq!(flush(2048, 0, 32), (0, 0, Step::Rest));
    }

    #[test]
    fn a_full_ring_is_sent_in_portions() {
        assert_eq!(flush(2048, 64, 32), (2, 0, Step::Rest));
        assert_eq!(flush(2048, 65, 32), (3, 0, Step::Rest));
        assert_eq!(flush(2048, 2048, 32), (64, 0, Step::Rest));
    }

    #[test]
    fn a_raised_budget_takes_one_kick() {
        assert_eq!(flush(2048, 2048, 2048), (1, 0, Step::Rest));
    }

    #[test]
    fn no_progress_stays_pending_after_one_kick() {
        assert_eq!(flush(2048, 100, 0), (1, 100, Step::Pending));
    }

    #[test]
    fn slow_progress_is_bounded_by_the_ring() {
        let (kicks, left, end) = flush(2048, 2048, 1);
        assert_eq!((kicks, left, end), (64, 2048 - 64, Step::Pending));
    }

    #[test]
    fn a_ring_smaller_than_a_portion_gets_one_kick() {
        assert_eq!(flush(8, 8, 32), (1, 0, Step::Rest));
    }

    #[test]
    fn a_kernel_that_is_awake_is_left_alone() {
        assert_eq!(Kicker::new(2048).step(500, false), Step::Rest);
    }
}
