//! Plaintext to protected wire (RFC 4303 §3.3, RFC 4301 §5.1).
//!
//! Three doors. `select` asks policy and the SA's lifetime, counter and hop limit; then the
//! caller routes what will be sent and fills in `mtu`; `fit` judges the size; then the caller
//! provides a buffer of the egress port, and `protect` numbers, encapsulates and seals.

use crate::packet::Packet;
use crate::policy::PolicyIndex;
use crate::sa::Sa;
use crate::verdict::DropReason;

/// What is known of a packet's fate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Protected by `sa`: after `select` wants its `mtu`, after `fit` its destination buffer.
    Protect,
    /// In clear by policy: forwarded as received (hop limit and size are the caller's).
    Bypass,
    /// Dropped, counted once.
    Drop(DropReason),
    /// To the machine itself, as received.
    Host,
    /// The SA's state lives on that worker: hand the packet over, nothing was changed.
    Elsewhere(u16),
    /// Too long and not to be fragmented: counts as `too_big`; an ICMP error tells this MTU.
    TooBig(u16),
    /// Too long, IPv4 without DF: cut into fragments of at most this many bytes and offer each
    /// again.
    Fragment(u16),
    /// `destination[..length]` holds the packet to send, from its outer IP header on.
    Sealed(u16),
}

/// One packet of a burst from a protected port or from the machine itself.
pub struct Item<'a> {
    /// The IP packet as received, cut to its length. `protect` lowers its hop limit.
    pub source: &'a mut [u8],
    /// Its descriptor.
    pub packet: Packet,
    /// The machine's own packet: its hop limit is left alone (T115).
    pub from_host: bool,
    /// The SA, once chosen.
    pub sa: Option<&'a Sa>,
    /// MTU of the way that the sealed packet takes, bytes. Given by the caller before `fit`.
    pub mtu: u16,
    /// Where the sealed packet goes, from the outer IP header on. At least `mtu` bytes. Given by
    /// the caller before `protect`.
    pub destination: Option<&'a mut [u8]>,
    /// The policy that decided, for its counters.
    pub policy: Option<PolicyIndex>,
    /// The fate so far.
    pub verdict: Verdict,
}
