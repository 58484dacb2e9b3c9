//! The SAD: (SPI, protocol, destination) to SA (RFC 4301 §4.4.2).
//!
//! Immutable and published whole; a change makes the next one, which shares all shards but those
//! it touches. A lookup reads three lines that depend on each other: the root's entry, one bucket
//! of 64 bytes, the SA itself, whatever the number of SAs.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use foldhash::quality::RandomState;
use hashbrown::HashTable;

use crate::crypto::suite::Protocol;
use crate::limits::BATCH;
use crate::packet::{Version, address_bits};
use crate::prefetch::{all, first_line};
use crate::sa::association::{Sa, SaSlot};

/// Shards of each table: a change copies a 4096th, 256 SAs of a million.
const SHARD_BITS: u32 = 12;
const SHARDS: usize = 1 << SHARD_BITS;

/// SAs of a bucket: what fits into a cache line with their tags.
const BUCKET_SAS: usize = 5;

/// As many SAs come on as many buckets. At 2.5 a bucket, one in 24 overflows into the next.
const BUCKET_FILL: (usize, usize) = (5, 2);

/// What identifies an inbound SA.
//= T56 (RFC 4301 section 4.1)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// In two words instead of four: this runs for every arriving packet.
impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let small = u64::from(self.spi) << 16 | (self.protocol as u64) << 8 | self.version as u64;
        state.write_u128(self.destination);
        state.write_u64(small);
    }
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

/// By the SAs' names, which stand in the SAs alone.
type Names = HashTable<SaSlot>;

type Chunks = [Arc<[Option<Arc<Sa>>; CHUNK]>];

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

impl Default for Sad {
    fn default() -> Self {
        let empty: Arc<[Bucket]> = Arc::from([Bucket::default()]);
        let hasher = RandomState::default();
        let nameless = Arc::new(Names::new());
        Self {
            shards: vec![empty; SHARDS].into_boxed_slice(),
            chunks: Vec::new(),
            names: vec![nameless; SHARDS].into_boxed_slice(),
            hasher,
            length: 0,
        }
    }
}

impl Sad {
    /// A database of `sas`.
    ///
    /// # Errors
    /// As [`Self::with`].
    pub fn new(sas: &[Arc<Sa>]) -> Result<Self, SadError> {
        Self::default().with(sas, &[])
    }

    /// The next database: without the SAs in `remove`, then with those of `add`. Slots in `remove`
    /// that hold no SA are passed over.
    ///
    /// # Errors
    /// [`SadError`] when a key, a name or a slot would stand for two SAs.
    pub fn with(&self, add: &[Arc<Sa>], remove: &[SaSlot]) -> Result<Self, SadError> {
        let mut next = self.clone();
        let mut changes: HashMap<usize, Vec<&Arc<Sa>>> = HashMap::new();
        let mut removed = HashSet::new();
        for sa in remove.iter().filter_map(|slot| self.by_slot(*slot)) {
            if removed.insert(sa.slot) {
                next.forget(sa);
                changes.entry(self.place(&Key::of(sa)).shard).or_default();
            }
        }
        for sa in add {
            next.remember(sa)?;
            changes
                .entry(self.place(&Key::of(sa)).shard)
                .or_default()
                .push(sa);
        }
        for (shard, added) in changes {
            let kept = self.shards[shard]
                .iter()
                .flat_map(Bucket::iter)
                .filter(|sa| !removed.contains(&sa.slot));
            next.shards[shard] = self.build(&kept.chain(added).collect::<Vec<_>>())?;
        }
        Ok(next)
    }

    /// The SA of an arriving packet. Whether it serves the direction is the caller's to ask.
    //= T56 (RFC 4301 section 4.1)
    #[must_use]
    pub fn lookup(
        &self,
        spi: u32,
        protocol: Protocol,
        version: Version,
        destination: u128,
    ) -> Option<&Arc<Sa>> {
        self.find(&Key {
            destination,
            spi,
            protocol,
            version,
        })
    }

