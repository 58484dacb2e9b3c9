//! What no table can know alone: names, duplicates, and what refers to what.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;

use ipsec::sa::association::Direction;

use crate::config::dataplane;
use crate::config::policies::PolicyDraft;
use crate::config::ports::PortDraft;
use crate::config::reader::Findings;
use crate::config::report::quoted;
use crate::config::sas::SaDraft;
use crate::config::secrets::Key;
use crate::config::settings::{NeighborConfig, RouteConfig};
use crate::port::settings::Side;

/// Everything of a file.
pub(super) struct Drafts<'d> {
    pub(super) dataplane: dataplane::Draft,
    pub(super) ports: Vec<PortDraft>,
    pub(super) sas: Vec<SaDraft>,
    pub(super) policies: Vec<PolicyDraft<'d>>,
    pub(super) routes: Vec<(RouteConfig, usize)>,
    pub(super) neighbors: Vec<(NeighborConfig, usize)>,
}

/// Compares the tables with each other.
pub(super) fn check(found: &mut Findings<'_>, drafts: &Drafts<'_>) {
    check_ports(found, drafts);
    names(found, drafts.sas.iter().map(|sa| &sa.name));
    names(found, drafts.policies.iter().map(|policy| &policy.name));
    check_identities(found, &drafts.sas);
    check_keys(found, &drafts.sas);
    check_policies(found, drafts);
    check_persistence(found, drafts);
    check_tables(found, drafts);
}

/// Every later one of two equals.
fn duplicates<K: Hash + Eq, L: Copy>(
    items: impl Iterator<Item = (K, L)>,
    mut told: impl FnMut(&K, L, L),
) {
    let mut known: HashMap<K, L> = HashMap::new();
    for (key, place) in items {
        match known.entry(key) {
            Entry::Occupied(first) => told(first.key(), *first.get(), place),
            Entry::Vacant(entry) => {
                entry.insert(place);
            }
        }
    }
}

fn names<'n>(found: &mut Findings<'_>, names: impl Iterator<Item = &'n Option<(String, usize)>>) {
    let names = names.flatten().map(|(name, line)| (name.as_str(), *line));
    duplicates(names, |name, first, line| {
        let why = format!(
            "{} stands in line {first} too (names are unique)",
            quoted(name)
        );
        found.error(line, "name", why);
    });
}

fn check_ports(found: &mut Findings<'_>, drafts: &Drafts<'_>) {
    let ports = &drafts.ports;
    names(found, ports.iter().map(|port| &port.name));
    let header = ports.first().map_or(1, |port| port.line);
    if ports.iter().all(|port| port.side.is_some()) {
        for (side, word) in [
            (Side::Unprotected, "unprotected"),
            (Side::Protected, "protected"),
        ] {
            if !ports.iter().any(|port| port.side == Some(side)) {
                let why = format!("missing: none of side {word} (at least one of each side)");
                found.error(header, "port", why);
            }
        }
    }
    let host_port = drafts.dataplane.settings.host_port.as_deref();
    for (name, line) in ports.iter().filter_map(|port| port.name.as_ref()) {
        if host_port == Some(name) {
            // Whichever stands later; the default of `host_port` stands nowhere.
            let host_port_line = drafts.dataplane.host_port_line;
            let (line, key) = if host_port_line > *line {
                (host_port_line, "host_port")
            } else {
                (*line, "name")
            };
            let why = format!("{} is both a port and host_port (two names)", quoted(name));
            found.error(line, key, why);
        }
    }
}

fn check_identities(found: &mut Findings<'_>, sas: &[SaDraft]) {
    let identities = sas.iter().filter_map(|sa| {
        let (spi, line) = sa.spi?;
        Some(((spi, sa.destination?, sa.protocol?), line))
    });
    duplicates(identities, |(spi, destination, _), first, line| {
        let why = format!(
            "{spi} to {destination} stands in line {first} too (one SA for each SPI, destination \
             and protocol)"
        );
        found.error(line, "spi", why);
    });
}

/// Which of an SA's keys, and whether two uses of it are fatal.
#[derive(Clone, Copy)]
struct Use<'k> {
    key: &'k Key,
    counter_mode: bool,
    sa: usize,
}

