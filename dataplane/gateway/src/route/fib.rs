//! The FIB: destination and flow to next hop.

use std::collections::HashMap;
use std::net::IpAddr;

use ipsec::packet::Version;

use super::prefix_table::{Entry, NO_MATCH, PrefixTable};
use super::{Hop, PortIndex, Route, Target};

/// Set in a table's answer that names a group of hops instead of one.
const GROUP: u32 = 1 << 31;

/// An address of a port with the length of its on-link prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortAddress {
    /// The port.
    pub port: PortIndex,
    /// The address itself, host bits and all.
    pub address: IpAddr,
    /// Length of the prefix that is on the link, bits.
    pub prefix_length: u8,
}

/// An immutable routing table of both families.
#[derive(Clone, Debug)]
pub struct Fib {
    v4: PrefixTable<u32>,
    v6: PrefixTable<u128>,
    hops: Vec<Hop>,
    groups: Vec<Group>,
}

/// The hops of one multipath target: consecutive in `Fib::hops`.
#[derive(Clone, Copy, Debug)]
struct Group {
    first: u32,
    count: u32,
    /// Sum of the weights, at least 1.
    weight: u32,
}

impl Default for Fib {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl Fib {
    /// The table of these routes. Of two routes for one prefix the earlier one stands; host bits
    /// in a route's address are ignored, and so is a route whose prefix is longer than an address.
    #[must_use]
    pub fn new(routes: Vec<Route>) -> Self {
        let mut targets = Targets::default();
        let mut v4 = Vec::new();
        let mut v6 = Vec::new();
        for route in routes {
            let value = targets.value(route.target);
            let prefix_length = route.prefix_length;
            match route.address {
                IpAddr::V4(address) if prefix_length <= 32 => v4.push(Entry {
                    address: mask(u128::from(address.to_bits()) << 96, prefix_length, |bits| {
                        (bits >> 96) as u32
                    }),
                    prefix_length,
                    value,
                }),
                IpAddr::V6(address) if prefix_length <= 128 => v6.push(Entry {
                    address: mask(address.to_bits(), prefix_length, |bits| bits),
                    prefix_length,
                    value,
                }),
                IpAddr::V4(_) | IpAddr::V6(_) => {}
            }
        }
        Self {
            v4: PrefixTable::new(v4),
            v6: PrefixTable::new(v6),
            hops: targets.hops,
            groups: targets.groups,
        }
    }

    /// The table of static forwarding: these routes, and what follows from the ports' addresses.
    /// A route beats the connected route of the same prefix.
    #[must_use]
    pub fn from_static(mut routes: Vec<Route>, addresses: &[PortAddress]) -> Self {
        routes.extend(connected(addresses));
        Self::new(routes)
    }

    /// The next hop for a packet of this version to this destination, or `None` if there is no
    /// route or it leads nowhere (`no_route`).
    ///
    /// `destination` is in the form of [`ipsec::packet::address_bits`]. `flow_hash` chooses among
    /// several hops by weight; one flow keeps its hop as long as the route stays as it is.
    #[inline]
    #[must_use]
    pub fn lookup(&self, version: Version, destination: u128, flow_hash: u32) -> Option<&Hop> {
        self.choose(version, destination, flow_hash)
            .map(|(hop, _)| hop)
    }

    /// As [`Self::lookup`], and whether every flow to this destination takes that hop.
    #[inline]
    #[must_use]
    pub fn choose(
        &self,
        version: Version,
        destination: u128,
        flow_hash: u32,
    ) -> Option<(&Hop, bool)> {
        let value = match version {
            // The low 32 bits of the mapped form are the address.
            Version::V4 => self.v4.lookup((destination & 0xffff_ffff) as u32),
            Version::V6 => self.v6.lookup(destination),
        };
        if value & GROUP == 0 {
            return self.hops.get(value as usize).map(|hop| (hop, true));
        }
        if value == NO_MATCH {
            return None;
        }
        self.groups
            .get((value & !GROUP) as usize)
            .and_then(|group| self.hop_of(*group, flow_hash))
            .map(|hop| (hop, false))
    }

