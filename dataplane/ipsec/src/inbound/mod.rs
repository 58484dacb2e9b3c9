//! Protected wire to plaintext (RFC 4303 §3.4, RFC 4301 §5.2).
//!
//! Two halves. `admit` decides everything that needs no key; then the caller provides each
//! packet that goes on with a buffer of the port by which it will probably leave; `open` does
//! the rest. What the caller then does with an opened packet (host, hop limit, size, route) is
//! forwarding, not IPsec.

use crate::packet::Packet;
use crate::policy::PolicyIndex;
use crate::sa::Sa;
use crate::verdict::DropReason;

/// An authentic packet that carries nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consumed {
    /// ESP with next header 59 (RFC 4303 §2.6).
    Dummy,
    /// A NAT keepalive (RFC 3948 §2.3).
    Keepalive,
}

/// What is known of a packet's fate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Still on its way: after `admit`, wants a destination buffer.
    Continue,
    /// Dropped, counted once.
    Drop(DropReason),
    /// To the machine itself, as received.
    Host,
    /// Clear transit that policy bypasses: forwarded as received.
    Forward,
    /// The SA's state lives on that worker: hand the packet over, nothing was changed.
    Elsewhere(u16),
    /// Authentic, but beyond what is reserved on disk: keep the packet as received and offer it
    /// again when the reservation has grown, 100 ms at most. The window did not move.
    Held,
    /// Authentic and done with.
    Consumed(Consumed),
    /// `destination[..inner.length]` holds an inner packet that its policy allows.
    Opened,
}

/// One packet of a burst from an unprotected port.
pub struct Item<'a> {
    /// The IP packet as received, cut to its length.
    pub source: &'a [u8],
    /// Its descriptor.
    pub packet: Packet,
    /// The SA, once found.
    pub sa: Option<&'a Sa>,
    /// Offset of the ESP or AH header in `source`.
    pub header_offset: u16,
    /// The sequence number, 64 bits as the window derived it.
    pub sequence: u64,
    /// Where the plaintext goes; at least `source.len()` bytes. Given by the caller before `open`.
    pub destination: Option<&'a mut [u8]>,
    /// The opened packet's descriptor.
    pub inner: Option<Packet>,
    /// The policy that decided, for its counters.
    pub policy: Option<PolicyIndex>,
    /// The fate so far.
    pub verdict: Verdict,
}
