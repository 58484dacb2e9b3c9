//! Where a packet goes next: longest prefix match and neighbours (RFC 4301 §5: routing is
//! consulted about what is sent).
//!
//! Tables are immutable; whoever mirrors the kernel or reads a file builds the next one aside.

use std::net::IpAddr;

mod prefix_table;

pub mod fib;

pub mod neighbors;

pub use fib::{Fib, PortAddress};
pub use neighbors::Neighbors;

/// Position of a port in the configuration file; the same for every worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortIndex(pub u16);

impl PortIndex {
    /// As an array index.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A MAC address.
pub type Mac = [u8; 6];

/// One route as sources of routes give it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Network address, host bits zero.
    pub address: IpAddr,
    /// Prefix length in bits.
    pub prefix_length: u8,
    /// What happens to packets that it matches.
    pub target: Target,
}

/// What a route leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// One or more next hops; a flow's hash chooses by weight.
    Hops(Vec<Hop>),
    /// Blackhole, unreachable, prohibit, or an interface that is no port: `no_route`.
    Nowhere,
}

/// One next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hop {
    /// Egress port.
    pub port: PortIndex,
    /// Gateway address, of either family; `None`: the destination itself is on the link.
    pub via: Option<IpAddr>,
    /// MTU of the route, bytes; 0: the port's.
    pub mtu: u16,
    /// Share of the flows among the hops of a route, at least 1.
    pub weight: u16,
}

/// One neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbor {
    /// Port on whose link it lives.
    pub port: PortIndex,
    /// Its address.
    pub address: IpAddr,
    /// Its MAC address.
    pub mac: Mac,
}
