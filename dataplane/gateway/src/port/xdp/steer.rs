//! What the XDP program is told: its tables in plain types, made from policies, and what its maps
//! then hold. Pure: nothing here makes a system call.
//!
//! The two LPM tries of a direction say which policy *groups* (position modulo 64) may name an
//! address. Each entry carries the groups of every prefix that covers it, so one longest match
//! answers for all of them; a packet is taken when source and destination share a group. That
//! never misses a policy; what it takes too much the worker finds to be unmatched.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipsec::packet::{self, Version};
use ipsec::policy::{Action, AddressRange, AddressSelector};
use ipsec::sa::association::Direction;
use xipsec_abi::{
    Address, Encapsulation, Endpoint, Groups, PrefixKey, SaKey, TRIE_FAMILY_BITS, limits,
};

use crate::port::settings::Side;

/// An address prefix. The order is that of a walk which meets a prefix before those it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    version: Version,
    /// Network address as [`packet::address_bits`] has it, host bits zero.
    bits: u128,
    /// Of 128; an IPv4 prefix of n bits has 96 + n.
    length: u8,
}

impl Prefix {
    fn new(version: Version, bits: u128, length: u8) -> Self {
        let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
        Self {
            version,
            bits: bits & mask,
            length,
        }
    }

    /// Network address and length in bits, as people write them.
    #[must_use]
    pub fn network(self) -> (IpAddr, u8) {
        let length = match self.version {
            Version::V4 => self.length.saturating_sub(96),
            Version::V6 => self.length,
        };
        (packet::address(self.version, self.bits), length)
    }

    /// The prefix of `length` bits that `address` lies in; longer than the family's addresses
    /// means the address alone.
    #[must_use]
    pub fn of(address: IpAddr, length: u8) -> Self {
        let bits = packet::address_bits(address);
        match address {
            IpAddr::V4(_) => Self::new(Version::V4, bits, 96 + length.min(32)),
            IpAddr::V6(_) => Self::new(Version::V6, bits, length.min(128)),
        }
    }

    /// Everything of one family.
    const fn all(version: Version) -> Self {
        match version {
            // ::ffff:0:0/96, as every IPv4 address is kept.
            Version::V4 => Self {
                version,
                bits: 0xffff << 32,
                length: 96,
            },
            Version::V6 => Self {
                version,
                bits: 0,
                length: 0,
            },
        }
    }

    /// Whether every address of `other` is one of this.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        self.version == other.version
            && self.length <= other.length
            && Self::new(other.version, other.bits, self.length).bits == self.bits
    }

    /// One bit shorter; `None` for everything.
    fn parent(self) -> Option<Self> {
        (self.length > Self::all(self.version).length)
            .then(|| Self::new(self.version, self.bits, self.length - 1))
    }

    fn key(self) -> PrefixKey {
        let address: Address = packet::address(self.version, self.bits).into();
        let family_bits = Self::all(self.version).length;
        PrefixKey {
            length: TRIE_FAMILY_BITS + u32::from(self.length - family_bits),
            address,
        }
    }
}

/// The prefixes that make up a range, fewest first: an address list "a-b" has no prefix of its own.
#[must_use]
pub fn prefixes_of_range(range: AddressRange) -> Vec<Prefix> {
    let shortest = Prefix::all(range.version).length;
    let mut prefixes = Vec::new();
    let mut first = range.first;
    while first <= range.last {
        // The longest run of addresses that starts here, is aligned, and does not pass the end.
        let aligned = first.trailing_zeros().min(128 - u32::from(shortest));
        let fitting = (range.last - first).checked_add(1).map_or(128, u128::ilog2);
        let size = aligned.min(fitting);
        let length = u8::try_from(128 - size).unwrap_or(shortest);
        prefixes.push(Prefix::new(range.version, first, length));
        let Some(next) = 1_u128
            .checked_shl(size)
            .and_then(|run| first.checked_add(run))
        else {
            break;
        };
        first = next;
    }
    prefixes
}

/// All prefixes that make up a selector's addresses.
#[must_use]
pub fn prefixes_of(selector: &AddressSelector) -> Vec<Prefix> {
    match selector {
        AddressSelector::Any => vec![Prefix::all(Version::V4), Prefix::all(Version::V6)],
        AddressSelector::Ranges(ranges) => {
            ranges.iter().copied().flat_map(prefixes_of_range).collect()
        }
    }
}

