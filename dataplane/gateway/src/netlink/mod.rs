//! The kernel's view of links, addresses, routes and neighbours, and what the gateway asks of the
//! kernel's network stack: fresh neighbours, routes into the host port, the nftables guard.
//!
//! Nothing else in the gateway speaks route netlink or nftables. All of it runs on the control
//! thread: the asynchronous parts on its runtime, the guard by starting `nft`.

mod kernel;

mod subscription;

mod routes;
#[cfg(test)]
mod routes_tests;

mod entries;

mod tables;

pub mod mirror;

pub mod neighbors;

mod rules;

pub mod host_routes;

pub mod icmp;

pub mod guard;

pub use guard::{Guard, GuardCount, GuardError, GuardParameters, PortSide};
pub use host_routes::{HostRoute, HostRoutes};
pub use kernel::{Kernel, NetlinkError};
pub use mirror::Mirror;
pub use neighbors::{NeighborKeeper, NextHop, REFRESH};
pub use tables::{Changes, LinkFacts, View};

/// The mark of what we put into the kernel's tables (`proto` in the output of `ip`), by which a
/// start finds what a crash left. Values from 5 to 255 are for programs to choose; none of
/// iproute2's list has this one.
const OURS: u8 = 143;
