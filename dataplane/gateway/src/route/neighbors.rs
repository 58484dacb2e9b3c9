//! The neighbour table: next hop to MAC address.

use ipsec::packet::{Version, address_bits};

use super::{Mac, Neighbor, PortIndex};

/// An immutable table of neighbours.
#[derive(Clone, Debug, Default)]
pub struct Neighbors {
    // Seeded: whoever is on a link chooses the addresses that we learn.
    table: hashbrown::HashMap<Key, Mac, foldhash::fast::RandomState>,
}

type Key = (PortIndex, Version, u128);

impl Neighbors {
    /// The table of these neighbours. Of two entries for one address the later one stands.
    #[must_use]
    pub fn new(neighbors: &[Neighbor]) -> Self {
        let entry = |neighbor: &Neighbor| {
            let version = if neighbor.address.is_ipv4() {
                Version::V4
            } else {
                Version::V6
            };
            let key = (neighbor.port, version, address_bits(neighbor.address));
            (key, neighbor.mac)
        };
        Self {
            table: neighbors.iter().map(entry).collect(),
        }
    }

    /// The MAC address of a neighbour, `None` while it is not known (`no_neighbor`).
    #[inline]
    #[must_use]
    pub fn lookup(&self, port: PortIndex, version: Version, address: u128) -> Option<Mac> {
        self.table.get(&(port, version, address)).copied()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn a_neighbor_is_known_on_its_own_port_and_family() {
        let neighbor = |port, address: &str, last| Neighbor {
            port: PortIndex(port),
            address: address.parse().unwrap(),
            mac: [2, 0, 0, 0, 0, last],
        };
        let table = Neighbors::new(&[
            neighbor(0, "192.0.2.2", 1),
            neighbor(1, "192.0.2.2", 2),
            neighbor(0, "fe80::1", 3),
            neighbor(0, "192.0.2.2", 4),
        ]);
        let v4 = address_bits("192.0.2.2".parse().unwrap());
        let v6 = address_bits("fe80::1".parse().unwrap());
        assert_eq!(
            table.lookup(PortIndex(0), Version::V4, v4),
            Some([2, 0, 0, 0, 0, 4])
        );
        assert_eq!(
            table.lookup(PortIndex(1), Version::V4, v4),
            Some([2, 0, 0, 0, 0, 2])
        );
        assert_eq!(
            table.lookup(PortIndex(0), Version::V6, v6),
            Some([2, 0, 0, 0, 0, 3])
        );
        assert_eq!(table.lookup(PortIndex(1), Version::V6, v6), None);
        assert_eq!(table.lookup(PortIndex(0), Version::V6, v4), None);
    }
}
