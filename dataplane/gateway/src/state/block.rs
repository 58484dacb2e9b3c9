//! How far to reserve: pure arithmetic, time is an argument.

use ipsec::sa::association::Direction;
use ipsec::time::{MILLISECOND, SECOND, Time};

/// Smallest block of an outbound SA. A crash burns at most a block, and 2^32 numbers have room for
/// a million crashes.
pub(super) const BLOCK_MINIMUM: u64 = 4096;

/// Largest block of an outbound SA: one second at a million packets a second.
pub(super) const BLOCK_MAXIMUM: u64 = 1 << 20;

/// Smallest lead of an inbound limit: what a slow peer loses after a crash.
pub(super) const LEAD_MINIMUM: u64 = 8;

/// Lead of an SA from which nothing was received yet, kept until its first packet: a peer begins
/// with a burst (a TCP window, some pings), and the disk may be busy when it does. A crash before
/// the limit was lowered costs the peer at most this many packets, once in the life of a key; as
/// many as a fast peer sends in a second would be hours of a slow one.
pub(super) const LEAD_FIRST: u64 = 64;

/// Largest lead of an inbound limit: one second of the fastest link that a worker could serve.
pub(super) const LEAD_MAXIMUM: u64 = 1 << 24;

/// Shortest time over which a rate is measured: four packets back to back are not a million
/// packets a second. A flood still grows tenfold with each commit.
const MEASURE_MINIMUM: u64 = 100 * MILLISECOND;

/// Age of a measurement that is started anew.
const MEASURE_MAXIMUM: u64 = SECOND;

/// The rate of one SA.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    since: Time,
    sequence: u64,
    per_second: u64,
}

impl Rate {
    /// Nothing has passed yet.
    pub(super) const fn new(sequence: u64, now: Time) -> Self {
        Self {
            since: now,
            sequence,
            per_second: 0,
        }
    }

    /// Numbers per second up to now, at least what the current measurement shows.
    pub(super) fn measure(&mut self, sequence: u64, now: Time) -> u64 {
        let elapsed = now.since(self.since);
        let passed = sequence.saturating_sub(self.sequence);
        let over = u128::from(elapsed.max(MEASURE_MINIMUM));
        let rate = u128::from(passed) * u128::from(SECOND) / over;
        let rate = u64::try_from(rate).unwrap_or(u64::MAX);
        if elapsed >= MEASURE_MAXIMUM {
            *self = Self {
                since: now,
                sequence,
                per_second: rate,
            };
        } else {
            self.per_second = self.per_second.max(rate);
        }
        self.per_second
    }
}

/// Numbers to reserve for a key that was never used.
pub(super) fn first_lead(direction: Direction) -> u64 {
    match direction {
        Direction::Out => BLOCK_MINIMUM,
        Direction::In => LEAD_FIRST,
    }
}

/// Numbers to reserve beyond the current one: a second's worth.
pub(super) fn lead(direction: Direction, rate: u64) -> u64 {
    match direction {
        Direction::Out => rate.clamp(BLOCK_MINIMUM, BLOCK_MAXIMUM),
        Direction::In => rate.clamp(LEAD_MINIMUM, LEAD_MAXIMUM),
    }
}
