//! A token bucket for what the gateway itself originates (RFC 4443 §2.4 (f)).

use crate::time::{SECOND, Time};

/// Errors that may leave at once when none left for a while. 10: the least that the interface
/// promises, enough for a traceroute's three probes a hop from three users.
pub const BURST: u32 = 10;

/// A token bucket. One owner, no clock: the time is an argument.
#[derive(Clone, Copy, Debug)]
pub struct RateLimit {
    /// Nanoseconds that one token takes to grow; `None`: nothing is ever allowed.
    cost: Option<u64>,
    /// What has grown, nanoseconds.
    credit: u64,
    /// When it was last looked at.
    last: Time,
}

impl RateLimit {
    /// A full bucket that grows `per_second` tokens a second and holds [`BURST`]. 0: never any.
    #[must_use]
    pub fn new(per_second: u32) -> Self {
        let cost = SECOND.checked_div(per_second.into());
        Self {
            cost,
            credit: Self::capacity(cost.unwrap_or(0)),
            last: Time(0),
        }
    }

    /// Takes a token, if there is one.
    //= T130 (RFC 4443 section 2.4)
    #[inline]
    pub fn allow(&mut self, now: Time) -> bool {
        let Some(cost) = self.cost else {
            return false;
        };
        let grown = self.credit.saturating_add(now.since(self.last));
        self.last = self.last.max(now);
        self.credit = grown.min(Self::capacity(cost));
        let Some(left) = self.credit.checked_sub(cost) else {
            return false;
        };
        self.credit = left;
        true
    }

    const fn capacity(cost: u64) -> u64 {
        cost.saturating_mul(BURST as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::MILLISECOND;

    //= test T130 (RFC 4443 section 2.4)
    #[test]
    fn a_burst_and_then_the_rate() {
        let mut limit = RateLimit::new(100);
        let start = Time(5 * SECOND);
        let allowed = |limit: &mut RateLimit, now| (0..100).filter(|_| limit.allow(now)).count();
        assert_eq!(allowed(&mut limit, start), 10);
        assert_eq!(allowed(&mut limit, start.plus(9 * MILLISECOND)), 0);
        assert_eq!(allowed(&mut limit, start.plus(10 * MILLISECOND)), 1);
        assert_eq!(allowed(&mut limit, start.plus(60 * MILLISECOND)), 5);
        // Time that runs backwards gives nothing, neither then nor later.
        assert_eq!(allowed(&mut limit, start), 0);
        assert_eq!(allowed(&mut limit, start.plus(60 * MILLISECOND)), 0);
        assert_eq!(allowed(&mut limit, start.plus(SECOND * 3600)), 10);
    }

    #[test]
    fn a_rate_of_zero_allows_nothing_and_the_highest_all() {
        let mut none = RateLimit::new(0);
        assert!(!none.allow(Time(0)));
        assert!(!none.allow(Time(u64::MAX)));
        let mut all = RateLimit::new(u32::MAX);
        assert!((0..1000).all(|_| all.allow(Time(0))));
    }
}
