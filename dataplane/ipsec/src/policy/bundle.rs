//! The SAs of a policy, where the look at one policy among a hundred thousand finds them: beside
//! what it says.

use std::ops::Deref;

use crate::limits::BUNDLE_DEPTH;
use crate::sa::SaSlot;

/// The SAs that one packet goes through, innermost first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bundle {
    slots: [SaSlot; BUNDLE_DEPTH],
    length: u8,
}

impl Bundle {
    /// More than [`BUNDLE_DEPTH`] SAs become none, and through none goes no packet.
    #[must_use]
    pub fn new(sas: &[SaSlot]) -> Self {
        let mut bundle = Self::default();
        for (place, slot) in bundle.slots.iter_mut().zip(sas) {
            *place = *slot;
        }
        if sas.len() <= BUNDLE_DEPTH {
            bundle.length = u8::try_from(sas.len()).unwrap_or(0);
        }
        bundle
    }
}

impl Deref for Bundle {
    type Target = [SaSlot];

    #[inline]
    fn deref(&self) -> &[SaSlot] {
        self.slots.get(..self.length.into()).unwrap_or(&[])
    }
}

/// A policy's bundles: the one that is named first, then the alternatives, newest last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bundles {
    first: Bundle,
    others: Box<[Bundle]>,
    count: u32,
}

impl Bundles {
    /// Number of bundles.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// The policy protects nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The bundle at a place.
    #[must_use]
    pub fn get(&self, place: usize) -> Option<&Bundle> {
        match place.checked_sub(1) {
            None => (self.count > 0).then_some(&self.first),
            Some(place) => self.others.get(place),
        }
    }

    /// All of them in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Bundle> {
        let first = (self.count > 0).then_some(&self.first);
        first.into_iter().chain(&self.others)
    }
}

impl FromIterator<Bundle> for Bundles {
    fn from_iter<T: IntoIterator<Item = Bundle>>(bundles: T) -> Self {
        let mut bundles = bundles.into_iter();
        let first = bundles.next();
        let others: Box<[Bundle]> = bundles.collect();
        let count = first.map_or(0, |_| others.len() + 1);
        Self {
            first: first.unwrap_or_default(),
            others,
            count: u32::try_from(count).unwrap_or(u32::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundles(count: u32) -> Bundles {
        (0..count)
            .map(|slot| Bundle::new(&[SaSlot(slot)]))
            .collect()
    }

    #[test]
    fn each_is_at_its_place_and_none_behind() {
        for count in 0..4 {
            let bundles = bundles(count);
            assert_eq!(bundles.len(), count as usize);
            assert_eq!(bundles.is_empty(), count == 0);
            let slots: Vec<u32> = bundles.iter().map(|bundle| bundle[0].0).collect();
            assert_eq!(slots, (0..count).collect::<Vec<_>>());
            for place in 0..4 {
                let found = bundles.get(place).map(|bundle| bundle[0].0 as usize);
                assert_eq!(found, (place < count as usize).then_some(place));
            }
        }
    }

    #[test]
    fn what_is_too_deep_is_no_bundle() {
        let slots: Vec<SaSlot> = (0..3).map(SaSlot).collect();
        assert_eq!(Bundle::new(&slots[..2])[..], slots[..2]);
        assert!(Bundle::new(&slots).is_empty());
        assert!(Bundle::new(&[]).is_empty());
    }
}
