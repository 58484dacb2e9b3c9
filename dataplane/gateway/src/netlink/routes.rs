//! The kernel's main table, mirrored.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{NLM_F_APPEND, NLM_F_REPLACE};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteNextHop,
    RouteNextHopFlags, RouteType, RouteVia,
};

use crate::route::{Hop, PortIndex, Route, Target};

/// `RT_TABLE_MAIN` and `RT_TABLE_LOCAL`.
const MAIN: u32 = 254;
const LOCAL: u32 = 255;

/// The metric of what comes from the local table, which the kernel asks first. It holds the
/// broadcast addresses of the machine's networks: those are never forwarded to (RFC 2644).
const BEFORE_ALL: i64 = -1;

/// Interface indices as the view needs them.
pub(super) struct Ports<'a> {
    /// Those of the ports.
    pub(super) ports: &'a HashMap<u32, PortIndex>,
    /// The host port's, whose routes are not the gateway's to follow.
    pub(super) host_port: Option<u32>,
}

/// What a message did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Something else than before.
    Changed,
    /// Nothing.
    Unchanged,
    /// It does not say enough: the table must be read again.
    Ambiguous,
}

/// Network address and prefix length.
type Prefix = (IpAddr, u8);

/// The kernel's routes by prefix, in the order in which it would use them.
#[derive(Debug, Default)]
pub(super) struct KernelRoutes {
    routes: BTreeMap<Prefix, Vec<KernelRoute>>,
    notices: Notices,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct KernelRoute {
    /// Lower wins.
    metric: i64,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Paths(Vec<Path>),
    Nowhere,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Path {
    interface: u32,
    via: Option<IpAddr>,
    mtu: u16,
    weight: u16,
}

/// What cannot be mirrored: each is said once.
#[derive(Clone, Debug, Default)]
struct Notices {
    said: Vec<&'static str>,
    unsaid: Vec<&'static str>,
}

impl Notices {
    fn note(&mut self, what: &'static str) {
        if !self.said.contains(&what) && !self.unsaid.contains(&what) {
            self.unsaid.push(what);
        }
    }
}

const SERVICE: &str = "routes by type of service are not mirrored";
const ENCAPSULATION: &str = "routes with an encapsulation (MPLS, segment routing, IP) lead nowhere";
const NEXTHOPS: &str = "routes by nexthop object lead nowhere while \
                        net.ipv4.nexthop_compat_mode is 0 (set it to 1)";

impl KernelRoutes {
    /// A notification's new route.
    pub(super) fn add(&mut self, flags: u16, message: &RouteMessage) -> Outcome {
        let Some((prefix, route)) = self.read(message) else {
            return Outcome::Unchanged;
        };
        let routes = self.routes.entry(prefix).or_default();
        let same_metric = |other: &KernelRoute| other.metric == route.metric;
        let first = routes.iter().position(same_metric);
        match first {
            Some(first) if routes.get(first) == Some(&route) => Outcome::Unchanged,
            Some(first) if flags & NLM_F_REPLACE != 0 => {
                routes[first] = route;
                Outcome::Changed
            }
            // A further route of the same metric: IPv6 may have made a multipath route of the two,
            // and IPv4's order depends on flags that older kernels do not report.
            Some(_) => Outcome::Ambiguous,
            // Replacing may change the metric's owner in IPv6, of which only the new one is told.
            None if flags & (NLM_F_REPLACE | NLM_F_APPEND) != 0 && !routes.is_empty() => {
                Outcome::Ambiguous
            }
            None => {
                insert(routes, route);
                Outcome::Changed
            }
        }
    }

    /// A dump's route: those of one metric come in the order of their use.
    pub(super) fn append(&mut self, message: &RouteMessage) {
        if let Some((prefix, route)) = self.read(message) {
            insert(self.routes.entry(prefix).or_default(), route);
        }
    }

    /// A notification's route that is gone.
    pub(super) fn remove(&mut self, message: &RouteMessage) -> Outcome {
        let Some((prefix, route)) = self.read(message) else {
            return Outcome::Unchanged;
        };
        let Some(routes) = self.routes.get_mut(&prefix) else {
            return Outcome::Unchanged;
        };
        let Some(found) = routes.iter().position(|other| *other == route) else {
            // One path of a multipath route, or one that changed without a word.
            return Outcome::Ambiguous;
        };
        routes.remove(found);
        if routes.is_empty() {
            self.routes.remove(&prefix);
        }
        Outcome::Changed
    }

    /// Whether both hold the same routes.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        self.routes == other.routes
    }

    /// Takes over what was said already.
    pub(super) fn keep_notices_of(&mut self, other: &Self) {
        let found = std::mem::replace(&mut self.notices, other.notices.clone());
        for what in found.unsaid {
            self.notices.note(what);
        }
    }

    /// What was not said before.
    pub(super) fn notices(&mut self) -> Vec<String> {
        let unsaid = std::mem::take(&mut self.notices.unsaid);
        self.notices.said.extend(&unsaid);
        unsaid.into_iter().map(str::to_owned).collect()
    }

    /// One route for each prefix, as the gateway can follow it.
    pub(super) fn view(&self, ports: &Ports<'_>) -> Vec<Route> {
        let wanted = self
            .routes
            .iter()
            .filter_map(|((address, prefix_length), routes)| {
                let target = routes.iter().find_map(|route| target(route, ports))?;
                Some(Route {
                    address: *address,
                    prefix_length: *prefix_length,
                    target,
                })
            });
        wanted.collect()
    }

    /// The route in a message, if it is the gateway's business.
    fn read(&mut self, message: &RouteMessage) -> Option<(Prefix, KernelRoute)> {
        let header = &message.header;
        let table = table_of(message);
        let broadcast = table == LOCAL && header.kind == RouteType::Broadcast;
        let cloned = header.flags.contains(RouteFlags::Cloned);
        if (table != MAIN && !broadcast) || cloned || header.source_prefix_length != 0 {
            return None;
        }
        let prefix = prefix_of(message)?;
        if header.tos != 0 {
            self.notices.note(SERVICE);
            return None;
        }
        let kind = match header.kind {
            RouteType::Unicast => self.paths(message),
            RouteType::Local | RouteType::Multicast => return None,
            // Throw: no table behind main is mirrored.
            _ => Kind::Nowhere,
        };
        let metric = message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                RouteAttribute::Priority(metric) => Some(i64::from(*metric)),
                _ => None,
            });
        let metric = if broadcast {
            BEFORE_ALL
        } else {
            metric.unwrap_or(0)
        };
        Some((prefix, KernelRoute { metric, kind }))
    }

    /// The paths of a unicast route; those that are dead are left out.
    fn paths(&mut self, message: &RouteMessage) -> Kind {
        let by_nexthop = |attribute: &RouteAttribute| matches!(attribute, RouteAttribute::NhId(_));
        let hops = message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                RouteAttribute::MultiPath(hops) => Some(hops),
                _ => None,
            });
        let mtu = mtu_of(&message.attributes);
        let mut encapsulated = is_encapsulated(&message.attributes);
        let mut paths = Vec::new();
        for hop in hops.into_iter().flatten() {
            encapsulated |= is_encapsulated(&hop.attributes);
            if !hop.flags.contains(RouteNextHopFlags::Dead) {
                paths.push(path_of(hop, mtu));
            }
        }
        let interface = message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                RouteAttribute::Oif(interface) => Some(*interface),
                _ => None,
            });
        if let (None, Some(interface)) = (hops, interface)
            && !message.header.flags.contains(RouteFlags::Dead)
        {
            let via = via_of(&message.attributes);
            paths.push(Path {
                interface,
                via,
                mtu,
                weight: 1,
            });
        }
        if encapsulated {
            self.notices.note(ENCAPSULATION);
            return Kind::Nowhere;
        }
        if hops.is_none() && interface.is_none() && message.attributes.iter().any(by_nexthop) {
            self.notices.note(NEXTHOPS);
            return Kind::Nowhere;
        }
        Kind::Paths(paths)
    }
}

