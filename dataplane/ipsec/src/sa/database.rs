//! The SAD: (SPI, protocol, destination) to SA (RFC 4301 §4.4.2).
//!
//! Immutable and published whole; a change makes the next one, which shares all shards but those
//! it touches. A lookup reads three lines that depend on each other: the root's entry, one bucket
//! of 64 bytes, the SA itself, whatever the number of SAs.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::crypto::suite::Protocol;
use crate::packet::{Version, address_bits};
use crate::sa::association::{Sa, SaSlot};

/// Shards of each table: a change copies a 4096th, 256 SAs of a million.
const SHARD_BITS: u32 = 12;
const SHARDS: usize = 1 << SHARD_BITS;

/// SAs of a bucket: what fits into a cache line with their tags.
const BUCKET_SAS: usize = 5;

/// SAs an average bucket holds at most. At 2.5 one in 24 overflows into the next.
const BUCKET_FILL: (usize, usize) = (5, 2);

/// What identifies an inbound SA.
//= T56 (RFC 4301 section 4.1)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Outer destination as [`address_bits`] has it.
    pub destination: u128,
    /// SPI, host order.
    pub spi: u32,
    /// ESP or AH.
    pub protocol: Protocol,
    /// Version of the outer header, since a hostile IPv6 packet may carry an IPv4-mapped address.
    pub version: Version,
}

impl Key {
    /// The key under which `sa` is found.
    #[must_use]
    pub const fn of(sa: &Sa) -> Self {
        let destination = sa.parameters.destination;
        Self {
            destination: address_bits(destination),
            spi: sa.parameters.spi,
            protocol: sa.parameters.protocol,
            version: if destination.is_ipv4() {
                Version::V4
            } else {
                Version::V6
            },
        }
    }
}

/// A change that cannot be made; the database it was asked of is as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SadError {
    /// Two SAs with one SPI, protocol and destination.
    #[error("SA {added} has the SPI, protocol and destination of {present}")]
    DuplicateKey {
        /// The one to add.
        added: Box<str>,
        /// The one that is there.
        present: Box<str>,
    },
    /// Two SAs with one name.
    #[error("two SAs are called {0}")]
    DuplicateName(Box<str>),
    /// Two SAs in one slot: a mistake of whoever assigns slots.
    #[error("the slot of SA {0} is taken")]
    DuplicateSlot(Box<str>),
}

/// All SAs of one generation, in- and outbound.
#[derive(Clone)]
pub struct Sad {
    /// By key.
    shards: Box<[Arc<[Bucket]>]>,
    /// By slot: `chunks[slot / CHUNK][slot % CHUNK]`, as far as there are slots in use.
    chunks: Vec<Arc<[Option<Arc<Sa>>; CHUNK]>>,
    /// By name.
    names: Box<[Arc<Names>]>,
    hasher: RandomState,
    length: usize,
}

/// Slots that are copied together.
const CHUNK: usize = 256;

type Names = HashMap<Box<str>, SaSlot, RandomState>;

/// One line: tags in front of the SAs they stand for.
#[derive(Clone, Default)]
#[repr(align(64))]
struct Bucket {
    /// A part of the key's hash; read before the SA is touched.
    tags: [u32; BUCKET_SAS],
    /// A key of this bucket lies in a later one.
    overflows: bool,
    sas: [Option<Arc<Sa>>; BUCKET_SAS],
}

const _: () = assert!(size_of::<Bucket>() == 64);
