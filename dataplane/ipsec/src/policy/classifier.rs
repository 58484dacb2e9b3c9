//! The SPD's fast form: the same answer as [`super::database`] at a cost that does not grow with
//! the number of policies.
//!
//! Address selectors become prefixes, and all policies with the same two prefix lengths share one
//! hash table keyed by both prefixes (tuple space search, Srinivasan 1999). Tables are asked in
//! the order of their best policy and passed over once no better answer can come; where there are
//! many, the lengths that cover each address say which to ask. What shares both prefixes (or was
//! too ragged for prefixes) stands in a [`tree`] over all fields. A candidate is compared with the
//! whole selector, unless its place alone proves that it takes the packet.

mod pairs;

mod prefix;

mod tree;

use arrayvec::ArrayVec;
use hashbrown::HashMap;

use crate::limits::BATCH;
use crate::packet::{Packet, Version};
use crate::policy::Selector;
use crate::policy::selector::Sides;
use crate::sa::association::Direction;
use pairs::{Pair, Pairs, Place};
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
    /// Of each selector; none where it is its rank.
    positions: Vec<u32>,
}

#[derive(Debug)]
struct Table {
    /// The best rank in it.
    best: u32,
    remote_mask: u128,
    /// Bit in the answer of [`Lengths::covering`].
    remote_bit: u64,
    trees: Pairs<Tree>,
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
        if (0..)
            .zip(&positions)
            .all(|(rank, position)| rank == *position)
        {
            positions.clear();
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
    #[must_use]
    pub fn first(&self, packet: &Packet) -> Option<u32> {
        let mut found = [None];
        self.first_of_each(&[packet], &mut found);
        found[0]
    }

    /// [`Self::first`] for each of `packets`, at most [`BATCH`], into the same place of `found`:
    /// the waits for memory overlap, and what follows a packet of the same flow is not looked up.
    /// Answers a bit for each packet that does.
    //= T98 (RFC 4301 section 4.4.1)
    pub fn first_of_each(&self, packets: &[&Packet], found: &mut [Option<u32>]) -> u64 {
        let packets = &packets[..packets.len().min(BATCH)];
        let leaders = leaders(packets);
        let mut asked: ArrayVec<Asked, BATCH> = ArrayVec::new();
        for (version, family) in [(Version::V4, &self.v4), (Version::V6, &self.v6)] {
            asked.clear();
            for index in bits(leaders) {
                let packet = packets[index];
                if packet.version == version {
                    asked.push(Asked::new(index, Sides::of(packet, self.direction)));
                }
            }
            if asked.is_empty() {
                continue;
            }
            family.search(&mut asked, &self.selectors, packets, self.direction);
            for one in &asked {
                found[one.index] = self.position(one.best);
            }
        }
        let followers = !leaders & low_bits(packets.len());
        for index in bits(followers) {
            found[index] = found[index - 1];
        }
        followers
    }

    fn position(&self, rank: u32) -> Option<u32> {
        if rank == UNFOUND || self.positions.is_empty() {
            return (rank != UNFOUND).then_some(rank);
        }
        self.positions.get(rank as usize).copied()
    }
}

/// A bit for each packet that is not of the same flow as the one before it.
fn leaders(packets: &[&Packet]) -> u64 {
    let mut leaders = u64::from(!packets.is_empty());
    for (index, pair) in (1..).zip(packets.array_windows()) {
        let [before, packet] = pair;
        leaders |= u64::from(!packet.is_of_the_flow_of(before)) << index;
    }
    leaders
}

/// The lowest `count` bits; all of them from 64 on.
const fn low_bits(count: usize) -> u64 {
    if count < BATCH {
        (1 << count) - 1
    } else {
        u64::MAX
    }
}

/// The places of the bits that are set.
fn bits(mut set: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let place = set.trailing_zeros();
        set &= set.wrapping_sub(1);
        (place < u64::BITS).then_some(place as usize)
    })
}

const _: () = assert!(BATCH <= u64::BITS as usize);

/// The rank of no selector.
const UNFOUND: u32 = u32::MAX;

/// A packet on its way through the tables.
struct Asked {
    /// Its place in the burst.
    index: usize,
    sides: Sides,
    /// Prefix lengths that cover either address.
    local: u64,
    remote: u64,
    /// The least rank so far.
    best: u32,
    /// Whether the current table is asked, for what, and what it answered.
    wanted: bool,
    pair: Pair,
    place: Place,
    candidate: u32,
}

impl Asked {
    fn new(index: usize, sides: Sides) -> Self {
        Self {
            index,
            sides,
            local: u64::MAX,
            remote: u64::MAX,
            best: UNFOUND,
            wanted: false,
            pair: (0, 0),
            place: Place::default(),
            candidate: 0,
        }
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

    /// Finds the least rank that takes each of the packets.
    fn search(
        &self,
        asked: &mut [Asked],
        selectors: &[Selector],
        packets: &[&Packet],
        direction: Direction,
    ) {
        if self.table_count > PROBED_BLINDLY {
            self.local
                .covering(asked, |one: &mut Asked| (one.sides.local, &mut one.local));
            self.remote
                .covering(asked, |one: &mut Asked| (one.sides.remote, &mut one.remote));
        }
        for group in &self.groups {
            if asked.iter().all(|one| one.best <= group.best) {
                break;
            }
            for table in &group.tables {
                if asked.iter().all(|one| one.best <= table.best) {
                    break;
                }
                table.ask(group, asked);
                for one in asked.iter_mut().filter(|one| one.wanted) {
                    one.candidate = table.trees.candidate(one.place);
                }
                for one in asked.iter_mut().filter(|one| one.wanted) {
                    if let Some(tree) = table.trees.find(one.place, one.candidate, &one.pair)
                        && let Some(rank) = tree.first(selectors, packets[one.index], direction)
                    {
                        one.best = one.best.min(rank);
                    }
                }
            }
        }
    }
}

impl Table {
    /// Notes which of the packets this table may know better than those before it, and where.
    fn ask(&self, group: &Group, asked: &mut [Asked]) {
        for one in asked {
            one.wanted = self.best < one.best
                && group.local_bit & one.local != 0
                && self.remote_bit & one.remote != 0;
            if one.wanted {
                let remote = one.sides.remote & self.remote_mask;
                one.pair = (one.sides.local & group.local_mask, remote);
                one.place = self.trees.place(&one.pair);
            }
        }
    }
}

fn compile(
    buckets: HashMap<Pair, Vec<Candidate>, foldhash::fast::RandomState>,
    version: Version,
    selectors: &[Selector],
) -> Pairs<Tree> {
    let trees = buckets.into_iter();
    Pairs::new(trees.map(|(pair, candidates)| (pair, Tree::new(candidates, version, selectors))))
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
