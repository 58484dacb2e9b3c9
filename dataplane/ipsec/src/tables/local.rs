//! The machine's own addresses.

use std::net::IpAddr;

use super::{Endpoint, Set, endpoint};
use crate::packet::Version;

/// The machine's own addresses.
#[derive(Clone, Debug, Default)]
pub struct LocalAddresses {
    set: Set<Endpoint>,
    /// A bit for each address of the set, see [`Self::bit`]: nearly every packet in transit is told
    /// from those for the machine by this alone.
    bits: u64,
}

impl LocalAddresses {
    /// True when the machine has that address.
    #[inline]
    #[must_use]
    pub fn contains(&self, version: Version, address: u128) -> bool {
        self.bits & Self::bit(address) != 0 && self.set.contains(&(version, address))
    }

    /// One of 64 bits, by a multiplicative hash of the address.
    #[inline]
    const fn bit(address: u128) -> u64 {
        let folded = ((address ^ (address >> 64)) & 0xffff_ffff_ffff_ffff) as u64;
        1 << (folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58)
    }
}

impl FromIterator<IpAddr> for LocalAddresses {
    fn from_iter<T: IntoIterator<Item = IpAddr>>(addresses: T) -> Self {
        let set: Set<Endpoint> = addresses.into_iter().map(endpoint).collect();
        let bits = set
            .iter()
            .fold(0, |bits, (_, address)| bits | Self::bit(*address));
        Self { set, bits }
    }
}
