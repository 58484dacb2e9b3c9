//! What each policy decided.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::policy::PolicyIndex;
use crate::prefetch::first_line;

/// Packets and bytes that one policy decided, on one worker: that worker alone writes, relaxed, and
/// who asks reads. A line for each policy and no second one, since those of a hundred thousand lie
/// in no cache.
#[derive(Debug, Default)]
pub struct Count {
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl Count {
    /// Packets so far, and their IP length in bytes.
    #[must_use]
    pub fn read(&self) -> (u64, u64) {
        (self.packets.load(Relaxed), self.bytes.load(Relaxed))
    }

    /// Counts a packet of `length` bytes for `policy`. Only the worker that owns `counts` may.
    #[inline]
    pub fn add(counts: &[Self], policy: Option<PolicyIndex>, length: u16) {
        if let Some(PolicyIndex(index)) = policy
            && let Some(count) = counts.get(index as usize)
        {
            let (packets, bytes) = count.read();
            count.packets.store(packets.wrapping_add(1), Relaxed);
            count
                .bytes
                .store(bytes.wrapping_add(length.into()), Relaxed);
        }
    }

    /// Asks memory for a policy's counts.
    pub(crate) fn prefetch(counts: &[Self], policy: Option<PolicyIndex>) {
        let count = policy.and_then(|PolicyIndex(index)| counts.get(index as usize));
        count.map(first_line);
    }
}
