//! Waking a thread that sleeps in `poll`: an eventfd that is written only when it sleeps.
//!
//! The sleeper says that it is about to sleep, looks at its queues once more, then polls. The
//! ringer puts something into a queue, then looks whether the sleeper sleeps. A full fence on each
//! side between its two steps sees to it that at least one of them sees the other.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};

use rustix::event::{EventfdFlags, eventfd};

/// One sleeper's bell.
#[derive(Debug)]
pub struct Bell {
    event: OwnedFd,
    sleeping: AtomicBool,
}

impl Bell {
    /// A bell whose sleeper is awake.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self {
            event,
            sleeping: AtomicBool::new(false),
        })
    }

    /// By the sleeper, before it looks at its queues for the last time.
    pub fn prepare_to_sleep(&self) {
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// By the sleeper, when it is awake or found something after all.
    pub fn awake(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
        let mut count = [0; 8];
        // Empty when nobody rang.
        rustix::io::read(&self.event, &mut count).unwrap_or_default();
    }

    /// By the sleeper, when something else than the bell woke it: no system call. A ring that
    /// crosses this ends the next sleep early, which does no harm.
    pub fn rise(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }

    /// By anyone, behind a full fence after putting something into a queue of the sleeper: whether
    /// it must be woken.
    pub fn is_sleeping(&self) -> bool {
        self.sleeping.load(Ordering::Relaxed)
    }

    /// By anyone who has put something into a queue of the sleeper: no system call while it is
    /// awake.
    pub fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::Relaxed) {
            // Full only when it has been rung 2⁶⁴ times without waking: it is readable then, too.
            rustix::io::write(&self.event, &1_u64.to_ne_bytes()).unwrap_or_default();
        }
    }
}

impl AsFd for Bell {
    /// Readable once rung.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    fn is_ringing(bell: &Bell) -> bool {
        let mut fds = [PollFd::new(bell, PollFlags::IN)];
        poll(
            &mut fds,
            Some(&Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            }),
        )
        .unwrap()
            == 1
    }

    #[test]
    fn rings_only_for_a_sleeper_and_once() {
        let bell = Bell::new().unwrap();
        bell.ring();
        assert!(!is_ringing(&bell));
        bell.prepare_to_sleep();
        bell.ring();
        bell.ring();
        assert!(is_ringing(&bell));
        bell.awake();
        assert!(!is_ringing(&bell));
        bell.ring();
        assert!(!is_ringing(&bell));
    }
}