    /// The hop whose share of the hash's range holds `flow_hash`.
    fn hop_of(&self, group: Group, flow_hash: u32) -> Option<&Hop> {
        let mut point = (u64::from(flow_hash) * u64::from(group.weight)) >> 32;
        let first = group.first as usize;
        let hops = self.hops.get(first..first + group.count as usize)?;
        for hop in hops {
            let weight = u64::from(hop.weight.max(1));
            if point < weight {
                return Some(hop);
            }
            point -= weight;
        }
        None
    }
}

impl Hop {
    /// Whose MAC address a packet to `destination` needs by this hop: the gateway's, or on the
    /// link the destination's own, in the form of [`ipsec::packet::address_bits`].
    #[inline]
    #[must_use]
    pub fn neighbor(&self, version: Version, destination: u128) -> (Version, u128) {
        match self.via {
            Some(via @ IpAddr::V4(_)) => (Version::V4, ipsec::packet::address_bits(via)),
            Some(via @ IpAddr::V6(_)) => (Version::V6, ipsec::packet::address_bits(via)),
            None => (version, destination),
        }
    }
}

/// The on-link routes of the ports' addresses. An IPv4 network's own address and its broadcast
/// address lead nowhere: directed broadcasts are not forwarded (RFC 2644).
pub fn connected(addresses: &[PortAddress]) -> impl Iterator<Item = Route> + '_ {
    addresses.iter().flat_map(|of| {
        let hop = Hop {
            port: of.port,
            via: None,
            mtu: 0,
            weight: 1,
        };
        let network = Route {
            address: of.address,
            prefix_length: of.prefix_length,
            target: Target::Hops(vec![hop]),
        };
        std::iter::once(network).chain(directed_broadcasts(of))
    })
}

/// Routes to nowhere for the first and the last address of an IPv4 network; a prefix of 31 or 32
/// bits has neither (RFC 3021).
fn directed_broadcasts(of: &PortAddress) -> impl Iterator<Item = Route> + use<> {
    let ends = match of.address {
        IpAddr::V4(address) if of.prefix_length < 31 => {
            let host = u32::MAX
                .checked_shr(u32::from(of.prefix_length))
                .unwrap_or(0);
            let bits = address.to_bits();
            Some([bits & !host, bits | host])
        }
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    };
    ends.into_iter().flatten().map(|bits| Route {
        address: std::net::Ipv4Addr::from_bits(bits).into(),
        prefix_length: 32,
        target: Target::Nowhere,
    })
}

/// Clears the host bits of a left-aligned address.
fn mask<K>(address: u128, prefix_length: u8, narrow: impl FnOnce(u128) -> K) -> K {
    let host = u128::MAX.checked_shr(u32::from(prefix_length)).unwrap_or(0);
    narrow(address & !host)
}

/// Gathers hops, each distinct target once: thousands of routes share a few.
#[derive(Default)]
struct Targets {
    hops: Vec<Hop>,
    groups: Vec<Group>,
    known: HashMap<Vec<Hop>, u32>,
}

impl Targets {
    /// The table's answer that stands for this target.
    fn value(&mut self, target: Target) -> u32 {
        let hops = match target {
            Target::Hops(hops) if !hops.is_empty() => hops,
            Target::Hops(_) | Target::Nowhere => return NO_MATCH,
        };
        if let Some(value) = self.known.get(&hops) {
            return *value;
        }
        let first = position(self.hops.len());
        let value = if hops.len() == 1 {
            first
        } else {
            self.groups.push(Group {
                first,
                count: position(hops.len()),
                weight: hops.iter().map(|hop| u32::from(hop.weight.max(1))).sum(),
            });
            GROUP | position(self.groups.len() - 1)
        };
        self.hops.extend_from_slice(&hops);
        self.known.insert(hops, value);
        value
    }
}

