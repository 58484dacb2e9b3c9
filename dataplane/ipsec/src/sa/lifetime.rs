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

/// The stage of an SA's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Stage {
    /// No limit reached.
    #[default]
    Mature,
    /// A soft limit reached: still works, wants a successor.
    Dying,
    /// A hard limit reached: no packet passes.
    Dead,
}
