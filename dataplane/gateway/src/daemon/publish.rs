//! Builds each generation of what workers, XDP programs, guard and policy routes go by.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipsec::policy::{Action, Bundle, PolicyParameters};
use ipsec::sa::Sa;
use ipsec::sa::association::Direction;
use ipsec::tables::Unmatched;

use crate::assembly::{self, AssemblyError};
use crate::config::{self, Config};
use crate::netlink::View;
use crate::port::settings::Side;
use crate::port::xdp::steer::{self, SteeringPolicy, SteeringTables};
use crate::route::{Fib, Neighbors, PortIndex};
use crate::snapshot::{PortFacts, Snapshot, broadcasts};

/// UDP port of ESP behind NAT, taken at every endpoint (RFC 3948 §2.1).
const NAT_TRAVERSAL: u16 = 4500;

/// The port facts of a view; what the view does not know stays as it was.
#[must_use]
pub fn facts(config: &Config, view: &View, before: &[PortFacts]) -> Vec<PortFacts> {
    let ports = config.ports.iter().zip(before).enumerate();
    ports
        .map(|(index, (port, before))| {
            let mut facts = before.clone();
            if let Some(Some(link)) = view.links.get(index) {
                facts.mac = link.mac;
                let interface = u16::try_from(link.mtu).unwrap_or(u16::MAX);
                facts.mtu = port.mtu.map_or(interface, |mtu| mtu.min(interface));
                facts.addresses = link.addresses.iter().map(|own| own.address).collect();
                facts.broadcasts = broadcasts(
                    link.addresses
                        .iter()
                        .map(|own| (own.address, own.prefix_length)),
                );
            }
            if !port.addresses.is_empty()
                && config.dataplane.forwarding == config::Forwarding::Static
            {
                facts.addresses = port.addresses.iter().map(|own| own.address).collect();
                facts.broadcasts = broadcasts(
                    port.addresses
                        .iter()
                        .map(|own| (own.address, own.prefix_length)),
                );
            }
            facts
        })
        .collect()
}

