//! The outbound sequence counter (RFC 4303 §3.3.3): never repeats, never rolls over, never runs
//! ahead of what is reserved on disk.

use crate::verdict::DropReason;

/// The last number that an SA can have.
#[must_use]
pub const fn last_number(esn: bool) -> u64 {
    if esn { u64::MAX } else { u32::MAX as u64 }
}

/// True when nine tenths of all numbers are used: at a million packets a second the rest of those
/// without ESN is seven minutes.
#[must_use]
pub const fn is_running_out(sequence: u64, esn: bool) -> bool {
    sequence >= last_number(esn) / 10 * 9
}

/// The outbound counter of one SA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    /// The last number used; 0 before the first packet.
    last: u64,
    /// The last number that the SA may ever use.
    end: u64,
}

impl Counter {
    /// A counter whose next number is `last + 1`.
    //= T03 (RFC 4303 section 3.3.3)
    #[must_use]
    pub const fn new(last: u64, esn: bool) -> Self {
        Self {
            last,
            end: last_number(esn),
        }
    }

    /// The last number used.
    #[must_use]
    pub const fn last(&self) -> u64 {
        self.last
    }

    /// Whether [`Self::take`] would give a number. Changes nothing.
    ///
    /// # Errors
    /// [`DropReason::SequenceExhausted`] behind the last number of all;
    /// [`DropReason::NoReservation`] when the next one lies above `reserved_end`.
    //= T04 (RFC 4303 section 3.3.3)
    pub const fn check(&self, reserved_end: u64) -> Result<(), DropReason> {
        if self.last >= self.end {
            Err(DropReason::SequenceExhausted)
        } else if self.last >= reserved_end {
            Err(DropReason::NoReservation)
        } else {
            Ok(())
        }
    }

    /// Whether there is a number behind `ahead` others, reserved or not.
    ///
    /// # Errors
    /// [`DropReason::SequenceExhausted`].
    pub const fn check_ahead(&self, ahead: u64) -> Result<(), DropReason> {
        if self.last.saturating_add(ahead) >= self.end {
            Err(DropReason::SequenceExhausted)
        } else {
            Ok(())
        }
    }

    /// The number for the next packet; it is used up, whatever becomes of the packet.
    ///
    /// # Errors
    /// As [`Self::check`]; the counter is then unchanged.
    //= T03 T04 (RFC 4303 section 3.3.3)
    pub fn take(&mut self, reserved_end: u64) -> Result<u64, DropReason> {
        self.check(reserved_end)?;
        self.last += 1;
        Ok(self.last)
    }
}

/// Numbers by which the need must grow before an unanswered request is repeated: a burst that waits
/// for a reservation asks once, and a request whose write failed does not stay the last one.
const REPEAT: u64 = 1024;

/// Says when the next block of reserved numbers is wanted: when half of the present one is used,
/// again at half of each rest, and when a number beyond it is needed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HalfMark {
    /// The block's end as last seen.
    end: u64,
    /// The number at which to ask next.
    mark: u64,
}

impl HalfMark {
    /// Whether a new block should be asked for, now that `needed` is the highest number used or
    /// waited for, and `reserved_end` holds.
    pub const fn is_due(&mut self, needed: u64, reserved_end: u64) -> bool {
        if reserved_end == u64::MAX {
            return false;
        }
        if self.end != reserved_end {
            self.end = reserved_end;
            self.mark = needed + reserved_end.saturating_sub(needed).div_ceil(2);
        }
        let due = needed >= self.mark;
        if due && needed <= reserved_end {
            // Not once only: a request may be lost, or found too early.
            let rest = reserved_end - needed;
            self.mark = needed + if rest == 0 { 1 } else { rest.div_ceil(2) };
        } else if due {
            self.mark = needed.saturating_add(REPEAT);
        }
        due
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    //= test T03
    #[test]
    fn the_first_number_is_1_and_each_next_one_more() {
        let mut counter = Counter::new(0, false);
        for expected in 1..=1000 {
            assert_eq!(counter.take(u64::MAX), Ok(expected));
        }
    }

    //= test T04
    #[test]
    fn a_counter_ends_instead_of_rolling_over() {
        for (esn, end) in [(false, u64::from(u32::MAX)), (true, u64::MAX)] {
            let mut counter = Counter::new(end - 2, esn);
            assert_eq!(counter.take(u64::MAX), Ok(end - 1));
            assert_eq!(counter.take(u64::MAX), Ok(end));
            for _ in 0..3 {
                assert_eq!(counter.check(u64::MAX), Err(DropReason::SequenceExhausted));
                assert_eq!(counter.take(u64::MAX), Err(DropReason::SequenceExhausted));
                assert_eq!(counter.last(), end);
            }
        }
        let mut counter = Counter::new(u64::from(u32::MAX), true);
        assert_eq!(counter.take(u64::MAX), Ok(1 << 32));
    }

    #[test]
    fn no_number_above_the_reserved_end_is_given() {
        let mut counter = Counter::new(0, false);
        assert_eq!(counter.take(0), Err(DropReason::NoReservation));
        let given = (0..100).filter_map(|_| counter.take(4).ok());
        assert_eq!(given.collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert_eq!(counter.take(5).unwrap(), 5);
        assert_eq!(counter.take(3), Err(DropReason::NoReservation));
    }

    #[test]
    fn a_block_is_asked_for_at_its_half_and_again_at_half_of_each_rest() {
        let mut half = HalfMark::default();
        let asked: Vec<u64> = (0..=100).filter(|last| half.is_due(*last, 100)).collect();
        assert_eq!(asked, [50, 75, 88, 94, 97, 99, 100]);
        let asked: Vec<u64> = (60..=200).filter(|last| half.is_due(*last, 200)).collect();
        assert_eq!(asked, [130, 165, 183, 192, 196, 198, 199, 200]);
        assert!((0..100).all(|last| !half.is_due(last, u64::MAX)));
    }

    #[test]
    fn a_number_beyond_the_block_is_asked_for_again() {
        let mut half = HalfMark::default();
        assert!(!half.is_due(60, 100));
        assert!(half.is_due(80, 100));
        assert!(half.is_due(100, 100));
        // Waited for, though the rest was asked for already.
        assert!(half.is_due(101, 100));
        let asked: Vec<u64> = (102..3000).filter(|it| half.is_due(*it, 100)).collect();
        assert_eq!(asked, [1125, 2149]);
        // A grant that does not reach it is answered by the next request.
        assert!(half.is_due(3000, 200));
        assert!(!half.is_due(3000, 5000));
        assert!(half.is_due(4000, 5000));
    }

    #[test]
    fn an_empty_block_is_due_at_once() {
        let mut half = HalfMark::default();
        assert!(half.is_due(7, 0));
        assert!(!half.is_due(7, 0));
        assert!(half.is_due(7, 7));
    }
}
