//! Routes of the machine's own traffic into the host port.
//!
//! What policy protects is routed to the TUN by a table of its own, 4301, and only what the
//! machine itself sends ever looks there. Rules before it keep out:
//!
//! * IKE, which the daemon speaks from and to the same addresses;
//! * what is sent from an address that no policy names: a remote login to the machine's outside
//!   address must be answered from there, whatever the remote network is.
//!
//! The peers' tunnel endpoints are kept out by `throw` routes, unless a policy names them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::RuleMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::routes::{ip_of, table_of};
use super::rules::{Rule, TABLE, family, rule_message, rule_of, rules};
use super::{Kernel, NetlinkError, OURS};

/// One way into the host port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostRoute {
    /// Network address of the remote side, host bits zero.
    pub remote: IpAddr,
    /// Prefix length of the remote side, bits.
    pub prefix_length: u8,
    /// The machine's address that the policy protects.
    pub source: IpAddr,
}

/// The routes and rules in the kernel.
#[derive(Debug)]
pub struct HostRoutes {
    kernel: Kernel,
    routes: BTreeMap<Prefix, Way>,
    rules: BTreeSet<Rule>,
}

type Prefix = (IpAddr, u8);

/// Where a route of the table leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Into {
        interface: u32,
        source: IpAddr,
    },
    Around,
    /// Somebody else's: replaced or removed.
    Unknown,
}

impl HostRoutes {
    /// Takes over what is there: nothing, or what a crash left.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn new(kernel: Kernel) -> Result<Self, NetlinkError> {
        let mut here = Self {
            kernel,
            routes: BTreeMap::new(),
            rules: BTreeSet::new(),
        };
        here.read().await?;
        Ok(here)
    }

    /// Makes the kernel's routes and rules these, by the smallest change. `interface` is the host
    /// port's index, `peers` the other ends of tunnels. Of two routes for one prefix the earlier
    /// one stands.
    ///
    /// # Errors
    /// The kernel's; what was not done yet is tried again by the next call.
    pub async fn apply(
        &mut self,
        interface: u32,
        routes: &[HostRoute],
        peers: &[IpAddr],
    ) -> Result<(), NetlinkError> {
        let into = |way: &Way| matches!(way, Way::Into { interface: old, .. } if *old != interface);
        if self.routes.values().any(into) {
            // The routes of an interface that is gone went with it.
            self.read().await?;
        }
        let sources: BTreeSet<IpAddr> = routes.iter().map(|route| route.source).collect();
        let mut wanted = BTreeMap::new();
        for route in routes {
            let source = route.source;
            let prefix = (route.remote, route.prefix_length);
            wanted
                .entry(prefix)
                .or_insert(Way::Into { interface, source });
        }
        for peer in peers {
            let length = if peer.is_ipv4() { 32 } else { 128 };
            wanted.entry((*peer, length)).or_insert(Way::Around);
        }
        self.change(wanted, rules(&sources)).await
    }

    /// Removes everything: for a clean stop.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn remove(&mut self) -> Result<(), NetlinkError> {
        self.change(BTreeMap::new(), BTreeSet::new()).await
    }

    /// New routes come before the rules that lead to them, old rules go before their routes.
    async fn change(
        &mut self,
        routes: BTreeMap<Prefix, Way>,
        rules: BTreeSet<Rule>,
    ) -> Result<(), NetlinkError> {
        for (prefix, way) in &routes {
            if self.routes.get(prefix) != Some(way) {
                let request = RouteNetlinkMessage::NewRoute(route_message(*prefix, *way));
                let flags = NLM_F_CREATE | NLM_F_REPLACE;
                self.kernel
                    .execute("adding a host route", request, flags)
                    .await?;
                self.routes.insert(*prefix, *way);
            }
        }
        for rule in &rules - &self.rules {
            let request = RouteNetlinkMessage::NewRule(rule_message(rule));
            let flags = NLM_F_CREATE | NLM_F_EXCL;
            let added = self.kernel.execute("adding a rule", request, flags).await;
            tolerate(added, libc::EEXIST)?;
            self.rules.insert(rule);
        }
        for rule in &self.rules - &rules {
            let request = RouteNetlinkMessage::DelRule(rule_message(rule));
            let deleted = self.kernel.execute("deleting a rule", request, 0).await;
            tolerate(deleted, libc::ENOENT)?;
            self.rules.remove(&rule);
        }
        let gone: Vec<Prefix> = self
            .routes
            .keys()
            .filter(|prefix| !routes.contains_key(prefix))
            .copied()
            .collect();
        for prefix in gone {
            let request = RouteNetlinkMessage::DelRoute(route_message(prefix, Way::Unknown));
            let deleted = self
                .kernel
                .execute("deleting a host route", request, 0)
                .await;
            tolerate(deleted, libc::ESRCH)?;
            self.routes.remove(&prefix);
        }
        Ok(())
    }

    /// Reads the table and our rules.
    async fn read(&mut self) -> Result<(), NetlinkError> {
        let request = RouteNetlinkMessage::GetRoute(RouteMessage::default());
        let entries = self.kernel.dump("reading routes", request).await?;
        self.routes = entries
            .iter()
            .filter_map(|entry| match entry {
                RouteNetlinkMessage::NewRoute(message) => route_of(message),
                _ => None,
            })
            .collect();
        let request = RouteNetlinkMessage::GetRule(RuleMessage::default());
        let entries = self.kernel.dump("reading rules", request).await?;
        self.rules = entries
            .iter()
            .filter_map(|entry| match entry {
                RouteNetlinkMessage::NewRule(message) => rule_of(message),
                _ => None,
            })
            .collect();
        Ok(())
    }
}

