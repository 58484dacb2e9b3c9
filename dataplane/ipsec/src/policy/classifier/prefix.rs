//! Address selectors as prefixes, and which prefix lengths cover an address.

use arrayvec::ArrayVec;

use crate::limits::BATCH;
use crate::packet::Version;
use crate::policy::{AddressRange, AddressSelector, Selector};

/// Entries that one policy may have in the tables, at most. What needs more (a ragged range is up
/// to 62 prefixes in IPv4) is filed under wider ones and compared field by field. 8: with 64 a
/// hundred thousand ragged ranges took about ten times as long to compile and were found no
/// faster.
const ENTRIES: usize = 8;

/// A prefix of the 128-bit form; IPv4's are 96 and longer. Ordered so that a prefix stands in
/// front of all that lie in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Prefix {
    pub(super) bits: u128,
    pub(super) length: u8,
}

impl Prefix {
    /// Ones where the prefix counts.
    pub(super) const fn mask(length: u8) -> u128 {
        match length {
            0 => 0,
            length => u128::MAX << (128 - length as u32),
        }
    }

    const fn last(self) -> u128 {
        self.bits | !Self::mask(self.length)
    }

    /// The smallest prefix that holds both.
    fn spanning(first: u128, last: u128) -> Self {
        let length = u8::try_from((first ^ last).leading_zeros()).unwrap_or(128);
        Self {
            bits: first & Self::mask(length),
            length,
        }
    }

    /// Appends the fewest prefixes that make up exactly the range.
    fn split(range: AddressRange, into: &mut Vec<Self>) {
        let mut first = range.first;
        loop {
            // The largest block that starts at `first` and does not pass the end.
            let mut size = first.trailing_zeros().min(127);
            while first | ((1 << size) - 1) > range.last {
                size -= 1;
            }
            let whole = first == 0 && range.last == u128::MAX;
            let block = Self {
                bits: first,
                length: if whole {
                    0
                } else {
                    u8::try_from(128 - size).unwrap_or(128)
                },
            };
            into.push(block);
            match block.last().checked_add(1) {
                Some(next) if block.last() < range.last => first = next,
                _ => return,
            }
        }
    }
}

/// The prefixes under which a policy is filed.
#[derive(Debug)]
pub(super) struct Cover {
    pub(super) local: Vec<Prefix>,
    pub(super) remote: Vec<Prefix>,
    /// The prefixes are the addresses: no comparison needed.
    pub(super) exact: bool,
}

impl Cover {
    /// `None` when the selector takes no address of that family.
    pub(super) fn of(selector: &Selector, version: Version) -> Option<Self> {
        let mut cover = Self {
            local: exact(&selector.local, version)?,
            remote: exact(&selector.remote, version)?,
            exact: true,
        };
        while cover.local.len() * cover.remote.len() > ENTRIES {
            let side = if cover.local.len() > cover.remote.len() {
                &mut cover.local
            } else {
                &mut cover.remote
            };
            *side = widened(side);
            cover.exact = false;
        }
        Some(cover)
    }
}

fn exact(selector: &AddressSelector, version: Version) -> Option<Vec<Prefix>> {
    let mut prefixes = Vec::new();
    match selector {
        AddressSelector::Any => Prefix::split(AddressRange::whole(version), &mut prefixes),
        AddressSelector::Ranges(ranges) => {
            for &range in ranges {
                if range.version == version && range.first <= range.last {
                    Prefix::split(range, &mut prefixes);
                }
            }
            prefixes.sort_unstable();
            prefixes.dedup();
        }
    }
    (!prefixes.is_empty()).then_some(prefixes)
}

/// Neighbours joined two by two under the prefix that spans them; about half as many.
fn widened(prefixes: &[Prefix]) -> Vec<Prefix> {
    let mut wide: Vec<Prefix> = prefixes
        .chunks(2)
        .filter_map(|pair| match pair {
            [one] => Some(*one),
            [one, two] => Some(Prefix::spanning(one.bits, two.last().max(one.last()))),
            _ => None,
        })
        .collect();
    wide.sort_unstable();
    wide.dedup();
    wide
}

/// For each address the lengths of the prefixes that cover it, as a bit mask: one interval after
/// the other.
#[derive(Debug, Default)]
pub(super) struct Lengths {
    /// First addresses of the intervals, ascending.
    starts: Vec<u128>,
    masks: Vec<u64>,
    /// The bit of each length; lengths beyond the 63rd distinct one share the last.
    lengths: Vec<u8>,
}

impl Lengths {
    /// From distinct prefixes in ascending order.
    pub(super) fn new(prefixes: Vec<Prefix>) -> Self {
        let mut lengths: Vec<u8> = prefixes.iter().map(|prefix| prefix.length).collect();
        lengths.sort_unstable();
        lengths.dedup();
        let mut all = Self {
            starts: vec![0],
            masks: vec![0],
            lengths,
        };
        // Prefixes nest, so a stack of the open ones is enough.
        let mut open: Vec<(Prefix, u64)> = Vec::new();
        for prefix in prefixes {
            all.close(&mut open, Some(prefix.bits));
            let outer = open.last().map_or(0, |&(_, mask)| mask);
            let mask = outer | all.bit(prefix.length);
            open.push((prefix, mask));
            all.begin(prefix.bits, mask);
        }
        all.close(&mut open, None);
        all
    }

