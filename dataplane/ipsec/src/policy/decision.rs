//! What the SPD of one direction says about a packet, later fragments included.
//!
//! A later fragment shows no port, so a policy that looks at ports neither takes it nor may be
//! passed over: what stands behind it could let through what it is there to stop (RFC 4301 §7.4).
//! Where such a policy would be the first to take the fragment but for the ports, the first
//! fragment's fate decides, and without that the fragment is dropped. A protect policy with ports
//! never takes one, whatever is remembered.
//!
//! The same holds for policies that name a protocol where a later fragment of IPv6 hides even that,
//! because extension headers lie in the part that was cut (RFC 4301 §4.4.1.1: OPAQUE, for IPv6
//! only).

use crate::limits::BATCH;
use crate::packet::{Fragment, Packet, Upper, Version, protocol};
use crate::policy::classifier::Classifier;
use crate::policy::database::Database;
use crate::policy::fragments::{Fate, Fates, Memory, Passage};
use crate::policy::{Action, Policy, PolicyIndex, PortSelector, Selector};
use crate::prefetch::first_line;
use crate::sa::association::Direction;
use crate::time::Time;

/// The SPD's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision<'a> {
    /// This policy is the first that takes the packet.
    Policy(&'a Policy),
    /// A bypass policy with ports took the first fragment.
    Bypass(PolicyIndex),
    /// A discard policy with ports took the first fragment.
    Discard(PolicyIndex),
    /// A later fragment, and ports or a protocol that it does not show would decide.
    Fragment,
    /// No policy takes the packet.
    Nothing,
}

impl Decision<'_> {
    /// The policy that decided.
    #[must_use]
    pub const fn index(&self) -> Option<PolicyIndex> {
        match self {
            Self::Policy(policy) => Some(policy.index),
            Self::Bypass(index) | Self::Discard(index) => Some(*index),
            Self::Fragment | Self::Nothing => None,
        }
    }
}

/// For each packet of a batch the position of the first policy that takes it.
pub type Positions = [Option<u32>; BATCH];

/// What was found for a batch.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// By the packets' places in it.
    pub first: Positions,
    /// A bit for each packet that is of the flow of the one before it.
    pub followers: u64,
}

impl Found {
    /// Nothing for nobody.
    pub const NOTHING: Self = Self {
        first: [None; BATCH],
        followers: 0,
    };

    /// True for a packet of the flow of the one before it.
    #[inline]
    #[must_use]
    pub const fn follows(&self, place: usize) -> bool {
        self.followers >> (place % BATCH) & 1 != 0
    }
}

/// The compiled SPD of one direction.
#[derive(Debug)]
pub struct Spd {
    database: Database,
    first: Classifier,
    /// The same policies without ports and ICMP types; `None` where no policy has any.
    blind: Option<Classifier>,
    /// Their address pairs alone; `None` where they have nothing else.
    pairs: Option<Classifier>,
}

impl Spd {
    /// Orders and compiles `policies`, which come in order of insertion and serve `direction`.
    #[must_use]
    pub fn new(direction: Direction, policies: Vec<Policy>) -> Self {
        let database = Database::new(direction, policies);
        let selectors = || {
            (0..)
                .zip(database.policies())
                .map(|(position, policy)| (position, policy.selector.clone()))
        };
        let with_ports = database.policies().iter().any(looks_at_ports);
        let first = Classifier::new(direction, selectors());
        let blind = with_ports.then(|| {
            let stripped =
                selectors().map(|(position, selector)| (position, without_ports(selector)));
            Classifier::new(direction, stripped)
        });
        let more = |policy: &Policy| policy.selector.protocol.is_some() || looks_at_ports(policy);
        let more_than_pairs = database.policies().iter().any(more);
        let pairs = more_than_pairs.then(|| {
            let pairs = selectors().map(|(position, selector)| {
                let pair = Selector {
                    protocol: None,
                    ..without_ports(selector)
                };
                (position, pair)
            });
            Classifier::new(direction, pairs)
        });
        Self {
            database,
            first,
            blind,
            pairs,
        }
    }

    /// The policies in their order.
    #[must_use]
    pub fn policies(&self) -> &[Policy] {
        self.database.policies()
    }

    /// The ordered list itself.
    #[must_use]
    pub const fn database(&self) -> &Database {
        &self.database
    }

    /// The first policy that takes the packet.
    #[must_use]
    pub fn first(&self, packet: &Packet) -> Option<&Policy> {
        self.policy(self.position(packet))
    }

    /// True when the packet's addresses lie in some policy's pair of `local` and `remote`.
    #[must_use]
    pub fn touches(&self, packet: &Packet) -> bool {
        let pairs = self.pairs.as_ref().unwrap_or(&self.first);
        pairs.first(packet).is_some()
    }

    /// The positions of the first policies that take each of `packets`, at most
    /// [`crate::limits::BATCH`] of them.
    #[must_use]
    pub fn find(&self, packets: &[&Packet]) -> Found {
        let mut found = Found::NOTHING;
        found.followers = self.first.first_of_each(packets, &mut found.first);
        found
    }

