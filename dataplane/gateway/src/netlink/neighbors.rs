//! Next hops, resolved and kept fresh by the kernel although it never sends to them.
//!
//! The kernel forgets and re-resolves neighbours by the traffic that it carries itself, and the
//! gateway's traffic goes around it. So each next hop in use is entered as a managed neighbour
//! (Linux 5.16): the kernel then resolves it at once and probes it for ever. Before that, each
//! call asks it to act as if it had just used the neighbour.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage,
    NeighbourState,
};
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Kernel, Mirror, NetlinkError, OURS};
use crate::route::PortIndex;

/// How often [`NeighborKeeper::refresh`] is due. Shorter than the kernel's own five seconds before
/// a first probe, so that on old kernels a neighbour never goes stale unnoticed for long.
pub const REFRESH: Duration = Duration::from_secs(4);

/// Someone on a port's link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextHop {
    /// The port.
    pub port: PortIndex,
    /// The address, of a gateway or of an on-link destination.
    pub address: IpAddr,
}

/// Asks the kernel to keep neighbours.
#[derive(Debug)]
pub struct NeighborKeeper {
    kernel: Kernel,
    /// Whether the kernel knows managed neighbours.
    managed: bool,
    wanted: BTreeSet<NextHop>,
    /// What was entered, by interface.
    entered: BTreeSet<(u32, IpAddr)>,
}

impl NeighborKeeper {
    /// Nothing kept yet; entries that a crash left are removed.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn new(kernel: Kernel) -> Result<Self, NetlinkError> {
        let mut keeper = Self {
            kernel,
            managed: knows_managed(),
            wanted: BTreeSet::new(),
            entered: BTreeSet::new(),
        };
        let request = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        for entry in keeper.kernel.dump("reading neighbours", request).await? {
            if let RouteNetlinkMessage::NewNeighbour(message) = entry
                && let Some(left) = ours(&message)
            {
                keeper.entered.insert(left);
            }
        }
        keeper.release().await?;
        Ok(keeper)
    }

    /// From now on these next hops are kept, and no others. Those that somebody entered for ever
    /// (`nud permanent`) are left alone, those of ports without interface wait for one.
    ///
    /// # Errors
    /// The kernel's first refusal; all others are tried nevertheless, and again at the next call.
    pub async fn keep(
        &mut self,
        wanted: impl IntoIterator<Item = NextHop>,
        mirror: &Mirror,
    ) -> Result<(), NetlinkError> {
        self.wanted = wanted.into_iter().collect();
        let targets = self.targets(mirror);
        let gone: Vec<_> = self.entered.difference(&targets).copied().collect();
        let new: Vec<_> = targets.difference(&self.entered).copied().collect();
        let removed = self.remove(&gone).await;
        self.enter(&new).await.and(removed)
    }

    /// Asks again for all that is kept: what a link that went down or a hand removed comes back.
    /// Call it every [`REFRESH`], and when a link came up.
    ///
    /// # Errors
    /// As [`NeighborKeeper::keep`].
    pub async fn refresh(&mut self, mirror: &Mirror) -> Result<(), NetlinkError> {
        let targets: Vec<_> = self.targets(mirror).into_iter().collect();
        self.enter(&targets).await
    }

    /// Keeps nothing any more: the entries are removed. For a clean stop.
    ///
    /// # Errors
    /// As [`NeighborKeeper::keep`].
    pub async fn release(&mut self) -> Result<(), NetlinkError> {
        self.wanted.clear();
        let entered: Vec<_> = self.entered.iter().copied().collect();
        self.remove(&entered).await
    }

    fn targets(&self, mirror: &Mirror) -> BTreeSet<(u32, IpAddr)> {
        let wanted = self
            .wanted
            .iter()
            .filter(|hop| !mirror.is_permanent(hop.port, hop.address));
        let targets = wanted.filter_map(|hop| Some((mirror.interface(hop.port)?, hop.address)));
        targets.collect()
    }

    async fn enter(&mut self, targets: &[(u32, IpAddr)]) -> Result<(), NetlinkError> {
        let mut result = Ok(());
        for &(interface, address) in targets {
            let mut message = message(interface, address);
            message
                .attributes
                .push(NeighbourAttribute::Protocol(RouteProtocol::Other(OURS)));
            if self.managed {
                message.header.flags = NeighbourFlags::ExtLearned;
                let flags = NeighbourExtFlags::Managed;
                message.attributes.push(NeighbourAttribute::ExtFlags(flags));
            } else {
                message.header.flags = NeighbourFlags::Use;
            }
            let request = RouteNetlinkMessage::NewNeighbour(message);
            let flags = NLM_F_CREATE | NLM_F_REPLACE;
            match self
                .kernel
                .execute("asking for a neighbour", request, flags)
                .await
            {
                Ok(()) => {
                    self.entered.insert((interface, address));
                }
                Err(error) => result = result.and(Err(error)),
            }
        }
        result
    }

    async fn remove(&mut self, targets: &[(u32, IpAddr)]) -> Result<(), NetlinkError> {
        let mut result = Ok(());
        for target in targets {
            let request = RouteNetlinkMessage::DelNeighbour(message(target.0, target.1));
            let removed = self
                .kernel
                .execute("releasing a neighbour", request, 0)
                .await;
            // Gone already, or with its interface.
            let gone = |error: &NetlinkError| error.is(libc::ENOENT) || error.is(libc::ENODEV);
            match removed {
                Err(error) if !gone(&error) => result = result.and(Err(error)),
                Ok(()) | Err(_) => {
                    self.entered.remove(target);
                }
            }
        }
        result
    }
}

fn message(interface: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = interface;
    message.header.state = NeighbourState::None;
    let (family, destination) = match address {
        IpAddr::V4(address) => (AddressFamily::Inet, NeighbourAddress::Inet(address)),
        IpAddr::V6(address) => (AddressFamily::Inet6, NeighbourAddress::Inet6(address)),
    };
    message.header.family = family;
    message
        .attributes
        .push(NeighbourAttribute::Destination(destination));
    message
}

/// Interface and address of an entry that bears our mark.
fn ours(message: &NeighbourMessage) -> Option<(u32, IpAddr)> {
    let mut address = None;
    let mut marked = false;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                address = Some(IpAddr::V4(*v4));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                address = Some(IpAddr::V6(*v6));
            }
            NeighbourAttribute::Protocol(protocol) => marked = u8::from(*protocol) == OURS,
            _ => {}
        }
    }
    address
        .filter(|_| marked)
        .map(|address| (message.header.ifindex, address))
}

/// An older kernel takes the flag without a word and ignores it, so its release must tell.
fn knows_managed() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    is_since_5_16(&release)
}

fn is_since_5_16(release: &str) -> bool {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    let mut next = || {
        numbers
            .next()
            .and_then(|number| number.parse::<u32>().ok())
            .unwrap_or(0)
    };
    (next(), next()) >= (5, 16)
}

#[cfg(test)]
mod tests {
    use super::is_since_5_16;

    #[test]
    fn releases_compare_as_numbers() {
        for release in [
            "5.16.0",
            "5.16",
            "5.100.1-generic",
            "6.1.0-30-amd64",
            "10.0\n",
        ] {
            assert!(is_since_5_16(release), "{release}");
        }
        for release in ["5.15.999", "5.9", "4.18.0-553.el8", "", "unknown"] {
            assert!(!is_since_5_16(release), "{release}");
        }
    }
}
