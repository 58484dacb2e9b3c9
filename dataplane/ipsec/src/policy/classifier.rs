//! The SPD's fast form: the same answer as [`super::database`] at a cost that does not grow with
//! the number of policies.
//!
//! Address selectors become prefixes, and all policies with the same two prefix lengths share one
//! hash table keyed by both prefixes (tuple space search, Srinivasan 1999). Tables are asked in
//! the order of their best policy and passed over once no better answer can come; where there are
//! many, the lengths that cover each address say which to ask. What shares both prefixes (or was
//! too ragged for prefixes) stands in a [`tree`] over all fields. A candidate is compared with the
//! whole selector, unless its place alone proves that it takes the packet.

mod prefix;

mod tree;

use hashbrown::HashMap;

use crate::packet::{Packet, Version};
use crate::policy::Selector;
use crate::policy::selector::Sides;
use crate::sa::association::Direction;
use prefix::{Cover, Lengths, Prefix};
use tree::{Candidate, Tree};

/// Tables up to which all are asked; above, the prefix lengths that cover the two addresses are
/// looked up first. 4: about where two binary searches cost less than the probes they save.
const PROBED_BLINDLY: usize = 4;

/// The compiled form of one ordered list of selectors.
#[derive(Debug)]
pub struct Classifier {
    direction: Direction,
    v4: Family,
    v6: Family,
    selectors: Vec<Selector>,
    positions: Vec<u32>,
}

/// Both prefixes of a table's entry, masked.
type Pair = (u128, u128);

#[derive(Debug)]
struct Table {
    /// The best rank in it.
    best: u32,
    remote_mask: u128,
    /// Bit in the answer of [`Lengths::covering`].
    remote_bit: u64,
    trees: HashMap<Pair, Tree, foldhash::fast::RandomState>,
}

/// The tables of one local prefix length.
#[derive(Debug)]
struct Group {
    /// The best rank in it.
    best: u32,
    local_mask: u128,
    /// Bit in the answer of [`Lengths::covering`].
    local_bit: u64,
    /// The best first.
    tables: Vec<Table>,
}

#[derive(Debug, Default)]
struct Family {
    /// The best first.
    groups: Vec<Group>,
    table_count: usize,
    local: Lengths,
    remote: Lengths,
}

impl Classifier {
    /// Compiles `selectors`, given in their order, each with the position that a hit answers.
    /// Selectors that an equal, earlier one hides are left out.
    #[must_use]
    pub fn new(direction: Direction, selectors: impl IntoIterator<Item = (u32, Selector)>) -> Self {
        let mut seen = hashbrown::HashSet::new();
        let mut kept = Vec::new();
        let mut positions = Vec::new();
        for (position, selector) in selectors {
            if seen.insert(selector.clone()) {
                kept.push(selector);
                positions.push(position);
            }
        }
        Self {
            direction,
            v4: Family::new(Version::V4, &kept),
            v6: Family::new(Version::V6, &kept),
            selectors: kept,
            positions,
        }
    }

    /// Position of the first selector that takes the packet.
    //= T98 (RFC 4301 section 4.4.1)
    #[must_use]
    pub fn first(&self, packet: &Packet) -> Option<usize> {
        let family = match packet.version {
            Version::V4 => &self.v4,
            Version::V6 => &self.v6,
        };
        let sides = Sides::of(packet, self.direction);
        let rank = family.first(&self.selectors, packet, self.direction, sides)?;
        self.positions
            .get(rank as usize)
            .map(|&position| position as usize)
    }
}

impl Family {
    fn new(version: Version, selectors: &[Selector]) -> Self {
        let mut members: HashMap<(u8, u8), HashMap<Pair, Vec<Candidate>, _>, _> =
            HashMap::<_, _, foldhash::fast::RandomState>::default();
        for (rank, selector) in (0..).zip(selectors) {
            let Some(cover) = Cover::of(selector, version) else {
                continue;
            };
            let candidate = Candidate::new(rank, selector, &cover);
            for &local in &cover.local {
                for &remote in &cover.remote {
                    members
                        .entry((local.length, remote.length))
                        .or_default()
                        .entry((local.bits, remote.bits))
                        .or_insert_with(Vec::new)
                        .push(candidate);
                }
            }
        }
        let local = Lengths::new(prefixes(&members, |(local, _), (bits, _)| (local, bits)));
        let remote = Lengths::new(prefixes(&members, |(_, remote), (_, bits)| (remote, bits)));
        let table_count = members.len();
        let mut groups: HashMap<u8, Vec<Table>> = HashMap::new();
        for ((local_length, remote_length), buckets) in members {
            let ranks = buckets.values().filter_map(|candidates| candidates.first());
            groups.entry(local_length).or_default().push(Table {
                best: ranks.map(|candidate| candidate.rank).min().unwrap_or(0),
                remote_mask: Prefix::mask(remote_length),
                remote_bit: remote.bit(remote_length),
                trees: compile(buckets, version, selectors),
            });
        }
        let mut groups: Vec<Group> = groups
            .into_iter()
            .map(|(length, mut tables)| {
                tables.sort_by_key(|table| table.best);
                Group {
                    best: tables.first().map_or(0, |table| table.best),
                    local_mask: Prefix::mask(length),
                    local_bit: local.bit(length),
                    tables,
                }
            })
            .collect();
        groups.sort_by_key(|group| group.best);
        Self {
            groups,
            table_count,
            local,
            remote,
        }
    }

    fn first(
        &self,
        selectors: &[Selector],
        packet: &Packet,
        direction: Direction,
        sides: Sides,
    ) -> Option<u32> {
        let (local, remote) = if self.table_count > PROBED_BLINDLY {
            (
                self.local.covering(sides.local),
                self.remote.covering(sides.remote),
            )
        } else {
            (u64::MAX, u64::MAX)
        };
        let mut best = u32::MAX;
        for group in &self.groups {
            if group.best >= best {
                break;
            }
            if group.local_bit & local == 0 {
                continue;
            }
            let prefix = sides.local & group.local_mask;
            for table in &group.tables {
                if table.best >= best {
                    break;
                }
                if table.remote_bit & remote == 0 {
                    continue;
                }
                let pair = (prefix, sides.remote & table.remote_mask);
                if let Some(tree) = table.trees.get(&pair)
                    && let Some(rank) = tree.first(selectors, packet, direction)
                {
                    best = best.min(rank);
                }
            }
        }
        (best != u32::MAX).then_some(best)
    }
}

fn compile(
    buckets: HashMap<Pair, Vec<Candidate>, foldhash::fast::RandomState>,
    version: Version,
    selectors: &[Selector],
) -> HashMap<Pair, Tree, foldhash::fast::RandomState> {
    buckets
        .into_iter()
        .map(|(pair, candidates)| (pair, Tree::new(candidates, version, selectors)))
        .collect()
}

type Members = HashMap<
    (u8, u8),
    HashMap<Pair, Vec<Candidate>, foldhash::fast::RandomState>,
    foldhash::fast::RandomState,
>;

/// The distinct prefixes of one side.
fn prefixes(members: &Members, side: impl Fn((u8, u8), Pair) -> (u8, u128)) -> Vec<Prefix> {
    let mut prefixes: Vec<Prefix> = members
        .iter()
        .flat_map(|(&lengths, buckets)| buckets.keys().map(move |&pair| (lengths, pair)))
        .map(|(lengths, pair)| {
            let (length, bits) = side(lengths, pair);
            Prefix { bits, length }
        })
        .collect();
    prefixes.sort_unstable();
    prefixes.dedup();
    prefixes
}

#[cfg(test)]
pub(crate) mod tests;