    /// [`Self::lookup`] with the key in one piece.
    #[must_use]
    pub fn find(&self, key: &Key) -> Option<&Arc<Sa>> {
        let place = self.place(key);
        search(&self.shards[place.shard], &place, key)
    }

    /// [`Self::find`] for each of `keys`, into the same place of `found`; the cache misses of
    /// different keys overlap. What lies beyond the shorter of the two is left alone.
    pub fn find_batch<'a>(&'a self, keys: &[Key], found: &mut [Option<&'a Arc<Sa>>]) {
        for (keys, found) in keys.chunks(BATCH).zip(found.chunks_mut(BATCH)) {
            // One loop for each miss on the way. No branch depends on what the first one loads: a
            // wrong guess would undo the loads of the keys behind.
            let mut positions = [(0, 0, 0); BATCH];
            for (key, position) in keys.iter().zip(&mut positions) {
                let place = self.place(key);
                let buckets = &self.shards[place.shard];
                let index = place.bucket(buckets.len());
                first_line(&buckets[index]);
                *position = (place.shard, index, place.tag);
            }
            let positions = &positions[..keys.len()];
            for ((shard, index, tag), found) in positions.iter().zip(found.iter_mut()) {
                let bucket = &self.shards[*shard][*index];
                let position = bucket.position(*tag);
                *found = bucket.sas.get(position).and_then(Option::as_ref);
                if let Some(sa) = found {
                    all(&***sa);
                }
            }
            for (key, found) in keys.iter().zip(found) {
                if found.is_none_or(|sa| Key::of(sa) != *key) {
                    *found = self.find(key);
                }
            }
        }
    }

    /// The SA in `slot`.
    #[must_use]
    pub fn by_slot(&self, slot: SaSlot) -> Option<&Arc<Sa>> {
        let chunk = self.chunks.get(slot.index() / CHUNK)?;
        chunk[slot.index() % CHUNK].as_ref()
    }

    /// Asks memory for where the SA in `slot` is noted.
    #[inline]
    pub(crate) fn prefetch(&self, slot: SaSlot) {
        if let Some(chunk) = self.chunks.get(slot.index() / CHUNK) {
            first_line(&chunk[slot.index() % CHUNK]);
        }
    }

    /// The SA called `name`.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<&Arc<Sa>> {
        let names = &self.names[self.name_shard(name)];
        let called = |slot: &SaSlot| name_of(&self.chunks, *slot) == name;
        let slot = names.find(self.hasher.hash_one(name), called)?;
        self.by_slot(*slot)
    }

    /// All SAs in the order of their slots.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Sa>> {
        self.chunks.iter().flat_map(|chunk| chunk.iter().flatten())
    }

    /// Number of SAs.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.length
    }

    /// No SA at all.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    fn place(&self, key: &Key) -> Place {
        Place::new(self.hasher.hash_one(key))
    }

    fn name_shard(&self, name: &str) -> usize {
        Place::new(self.hasher.hash_one(name)).shard
    }

    /// Takes `sa` out of names and slots.
    fn forget(&mut self, sa: &Sa) {
        let shard = self.name_shard(&sa.name);
        let names = Arc::make_mut(&mut self.names[shard]);
        let hash = self.hasher.hash_one(&*sa.name);
        if let Ok(entry) = names.find_entry(hash, |slot| *slot == sa.slot) {
            entry.remove();
        }
        if let Some(chunk) = self.chunks.get_mut(sa.slot.index() / CHUNK) {
            Arc::make_mut(chunk)[sa.slot.index() % CHUNK] = None;
        }
        self.length -= 1;
    }

    /// Puts `sa` into names and slots.
    fn remember(&mut self, sa: &Arc<Sa>) -> Result<(), SadError> {
        let chunk = sa.slot.index() / CHUNK;
        if self.chunks.len() <= chunk {
            let empty = Arc::new([const { None }; CHUNK]);
            self.chunks.resize(chunk + 1, empty);
        }
        let place = &mut Arc::make_mut(&mut self.chunks[chunk])[sa.slot.index() % CHUNK];
        if place.is_some() {
            return Err(SadError::DuplicateSlot(sa.name.clone()));
        }
        *place = Some(Arc::clone(sa));
        let shard = self.name_shard(&sa.name);
        let names = Arc::make_mut(&mut self.names[shard]);
        let hash = |slot: &SaSlot| self.hasher.hash_one(name_of(&self.chunks, *slot));
        let called = |slot: &SaSlot| name_of(&self.chunks, *slot) == &*sa.name;
        if names.find(hash(&sa.slot), called).is_some() {
            return Err(SadError::DuplicateName(sa.name.clone()));
        }
        names.insert_unique(hash(&sa.slot), sa.slot, hash);
        self.length += 1;
        Ok(())
    }

    /// A shard of `sas`.
    fn build(&self, sas: &[&Arc<Sa>]) -> Result<Arc<[Bucket]>, SadError> {
        let (fill, buckets) = BUCKET_FILL;
        let mut shard = vec![Bucket::default(); sas.len() * buckets / fill + 1];
        for sa in sas {
            let key = Key::of(sa);
            let place = self.place(&key);
            if let Some(present) = search(&shard, &place, &key) {
                return Err(SadError::DuplicateKey {
                    added: sa.name.clone(),
                    present: present.name.clone(),
                });
            }
            let mut index = place.bucket(shard.len());
            // Ends: there are more places than SAs.
            while !shard[index].insert(place.tag, sa) {
                index = (index + 1) % shard.len();
            }
        }
        Ok(shard.into())
    }
}

