//! `[[port]]`, `[[route]]` and `[[neighbor]]`.

use std::net::IpAddr;

use crate::config::Purpose;
use crate::config::prefix::{self, PrefixError};
use crate::config::reader::{Entry, Findings, Table};
use crate::config::report::quoted;
use crate::config::settings::{NeighborConfig, PortAddress, PortConfig, RouteConfig};
use crate::port::settings::{Checksum, Side};
use crate::route::{Mac, PortIndex};

/// Smallest MTU of a port: IPv6 demands it (RFC 8200 §5).
const MTU_MINIMUM: u16 = 1280;

/// What is known of a port, mistakes or not.
pub(super) struct PortDraft {
    pub(super) line: usize,
    /// Name and its line.
    pub(super) name: Option<(String, usize)>,
    pub(super) side: Option<Side>,
    /// Everything, if nothing required is missing.
    pub(super) settings: Option<PortConfig>,
}

const SIDES: [(&str, Side); 2] = [
    ("unprotected", Side::Unprotected),
    ("protected", Side::Protected),
];

/// Reads one `[[port]]`.
pub(super) fn read_port<'d>(
    found: &mut Findings<'d>,
    mut table: Table<'d>,
    purpose: Purpose,
) -> PortDraft {
    let name = table.require(found, "name", "the name of an interface");
    let name = name.and_then(|entry| {
        let name = entry.name(found)?;
        if name == "host" {
            entry.refuse(found, "\"host\" is the machine itself", "another name");
        }
        Some((name.to_owned(), entry.line))
    });
    let side = table.require(found, "side", "unprotected | protected");
    let side = side.and_then(|entry| entry.choice(found, &SIDES));
    let addresses = match table.take(found, "address") {
        Some(entry) => read_addresses(found, &entry),
        None => Vec::new(),
    };
    let mac = match (table.take(found, "mac"), purpose) {
        (Some(entry), _) => read_mac(found, &entry),
        (None, Purpose::Replay) => {
            table.missing(
                found,
                "mac",
                "replay wants a MAC address, like 02:00:00:00:00:01",
            );
            None
        }
        (None, Purpose::Run | Purpose::Check) => None,
    };
    let mtu = table.take(found, "mtu");
    let mtu = mtu.and_then(|entry| entry.number(found, MTU_MINIMUM..=u16::MAX));
    let checksum = table.take(found, "checksum").and_then(|entry| {
        let choices = [
            ("auto", Checksum::Auto),
            ("complete", Checksum::Complete),
            ("trust", Checksum::Trust),
        ];
        entry.choice(found, &choices)
    });
    let line = table.line;
    table.finish(found);
    let settings = name.as_ref().zip(side).map(|((name, _), side)| PortConfig {
        name: name.clone(),
        side,
        addresses,
        mac,
        mtu,
        checksum: checksum.unwrap_or_default(),
    });
    PortDraft {
        line,
        name,
        side,
        settings,
    }
}

fn read_addresses<'d>(found: &mut Findings<'d>, entry: &Entry<'d>) -> Vec<PortAddress> {
    let accepted = "a list of ADDRESS/LENGTH";
    let mut addresses = Vec::new();
    for element in entry.elements(found, false, accepted).unwrap_or_default() {
        let Some(text) = element.text(found, accepted) else {
            continue;
        };
        match prefix::with_length(text) {
            Some((address, prefix_length)) => addresses.push(PortAddress {
                address,
                prefix_length,
            }),
            None => element.refuse(
                found,
                format!("{} is no address with prefix length", quoted(text)),
                accepted,
            ),
        }
    }
    addresses
}

fn read_mac<'d>(found: &mut Findings<'d>, entry: &Entry<'d>) -> Option<Mac> {
    let accepted = "a unicast MAC address, like 02:00:00:00:00:01";
    let text = entry.text(found, accepted)?;
    let mac = prefix::mac(text).filter(|mac| mac[0] & 1 == 0 && *mac != [0; 6]);
    if mac.is_none() {
        entry.refuse(found, format!("{} is none", quoted(text)), accepted);
    }
    mac
}

/// The port of that name among the drafts.
fn port_index<'d>(
    found: &mut Findings<'d>,
    entry: &Entry<'d>,
    ports: &[PortDraft],
) -> Option<PortIndex> {
    let name = entry.name(found)?;
    let position = ports
        .iter()
        .position(|port| port.name.as_ref().is_some_and(|(known, _)| known == name));
    // A port whose name is mistaken could be the one that is meant.
    if position.is_none() && ports.iter().all(|port| port.name.is_some()) {
        let accepted = "the name of a port of this file";
        entry.refuse(found, format!("no port {}", quoted(name)), accepted);
    }
    u16::try_from(position?).ok().map(PortIndex)
}

/// A route and the line of its prefix.
pub(super) fn read_route<'d>(
    found: &mut Findings<'d>,
    mut table: Table<'d>,
    ports: &[PortDraft],
) -> Option<(RouteConfig, usize)> {
    let prefix = table.require(found, "prefix", "ADDRESS/LENGTH");
    let port = table.require(found, "port", "the name of a port of this file");
    let via = table.take(found, "via");
    table.finish(found);
    let line = prefix.as_ref().map_or(0, |entry| entry.line);
    let prefix = prefix.and_then(|entry| read_prefix(found, &entry));
    let port = port.and_then(|entry| port_index(found, &entry, ports));
    let accepted = "an address of the prefix's family, or IPv6 for an IPv4 prefix";
    let via = match via {
        Some(entry) => {
            let via = entry.address(found, accepted);
            if let (Some((address, _)), Some(via)) = (prefix, via)
                && address.is_ipv6()
                && via.is_ipv4()
            {
                entry.refuse(found, "an IPv4 gateway of an IPv6 prefix", accepted);
            }
            via
        }
        None => None,
    };
    let (address, prefix_length) = prefix?;
    Some((
        RouteConfig {
            address,
            prefix_length,
            port: port?,
            via,
        },
        line,
    ))
}

fn read_prefix<'d>(found: &mut Findings<'d>, entry: &Entry<'d>) -> Option<(IpAddr, u8)> {
    let text = entry.text(found, "ADDRESS/LENGTH")?;
    let why = match prefix::prefix(text) {
        Ok(prefix) => return Some(prefix),
        Err(PrefixError::Form) => format!("{} is no prefix", quoted(text)),
        Err(PrefixError::HostBits) => format!("{} has host bits set", quoted(text)),
    };
    entry.refuse(found, why, "ADDRESS/LENGTH with host bits zero");
    None
}

/// A neighbour and the line of its address.
pub(super) fn read_neighbor<'d>(
    found: &mut Findings<'d>,
    mut table: Table<'d>,
    ports: &[PortDraft],
) -> Option<(NeighborConfig, usize)> {
    let port = table.require(found, "port", "the name of a port of this file");
    let address = table.require(found, "address", "an address");
    let mac = table.require(found, "mac", "a MAC address");
    table.finish(found);
    let line = address.as_ref().map_or(0, |entry| entry.line);
    let port = port.and_then(|entry| port_index(found, &entry, ports));
    let address = address.and_then(|entry| entry.address(found, "an address"));
    let mac = mac.and_then(|entry| read_mac(found, &entry));
    Some((
        NeighborConfig {
            port: port?,
            address: address?,
            mac: mac?,
        },
        line,
    ))
}
