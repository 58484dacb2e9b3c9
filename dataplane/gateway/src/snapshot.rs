//! One generation of everything that workers read: SAD, SPDs, routes, neighbours and the ports'
//! facts, published whole. A worker loads it once a batch.

use std::net::IpAddr;
use std::sync::Arc;

use ipsec::packet::Version;
use ipsec::tables::Tables;

use crate::port::settings::Side;
use crate::route::{Fib, Mac, Neighbors, PortIndex};

/// What forwarding must know about a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortFacts {
    /// The interface's name.
    pub name: String,
    /// Which side it is on.
    pub side: Side,
    /// Its own MAC address.
    pub mac: Mac,
    /// Its MTU, bytes.
    pub mtu: u16,
    /// Its addresses, in their order.
    pub addresses: Vec<IpAddr>,
    /// The directed broadcast addresses of its IPv4 subnets, see [`broadcasts`].
    pub broadcasts: Vec<u128>,
}

/// The directed broadcast addresses of the subnets that addresses of ours with their prefix lengths
/// name, in [`ipsec::packet::Packet`]'s form. There is none in IPv6, nor where an IPv4 prefix
/// has 31 or 32 bits (RFC 3021 §2.1).
#[must_use]
pub fn broadcasts(own: impl IntoIterator<Item = (IpAddr, u8)>) -> Vec<u128> {
    let own = own.into_iter();
    own.filter_map(|(address, length)| directed_broadcast(address, length))
        .collect()
}

fn directed_broadcast(address: IpAddr, prefix_length: u8) -> Option<u128> {
    let IpAddr::V4(address) = address else {
        return None;
    };
    let hosts = u32::MAX.checked_shr(prefix_length.into()).unwrap_or(0);
    let last = IpAddr::V4((address.to_bits() | hosts).into());
    (prefix_length < 31).then(|| ipsec::packet::address_bits(last))
}

impl PortFacts {
    /// The first address of a family: the source of ICMP errors.
    #[must_use]
    pub fn address(&self, version: Version) -> Option<IpAddr> {
        self.addresses
            .iter()
            .copied()
            .find(|a| a.is_ipv4() == (version == Version::V4))
    }
}

/// One generation.
pub struct Snapshot {
    /// Counts up with every publication.
    pub generation: u64,
    /// SAD, SPDs, the machine's own addresses.
    pub tables: Arc<Tables>,
    /// Routes.
    pub fib: Arc<Fib>,
    /// Neighbours.
    pub neighbors: Arc<Neighbors>,
    /// Ports, by [`PortIndex`].
    pub ports: Arc<[PortFacts]>,
    /// The file's first protected port: answers for opened packets that have no route.
    pub first_protected: PortIndex,
}

impl Snapshot {
    /// True for a directed broadcast address of a subnet of ours.
    #[must_use]
    pub fn is_broadcast(&self, version: Version, address: u128) -> bool {
        let on = |port: &PortFacts| port.broadcasts.contains(&address);
        version == Version::V4 && self.ports.iter().any(on)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_has_a_broadcast_address_where_it_has_room_for_one() {
        let of = |text: &str, length| {
            let address: IpAddr = text.parse().ok()?;
            let bits = directed_broadcast(address, length)?;
            Some(ipsec::packet::address(Version::V4, bits).to_string())
        };
        assert_eq!(of("10.1.2.3", 24).as_deref(), Some("10.1.2.255"));
        assert_eq!(of("10.1.2.3", 30).as_deref(), Some("10.1.2.3"));
        assert_eq!(of("10.1.2.3", 0).as_deref(), Some("255.255.255.255"));
        assert_eq!(of("10.1.2.3", 31), None);
        assert_eq!(of("10.1.2.3", 32), None);
        assert_eq!(of("2001:db8::1", 64), None);
    }
}