impl std::fmt::Debug for Sad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sad")
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

/// The name of the SA in `slot`; none for a slot without one.
fn name_of(chunks: &Chunks, slot: SaSlot) -> &str {
    let chunk = chunks.get(slot.index() / CHUNK);
    let sa = chunk.and_then(|chunk| chunk[slot.index() % CHUNK].as_ref());
    sa.map_or("", |sa| &*sa.name)
}

/// Where a key belongs: three disjoint parts of its hash.
struct Place {
    shard: usize,
    tag: u32,
    bucket: u32,
}

impl Place {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "parts of a hash are what is wanted"
    )]
    const fn new(hash: u64) -> Self {
        Self {
            shard: (hash >> (u64::BITS - SHARD_BITS)) as usize,
            tag: (hash >> 20) as u32,
            bucket: hash as u32,
        }
    }

    /// The first bucket to look into, of `count` in the shard.
    const fn bucket(&self, count: usize) -> usize {
        ((self.bucket as u64 * count as u64) >> u32::BITS) as usize
    }
}

impl Bucket {
    fn iter(&self) -> impl Iterator<Item = &Arc<Sa>> {
        self.sas.iter().flatten()
    }

    /// Of the first SA with this tag; beyond the last where there is none.
    fn position(&self, tag: u32) -> usize {
        let mut position = BUCKET_SAS;
        for (index, it) in self.tags.iter().enumerate().rev() {
            position = if *it == tag { index } else { position };
        }
        position
    }

    fn tagged(&self, tag: u32) -> impl Iterator<Item = &Arc<Sa>> {
        let places = self.tags.iter().zip(&self.sas);
        places.filter_map(move |(it, sa)| sa.as_ref().filter(|_| *it == tag))
    }

    /// False when the bucket is full, which it then remembers.
    fn insert(&mut self, tag: u32, sa: &Arc<Sa>) -> bool {
        let Some(place) = self.sas.iter().position(Option::is_none) else {
            self.overflows = true;
            return false;
        };
        self.tags[place] = tag;
        self.sas[place] = Some(Arc::clone(sa));
        true
    }
}

/// Looks through the buckets of a shard from a key's own to the first that does not overflow.
fn search<'a>(shard: &'a [Bucket], place: &Place, key: &Key) -> Option<&'a Arc<Sa>> {
    let first = place.bucket(shard.len());
    let (before, from) = shard.split_at_checked(first)?;
    for bucket in from.iter().chain(before) {
        if let Some(sa) = bucket.tagged(place.tag).find(|sa| Key::of(sa) == *key) {
            return Some(sa);
        }
        if !bucket.overflows {
            return None;
        }
    }
    None
}

#[cfg(test)]
mod tests;