/// The addresses of the machine: the kernel's, and the file's own with static forwarding.
#[must_use]
pub fn local_addresses(config: &Config, view: &View) -> Vec<IpAddr> {
    let mut addresses = view.local_addresses.clone();
    if config.dataplane.forwarding == config::Forwarding::Static {
        addresses.extend(
            config
                .ports
                .iter()
                .flat_map(|port| &port.addresses)
                .map(|own| own.address),
        );
    }
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// The next generation.
///
/// # Errors
/// [`AssemblyError`].
pub fn snapshot(
    generation: u64,
    config: &Config,
    sas: &[Arc<Sa>],
    view: &View,
    ports: Arc<[PortFacts]>,
) -> Result<Snapshot, AssemblyError> {
    let unmatched = match config.dataplane.unmatched {
        config::Unmatched::Kernel => Unmatched::Kernel,
        config::Unmatched::Discard => Unmatched::Discard,
    };
    let local = local_addresses(config, view);
    let tables = assembly::tables(sas, &config.policies, local, unmatched)?;
    let first = ports
        .iter()
        .position(|port| port.side == Side::Protected)
        .unwrap_or(0);
    let (fib, neighbors) = routes(config, view);
    Ok(Snapshot {
        generation,
        tables: Arc::new(tables),
        fib,
        neighbors,
        ports,
        first_protected: PortIndex(u16::try_from(first).unwrap_or(0)),
    })
}

/// Routes and neighbours of the next generation.
#[must_use]
pub fn routes(config: &Config, view: &View) -> (Arc<Fib>, Arc<Neighbors>) {
    match config.dataplane.forwarding {
        config::Forwarding::Kernel => (
            Arc::new(Fib::new(view.routes.clone())),
            Arc::new(Neighbors::new(&view.neighbors)),
        ),
        config::Forwarding::Static => (
            Arc::new(assembly::static_fib(config)),
            Arc::new(assembly::static_neighbors(config)),
        ),
    }
}

/// What the XDP programs are told.
#[must_use]
pub fn steering(config: &Config, sas: &[Arc<Sa>], local: &[IpAddr]) -> SteeringTables {
    let mut tables = SteeringTables {
        unmatched: match config.dataplane.unmatched {
            config::Unmatched::Kernel => steer::Unmatched::Kernel,
            config::Unmatched::Discard => steer::Unmatched::Discard,
        },
        reassemble_udp: config.dataplane.fragments.reassemble_udp,
        ..SteeringTables::default()
    };
    for address in local {
        tables.local.insert(*address);
        tables.endpoints.insert(*address, false);
    }
    for sa in sas {
        let parameters = &sa.parameters;
        if parameters.direction != Direction::In {
            continue;
        }
        tables.endpoints.insert(parameters.destination, false);
        if parameters.udp_encapsulation.is_some() {
            tables.peers.insert(sa.peer_address());
        }
    }
    tables.encapsulation = encapsulation(sas);
    tables.put_policies(
        ordered(&config.policies)
            .into_iter()
            .map(|policy| SteeringPolicy {
                direction: policy.direction,
                action: policy.action,
                local: &policy.selector.local,
                remote: &policy.selector.remote,
            }),
    );
    tables
}

/// The addresses and UDP ports at which encapsulated ESP is taken.
#[must_use]
pub fn encapsulation(sas: &[Arc<Sa>]) -> BTreeSet<(IpAddr, u16)> {
    let inbound = sas
        .iter()
        .filter(|sa| sa.parameters.direction == Direction::In);
    let ports = inbound.filter_map(|sa| {
        let udp = sa.parameters.udp_encapsulation?;
        Some([udp.destination_port, NAT_TRAVERSAL].map(|port| (sa.parameters.destination, port)))
    });
    ports.flatten().collect()
}

/// Policies in the order of the SPD.
#[must_use]
pub fn ordered(policies: &[PolicyParameters]) -> Vec<&PolicyParameters> {
    let mut ordered: Vec<_> = policies.iter().collect();
    ordered.sort_by_key(|policy| policy.priority);
    ordered
}

/// The smallest inner packet that fits every outbound policy's way, bytes: the host port's MTU.
#[must_use]
pub fn host_mtu(snapshot: &Snapshot) -> usize {
    const LONGEST: u16 = 1500;
    let tables = &snapshot.tables;
    let fits = |bundle: &Bundle| {
        let sas = bundle.iter().filter_map(|slot| tables.sad.by_slot(*slot));
        let sas: Vec<&Sa> = sas.map(|sa| &**sa).collect();
        let outer = sas.last()?;
        let destination = outer.peer_address();
        let version = if destination.is_ipv4() {
            ipsec::packet::Version::V4
        } else {
            ipsec::packet::Version::V6
        };
        let bits = ipsec::packet::address_bits(destination);
        let hop = snapshot.fib.lookup(version, bits, 0)?;
        let port = snapshot.ports[hop.port.index()].mtu;
        let mtu = if hop.mtu == 0 {
            port
        } else {
            port.min(hop.mtu)
        };
        //= T126 (RFC 4301 section 8.2.1)
        let mtu = mtu.min(outer.published.path_mtu.bytes());
        Some(ipsec::outbound::largest_inner(&sas, mtu))
    };
    let bundles = tables
        .outbound
        .policies()
        .iter()
        .flat_map(|it| it.bundles.iter());
    let smallest = bundles.filter_map(fits).min().unwrap_or(LONGEST);
    usize::from(smallest.max(1280))
}

/// Every route that the machine's own protected traffic needs into the host port: each remote
/// prefix of an outbound protect policy, with the machine's address that the policy's `local`
/// holds.
#[must_use]
pub fn host_routes(config: &Config, local: &[IpAddr]) -> Vec<(IpAddr, u8, IpAddr)> {
    let mut routes = Vec::new();
    for policy in &config.policies {
        if policy.direction != Direction::Out || policy.action != Action::Protect {
            continue;
        }
        for prefix in steer::prefixes_of(&policy.selector.remote) {
            let (network, length) = prefix.network();
            let source = local.iter().find(|own| {
                own.is_ipv4() == network.is_ipv4() && holds(&policy.selector.local, **own)
            });
            if let Some(source) = source {
                routes.push((network, length, *source));
            }
        }
    }
    routes.sort_unstable();
    routes.dedup_by_key(|(network, length, _)| (*network, *length));
    routes
}

fn holds(selector: &ipsec::policy::AddressSelector, address: IpAddr) -> bool {
    use ipsec::policy::AddressSelector;
    let bits = ipsec::packet::address_bits(address);
    match selector {
        AddressSelector::Any => !address.is_loopback(),
        AddressSelector::Ranges(ranges) => ranges.iter().any(|range| {
            (range.version == ipsec::packet::Version::V4) == address.is_ipv4()
                && (range.first..=range.last).contains(&bits)
        }),
    }
}
