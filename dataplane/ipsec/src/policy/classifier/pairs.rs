//! The hash table of one pair of prefix lengths: made once, then only asked, a burst at a time.
//!
//! A question takes three steps, each of which reads what the one before it asked memory for:
//! [`Pairs::place`], [`Pairs::candidate`], [`Pairs::find`].

use std::hash::BuildHasher;

use crate::prefetch::{all, first_line};

/// Both prefixes of an entry, masked.
pub(super) type Pair = (u128, u128);

/// Entries of a bucket: what fits into a cache line with their tags.
const PLACES: usize = 7;

/// Entries for each bucket at the start: at 4 of 7, one bucket in 20 overflows into the next.
const FILL: usize = 4;

/// What a bucket says of a tag that it does not have.
const NONE: u32 = u32::MAX;

#[derive(Debug)]
pub(super) struct Pairs<T> {
    hasher: foldhash::fast::RandomState,
    buckets: Box<[Bucket]>,
    entries: Box<[(Pair, T)]>,
}

/// One line: tags in front of the entries that they stand for.
#[derive(Clone, Debug)]
#[repr(align(64))]
struct Bucket {
    /// A part of the pair's hash; only the first `count` count.
    tags: [u32; PLACES],
    entries: [u32; PLACES],
    count: u8,
    /// A pair of this bucket lies in a later one.
    overflows: bool,
}

const _: () = assert!(size_of::<Bucket>() == 64);

/// Where a pair belongs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    bucket: u32,
    tag: u32,
}

impl<T> Pairs<T> {
    /// From entries with distinct pairs.
    pub(super) fn new(entries: impl IntoIterator<Item = (Pair, T)>) -> Self {
        let entries: Box<[(Pair, T)]> = entries.into_iter().collect();
        let empty = Bucket {
            tags: [0; PLACES],
            entries: [NONE; PLACES],
            count: 0,
            overflows: false,
        };
        let mut table = Self {
            hasher: foldhash::fast::RandomState::default(),
            buckets: vec![empty; entries.len() / FILL + 1].into_boxed_slice(),
            entries,
        };
        for index in 0..table.entries.len() {
            let place = table.hash(&table.entries[index].0);
            let mut bucket = place.bucket as usize;
            // Ends: there are more places than entries.
            while !table.buckets[bucket].insert(place.tag, index) {
                bucket = (bucket + 1) % table.buckets.len();
            }
        }
        table
    }

    /// First step: where the pair belongs.
    #[inline]
    pub(super) fn place(&self, pair: &Pair) -> Place {
        let place = self.hash(pair);
        if let Some(bucket) = self.buckets.get(place.bucket as usize) {
            first_line(bucket);
        }
        place
    }

    /// Second step: the entry that is probably the pair's.
    #[inline]
    pub(super) fn candidate(&self, place: Place) -> u32 {
        let bucket = self.buckets.get(place.bucket as usize);
        let candidate = bucket.map_or(NONE, |bucket| bucket.position(place.tag));
        if let Some(entry) = self.entries.get(candidate as usize) {
            all(entry);
        }
        candidate
    }

    /// Third step: what stands under the pair.
    #[inline]
    pub(super) fn find(&self, place: Place, candidate: u32, pair: &Pair) -> Option<&T> {
        match self.entries.get(candidate as usize) {
            Some((found, value)) if found == pair => Some(value),
            found => {
                let bucket = self.buckets.get(place.bucket as usize)?;
                // A tag is 32 bits of a hash: two pairs in one bucket may share it.
                if found.is_none() && !bucket.overflows {
                    return None;
                }
                self.search(place, pair)
            }
        }
    }

    /// Looks through the buckets from the pair's own to the first that does not overflow.
    #[cold]
    fn search(&self, place: Place, pair: &Pair) -> Option<&T> {
        let (before, from) = self.buckets.split_at_checked(place.bucket as usize)?;
        for bucket in from.iter().chain(before) {
            for index in bucket.tagged(place.tag) {
                if let Some((found, value)) = self.entries.get(index as usize)
                    && found == pair
                {
                    return Some(value);
                }
            }
            if !bucket.overflows {
                return None;
            }
        }
        None
    }

    fn hash(&self, pair: &Pair) -> Place {
        let hash = self.hasher.hash_one(pair);
        let share = (hash & 0xffff_ffff) * self.buckets.len() as u64;
        Place {
            bucket: (share >> u32::BITS) as u32,
            tag: (hash >> u32::BITS) as u32,
        }
    }
}

impl Bucket {
    /// The entry of the first place with this tag.
    #[inline]
    fn position(&self, tag: u32) -> u32 {
        let mut entry = NONE;
        for (it, found) in self.tags.iter().zip(self.entries).rev() {
            entry = if *it == tag { found } else { entry };
        }
        entry
    }

    fn tagged(&self, tag: u32) -> impl Iterator<Item = u32> {
        let places = self.tags.iter().zip(self.entries);
        places.filter_map(move |(it, entry)| (*it == tag).then_some(entry))
    }

    /// False when the bucket is full, which it then remembers.
    fn insert(&mut self, tag: u32, entry: usize) -> bool {
        let place = usize::from(self.count);
        let (Some(free), Ok(entry)) = (self.tags.get_mut(place), u32::try_from(entry)) else {
            self.overflows = true;
            return false;
        };
        *free = tag;
        self.entries[place] = entry;
        self.count += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn get(table: &Pairs<usize>, pair: &Pair) -> Option<usize> {
        let place = table.place(pair);
        table.find(place, table.candidate(place), pair).copied()
    }

    #[test]
    fn an_empty_table_has_nothing() {
        let table = Pairs::new([]);
        assert_eq!(get(&table, &(0, 0)), None);
    }

    proptest! {
        #[test]
        fn what_was_put_in_is_found_and_nothing_else(
            pairs in prop::collection::hash_map((0_u128..400, 0_u128..4), any::<usize>(), 0..900),
            probes in prop::collection::vec((0_u128..400, 0_u128..4), 200),
        ) {
            let table = Pairs::new(pairs.clone());
            prop_assert_eq!(table.entries.len(), pairs.len());
            for pair in pairs.keys().chain(&probes) {
                prop_assert_eq!(get(&table, pair), pairs.get(pair).copied());
            }
        }

        #[test]
        fn full_buckets_and_equal_tags_hide_nothing(
            keys in prop::collection::hash_set(any::<u128>(), 1..40),
            tags in prop::collection::vec(0_u32..2, 40),
        ) {
            // All in the last bucket first, so that the search goes round.
            let entries: HashMap<Pair, usize> = keys.iter().map(|key| ((*key, 0), 1)).collect();
            let mut table = Pairs::new(entries);
            let last = table.buckets.len() - 1;
            for bucket in &mut table.buckets {
                (bucket.count, bucket.overflows) = (0, false);
                bucket.entries = [NONE; PLACES];
            }
            for (index, tag) in (0..table.entries.len()).zip(&tags) {
                let mut bucket = last;
                while !table.buckets[bucket].insert(*tag, index) {
                    bucket = (bucket + 1) % table.buckets.len();
                }
            }
            for ((pair, _), tag) in table.entries.iter().zip(&tags) {
                let place = Place { bucket: u32::try_from(last).unwrap_or(0), tag: *tag };
                let found = table.find(place, table.candidate(place), pair);
                prop_assert_eq!(found, Some(&1));
                prop_assert_eq!(table.find(place, table.candidate(place), &(pair.0, 1)), None);
            }
        }
    }
}
