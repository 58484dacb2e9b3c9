//! The machine itself as a worker sees it: packets for it, and packets that it sends.

use ipsec::verdict::DropReason;
use ipsec::wire::ethernet::{Header, ether_type};

use crate::port::host::HostLink;

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

    /// Copies the next packet that the machine sent behind the room for an Ethernet header in
    /// `frame`, and answers the frame's length.
    fn receive(&mut self, frame: &mut [u8]) -> Option<usize> {
        let _ = frame;
        None
    }

    /// A packet of the machine waits.
    fn is_waiting(&self) -> bool {
        false
    }

    /// The end of a round: whoever takes the packets is told.
    fn flush(&mut self) {}
}

/// The host port as a worker's host.
pub struct LiveHost {
    link: HostLink,
    sent: bool,
}

impl LiveHost {
    /// A worker's link to the host port.
    #[must_use]
    pub const fn new(link: HostLink) -> Self {
        Self { link, sent: false }
    }
}

impl Host for LiveHost {
    fn deliver(&mut self, _: &[u8; ETHERNET], packet: &[u8]) -> Result<(), DropReason> {
        self.link.send_copy(packet)?;
        self.sent = true;
        Ok(())
    }

    fn pass(&mut self, frame: &[u8]) -> Result<(), DropReason> {
        // XDP leaves what is not IP to the kernel; a TUN could not carry it.
        let packet = frame.get(ETHERNET..).ok_or(DropReason::Unsupported)?;
        let length = ipsec::packet::parse(packet)?.length;
        self.link.send_copy(&packet[..usize::from(length)])?;
        self.sent = true;
        Ok(())
    }

    fn receive(&mut self, frame: &mut [u8]) -> Option<usize> {
        let packet = self.link.receive()?;
        let bytes = packet.bytes();
        let length = ETHERNET + bytes.len();
        let version = bytes.first().map_or(0, |byte| byte >> 4);
        let kind = if version == 6 {
            ether_type::IPV6
        } else {
            ether_type::IPV4
        };
        let header = Header {
            destination: [0; 6],
            source: [0; 6],
            ether_type: kind,
        };
        frame[..ETHERNET].copy_from_slice(&header.to_bytes());
        frame[ETHERNET..length].copy_from_slice(bytes);
        self.link.release(packet);
        Some(length)
    }

    fn is_waiting(&self) -> bool {
        self.link.is_waiting()
    }

    fn flush(&mut self) {
        if std::mem::take(&mut self.sent) {
            self.link.flush();
        }
    }
}

/// No host port: nothing comes from the machine, and what is for it finds no place.
pub struct NoHost;

impl Host for NoHost {
    fn deliver(&mut self, _: &[u8; ETHERNET], _: &[u8]) -> Result<(), DropReason> {
        Err(DropReason::HostFull)
    }

    fn pass(&mut self, _: &[u8]) -> Result<(), DropReason> {
        Err(DropReason::HostFull)
    }
}

/// Either: the choice is made once, at start.
pub enum AnyHost {
    /// With a host port.
    Live(LiveHost),
    /// Without.
    None(NoHost),
}

impl AnyHost {
    fn host(&mut self) -> &mut dyn Host {
        match self {
            Self::Live(host) => host,
            Self::None(host) => host,
        }
    }
}

impl Host for AnyHost {
    fn deliver(&mut self, ethernet: &[u8; ETHERNET], packet: &[u8]) -> Result<(), DropReason> {
        self.host().deliver(ethernet, packet)
    }

    fn pass(&mut self, frame: &[u8]) -> Result<(), DropReason> {
        self.host().pass(frame)
    }

    fn receive(&mut self, frame: &mut [u8]) -> Option<usize> {
        self.host().receive(frame)
    }

    fn is_waiting(&self) -> bool {
        match self {
            Self::Live(host) => host.is_waiting(),
            Self::None(_) => false,
        }
    }

    fn flush(&mut self) {
        self.host().flush();
    }
}
