//! Candidates that share a place in the tables, told apart by cutting one field at a time.

use crate::packet::{Packet, Upper, Version};
use crate::policy::selector::{Sides, matches, sees_upper};
use crate::policy::{AddressRange, AddressSelector, PortSelector, Selector};
use crate::sa::association::Direction;

use super::prefix::Cover;

/// Candidates compared one by one, at most, where cutting helps. 8: about what one more cut and
/// its cache miss cost.
const LEAF: usize = 8;

/// Entries that cutting may add, as a multiple of the candidates: bounds memory and build time
/// where selectors overlap.
const COPIES: usize = 4;

/// The value of a port or ICMP field that cannot be seen; one above all that can.
const UNSEEN: u128 = 1 << 16;

/// A policy in a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// Place in the order of selectors.
    pub(super) rank: u32,
    /// It takes every packet that finds it.
    certain: bool,
}

impl Candidate {
    pub(super) const fn new(rank: u32, selector: &Selector, cover: &Cover) -> Self {
        Self {
            rank,
            certain: cover.exact && selector.protocol.is_none() && !sees_upper(selector),
        }
    }
}

/// A field to cut.
#[derive(Clone, Copy, Debug)]
enum Field {
    Local,
    Remote,
    Protocol,
    LocalPort,
    RemotePort,
    Icmp,
}

const FIELDS: [Field; 6] = [
    Field::Protocol,
    Field::LocalPort,
    Field::RemotePort,
    Field::Icmp,
    Field::Local,
    Field::Remote,
];

/// The candidates of one place.
#[derive(Debug)]
pub(super) enum Tree {
    /// The common case, without a further look into memory.
    One(Candidate),
    Leaf(Box<[Candidate]>),
    Cut(Box<Cut>),
}

#[derive(Debug)]
pub(super) struct Cut {
    field: Field,
    /// The first value of the upper part.
    threshold: u128,
    below: Tree,
    above: Tree,
}

impl Tree {
    /// From candidates in ascending rank.
    pub(super) fn new(
        candidates: Vec<Candidate>,
        version: Version,
        selectors: &[Selector],
    ) -> Self {
        let mut budget = COPIES * candidates.len();
        Self::cut(candidates, version, selectors, &mut budget)
    }

    fn cut(
        mut candidates: Vec<Candidate>,
        version: Version,
        selectors: &[Selector],
        budget: &mut usize,
    ) -> Self {
        if let Some(certain) = candidates.iter().position(|candidate| candidate.certain) {
            candidates.truncate(certain + 1);
        }
        if let [one] = candidates[..] {
            return Self::One(one);
        }
        if candidates.len() <= LEAF {
            return Self::Leaf(candidates.into_boxed_slice());
        }
        let interval = |candidate: &Candidate, field| {
            let selector = selectors.get(candidate.rank as usize);
            selector.map_or((0, u128::MAX), |selector| hull(selector, field, version))
        };
        let best = FIELDS
            .into_iter()
            .filter_map(|field| {
                let intervals = candidates
                    .iter()
                    .map(|candidate| interval(candidate, field));
                halving(intervals.collect()).map(|split| (field, split))
            })
            .min_by_key(|(_, split)| split.cost());
        let Some((field, split)) = best else {
            return Self::Leaf(candidates.into_boxed_slice());
        };
        // What has no value in this family lies in neither part.
        let copies = (split.below + split.above).saturating_sub(candidates.len());
        if split.below.max(split.above) >= candidates.len() || copies > *budget {
            return Self::Leaf(candidates.into_boxed_slice());
        }
        *budget -= copies;
        let part = |keep: &dyn Fn((u128, u128)) -> bool| -> Vec<Candidate> {
            candidates
                .iter()
                .filter(|candidate| keep(interval(candidate, field)))
                .copied()
                .collect()
        };
        let below = part(&|(first, _)| first < split.threshold);
        let above = part(&|(_, last)| last >= split.threshold);
        drop(candidates);
        Self::Cut(Box::new(Cut {
            field,
            threshold: split.threshold,
            below: Self::cut(below, version, selectors, budget),
            above: Self::cut(above, version, selectors, budget),
        }))
    }