/// Prefixes and their groups: one LPM trie's content.
pub type Groupings = BTreeMap<Prefix, Groups>;

/// The two tries of one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrefixPair {
    /// The protected side: source outbound, destination inbound.
    pub local: Groupings,
    /// The other side.
    pub remote: Groupings,
}

/// What of a policy concerns steering.
#[derive(Clone, Copy, Debug)]
pub struct SteeringPolicy<'a> {
    /// In or out.
    pub direction: Direction,
    /// What it does: whatever it is, the SPD decides; protect and discard also keep packets from
    /// passing in the clear.
    pub action: Action,
    /// Protected side.
    pub local: &'a AddressSelector,
    /// Other side.
    pub remote: &'a AddressSelector,
}

/// What no policy's prefixes touch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unmatched {
    /// Passes to the kernel.
    #[default]
    Kernel,
    /// Dropped, counted.
    Discard,
}

/// Everything that the programs of all ports are told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SteeringTables {
    /// Where ESP and AH are ours: every address of the machine, every `in` SA's destination. True:
    /// the kernel serves the address too and only [`Self::sas`] are ours.
    pub endpoints: BTreeMap<IpAddr, bool>,
    /// Endpoint and UDP port at which encapsulated ESP is taken.
    pub encapsulation: BTreeSet<(IpAddr, u16)>,
    /// Sources of `in` SAs with encapsulation: whose keepalives are consumed.
    pub peers: BTreeSet<IpAddr>,
    /// (destination, protocol, SPI) of the SAs of listed endpoints.
    pub sas: BTreeSet<(IpAddr, u8, u32)>,
    /// The machine's own addresses.
    pub local: BTreeSet<IpAddr>,
    /// For protected ports.
    pub outbound: PrefixPair,
    /// For unprotected ports.
    pub inbound: PrefixPair,
    /// The rest.
    pub unmatched: Unmatched,
    /// UDP fragments to endpoints are ours.
    pub reassemble_udp: bool,
}

impl SteeringTables {
    /// Replaces both prefix pairs by those of `policies`, in the SPD's order.
    pub fn put_policies<'a>(&mut self, policies: impl IntoIterator<Item = SteeringPolicy<'a>>) {
        let (mut outbound, mut inbound) = (PrefixPair::default(), PrefixPair::default());
        let (mut outbound_count, mut inbound_count) = (0, 0);
        for policy in policies {
            let (pair, count) = match policy.direction {
                Direction::Out => (&mut outbound, &mut outbound_count),
                Direction::In => (&mut inbound, &mut inbound_count),
            };
            let any = 1_u64 << (*count % limits::GROUPS);
            *count += 1;
            let closed = if policy.action == Action::Bypass {
                0
            } else {
                any
            };
            let groups = Groups { any, closed };
            insert(&mut pair.local, policy.local, groups);
            insert(&mut pair.remote, policy.remote, groups);
        }
        for table in [
            &mut outbound.local,
            &mut outbound.remote,
            &mut inbound.local,
            &mut inbound.remote,
        ] {
            let distinct = inherit(std::mem::take(table));
            *table = inherit(collapse(distinct, limits::PREFIXES as usize));
        }
        self.outbound = outbound;
        self.inbound = inbound;
    }
}

fn insert(table: &mut Groupings, selector: &AddressSelector, groups: Groups) {
    for prefix in prefixes_of(selector) {
        add_groups(table, prefix, groups);
    }
}

fn add_groups(table: &mut Groupings, prefix: Prefix, groups: Groups) {
    let entry = table.entry(prefix).or_default();
    *entry = entry.union(groups);
}

/// Shortens the longest prefixes of the larger family, bit by bit, until `limit` are left. What a
/// shorter prefix covers more is taken too much, never too little.
fn collapse(mut table: Groupings, limit: usize) -> Groupings {
    while table.len() > limit {
        let version4 = table
            .keys()
            .filter(|prefix| prefix.version == Version::V4)
            .count();
        let version = if version4 * 2 >= table.len() {
            Version::V4
        } else {
            Version::V6
        };
        let of_family = |prefix: &&Prefix| prefix.version == version;
        let Some(longest) = table
            .keys()
            .filter(of_family)
            .map(|prefix| prefix.length)
            .max()
        else {
            break;
        };
        let mut shorter = Groupings::new();
        for (prefix, groups) in table {
            let is_longest = prefix.version == version && prefix.length == longest;
            let kept = if is_longest {
                prefix.parent().unwrap_or(prefix)
            } else {
                prefix
            };
            add_groups(&mut shorter, kept, groups);
        }
        table = shorter;
    }
    table
}

