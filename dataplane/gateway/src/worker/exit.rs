//! Where a packet leaves: route, next hop and its MAC address.

use std::num::NonZeroU64;

use ipsec::packet::{Packet, Version};
use ipsec::sa::Sa;
use ipsec::verdict::DropReason;

use crate::port::Port;
use crate::port::settings::Side;
use crate::route::{Mac, PortIndex};
use crate::snapshot::Snapshot;
use crate::worker::host::Host;
use crate::worker::pending::{NextHop, QueueIndex};
use crate::worker::process::Worker;

/// A route.
#[derive(Clone, Copy)]
pub(super) struct Path {
    next: NextHop,
    /// Largest IP packet that the way takes, bytes.
    pub mtu: u16,
    /// Every flow to the destination takes this way.
    any_flow: bool,
}

/// Where a packet leaves: what is needed of a [`Path`] and its neighbour. Two numbers, of which one
/// is never 0: it travels in two registers, and so does the answer that there is none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exit {
    /// Port and MTU, 16 bits each.
    place: u32,
    pub link: Link,
}

impl Exit {
    #[inline]
    pub(super) const fn new(port: PortIndex, mtu: u16, link: Link) -> Self {
        Self {
            place: (port.0 as u32) << 16 | mtu as u32,
            link,
        }
    }

    #[inline]
    pub(super) const fn port(self) -> PortIndex {
        PortIndex((self.place >> 16) as u16)
    }

    /// Largest IP packet that the way takes, bytes.
    #[inline]
    pub(super) const fn mtu(self) -> u16 {
        (self.place & 0xffff) as u16
    }
}

/// The next hop's MAC address in the low 48 bits, or why it is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link(NonZeroU64);

impl Link {
    /// Set in all of them, since a MAC address may be 0.
    const ALWAYS: NonZeroU64 = match NonZeroU64::new(1 << 63) {
        Some(bit) => bit,
        None => NonZeroU64::MIN,
    };
    /// Nobody has asked for it yet.
    const UNKNOWN: Self = Self(Self::ALWAYS.saturating_add(1 << 61));
    /// Asked for; the packet may wait in the queue that the low bits name.
    const WAIT: u64 = 1 << 62;

    pub(super) const fn known(mac: Mac) -> Self {
        let [a, b, c, d, e, f] = mac;
        let address = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
        Self(Self::ALWAYS.saturating_add(address))
    }

    const fn wait(queue: QueueIndex) -> Self {
        Self(Self::ALWAYS.saturating_add(Self::WAIT | queue.0 as u64))
    }

    /// The MAC address, or the queue that the packet may wait in.
    pub(super) const fn resolved(self) -> Result<Mac, Option<QueueIndex>> {
        let [_, _, a, b, c, d, e, f] = self.0.get().to_be_bytes();
        if !self.is_open() {
            Ok([a, b, c, d, e, f])
        } else if self.0.get() & Self::WAIT != 0 {
            Err(Some(QueueIndex(u16::from_be_bytes([e, f]))))
        } else {
            Err(None)
        }
    }

