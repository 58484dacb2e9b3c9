//! The mirrored tables: what the kernel said, and what the gateway makes of it. Pure: messages in,
//! a view out.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage,
};

use super::routes::{KernelRoutes, Outcome, Ports};
use crate::route::{Mac, Neighbor, PortAddress, PortIndex, Route};

/// What is known about a port's interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkFacts {
    /// Interface index.
    pub index: u32,
    /// MAC address; all zero where the interface has none.
    pub mac: Mac,
    /// MTU, bytes.
    pub mtu: u32,
    /// Administratively up, and with carrier.
    pub up: bool,
    /// Its addresses with the length of their on-link prefixes.
    pub addresses: Vec<PortAddress>,
}

/// The tables as the gateway wants them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Routes of the main table, one for each prefix.
    pub routes: Vec<Route>,
    /// Neighbours whose MAC address is known, on the ports' links.
    pub neighbors: Vec<Neighbor>,
    /// For each port, in the order of their indices; `None` while it has no interface.
    pub links: Vec<Option<LinkFacts>>,
    /// All addresses of the machine, loopback's too.
    pub local_addresses: Vec<IpAddr>,
}

/// What changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Routes.
    pub routes: bool,
    /// Neighbours of ports or others.
    pub neighbors: bool,
    /// Links: MAC address, MTU, state, existence.
    pub links: bool,
    /// Addresses of the machine.
    pub addresses: bool,
}

impl Changes {
    /// Whether anything did.
    #[must_use]
    pub const fn any(self) -> bool {
        self.routes || self.neighbors || self.links || self.addresses
    }
}

/// Tables that must be read again, since notifications do not tell all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stale {
    pub(super) links: bool,
    pub(super) addresses: bool,
    pub(super) routes: bool,
    pub(super) neighbors: bool,
}

