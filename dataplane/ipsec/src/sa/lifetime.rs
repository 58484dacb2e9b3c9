//! Lifetimes in packets, bytes and seconds, soft and hard (RFC 4301 §4.4.2.1).

/// Limits; 0 means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lifetime {
    /// Packets after which the SA is dying.
    pub soft_packets: u64,
    /// Packets after which it is dead.
    pub hard_packets: u64,
    /// Bytes after which the SA is dying.
    pub soft_bytes: u64,
    /// Bytes after which it is dead.
    pub hard_bytes: u64,
    /// Age after which the SA is dying, seconds.
    pub soft_seconds: u64,
    /// Age after which it is dead, seconds.
    pub hard_seconds: u64,
}

/// The stage of an SA's life, from the first to the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// No limit reached.
    #[default]
    Mature,
    /// A soft limit reached: still works, wants a successor.
    Dying,
    /// A hard limit reached: no packet passes.
    Dead,
}

/// What an SA has carried and how old it is, earlier runs of the gateway included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Packets so far.
    pub packets: u64,
    //= exception T110: bytes are those of the plaintext packets, as operators and accounting count
    //= them, so that a limit is met by the figure that is shown; padding (a SHOULD) is left out
    /// Bytes of their plaintext packets so far.
    pub bytes: u64,
    /// Whole seconds since birth.
    pub seconds: u64,
}

impl Lifetime {
    /// The stage that `usage` has reached: any hard limit kills, any soft one makes dying.
    ///
    /// Asked before a packet, [`Stage::Dead`] refuses it, so that exactly `hard_packets` pass.
    //= T57 T110 (RFC 4301 section 4.4.2.1): by this end's own count, whatever the other end's says
    #[must_use]
    pub const fn stage(&self, usage: Usage) -> Stage {
        if self.is_over(usage) {
            Stage::Dead
        } else if reached(self.soft_packets, usage.packets)
            || reached(self.soft_bytes, usage.bytes)
            || reached(self.soft_seconds, usage.seconds)
        {
            Stage::Dying
        } else {
            Stage::Mature
        }
    }
}

impl Lifetime {
    /// [`Stage::Dead`] or not, asked of every packet.
    //= T57 (RFC 4301 section 4.4.2.1)
    #[inline]
    #[must_use]
    pub(crate) const fn is_over(&self, usage: Usage) -> bool {
        reached(self.hard_packets, usage.packets)
            || reached(self.hard_bytes, usage.bytes)
            || reached(self.hard_seconds, usage.seconds)
    }

    /// The limits that `usage` has reached: the key's name, its value, and whether it is hard.
    pub fn reached(&self, usage: Usage) -> impl Iterator<Item = (&'static str, u64, bool)> {
        let Usage {
            packets,
            bytes,
            seconds,
        } = usage;
        let limits = [
            ("soft_packets", self.soft_packets, packets, false),
            ("soft_bytes", self.soft_bytes, bytes, false),
            ("soft_seconds", self.soft_seconds, seconds, false),
            ("hard_packets", self.hard_packets, packets, true),
            ("hard_bytes", self.hard_bytes, bytes, true),
            ("hard_seconds", self.hard_seconds, seconds, true),
        ];
        let reached = limits
            .into_iter()
            .filter(|(_, limit, used, _)| reached(*limit, *used));
        reached.map(|(name, limit, _, hard)| (name, limit, hard))
    }
}

const fn reached(limit: u64, used: u64) -> bool {
    limit != 0 && used >= limit
}

impl Stage {
    /// The name in JSON and tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mature => "mature",
            Self::Dying => "dying",
            Self::Dead => "dead",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Lifetime = Lifetime {
        soft_packets: 5,
        hard_packets: 10,
        soft_bytes: 500,
        hard_bytes: 1000,
        soft_seconds: 60,
        hard_seconds: 90,
    };

    fn stage(packets: u64, bytes: u64, seconds: u64) -> Stage {
        LIMITS.stage(Usage {
            packets,
            bytes,
            seconds,
        })
    }

    //= test T57
    #[test]
    fn the_first_limit_reached_decides() {
        assert_eq!(stage(0, 0, 0), Stage::Mature);
        assert_eq!(stage(4, 499, 59), Stage::Mature);
        assert_eq!(stage(5, 0, 0), Stage::Dying);
        assert_eq!(stage(0, 500, 0), Stage::Dying);
        assert_eq!(stage(0, 0, 60), Stage::Dying);
        assert_eq!(stage(9, 999, 89), Stage::Dying);
        assert_eq!(stage(10, 0, 0), Stage::Dead);
        assert_eq!(stage(0, 1000, 0), Stage::Dead);
        assert_eq!(stage(0, 0, 90), Stage::Dead);
    }

    #[test]
    fn what_is_reached_is_named_as_in_the_file() {
        let usage = Usage {
            packets: 10,
            bytes: 500,
            seconds: 0,
        };
        let reached: Vec<_> = LIMITS.reached(usage).collect();
        let expected = [
            ("soft_packets", 5, false),
            ("soft_bytes", 500, false),
            ("hard_packets", 10, true),
        ];
        assert_eq!(reached, expected);
    }

    #[test]
    fn zero_is_no_limit() {
        let usage = Usage {
            packets: u64::MAX,
            bytes: u64::MAX,
            seconds: u64::MAX,
        };
        assert_eq!(Lifetime::default().stage(usage), Stage::Mature);
    }

    #[test]
    fn exactly_the_hard_packets_pass() {
        let passed = (0..100).filter(|before| stage(*before, 0, 0) != Stage::Dead);
        assert_eq!(passed.count(), 10);
    }
}