fn check_keys(found: &mut Findings<'_>, sas: &[SaDraft]) {
    let mut known: HashMap<&[u8], Use<'_>> = HashMap::new();
    for (sa, draft) in sas.iter().enumerate() {
        let encryption = draft.encryption.is_some_and(|it| it.is_counter_mode());
        let integrity = draft.integrity.is_some_and(|it| it.is_counter_mode());
        let keys = [
            (&draft.encryption_key, encryption),
            (&draft.integrity_key, integrity),
        ];
        for (key, counter_mode) in keys {
            let Some(key) = key.as_ref().filter(|key| !key.bytes.is_empty()) else {
                continue;
            };
            let this = Use {
                key,
                counter_mode,
                sa,
            };
            match known.get(key.bytes.expose()) {
                Some(first) if first.sa != sa => one_key(found, *first, this),
                Some(_) => {}
                None => {
                    known.insert(key.bytes.expose(), this);
                }
            }
        }
    }
}

//= T153 (RFC 4106 section 10, RFC 3686 section 7): both directions are two SAs
fn one_key(found: &mut Findings<'_>, first: Use<'_>, later: Use<'_>) {
    let why = format!("the same key as in line {}", first.key.line);
    let (line, name) = (later.key.line, &later.key.name);
    if first.counter_mode || later.counter_mode {
        let accepted = "a key of its own for each SA: in counter modes two SAs repeat IVs";
        found.error(line, name, format!("{why} ({accepted})"));
    } else {
        found.warning(line, name, &format!("{why}: give each SA its own"));
    }
}

fn check_policies(found: &mut Findings<'_>, drafts: &Drafts<'_>) {
    let mut sas: HashMap<&str, (Option<Direction>, bool)> = HashMap::new();
    for sa in &drafts.sas {
        if let Some((name, _)) = &sa.name {
            sas.entry(name).or_insert((sa.direction, false));
        }
    }
    // An SA whose name is mistaken could be the one that a policy means.
    let nameless = drafts.sas.iter().any(|sa| sa.name.is_none());
    for policy in &drafts.policies {
        for entry in &policy.sas {
            let Some(name) = entry.value.get_ref().as_str() else {
                continue;
            };
            let Some((direction, used)) = sas.get_mut(name) else {
                if nameless {
                    continue;
                }
                let accepted = "the name of an SA of this file";
                entry.refuse(found, format!("no SA {}", quoted(name)), accepted);
                continue;
            };
            *used = true;
            if let (Some(sa), Some(policy)) = (*direction, policy.direction)
                && sa != policy
            {
                let why = format!("{} has direction {}", quoted(name), word(sa));
                entry.refuse(found, why, &format!("SAs of direction {}", word(policy)));
            }
        }
    }
    for sa in &drafts.sas {
        let Some((name, _)) = &sa.name else { continue };
        if sas.get(name.as_str()).is_some_and(|(_, used)| !used) {
            let effect = match sa.direction {
                Some(Direction::In) => "it accepts nothing",
                _ => "it carries nothing",
            };
            let why = format!("no policy uses SA {}: {effect}", quoted(name));
            found.warning(sa.line, "sa", &why);
        }
    }
}

const fn word(direction: Direction) -> &'static str {
    match direction {
        Direction::In => "in",
        Direction::Out => "out",
    }
}

fn check_persistence(found: &mut Findings<'_>, drafts: &Drafts<'_>) {
    let counter_mode = drafts.sas.iter().find(|sa| sa.is_counter_mode());
    if drafts.dataplane.settings.state_dir.is_none() {
        let line = drafts.dataplane.state_dir_line;
        if counter_mode.is_some() {
            let why = "\"\" with keys of AEAD, CTR or GMAC, whose IVs would repeat after a restart \
                       (a directory)";
            found.error(line, "state_dir", why);
        } else if !drafts.sas.is_empty() {
            let why = "manual keys and no persistence: numbers start again after a restart, so the \
                       peer must not rely on anti-replay";
            found.warning(line, "state_dir", why);
        }
    }
    if let Some(sa) = counter_mode {
        let why = "counter-mode keys given by hand, which RFC 8221 section 3 advises against; what \
                   makes it safe is state_dir: keep it, and never restore it from a backup";
        found.warning(sa.line, "sa", why);
    }
}

fn check_tables(found: &mut Findings<'_>, drafts: &Drafts<'_>) {
    let routes = drafts.routes.iter();
    let routes = routes.map(|(route, line)| ((route.address, route.prefix_length), *line));
    duplicates(routes, |(address, length), first, line| {
        let why = format!("{address}/{length} stands in line {first} too (one route per prefix)");
        found.error(line, "prefix", why);
    });
    let neighbors = drafts.neighbors.iter();
    let neighbors = neighbors.map(|(it, line)| ((it.port, it.address), *line));
    duplicates(neighbors, |(_, address), first, line| {
        let why = format!("{address} stands in line {first} too (one entry per neighbour)");
        found.error(line, "address", why);
    });
}
