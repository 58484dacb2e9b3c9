//! The internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! Sums are kept in memory order and swapped once at the end, which RFC 1071 §2 (B) allows, and
//! gathered 32 bits at a time into 64-bit lanes, which the compiler turns into vector code.

/// A ones' complement sum in the making. Parts that start at an even offset may be added in any
/// order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// Nothing summed yet.
    pub const ZERO: Self = Self(0);

    /// Adds `bytes`; an odd last byte counts as if a zero followed, so only the last part may be
    /// odd.
    #[inline]
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<4>();
        let mut sum = 0_u64;
        for word in words {
            sum = sum.wrapping_add(u64::from(u32::from_ne_bytes(*word)));
        }
        let mut tail = [0; 4];
        for (to, from) in tail.iter_mut().zip(rest) {
            *to = *from;
        }
        self.add(sum.wrapping_add(u64::from(u32::from_ne_bytes(tail))))
    }

    /// Adds a 16-bit word, given as a number.
    #[inline]
    #[must_use]
    pub const fn word(self, word: u16) -> Self {
        self.few(word.to_be() as u64)
    }

    /// Adds two 16-bit words, given as one number.
    #[inline]
    #[must_use]
    pub const fn double_word(self, words: u32) -> Self {
        self.few(words.to_be() as u64)
    }

    /// Adds an IPv6 address, given as a number.
    #[inline]
    #[must_use]
    pub const fn address(self, address: u128) -> Self {
        let high = ((address >> 64) as u64).to_be();
        let low = ((address & 0xffff_ffff_ffff_ffff) as u64).to_be();
        self.few(fold_64(high)).few(fold_64(low))
    }

    /// The sum as 16 bits, not complemented. 0 only if all that was added was 0.
    #[inline]
    #[must_use]
    pub const fn fold(self) -> u16 {
        // Each half is added to the other: the upper one gets the lower one's carry, which is the
        // end-around carry of RFC 1071 §1.
        let sum = self.0.wrapping_add(self.0.rotate_left(32)) >> 32;
        let sum = sum as u32;
        let sum = sum.wrapping_add(sum.rotate_left(16)) >> 16;
        u16::from_be(sum as u16)
    }

    /// The checksum: the complement of [`fold`](Self::fold).
    #[inline]
    #[must_use]
    pub const fn checksum(self) -> u16 {
        !self.fold()
    }

    /// Whether what was added, its checksum field included, adds up.
    #[inline]
    #[must_use]
    pub const fn holds(self) -> bool {
        self.fold() == 0xffff
    }

    /// Brings the sum down to 2³³ and less, so that no slice can overflow it: one of 2³³ bytes
    /// would add 2⁶³.
    #[inline]
    const fn add(self, addend: u64) -> Self {
        Self(fold_64(self.0.wrapping_add(addend)))
    }

    /// Adds what is below 2³³. Half a milliard of those fit beside the largest slice; the fields of
    /// a header are a dozen.
    #[inline]
    const fn few(self, addend: u64) -> Self {
        Self(self.0.wrapping_add(addend))
    }
}

/// The sum of the pseudo-header of RFC 768 and RFC 9293 §3.1.
#[inline]
#[must_use]
pub const fn pseudo_v4(source: u32, destination: u32, protocol: u8, length: u16) -> Sum {
    Sum::ZERO
        .double_word(source)
        .double_word(destination)
        .word(protocol as u16)
        .word(length)
}

/// The sum of the pseudo-header of RFC 8200 §8.1.
#[inline]
#[must_use]
pub const fn pseudo_v6(source: u128, destination: u128, protocol: u8, length: u32) -> Sum {
    Sum::ZERO
        .address(source)
        .address(destination)
        .double_word(length)
        .word(protocol as u16)
}

/// The checksum after one word under it changed from `old` to `new` (RFC 1624, equation 3).
#[inline]
#[must_use]
pub const fn update(checksum: u16, old: u16, new: u16) -> u16 {
    Sum::ZERO.word(!checksum).word(!old).word(new).checksum()
}