/// Behind those of a lower or the same metric.
fn insert(routes: &mut Vec<KernelRoute>, route: KernelRoute) {
    let place = routes.partition_point(|other| other.metric <= route.metric);
    routes.insert(place, route);
}

/// Where a route leads; `None`: it is not the gateway's to follow, the next one is.
fn target(route: &KernelRoute, ports: &Ports<'_>) -> Option<Target> {
    let Kind::Paths(paths) = &route.kind else {
        return Some(Target::Nowhere);
    };
    let usable = |path: &&Path| Some(path.interface) != ports.host_port;
    let mut usable = paths.iter().filter(usable).peekable();
    usable.peek()?;
    let hops: Vec<Hop> = usable
        .filter_map(|path| {
            Some(Hop {
                port: *ports.ports.get(&path.interface)?,
                via: path.via,
                mtu: path.mtu,
                weight: path.weight,
            })
        })
        .collect();
    if hops.is_empty() {
        return Some(Target::Nowhere);
    }
    Some(Target::Hops(hops))
}

/// The table of a route: the attribute has room for numbers above 255.
pub(super) fn table_of(message: &RouteMessage) -> u32 {
    let attribute = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Table(table) => Some(*table),
            _ => None,
        });
    attribute.unwrap_or_else(|| u32::from(message.header.table))
}