impl Stale {
    pub(super) const ALL: Self = Self {
        links: true,
        addresses: true,
        routes: true,
        neighbors: true,
    };
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Link {
    name: String,
    mac: Mac,
    mtu: u32,
    up: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct KnownNeighbor {
    mac: Mac,
    permanent: bool,
}

/// Interface index and address.
type OnLink = (u32, IpAddr);

/// The mirrored tables.
#[derive(Debug)]
pub(super) struct Tables {
    ports: Vec<String>,
    host_port: String,
    links: HashMap<u32, Link>,
    addresses: BTreeMap<OnLink, u8>,
    neighbors: BTreeMap<OnLink, KnownNeighbor>,
    routes: KernelRoutes,
    /// What changed since it was last asked.
    pub(super) changes: Changes,
    /// What must be read again.
    pub(super) stale: Stale,
}

impl Tables {
    /// Empty tables, all stale. `ports` are interface names in the order of the ports' indices.
    pub(super) fn new(ports: Vec<String>, host_port: String) -> Self {
        Self {
            ports,
            host_port,
            links: HashMap::new(),
            addresses: BTreeMap::new(),
            neighbors: BTreeMap::new(),
            routes: KernelRoutes::default(),
            changes: Changes::default(),
            stale: Stale::ALL,
        }
    }

    /// Takes in one entry that came, changed or went. `flags` are the message's; `settling`: the
    /// message may be older than what a dump has just told.
    pub(super) fn apply(&mut self, flags: u16, entry: &RouteNetlinkMessage, settling: bool) {
        match entry {
            RouteNetlinkMessage::NewLink(link) => self.link(link, true),
            RouteNetlinkMessage::DelLink(link) => self.link(link, false),
            RouteNetlinkMessage::NewAddress(address) => self.address(address, true),
            RouteNetlinkMessage::DelAddress(address) => self.address(address, false),
            RouteNetlinkMessage::NewNeighbour(neighbor) => self.neighbor(neighbor, true),
            RouteNetlinkMessage::DelNeighbour(neighbor) => self.neighbor(neighbor, false),
            RouteNetlinkMessage::NewRoute(route) => {
                let outcome = self.routes.add(flags, route);
                self.route(outcome, settling);
            }
            RouteNetlinkMessage::DelRoute(route) => {
                let outcome = self.routes.remove(route);
                self.route(outcome, settling);
            }
            _ => {}
        }
    }

    fn route(&mut self, outcome: Outcome, settling: bool) {
        match outcome {
            Outcome::Changed => self.changes.routes = true,
            Outcome::Ambiguous if !settling => self.stale.routes = true,
            Outcome::Ambiguous | Outcome::Unchanged => {}
        }
    }

    fn link(&mut self, message: &LinkMessage, present: bool) {
        // Bridges report their ports a second time, in their own family.
        if u8::from(message.header.interface_family) != 0 {
            return;
        }
        let index = message.header.index;
        let new = present.then(|| link_of(message));
        let old = match &new {
            Some(link) => self.links.insert(index, link.clone()),
            None => self.links.remove(&index),
        };
        if old == new {
            return;
        }
        self.changes.links = true;
        let identity = |link: &Option<Link>| link.as_ref().map(|link| link.name.clone());
        if identity(&old) != identity(&new) {
            self.changes.routes = true;
            self.changes.neighbors = true;
        }
        // When a link goes down the kernel drops IPv4 routes without a word.
        if old.is_some_and(|old| old.up) && !new.as_ref().is_some_and(|new| new.up) {
            self.stale.routes = true;
        }
        if !present {
            self.addresses
                .retain(|(interface, _), _| *interface != index);
            self.neighbors
                .retain(|(interface, _), _| *interface != index);
            self.changes.addresses = true;
        }
    }

    fn address(&mut self, message: &AddressMessage, present: bool) {
        let Some((address, usable)) = address_of(message) else {
            return;
        };
        let key = (message.header.index, address);
        let before = if present && usable {
            self.addresses.insert(key, message.header.prefix_len)
        } else {
            // Routes with this source address go without a word.
            self.stale.routes = true;
            self.addresses.remove(&key)
        };
        if before != self.addresses.get(&key).copied() {
            self.changes.addresses = true;
        }
    }

    fn neighbor(&mut self, message: &NeighbourMessage, present: bool) {
        let Some((address, known)) = neighbor_of(message) else {
            return;
        };
        let key = (message.header.ifindex, address);
        let before = match known.filter(|_| present) {
            Some(known) => self.neighbors.insert(key, known),
            None => self.neighbors.remove(&key),
        };
        let mac = |known: Option<KnownNeighbor>| known.map(|known| known.mac);
        if mac(before) != mac(self.neighbors.get(&key).copied()) {
            self.changes.neighbors = true;
        }
    }

    /// Replaces the links by what a dump told.
    pub(super) fn replace_links(&mut self, entries: &[RouteNetlinkMessage]) {
        let mut gone: BTreeSet<u32> = self.links.keys().copied().collect();
        for entry in entries {
            if let RouteNetlinkMessage::NewLink(link) = entry {
                gone.remove(&link.header.index);
                self.link(link, true);
            }
        }
        for index in gone {
            let mut message = LinkMessage::default();
            message.header.index = index;
            self.link(&message, false);
        }
        self.stale.links = false;
    }

    /// Replaces the addresses by what a dump told.
    pub(super) fn replace_addresses(&mut self, entries: &[RouteNetlinkMessage]) {
        let old = std::mem::take(&mut self.addresses);
        for entry in entries {
            if let RouteNetlinkMessage::NewAddress(message) = entry
                && let Some((address, true)) = address_of(message)
            {
                self.addresses
                    .insert((message.header.index, address), message.header.prefix_len);
            }
        }
        self.changes.addresses |= old != self.addresses;
        self.stale.addresses = false;
    }

    /// Replaces the neighbours by what a dump told.
    pub(super) fn replace_neighbors(&mut self, entries: &[RouteNetlinkMessage]) {
        let old = std::mem::take(&mut self.neighbors);
        for entry in entries {
            if let RouteNetlinkMessage::NewNeighbour(message) = entry
                && let Some((address, Some(known))) = neighbor_of(message)
            {
                self.neighbors
                    .insert((message.header.ifindex, address), known);
            }
        }
        self.changes.neighbors |= old != self.neighbors;
        self.stale.neighbors = false;
    }

    /// Replaces the routes by what a dump told.
    pub(super) fn replace_routes(&mut self, entries: &[RouteNetlinkMessage]) {
        let mut routes = KernelRoutes::default();
        for entry in entries {
            if let RouteNetlinkMessage::NewRoute(route) = entry {
                routes.append(route);
            }
        }
        routes.keep_notices_of(&self.routes);
        self.changes.routes |= !routes.same_as(&self.routes);
        self.routes = routes;
        self.stale.routes = false;
    }

    /// What cannot be mirrored and was not said before.
    pub(super) fn notices(&mut self) -> Vec<String> {
        self.routes.notices()
    }

    /// Whether somebody entered this neighbour by hand for ever.
    pub(super) fn is_permanent(&self, port: PortIndex, address: IpAddr) -> bool {
        let key = self.interface(port).map(|interface| (interface, address));
        key.and_then(|key| self.neighbors.get(&key))
            .is_some_and(|known| known.permanent)
    }

    /// The interface index of a port.
    pub(super) fn interface(&self, port: PortIndex) -> Option<u32> {
        self.index_of(self.ports.get(port.index())?)
    }

    /// The interface index of a name.
    pub(super) fn index_of(&self, name: &str) -> Option<u32> {
        let found = self.links.iter().find(|(_, link)| link.name == name);
        found.map(|(index, _)| *index)
    }

    /// The tables as the gateway wants them.
    pub(super) fn view(&self) -> View {
        let ports = self.port_indices();
        let routes = self.routes.view(&Ports {
            ports: &ports,
            host_port: self.index_of(&self.host_port),
        });
        let neighbors = self
            .neighbors
            .iter()
            .filter_map(|((interface, address), known)| {
                Some(Neighbor {
                    port: *ports.get(interface)?,
                    address: *address,
                    mac: known.mac,
                })
            });
        let local: BTreeSet<IpAddr> = self.addresses.keys().map(|(_, address)| *address).collect();
        View {
            routes,
            neighbors: neighbors.collect(),
            links: (0..)
                .map(PortIndex)
                .zip(&self.ports)
                .map(|(port, _)| self.facts(port))
                .collect(),
            local_addresses: local.into_iter().collect(),
        }
    }

    /// Ports by interface index.
    fn port_indices(&self) -> HashMap<u32, PortIndex> {
        let indices = (0..).map(PortIndex).zip(&self.ports);
        indices
            .filter_map(|(port, name)| Some((self.index_of(name)?, port)))
            .collect()
    }

    fn facts(&self, port: PortIndex) -> Option<LinkFacts> {
        let index = self.interface(port)?;
        let link = self.links.get(&index)?;
        let of_link = self
            .addresses
            .iter()
            .filter(|((interface, _), _)| *interface == index);
        let addresses = of_link.map(|((_, address), prefix_length)| PortAddress {
            port,
            address: *address,
            prefix_length: *prefix_length,
        });
        Some(LinkFacts {
            index,
            mac: link.mac,
            mtu: link.mtu,
            up: link.up,
            addresses: addresses.collect(),
        })
    }
}

fn link_of(message: &LinkMessage) -> Link {
    let flags = message.header.flags;
    let mut link = Link {
        name: String::new(),
        mac: Mac::default(),
        mtu: 0,
        up: flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(mac) => {
                link.mac = Mac::try_from(mac.as_slice()).unwrap_or_default();
            }
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            _ => {}
        }
    }
    link
}

/// The machine's own address in a message, and whether it is in use.
fn address_of(message: &AddressMessage) -> Option<(IpAddr, bool)> {
    let mut own = None;
    let mut usable = true;
    for attribute in &message.attributes {
        match attribute {
            // On point-to-point links IFA_ADDRESS is the peer's and IFA_LOCAL ours.
            AddressAttribute::Local(address) => own = Some(*address),
            AddressAttribute::Address(address) => own = own.or(Some(*address)),
            AddressAttribute::Flags(flags) => usable = !flags.contains(AddressFlags::Dadfailed),
            _ => {}
        }
    }
    own.map(|own| (own, usable))
}

/// States in which the MAC address may be used: `NUD_REACHABLE`, `STALE`, `DELAY`, `PROBE`,
/// `NOARP`, `PERMANENT`.
const USABLE: u16 = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | PERMANENT;

/// `NUD_PERMANENT`.
const PERMANENT: u16 = 0x80;

/// A neighbour's address, and its unicast MAC address if it is known.
fn neighbor_of(message: &NeighbourMessage) -> Option<(IpAddr, Option<KnownNeighbor>)> {
    if message.header.flags.contains(NeighbourFlags::Proxy) {
        return None;
    }
    let state = u16::from(message.header.state);
    let mut address = None;
    let mut mac = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                address = Some(IpAddr::V4(*v4));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                address = Some(IpAddr::V6(*v6));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = Mac::try_from(bytes.as_slice()).ok();
            }
            _ => {}
        }
    }
    // The lowest bit of the first byte marks groups: the kernel keeps those of multicast here too.
    let unicast = mac.filter(|mac| mac[0] & 1 == 0 && state & USABLE != 0);
    let known = unicast.map(|mac| KnownNeighbor {
        mac,
        permanent: state & PERMANENT != 0,
    });
    address.map(|address| (address, known))
}
