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
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage, RulePortRange};
use netlink_packet_route::{AddressFamily, IpProtocol, RouteNetlinkMessage};

use super::routes::{ip_of, table_of};
use super::{Kernel, NetlinkError, OURS};

/// The table, and the preference of the rule that leads into it (RFC 4301).
const TABLE: u32 = 4301;

/// Preference of the rules that keep IKE out.
const PREFERENCE_IKE: u32 = 4298;

/// Preference of the IPv6 rules for the sources that policies name.
const PREFERENCE_SOURCES: u32 = 4299;

/// Preference of the IPv6 rules that keep all other sources out.
const PREFERENCE_OTHERS: u32 = 4300;

/// `RT_TABLE_MAIN`.
const MAIN: u32 = 254;

/// UDP ports of IKE (RFC 7296 §2).
const IKE: [u16; 2] = [500, 4500];

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

/// A rule as far as ours differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rule {
    preference: u32,
    v6: bool,
    source: Option<Prefix>,
    source_port: Option<u16>,
    destination_port: Option<u16>,
    table: u32,
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
        self.change(wanted, rules(routes)).await
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

/// The rules that lead into the table and around it, for the families that have routes in it.
fn rules(routes: &[HostRoute]) -> BTreeSet<Rule> {
    let mut rules = BTreeSet::new();
    for v6 in [false, true] {
        let mut sources = routes
            .iter()
            .filter(|route| route.source.is_ipv6() == v6)
            .peekable();
        if sources.peek().is_none() {
            continue;
        }
        let rule = |preference, table, source| Rule {
            preference,
            v6,
            source,
            source_port: None,
            destination_port: None,
            table,
        };
        let around = rule(PREFERENCE_IKE, MAIN, None);
        for port in IKE {
            rules.insert(Rule {
                source_port: Some(port),
                ..around
            });
            rules.insert(Rule {
                destination_port: Some(port),
                ..around
            });
        }
        if v6 {
            // The kernel looks for a route before it has a source. Such a lookup matches no rule
            // with a source, so the last rule is for it alone.
            for route in sources {
                rules.insert(rule(PREFERENCE_SOURCES, TABLE, Some((route.source, 128))));
            }
            for half in [
                Ipv6Addr::UNSPECIFIED,
                Ipv6Addr::new(0x8000, 0, 0, 0, 0, 0, 0, 0),
            ] {
                rules.insert(rule(PREFERENCE_OTHERS, MAIN, Some((half.into(), 1))));
            }
            rules.insert(rule(TABLE, TABLE, None));
        } else {
            // In IPv4 it has the source 0.0.0.0, which a rule can name.
            for route in sources {
                rules.insert(rule(TABLE, TABLE, Some((route.source, 32))));
            }
            rules.insert(rule(TABLE, TABLE, Some((Ipv4Addr::UNSPECIFIED.into(), 32))));
        }
    }
    rules
}

const fn family(v6: bool) -> AddressFamily {
    if v6 {
        AddressFamily::Inet6
    } else {
        AddressFamily::Inet
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

fn rule_message(rule: Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family(rule.v6);
    message.header.action = RuleAction::ToTable;
    let attributes = &mut message.attributes;
    attributes.push(RuleAttribute::Table(rule.table));
    attributes.push(RuleAttribute::Priority(rule.preference));
    attributes.push(RuleAttribute::Protocol(RouteProtocol::Other(OURS)));
    // What the machine itself sends; what it forwards is not the host port's.
    attributes.push(RuleAttribute::Iifname("lo".to_owned()));
    if let Some((address, length)) = rule.source {
        message.header.src_len = length;
        attributes.push(RuleAttribute::Source(address));
    }
    let range = |port| RulePortRange {
        start: port,
        end: port,
    };
    if rule.source_port.is_some() || rule.destination_port.is_some() {
        attributes.push(RuleAttribute::IpProtocol(IpProtocol::Udp));
    }
    if let Some(port) = rule.source_port {
        attributes.push(RuleAttribute::SourcePortRange(range(port)));
    }
    if let Some(port) = rule.destination_port {
        attributes.push(RuleAttribute::DestinationPortRange(range(port)));
    }
    message
}

/// A rule that bears our mark.
fn rule_of(message: &RuleMessage) -> Option<Rule> {
    let mut rule = Rule {
        preference: 0,
        v6: message.header.family == AddressFamily::Inet6,
        source: None,
        source_port: None,
        destination_port: None,
        table: u32::from(message.header.table),
    };
    let mut marked = false;
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(preference) => rule.preference = *preference,
            RuleAttribute::Table(table) => rule.table = *table,
            RuleAttribute::Protocol(protocol) => marked = u8::from(*protocol) == OURS,
            RuleAttribute::Source(address) => {
                rule.source = Some((*address, message.header.src_len));
            }
            RuleAttribute::SourcePortRange(range) => rule.source_port = Some(range.start),
            RuleAttribute::DestinationPortRange(range) => rule.destination_port = Some(range.start),
            _ => {}
        }
    }
    marked.then_some(rule)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn route(remote: &str, prefix_length: u8, source: &str) -> HostRoute {
        HostRoute {
            remote: remote.parse().unwrap(),
            prefix_length,
            source: source.parse().unwrap(),
        }
    }

    #[test]
    fn messages_are_read_as_they_were_written() {
        let routes = [
            route("10.2.0.0", 16, "10.1.0.1"),
            route("::", 0, "2001:db8::1"),
        ];
        for rule in rules(&routes) {
            assert_eq!(rule_of(&rule_message(rule)), Some(rule));
        }
        for route in routes {
            let prefix = (route.remote, route.prefix_length);
            let way = Way::Into {
                interface: 7,
                source: route.source,
            };
            for way in [way, Way::Around] {
                assert_eq!(route_of(&route_message(prefix, way)), Some((prefix, way)));
            }
        }
    }

    #[test]
    fn rules_only_for_families_with_routes() {
        assert!(rules(&[]).is_empty());
        assert!(
            rules(&[route("10.2.0.0", 16, "10.1.0.1")])
                .iter()
                .all(|rule| !rule.v6)
        );
        assert!(
            rules(&[route("2001:db8::", 32, "2001:db9::1")])
                .iter()
                .all(|rule| rule.v6)
        );
    }
}