/// The destination; none for link-local and multicast ones, which are never forwarded to.
pub(super) fn prefix_of(message: &RouteMessage) -> Option<Prefix> {
    let destination = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(address) => ip_of(address),
            _ => None,
        });
    let address = match (destination, message.header.address_family) {
        (Some(address), _) => address,
        (None, AddressFamily::Inet) => Ipv4Addr::UNSPECIFIED.into(),
        (None, AddressFamily::Inet6) => Ipv6Addr::UNSPECIFIED.into(),
        (None, _) => return None,
    };
    let never = match address {
        IpAddr::V4(address) => address.is_multicast(),
        IpAddr::V6(address) => address.is_multicast() || address.is_unicast_link_local(),
    };
    (!never).then_some((address, message.header.destination_prefix_length))
}

fn path_of(hop: &RouteNextHop, mtu: u16) -> Path {
    Path {
        interface: hop.interface_index,
        via: via_of(&hop.attributes),
        mtu,
        weight: u16::from(hop.hops) + 1,
    }
}

/// The gateway, of either family.
fn via_of(attributes: &[RouteAttribute]) -> Option<IpAddr> {
    attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(address) => ip_of(address),
        RouteAttribute::Via(RouteVia::Inet(address)) => Some(IpAddr::V4(*address)),
        RouteAttribute::Via(RouteVia::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    })
}

fn mtu_of(attributes: &[RouteAttribute]) -> u16 {
    let metrics = attributes.iter().filter_map(|attribute| match attribute {
        RouteAttribute::Metrics(metrics) => Some(metrics),
        _ => None,
    });
    let mtu = metrics.flatten().find_map(|metric| match metric {
        RouteMetric::Mtu(mtu) => Some(*mtu),
        _ => None,
    });
    u16::try_from(mtu.unwrap_or(0)).unwrap_or(u16::MAX)
}

fn is_encapsulated(attributes: &[RouteAttribute]) -> bool {
    let encapsulation = |attribute: &RouteAttribute| {
        matches!(
            attribute,
            RouteAttribute::EncapType(_) | RouteAttribute::Encap(_)
        )
    };
    attributes.iter().any(encapsulation)
}

/// The IP address in an attribute.
pub(super) fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}
