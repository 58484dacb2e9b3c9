//! The SPD of one direction in its order (RFC 4301 §4.4.1): the plain search.
//!
//! What stands here is the meaning; [`super::classifier`] is proven against it.

use crate::packet::Packet;
use crate::policy::Policy;
use crate::policy::selector::{matches, matches_blind};
use crate::sa::association::Direction;

/// Policies of one direction, ordered by priority and, where it is equal, by insertion.
#[derive(Debug)]
pub struct Database {
    direction: Direction,
    policies: Vec<Policy>,
}

impl Database {
    /// Orders `policies`, which come in order of insertion.
    //= exception T102: an SPD never changes under living SAs: a changed file takes a restart, by
    //= which every SA begins anew under the new policies
    //= T99 (RFC 4301 section 4.4.1)
    #[must_use]
    pub fn new(direction: Direction, mut policies: Vec<Policy>) -> Self {
        policies.sort_by_key(|policy| policy.priority);
        Self {
            direction,
            policies,
        }
    }

    /// The direction that all of them serve.
    #[must_use]
    pub const fn direction(&self) -> Direction {
        self.direction
    }

    /// The policies, the first to be asked first.
    #[must_use]
    pub fn policies(&self) -> &[Policy] {
        &self.policies
    }

    /// Position of the first policy that takes the packet.
    //= T54 (RFC 4301 section 4.4.1)
    #[must_use]
    pub fn first(&self, packet: &Packet) -> Option<usize> {
        self.policies
            .iter()
            .position(|policy| matches(&policy.selector, packet, self.direction))
    }

    /// Position of the first policy that takes the packet as far as a later fragment shows.
    #[must_use]
    pub fn first_blind(&self, packet: &Packet) -> Option<usize> {
        self.policies
            .iter()
            .position(|policy| matches_blind(&policy.selector, packet, self.direction))
    }
}