    /// Ends the open prefixes that lie in front of `next`.
    fn close(&mut self, open: &mut Vec<(Prefix, u64)>, next: Option<u128>) {
        while let Some(&(prefix, _)) = open.last() {
            if next.is_some_and(|next| next <= prefix.last()) {
                return;
            }
            open.pop();
            let outer = open.last().map_or(0, |&(_, mask)| mask);
            if let Some(after) = prefix.last().checked_add(1) {
                self.begin(after, outer);
            }
        }
    }

    fn begin(&mut self, start: u128, mask: u64) {
        match (self.starts.last(), self.masks.last_mut()) {
            (Some(&last), Some(current)) if last == start => *current = mask,
            _ => {
                self.starts.push(start);
                self.masks.push(mask);
            }
        }
    }

    /// The bit that stands for a length in [`Self::covering`].
    pub(super) fn bit(&self, length: u8) -> u64 {
        let position = self.lengths.iter().position(|&known| known == length);
        1 << position.unwrap_or(63).min(63)
    }

    /// Tells each of `all` which lengths have a prefix that covers the address in it. `parts` gives
    /// that address and the place of the answer. All of them search side by side, so that their
    /// waits for memory overlap.
    pub(super) fn covering<T>(
        &self,
        all: &mut [T],
        parts: impl for<'t> Fn(&'t mut T) -> (u128, &'t mut u64),
    ) {
        let mut found: ArrayVec<usize, BATCH> = ArrayVec::new();
        // The first interval begins at 0, so one that begins no later always exists.
        all.iter().take(BATCH).for_each(|_| found.push(0));
        let mut rest = self.starts.len();
        while rest > 1 {
            let half = rest / 2;
            for (one, first) in all.iter_mut().zip(&mut found) {
                let (address, _) = parts(one);
                let middle = *first + half;
                let before = self
                    .starts
                    .get(middle)
                    .is_some_and(|start| *start <= address);
                *first = if before { middle } else { *first };
            }
            rest -= half;
        }
        for (one, first) in all.iter_mut().zip(found) {
            let (_, mask) = parts(one);
            *mask = self.masks.get(first).copied().unwrap_or(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(first: u128, last: u128) -> AddressRange {
        AddressRange {
            version: Version::V6,
            first,
            last,
        }
    }

    #[test]
    fn the_whole_space_is_one_prefix() {
        let mut prefixes = Vec::new();
        Prefix::split(range(0, u128::MAX), &mut prefixes);
        assert_eq!(prefixes, [Prefix { bits: 0, length: 0 }]);
        prefixes.clear();
        Prefix::split(AddressRange::whole(Version::V4), &mut prefixes);
        let v4 = Prefix {
            bits: 0xffff_0000_0000,
            length: 96,
        };
        assert_eq!(prefixes, [v4]);
    }

    proptest! {
        #[test]
        fn a_split_range_is_whole_ordered_and_without_overlap(
            one: u128, two: u128, shift in 0_u32..128
        ) {
            let (one, two) = (one >> shift, two >> shift);
            let range = range(one.min(two), one.max(two));
            let mut prefixes = Vec::new();
            Prefix::split(range, &mut prefixes);
            prop_assert_eq!(prefixes[0].bits, range.first);
            prop_assert_eq!(prefixes[prefixes.len() - 1].last(), range.last);
            for pair in prefixes.windows(2) {
                prop_assert_eq!(pair[0].last() + 1, pair[1].bits);
            }
            prop_assert!(prefixes.len() <= 254);
        }

        #[test]
        fn covering_lengths_are_those_of_a_plain_search(
            seeds in prop::collection::vec((any::<u16>(), 0_u8..=16), 0..40),
            probes in prop::collection::vec(any::<u16>(), 20),
        ) {
            let mut prefixes: Vec<Prefix> = seeds
                .iter()
                .map(|&(bits, length)| Prefix {
                    bits: u128::from(bits) << 112 & Prefix::mask(length),
                    length,
                })
                .collect();
            prefixes.sort_unstable();
            prefixes.dedup();
            let lengths = Lengths::new(prefixes.clone());
            let addresses = probes.iter().map(|probe| u128::from(*probe) << 112 | 5);
            let mut asked: Vec<(u128, u64)> = addresses.map(|address| (address, 0)).collect();
            lengths.covering(&mut asked, |(address, mask)| (*address, mask));
            for (address, mask) in asked {
                let wanted = prefixes
                    .iter()
                    .filter(|prefix| address & Prefix::mask(prefix.length) == prefix.bits)
                    .fold(0, |mask, prefix| mask | lengths.bit(prefix.length));
                prop_assert_eq!(mask, wanted);
            }
        }
    }
}
