//! Ways out that a burst has already found: most of its packets go where the ones before them
//! went, and a route and a neighbour cost two look-ups of a table each.
//!
//! Only what holds for every packet to a destination is kept: a way that no flow's hash chose, to
//! a neighbour that is known. It is forgotten when the next burst begins, which may have another
//! snapshot.

use ipsec::packet::Version;

use crate::worker::exit::Exit;

/// Destinations remembered at once, a power of two: a burst has 64 packets, and hosts of one
/// prefix differ in the low bits that choose among them.
const PLACES: usize = 16;

/// One way.
#[derive(Clone, Copy)]
struct Entry {
    destination: u128,
    version: Version,
    burst: u32,
    exit: Exit,
}

/// The ways of one burst.
pub(super) struct Ways {
    burst: u32,
    entries: [Option<Entry>; PLACES],
}

impl Ways {
    pub(super) const fn new() -> Self {
        Self {
            burst: 0,
            entries: [None; PLACES],
        }
    }

    /// A burst begins.
    pub(super) fn forget(&mut self) {
        self.burst = self.burst.wrapping_add(1);
        if self.burst == 0 {
            // What was kept in a burst of the same number, 2³² bursts ago.
            self.entries = [None; PLACES];
        }
    }

    /// The way of this burst's packets to `destination`, if one of them found it.
    #[inline]
    pub(super) fn find(&self, version: Version, destination: u128) -> Option<Exit> {
        let entry = self.entries[place(destination)].as_ref()?;
        let same = entry.burst == self.burst
            && entry.destination == destination
            && entry.version == version;
        same.then_some(entry.exit)
    }

    /// Keeps a way that holds for every packet to `destination`.
    pub(super) fn keep(&mut self, version: Version, destination: u128, exit: Exit) {
        self.entries[place(destination)] = Some(Entry {
            destination,
            version,
            burst: self.burst,
            exit,
        });
    }
}

#[inline]
const fn place(destination: u128) -> usize {
    destination as usize & (PLACES - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::PortIndex;
    use crate::worker::exit::Link;

    #[test]
    fn a_way_is_found_by_address_and_family_until_the_next_burst() {
        let exit = |mtu| Exit::new(PortIndex(1), mtu, Link::known([2; 6]));
        let found = |ways: &Ways, version, destination| {
            let found = ways.find(version, destination);
            found.map(|exit| exit.mtu())
        };
        let mut ways = Ways::new();
        assert_eq!(found(&ways, Version::V4, 0), None);
        ways.keep(Version::V4, 7, exit(700));
        ways.keep(Version::V4, 8, exit(800));
        assert_eq!(found(&ways, Version::V4, 7), Some(700));
        assert_eq!(found(&ways, Version::V6, 7), None);
        // The same place.
        assert_eq!(found(&ways, Version::V4, 7 + 16), None);
        ways.keep(Version::V4, 7 + 16, exit(2300));
        assert_eq!(found(&ways, Version::V4, 7), None);
        assert_eq!(found(&ways, Version::V4, 8), Some(800));
        ways.forget();
        assert_eq!(found(&ways, Version::V4, 8), None);
        ways.burst = u32::MAX;
        ways.keep(Version::V4, 8, exit(800));
        ways.forget();
        assert_eq!(found(&ways, Version::V4, 8), None);
    }
}