    /// Rank of the first candidate that takes the packet.
    pub(super) fn first(
        &self,
        selectors: &[Selector],
        packet: &Packet,
        direction: Direction,
    ) -> Option<u32> {
        let mut tree = self;
        while let Self::Cut(cut) = tree {
            tree = if value(packet, direction, cut.field) < cut.threshold {
                &cut.below
            } else {
                &cut.above
            };
        }
        let candidates = match tree {
            Self::One(one) => std::slice::from_ref(one),
            Self::Leaf(candidates) => candidates,
            Self::Cut(_) => &[],
        };
        candidates
            .iter()
            .find(|candidate| {
                candidate.certain
                    || selectors
                        .get(candidate.rank as usize)
                        .is_some_and(|selector| matches(selector, packet, direction))
            })
            .map(|candidate| candidate.rank)
    }
}

/// A way to cut.
struct Split {
    threshold: u128,
    below: usize,
    above: usize,
}

impl Split {
    /// What is left to search in the worse half, and what is kept twice.
    fn cost(&self) -> usize {
        self.below.max(self.above) + self.below + self.above
    }
}

/// The cut in the middle of where intervals begin and end; `None` where all are alike.
fn halving(intervals: Vec<(u128, u128)>) -> Option<Split> {
    let lowest = intervals.iter().map(|&(first, _)| first).min()?;
    let mut edges: Vec<u128> = intervals
        .iter()
        .flat_map(|&(first, last)| [Some(first), last.checked_add(1)])
        .flatten()
        .filter(|&edge| edge > lowest)
        .collect();
    if edges.is_empty() {
        return None;
    }
    let middle = edges.len() / 2;
    let (_, &mut threshold, _) = edges.select_nth_unstable(middle);
    Some(Split {
        threshold,
        below: intervals
            .iter()
            .filter(|&&(first, _)| first < threshold)
            .count(),
        above: intervals
            .iter()
            .filter(|&&(_, last)| last >= threshold)
            .count(),
    })
}

/// The interval of values of a field outside of which the selector takes nothing.
fn hull(selector: &Selector, field: Field, version: Version) -> (u128, u128) {
    match field {
        Field::Local => addresses(&selector.local, version),
        Field::Remote => addresses(&selector.remote, version),
        Field::Protocol => selector.protocol.map_or((0, 255), |protocol| {
            (u128::from(protocol), u128::from(protocol))
        }),
        Field::LocalPort => ports(&selector.local_port),
        Field::RemotePort => ports(&selector.remote_port),
        Field::Icmp => selector.icmp.map_or((0, UNSEEN), |(first, last)| {
            (u128::from(first), u128::from(last))
        }),
    }
}

fn addresses(selector: &AddressSelector, version: Version) -> (u128, u128) {
    let whole = AddressRange::whole(version);
    match selector {
        AddressSelector::Any => (whole.first, whole.last),
        AddressSelector::Ranges(ranges) => ranges
            .iter()
            .filter(|range| range.version == version)
            .fold((u128::MAX, 0), |(first, last), range| {
                (first.min(range.first), last.max(range.last))
            }),
    }
}

fn ports(selector: &PortSelector) -> (u128, u128) {
    match selector {
        PortSelector::Any => (0, UNSEEN),
        PortSelector::List { opaque, ranges } => {
            let unseen = if *opaque {
                (UNSEEN, UNSEEN)
            } else {
                (UNSEEN, 0)
            };
            ranges.iter().fold(unseen, |(low, high), &(first, last)| {
                (low.min(u128::from(first)), high.max(u128::from(last)))
            })
        }
    }
}

/// The packet's value of a field.
fn value(packet: &Packet, direction: Direction, field: Field) -> u128 {
    let sides = Sides::of(packet, direction);
    let (local_port, remote_port) = match (packet.upper, direction) {
        (
            Upper::Ports {
                source,
                destination,
            },
            Direction::Out,
        ) => (source.into(), destination.into()),
        (
            Upper::Ports {
                source,
                destination,
            },
            Direction::In,
        ) => (destination.into(), source.into()),
        _ => (UNSEEN, UNSEEN),
    };
    match field {
        Field::Local => sides.local,
        Field::Remote => sides.remote,
        Field::Protocol => packet.protocol.into(),
        Field::LocalPort => local_port,
        Field::RemotePort => remote_port,
        Field::Icmp => match packet.upper {
            Upper::Icmp(number) => number.into(),
            _ => UNSEEN,
        },
    }
}
