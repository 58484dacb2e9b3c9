//! The SPD: ordered selectors, first match wins, default discard (RFC 4301 §4.4.1).
//!
//! [`selector`] says whether one policy takes one packet, [`database`] orders them (the oracle of
//! every test), [`classifier`] gives the same answer at a cost that does not grow with their
//! number, [`fragments`] remembers what first fragments met, and [`decision`] puts it together.

pub mod selector;

mod bundle;

pub mod fragments;

pub mod database;

pub mod classifier;

pub mod decision;

use crate::packet::Version;
use crate::sa::association::Direction;

pub use bundle::{Bundle, Bundles};
pub use decision::{Decision, Found, Positions, Spd};
pub use fragments::Memory;

/// What a policy does with the packets that it selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Through SAs.
    Protect,
    /// In clear.
    Bypass,
    /// Not at all.
    Discard,
}

/// An inclusive range of addresses of one family; a prefix and a single address are ranges too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressRange {
    /// Family.
    pub version: Version,
    /// Lowest address, as [`crate::packet::address_bits`] has it.
    pub first: u128,
    /// Highest address.
    pub last: u128,
}

/// Addresses that a selector takes.
//= T103 (RFC 4301 section 4.4.1.1)
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AddressSelector {
    /// Every address of both families.
    Any,
    /// Those in one of the ranges, which are all of one family.
    Ranges(Vec<AddressRange>),
}

/// Ports that a selector takes (RFC 4301 §4.4.1.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PortSelector {
    /// Every port, also where there is none to see.
    Any,
    /// A list.
    List {
        /// Packets whose ports cannot be seen match too.
        opaque: bool,
        /// Inclusive ranges.
        ranges: Vec<(u16, u16)>,
    },
}

//= exception T97: DSCP values do not choose among SAs. What section 4.1 fears where classes share
//= one, packets of a lower class falling out of the window, windows of up to 2²⁰ packets prevent
//= exception T106: mobility signalling is selected as a whole, by protocol 135, and `check` refuses
//= anything finer; its types part SAs of home agents alone, whose ends follow bindings that this
//= gateway does not hear of
/// The traffic that a policy is about (RFC 4301 §4.4.1.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Selector {
    /// The protected side: source outbound, destination inbound.
    pub local: AddressSelector,
    /// The other side.
    pub remote: AddressSelector,
    /// Protocol behind the extension headers; `None`: any.
    pub protocol: Option<u8>,
    /// Ports of the protected side.
    pub local_port: PortSelector,
    /// Ports of the other side.
    pub remote_port: PortSelector,
    /// Inclusive range of type × 256 + code; `None`: any, also where there is none to see.
    pub icmp: Option<(u16, u16)>,
}

/// Clamping of the MSS of TCP SYNs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TcpMss {
    /// As it is.
    #[default]
    Off,
    /// To what fits the path.
    Auto,
    /// To this many bytes.
    Bytes(u16),
}

/// All that configuration says of one policy; SAs by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyParameters {
    /// Unique name.
    pub name: String,
    /// In or out.
    pub direction: Direction,
    /// What happens.
    pub action: Action,
    /// To what.
    pub selector: Selector,
    /// Lower wins; equal: file order.
    pub priority: u32,
    /// TCP MSS clamping.
    pub tcp_mss: TcpMss,
    /// Protect: the SA or bundle (innermost first), then the alternatives, newest last.
    pub bundles: Vec<Vec<String>>,
}

/// Position of a policy's counters; dense, in file order, over both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyIndex(pub u32);

/// What a selector wants to know of what lies behind the IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpperUse {
    /// It looks at ports or at the ICMP type.
    pub sees: bool,
    /// What hides its ports is its own (RFC 4301 §7.2).
    pub opaque: bool,
}

/// A policy as the SPD holds it: SAs by slot. What every packet asks stands in its first line of
/// memory.
#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Policy {
    /// Where its counters are.
    pub index: PolicyIndex,
    /// What happens.
    pub action: Action,
    /// What `selector` says of ports and the like.
    pub upper: UpperUse,
    /// TCP MSS clamping.
    pub tcp_mss: TcpMss,
    /// Lower wins; equal: order of insertion.
    pub priority: u32,
    /// Protect: the SA or bundle (innermost first), then the alternatives, newest last.
    pub bundles: Bundles,
    /// Which of them are each for one worker (RFC 9611): places in `bundles`.
    pub per_worker: Box<[usize]>,
    /// To what.
    pub selector: Selector,
}

const _: () = assert!(std::mem::offset_of!(Policy, per_worker) <= 64);

impl Policy {
    /// The bundles by which a packet may leave on `worker`, best first: the worker's own, those
    /// that are for all from the newest to the oldest, and as a last resort other workers'.
    //= T70 (RFC 9611)
    pub fn choices(&self, worker: u16) -> impl Iterator<Item = &Bundle> {
        let count = self.per_worker.len();
        let own = (count > 0).then(|| self.per_worker[usize::from(worker) % count]);
        let shared = (0..self.bundles.len()).rev();
        let shared = shared.filter(|place| !self.per_worker.contains(place));
        let others = self.per_worker.iter().rev().copied();
        let places = own.into_iter().chain(shared).chain(others);
        places.filter_map(|place| self.bundles.get(place))
    }
}