    /// The packet would have to wait.
    pub(super) const fn is_open(self) -> bool {
        self.0.get() >> 48 != Self::ALWAYS.get() >> 48
    }
}
/// A hash of what stays the same within a flow.
pub(super) fn flow_hash(packet: &Packet) -> u32 {
    let ports = match packet.upper {
        ipsec::packet::Upper::Ports {
            source,
            destination,
        } => u64::from(source) << 16 | u64::from(destination),
        _ => 0,
    };
    let addresses = packet.source ^ packet.destination.rotate_left(64);
    let [high, low] = [addresses >> 64, addresses & u128::from(u64::MAX)];
    let folded = u64::try_from(high ^ low).unwrap_or_default();
    let mixed = (folded ^ ports ^ u64::from(packet.protocol)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as u32
}

/// Routes an address.
pub(super) fn path(
    snapshot: &Snapshot,
    version: Version,
    destination: u128,
    hash: u32,
) -> Option<Path> {
    let (hop, any_flow) = snapshot.fib.choose(version, destination, hash)?;
    let (version, address) = match hop.via {
        Some(via) => {
            let version = if via.is_ipv4() {
                Version::V4
            } else {
                Version::V6
            };
            (version, ipsec::packet::address_bits(via))
        }
        None => (version, destination),
    };
    let port_mtu = snapshot.ports[hop.port.index()].mtu;
    let mtu = if hop.mtu == 0 {
        port_mtu
    } else {
        hop.mtu.min(port_mtu)
    };
    Some(Path {
        next: NextHop {
            port: hop.port,
            version,
            address,
        },
        mtu,
        any_flow,
    })
}

/// The way of the sealed packet, by its outer destination, and what is known to fit it.
pub(super) fn outer_path(snapshot: &Snapshot, sa: &Sa, inner: &Packet) -> Option<Path> {
    let (version, destination) = outer_destination(sa);
    let mut path = path(snapshot, version, destination, flow_hash(inner))?;
    path.mtu = learned(path.mtu, sa);
    Some(path)
}

/// The MTU of the first link, or what is known beyond it.
//= T126 (RFC 4301 section 8.2.1)
fn learned(mtu: u16, sa: &Sa) -> u16 {
    mtu.min(sa.published.path_mtu.bytes())
}

/// Where the packet that `sa` makes goes: a peer may have moved.
#[inline]
pub(super) fn outer_destination(sa: &Sa) -> (Version, u128) {
    (outer_version(sa), sa.peer_place().address)
}

pub(super) const fn outer_version(sa: &Sa) -> Version {
    if sa.parameters.destination.is_ipv4() {
        Version::V4
    } else {
        Version::V6
    }
}
impl<P: Port, H: Host> Worker<P, H> {
    /// The way of a packet of `flow` to `destination`. Whether the packet may wait where the
    /// neighbour is unknown, [`Self::link`] says.
    #[inline]
    pub(super) fn way(
        &mut self,
        snapshot: &Snapshot,
        (version, destination): (Version, u128),
        flow: &Packet,
    ) -> Option<Exit> {
        match self.ways.find(version, destination) {
            Some(exit) => Some(exit),
            None => self.look_up(snapshot, (version, destination), flow),
        }
    }

    fn look_up(
        &mut self,
        snapshot: &Snapshot,
        (version, destination): (Version, u128),
        flow: &Packet,
    ) -> Option<Exit> {
        let path = path(snapshot, version, destination, flow_hash(flow))?;
        let next = path.next;
        let mac = snapshot
            .neighbors
            .lookup(next.port, next.version, next.address);
        let link = mac.map_or(Link::UNKNOWN, Link::known);
        let exit = Exit::new(next.port, path.mtu, link);
        if path.any_flow && mac.is_some() {
            self.ways.keep(version, destination, exit);
        }
        Some(exit)
    }

    /// The way of the packet that `sa` makes of `inner`.
    #[inline]
    pub(super) fn outer_way(
        &mut self,
        snapshot: &Snapshot,
        sa: &Sa,
        inner: &Packet,
    ) -> Option<Exit> {
        let exit = self.way(snapshot, outer_destination(sa), inner)?;
        Some(Exit::new(exit.port(), learned(exit.mtu(), sa), exit.link))
    }

    /// True when the burst has found a way that every packet of `sa` takes.
    #[inline]
    pub(super) fn goes_one_way(&self, sa: &Sa) -> bool {
        let (version, destination) = outer_destination(sa);
        self.ways.find(version, destination).is_some()
    }

    /// The way as [`Self::way`] found it, with a place to wait where the neighbour is unknown.
    ///
    /// # Errors
    /// `no_neighbor` where there is none; `no_route` if the peer has just moved to nowhere.
    #[inline]
    pub(super) fn link(
        &mut self,
        snapshot: &Snapshot,
        exit: Exit,
        (version, destination): (Version, u128),
        flow: &Packet,
    ) -> Result<Exit, DropReason> {
        if exit.link != Link::UNKNOWN {
            return Ok(exit);
        }
        let path = path(snapshot, version, destination, flow_hash(flow));
        let path = path.ok_or(DropReason::NoRoute)?;
        let queue = self.pending.admits(path.next);
        let link = queue.map(Link::wait).ok_or(DropReason::NoNeighbor)?;
        Ok(Exit::new(path.next.port, exit.mtu(), link))
    }
}

/// Whether a packet's route ends on the protected side.
pub(super) fn leads_to_protected(snapshot: &Snapshot, packet: &Packet) -> bool {
    path(
        snapshot,
        packet.version,
        packet.destination,
        flow_hash(packet),
    )
    .is_some_and(|path| snapshot.ports[path.next.port.index()].side == Side::Protected)
}