#[inline]
const fn fold_64(sum: u64) -> u64 {
    (sum & 0xffff_ffff).wrapping_add(sum >> 32)
}

#[cfg(test)]
#[expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test may fail by panic"
)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn naive(bytes: &[u8]) -> u16 {
        let mut sum = 0_u64;
        for pair in bytes.chunks(2) {
            let low = pair.get(1).copied().unwrap_or(0);
            sum = sum.wrapping_add(u64::from(u16::from_be_bytes([pair[0], low])));
        }
        while sum > 0xffff {
            sum = (sum & 0xffff).wrapping_add(sum >> 16);
        }
        u16::try_from(sum).unwrap_or(0)
    }

    #[test]
    fn the_example_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::ZERO.bytes(&bytes).fold(), 0xddf2);
        assert_eq!(Sum::ZERO.bytes(&bytes).checksum(), 0x220d);
    }

    #[test]
    fn the_example_of_rfc_1624() {
        // The old checksum DD2F, a field from 5555 to 3285: equation 3 gives 0000.
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn all_ones_lose_no_carry() {
        for length in (0..2000).chain(65_530..65_540).chain([70_001]) {
            let mut bytes = vec![0xff; length];
            assert_eq!(Sum::ZERO.bytes(&bytes).fold(), naive(&bytes), "{length}");
            bytes.extend([0, 1, 0xff]);
            assert_eq!(Sum::ZERO.bytes(&bytes).fold(), naive(&bytes), "{length}");
        }
        assert_eq!(Sum::ZERO.address(u128::MAX).fold(), 0xffff);
        assert_eq!(Sum::ZERO.fold(), 0);
    }

    proptest! {
        #[test]
        fn equals_the_naive_sum(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert_eq!(Sum::ZERO.bytes(&bytes).fold(), naive(&bytes));
        }

        #[test]
        fn parts_add_up(
            bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0_usize..100,
        ) {
            let (head, tail) = bytes.split_at((at * 2).min(bytes.len() / 2 * 2));
            let parts = Sum::ZERO.bytes(tail).bytes(head);
            prop_assert_eq!(parts.fold(), naive(&bytes));
        }

        #[test]
        fn pseudo_headers_equal_their_bytes(
            source: u128, destination: u128, source_v4: u32, destination_v4: u32,
            protocol: u8, length: u16,
        ) {
            let mut bytes = Vec::new();
            bytes.extend(source.to_be_bytes());
            bytes.extend(destination.to_be_bytes());
            bytes.extend(u32::from(length).to_be_bytes());
            bytes.extend([0, 0, 0, protocol]);
            let sum = pseudo_v6(source, destination, protocol, length.into());
            prop_assert_eq!(sum.fold(), naive(&bytes));

            let mut bytes = Vec::new();
            bytes.extend(source_v4.to_be_bytes());
            bytes.extend(destination_v4.to_be_bytes());
            bytes.extend([0, protocol]);
            bytes.extend(length.to_be_bytes());
            let sum = pseudo_v4(source_v4, destination_v4, protocol, length);
            prop_assert_eq!(sum.fold(), naive(&bytes));
        }

        #[test]
        fn update_equals_recomputing(
            mut bytes in proptest::collection::vec(any::<u8>(), 20..40), at in 1_usize..10,
            new: u16,
        ) {
            // A header is never all zero; without that the two zeros would differ.
            bytes[0] = 0x45;
            let before = Sum::ZERO.bytes(&bytes).checksum();
            let old = u16::from_be_bytes([bytes[at * 2], bytes[at * 2 + 1]]);
            bytes[at * 2..at * 2 + 2].copy_from_slice(&new.to_be_bytes());
            let recomputed = Sum::ZERO.bytes(&bytes).checksum();
            prop_assert_eq!(update(before, old, new), recomputed);
        }
    }
}
