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
