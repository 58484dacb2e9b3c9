//! What outlives a restart: reservations of sequence numbers and replay windows, per key.
//!
//! No (key, IV) twice, over crashes too: a number is used only when a block that contains it is
//! on disk as reserved. See docs/ARCHITECTURE.md, "What outlives a restart".

// Import order, top to bottom. Blank lines keep rustfmt from sorting it.

mod error;

mod contents;

mod identity;

mod store;

mod carried;

mod block;

mod keeper;

mod upkeep;

#[cfg(test)]
mod tests;

pub use contents::Contents;
pub use error::StateError;
pub use keeper::{End, Grant, Keeper, Reached, unreserved};
pub use store::{Directory, Store};
pub use upkeep::{Shown, accept_loss, init, recorded, show};

use ipsec::sa::association::Direction;
use ipsec::sa::lifetime::Usage;

/// Names a key without telling it: a keyed hash of algorithm, key and salt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 16]);

/// What is on disk for one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The key.
    pub key: KeyId,
    /// The SA's name when the record was last written, for people.
    pub name: String,
    /// In or out.
    pub direction: Direction,
    /// Out: numbers up to this one may have been used. In: numbers up to this one may have been
    /// accepted.
    pub reserved_end: u64,
    /// XORed into the IV of counter modes; drawn when the record was made.
    pub iv_mask: u64,
    /// The kernel's boot in which the record was made, as `boot_id` has it; zero where unknown.
    pub boot: [u8; 16],
    /// The exact window of a clean stop (in), as `ipsec::sa::state` exports it; empty after a
    /// crash.
    pub window: Vec<u8>,
    /// What the SA had carried when the record was last written.
    pub carried: Carried,
}

/// What counts for an SA's lifetime, as it stood at a write (RFC 4301 §4.4.2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Packets since the SA was born.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The number that the SA had reached with them.
    pub sequence: u64,
    /// When the record was made, seconds since 1970 by this machine's clock; 0: unknown.
    pub born: u64,
}

/// Where an SA starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// The last number used (out) or the right edge, everything up to it seen (in).
    pub sequence: u64,
    /// Numbers up to this one are on disk.
    pub reserved_end: u64,
    /// XORed into the IV.
    pub iv_mask: u64,
    /// The exact window of a clean stop, if there was one.
    pub window: Vec<u8>,
    /// What counts for its lifetime already; after a crash what may have been.
    pub usage: Usage,
}
