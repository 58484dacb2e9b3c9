//! From an Ethernet frame to a packet: the first look, the same for every port.

use ipsec::packet::{self, Packet, Version};
use ipsec::verdict::DropReason;
use ipsec::wire::ethernet::{Header, ether_type};

use crate::port::settings::Side;
use crate::route::PortIndex;
use crate::snapshot::PortFacts;
use crate::worker::host::ETHERNET;

/// Where a packet came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A port's wire.
    Port(PortIndex, Side),
    /// The machine itself; its hop limit is left alone (RFC 4301 §5.1.2.1 note 2).
    Host,
    /// Ourselves: an ICMP error. What becomes of it is counted only if it leaves.
    Own,
}

impl Arrival {
    /// The machine or the gateway made the packet, it is not in transit.
    pub(super) const fn is_local(self) -> bool {
        matches!(self, Self::Host | Self::Own)
    }
}

/// A parsed packet in its frame, on its way through the pipeline.
pub(super) struct Source<'a> {
    /// The whole frame as received.
    pub frame: &'a mut [u8],
    /// The descriptor of the IP packet behind the Ethernet header.
    pub packet: Packet,
    /// Where it came from.
    pub arrival: Arrival,
}

impl Source<'_> {
    /// The IP packet, cut to its length.
    pub(super) fn ip(&self) -> &[u8] {
        &self.frame[ETHERNET..ETHERNET + usize::from(self.packet.length)]
    }

    /// The Ethernet header for a packet of `version` that this frame brought.
    pub(super) fn ethernet(&self, version: Version) -> [u8; ETHERNET] {
        let mut header = [0; ETHERNET];
        header.copy_from_slice(&self.frame[..ETHERNET]);
        header[12..].copy_from_slice(&ether_type_of(version).to_be_bytes());
        header
    }
}

/// The EtherType of an IP version.
pub(super) const fn ether_type_of(version: Version) -> u16 {
    match version {
        Version::V4 => ether_type::IPV4,
        Version::V6 => ether_type::IPV6,
    }
}

/// What the first look found.
pub(super) enum Look<T = Packet> {
    /// An IP packet for the pipeline, and its descriptor.
    Packet(T),
    /// Not ours to judge: to the machine, as received.
    Host,
    /// Not even that.
    Drop(DropReason),
}

/// Looks at a frame from a port; the descriptor is written to where it stays.
#[inline(always)]
pub(super) fn look(frame: &[u8], facts: &PortFacts, packet: &mut Packet) -> Look<()> {
    let Some(header) = Header::parse(frame) else {
        return Look::Drop(DropReason::Malformed);
    };
    if header.destination != facts.mac {
        return Look::Host;
    }
    look_inside(frame, header.ether_type, packet)
}

/// Looks at a frame from the machine itself, whose MAC addresses mean nothing.
pub(super) fn look_from_host(frame: &[u8]) -> Look {
    let Some(header) = Header::parse(frame) else {
        return Look::Drop(DropReason::Malformed);
    };
    let mut packet = Packet::nothing(Version::V4);
    match look_inside(frame, header.ether_type, &mut packet) {
        Look::Packet(()) => Look::Packet(packet),
        Look::Host => Look::Drop(DropReason::Malformed),
        Look::Drop(reason) => Look::Drop(reason),
    }
}

#[inline(always)]
fn look_inside(frame: &[u8], kind: u16, packet: &mut Packet) -> Look<()> {
    let version = match kind {
        ether_type::IPV4 => Version::V4,
        ether_type::IPV6 => Version::V6,
        _ => return Look::Host,
    };
    match packet::parse_into(&frame[ETHERNET..], packet) {
        Ok(()) if packet.version == version => Look::Packet(()),
        Ok(()) => Look::Drop(DropReason::Malformed),
        Err(reason) => Look::Drop(reason),
    }
}
