//! Why a packet ended: the complete list, one reason a packet.
//!
//! The order is that of the interface document; the discriminant indexes the counter arrays, the
//! name is the JSON key, the doc text is the operator's manual.

use std::fmt;

macro_rules! drop_reasons {
    ($($(#[doc = $text:literal])+ $variant:ident = $name:literal,)+) => {
        /// The one reason for which a packet was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[doc = $text])+ $variant,)+
        }

        impl DropReason {
            /// Every reason, in the order of the interface document.
            pub const ALL: [Self; Self::COUNT] = [$(Self::$variant,)+];

            /// Number of reasons, the length of a counter array.
            pub const COUNT: usize = [$($name,)+].len();

            /// The name in JSON, captures and tables.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// One sentence for the operator.
            #[must_use]
            pub const fn description(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($text),+).trim_ascii(),)+
                }
            }
        }
    };
}

drop_reasons! {
    /// Truncated or inconsistent headers, before any key is used.
    Malformed = "malformed",
    /// No SA for (SPI, destination, protocol).
    NoSa = "no_sa",
    /// The SA found does not serve this direction, protocol or encapsulation.
    WrongDirection = "wrong_direction",
    /// Sequence number seen already, or left of the window.
    Replay = "replay",
    /// ICV mismatch.
    Authentication = "authentication",
    /// Authenticated, but the trailer or the inner header is inconsistent.
    BadPadding = "bad_padding",
    /// Authenticated, but the next header is none that the mode carries.
    InnerUnsupported = "inner_unsupported",
    /// Hard lifetime passed, or the SA was deleted meanwhile.
    SaExpired = "sa_expired",
    /// The SA's counter is used up.
    SequenceExhausted = "sequence_exhausted",
    /// Sequence numbers not yet reserved on disk.
    NoReservation = "no_reservation",
    /// The inner packet is not what the SA's policy allows (RFC 4301 §5.2).
    SelectorMismatch = "selector_mismatch",
    /// Outer CE on an inner packet that is not ECN-capable (RFC 6040).
    Ecn = "ecn",
    /// A packet arrived in the clear that policy says must be protected.
    PlaintextRequiredProtection = "plaintext_required_protection",
    /// A discard policy matched.
    PolicyDiscard = "policy_discard",
    /// Nothing in the SPD matched.
    NoPolicy = "no_policy",
    /// TTL or hop limit used up (an ICMP time exceeded goes back).
    HopLimit = "hop_limit",
    /// Over the path MTU with DF set or IPv6 (an ICMP too big goes back).
    TooBig = "too_big",
    /// Forwarding found no route.
    NoRoute = "no_route",
    /// Forwarding found no neighbour for the next hop.
    NoNeighbor = "no_neighbor",
    /// Overlap, time-out or limit of reassembly; a later fragment where ports or a transport SA
    /// decide.
    Fragment = "fragment",
    /// Overload: the egress ring is full.
    TxFull = "tx_full",
    /// Overload: out of frames.
    NoFrame = "no_frame",
    /// Overload: another worker's queue is full.
    HandoffFull = "handoff_full",
    /// Overload: the host port is full.
    HostFull = "host_full",
    /// A protocol feature that is not built.
    Unsupported = "unsupported",
}

impl DropReason {
    /// Position in a counter array.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_indices_dense() {
        for (index, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), index);
            assert!(!reason.description().starts_with(' '));
            let same = DropReason::ALL
                .iter()
                .filter(|other| other.name() == reason.name());
            assert_eq!(same.count(), 1, "{reason}");
        }
    }
}