/// Gives every prefix the groups of those that cover it, and leaves out what then adds nothing.
fn inherit(table: Groupings) -> Groupings {
    let mut inherited = Groupings::new();
    let mut covering: Vec<(Prefix, Groups)> = Vec::new();
    for (prefix, own) in table {
        while covering
            .last()
            .is_some_and(|(outer, _)| !outer.covers(prefix))
        {
            covering.pop();
        }
        let outer = covering
            .last()
            .map_or_else(Groups::default, |(_, groups)| *groups);
        if !covering.is_empty() && outer.contains(own) {
            continue;
        }
        let groups = outer.union(own);
        covering.push((prefix, groups));
        inherited.insert(prefix, groups);
    }
    inherited
}

/// What the trie answers for `prefix`: its own groups or those of the closest that covers it.
fn effective(table: &Groupings, prefix: Prefix) -> Groups {
    let mut candidate = Some(prefix);
    while let Some(current) = candidate {
        if let Some(groups) = table.get(&current) {
            return *groups;
        }
        candidate = current.parent();
    }
    Groups::default()
}

/// A trie that takes whatever either of two takes: what stands in the map while it changes from
/// one to the other, so that no packet of a policy that is in both is missed meanwhile.
#[must_use]
pub fn union(old: &Groupings, new: &Groupings) -> Groupings {
    let prefixes: BTreeSet<Prefix> = old.keys().chain(new.keys()).copied().collect();
    let both = |prefix| (prefix, effective(old, prefix).union(effective(new, prefix)));
    prefixes.into_iter().map(both).collect()
}

/// What the maps of one port hold, as keys and values of the program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct MapContents {
    pub(super) endpoints: BTreeMap<Address, Endpoint>,
    pub(super) encapsulation: BTreeMap<Encapsulation, u8>,
    pub(super) peers: BTreeMap<Address, u8>,
    pub(super) sas: BTreeMap<SaKey, u8>,
    pub(super) local: BTreeMap<Address, u8>,
    pub(super) source: Groupings,
    pub(super) destination: Groupings,
}

impl MapContents {
    /// Those of a port on `side`; an unprotected one alone knows endpoints.
    pub(super) fn of(tables: &SteeringTables, side: Side) -> Self {
        let local = tables
            .local
            .iter()
            .map(|address| ((*address).into(), 1))
            .collect();
        if side == Side::Protected {
            let PrefixPair {
                local: source,
                remote: destination,
            } = tables.outbound.clone();
            return Self {
                local,
                source,
                destination,
                ..Self::default()
            };
        }
        let endpoint = |(address, listed): (&IpAddr, &bool)| {
            (
                (*address).into(),
                Endpoint {
                    listed: u32::from(*listed),
                },
            )
        };
        let encapsulation = |&(destination, port): &(IpAddr, u16)| {
            let (destination, port) = (destination.into(), u64::from(port));
            (Encapsulation { destination, port }, 1)
        };
        let sa = |&(destination, protocol, spi): &(IpAddr, u8, u32)| {
            let (destination, protocol) = (destination.into(), u32::from(protocol));
            (
                SaKey {
                    destination,
                    spi,
                    protocol,
                },
                1,
            )
        };
        Self {
            endpoints: tables.endpoints.iter().map(endpoint).collect(),
            encapsulation: tables.encapsulation.iter().map(encapsulation).collect(),
            peers: tables
                .peers
                .iter()
                .map(|address| ((*address).into(), 1))
                .collect(),
            sas: tables.sas.iter().map(sa).collect(),
            local,
            source: tables.inbound.remote.clone(),
            destination: tables.inbound.local.clone(),
        }
    }
}

impl From<Prefix> for PrefixKey {
    fn from(prefix: Prefix) -> Self {
        prefix.key()
    }
}

#[cfg(test)]
mod tests;
