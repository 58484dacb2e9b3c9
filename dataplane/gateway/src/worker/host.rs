//! The machine itself as a worker sees it: packets for it, and packets that it sends.

use ipsec::verdict::DropReason;

/// MAC addresses and EtherType in front of a packet: 14 bytes.
pub const ETHERNET: usize = 14;

/// Where packets for the machine go. Live: the TUN's queue; `replay`: the pseudo port `host`.
pub trait Host: Send {
    /// Delivers an IP packet. `ethernet` is the header that a capture shows with it: the arriving
    /// frame's addresses and the packet's own EtherType; a TUN has no use for it.
    ///
    /// # Errors
    /// [`DropReason::HostFull`] when the queue has no place.
    fn deliver(&mut self, ethernet: &[u8; ETHERNET], packet: &[u8]) -> Result<(), DropReason>;

    /// Delivers a frame as it was received.
    ///
    /// # Errors
    /// [`DropReason::HostFull`] when the queue has no place.
    fn pass(&mut self, frame: &[u8]) -> Result<(), DropReason>;
}