/// An answer that says that the work was done already is as good.
fn tolerate(result: Result<(), NetlinkError>, number: i32) -> Result<(), NetlinkError> {
    match result {
        Err(error) if !error.is(number) => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

const fn attribute(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(address) => RouteAddress::Inet(address),
        IpAddr::V6(address) => RouteAddress::Inet6(address),
    }
}

fn route_message((address, prefix_length): Prefix, way: Way) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(address.is_ipv6());
    message.header.destination_prefix_length = prefix_length;
    message.header.scope = RouteScope::NoWhere; // Deleting: any.
    message.attributes.push(RouteAttribute::Table(TABLE));
    message
        .attributes
        .push(RouteAttribute::Destination(attribute(address)));
    match way {
        Way::Into { interface, source } => {
            message.header.kind = RouteType::Unicast;
            message.header.scope = RouteScope::Link;
            message.header.protocol = RouteProtocol::Other(OURS);
            message.attributes.push(RouteAttribute::Oif(interface));
            message
                .attributes
                .push(RouteAttribute::PrefSource(attribute(source)));
        }
        Way::Around => {
            message.header.kind = RouteType::Throw;
            message.header.scope = RouteScope::Universe;
            message.header.protocol = RouteProtocol::Other(OURS);
        }
        Way::Unknown => {}
    }
    message
}

/// A route of our table.
fn route_of(message: &RouteMessage) -> Option<(Prefix, Way)> {
    if table_of(message) != TABLE {
        return None;
    }
    let mut address = match message.header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let (mut interface, mut source) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(destination) => address = ip_of(destination)?,
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::PrefSource(preferred) => source = ip_of(preferred),
            _ => {}
        }
    }
    let way = match (message.header.kind, interface, source) {
        (RouteType::Unicast, Some(interface), Some(source)) => Way::Into { interface, source },
        (RouteType::Throw, ..) => Way::Around,
        _ => Way::Unknown,
    };
    Some(((address, message.header.destination_prefix_length), way))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read_as_they_were_written() {
        let prefixes = [("10.2.0.0", 16, "10.1.0.1"), ("::", 0, "2001:db8::1")];
        for (remote, length, source) in prefixes {
            let (Ok(remote), Ok(source)) = (remote.parse(), source.parse()) else {
                panic!("{remote} and {source} are addresses");
            };
            let prefix = (remote, length);
            for way in [
                Way::Into {
                    interface: 7,
                    source,
                },
                Way::Around,
            ] {
                assert_eq!(route_of(&route_message(prefix, way)), Some((prefix, way)));
            }
        }
    }
}
