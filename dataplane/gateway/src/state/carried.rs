//! What an SA has used of its lifetime, over restarts and crashes (RFC 4301 §4.4.2.1).

use std::time::SystemTime;

use ipsec::sa::lifetime::Usage;

use crate::state::{Carried, Record};

/// Bytes of a packet that may have been carried behind the last write, where the SA's own have been
/// shorter: a full packet of most links.
const FULL: u64 = 1500;

impl Record {
    /// What counts for the SA's lifetime at `now`, seconds since 1970: exactly what it was at a
    /// clean stop. After a crash each number up to the reserved end counts as a packet of the
    /// longer of [`FULL`] and the average so far: limits are rather reached early than passed.
    #[must_use]
    pub fn usage(&self, now: u64) -> Usage {
        let Carried {
            packets,
            bytes,
            sequence,
            born,
        } = self.carried;
        let more = self.reserved_end.saturating_sub(sequence);
        let each = bytes.div_ceil(packets.max(1)).max(FULL);
        Usage {
            packets: packets.saturating_add(more),
            bytes: bytes.saturating_add(more.saturating_mul(each)),
            // A clock that went back makes an SA younger, never older than it can be.
            seconds: if born == 0 {
                0
            } else {
                now.saturating_sub(born)
            },
        }
    }
}

/// Seconds since 1970 by this machine's clock.
pub(crate) fn clock() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