    /// [`Self::find`] for one packet.
    #[must_use]
    pub fn position(&self, packet: &Packet) -> Option<u32> {
        self.first.first(packet)
    }

    /// The answer for a packet, its datagram's earlier fragments considered. `first` is what
    /// [`Self::find`] found for it.
    //= T51 (RFC 4301 section 5)
    //= T64 T121 T125 (RFC 4301 sections 7.1, 7.3, 7.4)
    #[must_use]
    pub fn decide(
        &self,
        packet: &Packet,
        first: Option<u32>,
        passage: Passage,
        memory: &mut Memory,
        now: Time,
    ) -> Decision<'_> {
        let decision = self
            .policy(first)
            .map_or(Decision::Nothing, Decision::Policy);
        if packet.fragment == Fragment::Whole {
            return decision;
        }
        if shows_ports(packet) {
            let fates = self.fates(packet, first, decision);
            memory.remember(packet, passage, fates, now);
            return decision;
        }
        let hidden = if packet.hides_protocol() {
            Hidden::Protocol
        } else {
            Hidden::Ports
        };
        if !self.decides(hidden, packet, first) {
            return decision;
        }
        if let Decision::Policy(policy) = decision
            && policy.upper.opaque
        {
            return decision;
        }
        match memory.recall(packet, passage, now) {
            Some(Fate::Bypass(index)) => Decision::Bypass(index),
            Some(Fate::Discard(index)) => Decision::Discard(index),
            Some(Fate::Blind) => decision,
            None => Decision::Fragment,
        }
    }

    /// What the answer for a first fragment means for later ones.
    fn fates(&self, packet: &Packet, first: Option<u32>, decision: Decision<'_>) -> Fates {
        let of = |hidden| {
            let decides = self.decides(hidden, packet, first);
            decides.then(|| fate(decision, hidden)).flatten()
        };
        Fates {
            without_ports: of(Hidden::Ports),
            without_protocol: match packet.version {
                Version::V4 => None,
                Version::V6 => of(Hidden::Protocol),
            },
        }
    }

    /// Whether a policy that looks at what is hidden takes the packet, or one in front of `first`
    /// would take it but for that.
    fn decides(&self, hidden: Hidden, packet: &Packet, first: Option<u32>) -> bool {
        let without = match hidden {
            Hidden::Ports => &self.blind,
            Hidden::Protocol => &self.pairs,
        };
        let blindly = without.as_ref().and_then(|without| without.first(packet));
        match (first, blindly) {
            (Some(first), Some(blindly)) => {
                let policy = self.policy(Some(blindly));
                blindly < first || policy.is_some_and(|policy| looks_at(policy, hidden))
            }
            (None, Some(_)) => true,
            (_, None) => false,
        }
    }

    /// The policy at a position.
    #[inline]
    fn policy(&self, position: Option<u32>) -> Option<&Policy> {
        self.policies().get(position? as usize)
    }

    /// Asks memory for the policies at these positions.
    pub(crate) fn prefetch(&self, positions: &[Option<u32>]) {
        for position in positions.iter().flatten() {
            self.policy(Some(*position)).map(first_line);
        }
    }
}

fn without_ports(selector: Selector) -> Selector {
    Selector {
        local_port: PortSelector::Any,
        remote_port: PortSelector::Any,
        icmp: None,
        ..selector
    }
}

/// What a later fragment does not show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hidden {
    /// Ports and ICMP type.
    Ports,
    /// The protocol, too.
    Protocol,
}

const fn looks_at(policy: &Policy, hidden: Hidden) -> bool {
    match hidden {
        Hidden::Ports => looks_at_ports(policy),
        // Ports and types belong to a protocol.
        Hidden::Protocol => policy.selector.protocol.is_some(),
    }
}

const fn looks_at_ports(policy: &Policy) -> bool {
    policy.upper.sees
}

/// True for a fragment that tells its datagram's ports, or has none to tell.
const fn shows_ports(packet: &Packet) -> bool {
    match packet.fragment {
        Fragment::Whole => true,
        Fragment::First => {
            !matches!(packet.upper, Upper::Opaque) || !has_upper_fields(packet.protocol)
        }
        Fragment::Later => false,
    }
}

const fn has_upper_fields(number: u8) -> bool {
    matches!(
        number,
        protocol::TCP
            | protocol::UDP
            | protocol::SCTP
            | protocol::DCCP
            | protocol::UDP_LITE
            | protocol::ICMP
            | protocol::ICMPV6
    )
}

/// What a first fragment's answer means for its later ones; `None` drops them.
const fn fate(decision: Decision<'_>, hidden: Hidden) -> Option<Fate> {
    match decision {
        Decision::Policy(policy) if looks_at(policy, hidden) => match policy.action {
            Action::Bypass => Some(Fate::Bypass(policy.index)),
            Action::Discard => Some(Fate::Discard(policy.index)),
            Action::Protect => None,
        },
        Decision::Policy(_) | Decision::Nothing => Some(Fate::Blind),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