/// A position as the tables hold it. Two thousand million hops do not fit the machine's memory.
fn position(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX) & !GROUP
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use ipsec::packet::address_bits;

    use super::*;

    fn hop(port: u16, via: Option<&str>, weight: u16) -> Hop {
        Hop {
            port: PortIndex(port),
            via: via.map(|via| via.parse().unwrap()),
            mtu: 0,
            weight,
        }
    }

    fn route(prefix: &str, hops: &[Hop]) -> Route {
        let (address, length) = prefix.split_once('/').unwrap();
        Route {
            address: address.parse().unwrap(),
            prefix_length: length.parse().unwrap(),
            target: if hops.is_empty() {
                Target::Nowhere
            } else {
                Target::Hops(hops.to_vec())
            },
        }
    }

    fn find(fib: &Fib, destination: &str, flow_hash: u32) -> Option<Hop> {
        let address: IpAddr = destination.parse().unwrap();
        let version = if address.is_ipv4() {
            Version::V4
        } else {
            Version::V6
        };
        fib.lookup(version, address_bits(address), flow_hash)
            .copied()
    }

    #[test]
    fn the_longest_prefix_wins_and_nowhere_hides_what_covers_it() {
        let far = hop(0, Some("192.0.2.2"), 1);
        let near = hop(1, None, 1);
        let fib = Fib::new(vec![
            route("0.0.0.0/0", &[far]),
            route("10.1.0.0/16", &[near]),
            route("10.1.9.0/24", &[]),
            route("10.1.9.7/32", &[far]),
            route("2001:db8::/32", &[near]),
        ]);
        assert_eq!(find(&fib, "8.8.8.8", 0), Some(far));
        assert_eq!(find(&fib, "10.1.2.3", 0), Some(near));
        assert_eq!(find(&fib, "10.1.9.6", 0), None);
        assert_eq!(find(&fib, "10.1.9.7", 0), Some(far));
        assert_eq!(find(&fib, "2001:db8::1", 0), Some(near));
        assert_eq!(find(&fib, "2001:db9::1", 0), None);
        // A mapped address in an IPv6 packet is not the IPv4 address.
        assert_eq!(find(&fib, "::ffff:10.1.2.3", 0), None);
        assert_eq!(find(&Fib::default(), "10.1.2.3", 0), None);
    }

    #[test]
    fn hashes_share_the_hops_by_weight_and_a_flow_keeps_its_hop() {
        let hops = [
            hop(0, Some("192.0.2.2"), 1),
            hop(0, Some("2001:db8::1"), 3),
            hop(1, None, 0),
        ];
        let fib = Fib::new(vec![route("10.0.0.0/8", &hops)]);
        let mut counts = [0_u32; 3];
        for hash in (0..=u32::MAX).step_by(65_537) {
            let found = find(&fib, "10.9.9.9", hash).unwrap();
            assert_eq!(find(&fib, "10.9.9.9", hash), Some(found));
            counts[hops.iter().position(|hop| *hop == found).unwrap()] += 1;
        }
        let all: u32 = counts.iter().sum();
        for (count, share) in counts.into_iter().zip([1, 3, 1]) {
            assert!(count.abs_diff(all * share / 5) <= 2, "{counts:?}");
        }
        assert_eq!(find(&fib, "10.9.9.9", u32::MAX), Some(hops[2]));
    }

    #[test]
    fn the_neighbor_is_the_gateway_of_either_family_or_the_destination() {
        let destination = address_bits("10.9.9.9".parse().unwrap());
        let via = address_bits("2001:db8::1".parse().unwrap());
        let hop_by_v6 = hop(0, Some("2001:db8::1"), 1);
        assert_eq!(
            hop_by_v6.neighbor(Version::V4, destination),
            (Version::V6, via)
        );
        let on_link = hop(0, None, 1);
        assert_eq!(
            on_link.neighbor(Version::V4, destination),
            (Version::V4, destination)
        );
    }

    #[test]
    fn addresses_of_ports_connect_their_networks_but_not_the_broadcasts() {
        let address = |port, address: &str, prefix_length| PortAddress {
            port: PortIndex(port),
            address: address.parse().unwrap(),
            prefix_length,
        };
        let detour = hop(1, Some("10.1.0.9"), 1);
        let fib = Fib::from_static(
            vec![route("10.7.0.0/16", &[detour])],
            &[
                address(0, "192.0.2.1/24".split_once('/').unwrap().0, 24),
                address(1, "10.1.0.1", 16),
                address(1, "10.7.0.1", 16),
                address(2, "198.51.100.0", 31),
                address(0, "2001:db8::1", 64),
            ],
        );
        assert_eq!(find(&fib, "192.0.2.77", 0), Some(hop(0, None, 1)));
        assert_eq!(find(&fib, "192.0.2.255", 0), None);
        assert_eq!(find(&fib, "192.0.2.0", 0), None);
        assert_eq!(find(&fib, "10.1.255.254", 0), Some(hop(1, None, 1)));
        assert_eq!(
            find(&fib, "10.7.0.2", 0),
            Some(detour),
            "a route beats the connected one"
        );
        assert_eq!(find(&fib, "198.51.100.1", 0), Some(hop(2, None, 1)));
        assert_eq!(find(&fib, "2001:db8::ffff", 0), Some(hop(0, None, 1)));
        assert_eq!(find(&fib, "2001:db8:0:1::1", 0), None);
    }

    #[test]
    fn routes_that_cannot_be_are_ignored() {
        let fib = Fib::new(vec![
            Route {
                address: "10.0.0.0".parse().unwrap(),
                prefix_length: 33,
                target: Target::Hops(vec![hop(0, None, 1)]),
            },
            route("10.1.2.3/8", &[hop(1, None, 1)]),
        ]);
        assert_eq!(
            find(&fib, "10.200.0.0", 0),
            Some(hop(1, None, 1)),
            "host bits are ignored"
        );
    }
}
