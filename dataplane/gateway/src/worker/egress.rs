//! The way out, the same for opened, sealed and clear packets: route, size, neighbour, frame.

use ipsec::ip::{fragment, hop, tcp_mss};
use ipsec::outbound::largest_inner;
use ipsec::packet::{Packet, Version};
use ipsec::policy::{Action, Policy, TcpMss};
use ipsec::sa::Sa;
use ipsec::sa::association::Direction;
use ipsec::time::Time;
use ipsec::verdict::DropReason;
use ipsec::wire::ethernet::Header;

use crate::counters::{Cell, PortCell};
use crate::port::{Buffer, Port};
use crate::route::{Mac, PortIndex};
use crate::snapshot::Snapshot;
use crate::worker::frame::{Arrival, ether_type_of};
use crate::worker::host::{ETHERNET, Host};
use crate::worker::originate::Complaint;
use crate::worker::outbox::Way;
use crate::worker::pending::{NextHop, QueueIndex};
use crate::worker::process::Worker;

/// A route.
#[derive(Clone, Copy)]
struct Path {
    next: NextHop,
    /// Largest IP packet that the way takes, bytes.
    mtu: u16,
    /// Every flow to the destination takes this way.
    any_flow: bool,
}

/// Where a packet leaves: what is needed of a [`Path`] and its neighbour, small enough to travel
/// in registers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exit {
    pub port: PortIndex,
    /// Largest IP packet that the way takes, bytes.
    pub mtu: u16,
    pub link: Link,
}

/// The next hop's MAC address in the low 48 bits, or why it is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link(u64);

impl Link {
    /// Nobody has asked for it yet.
    const UNKNOWN: Self = Self(1 << 63);
    /// Asked for; the packet may wait in the queue that the low bits name.
    const WAIT: u64 = 1 << 62;

    pub(super) const fn known(mac: Mac) -> Self {
        let [a, b, c, d, e, f] = mac;
        Self(u64::from_be_bytes([0, 0, a, b, c, d, e, f]))
    }

    const fn wait(queue: QueueIndex) -> Self {
        Self(Self::WAIT | queue.0 as u64)
    }

    /// The MAC address, or the queue that the packet may wait in.
    const fn resolved(self) -> Result<Mac, Option<QueueIndex>> {
        let [flags, _, a, b, c, d, e, f] = self.0.to_be_bytes();
        if flags == 0 {
            Ok([a, b, c, d, e, f])
        } else if self.0 & Self::WAIT != 0 {
            Err(Some(QueueIndex(u16::from_be_bytes([e, f]))))
        } else {
            Err(None)
        }
    }

    /// The packet would have to wait.
    pub(super) const fn is_open(self) -> bool {
        self.0 >> 48 != 0
    }
}

/// The bytes of a packet to forward.
pub(super) enum Carrier<'a, T> {
    /// Somewhere else: to be copied.
    Copy(&'a [u8]),
    /// Already in a frame of this port, behind the room for the Ethernet header.
    Placed(T, PortIndex),
}

impl<T: Buffer> Carrier<'_, T> {
    /// The packet of `length` bytes.
    fn ip(&mut self, length: usize) -> &[u8] {
        match self {
            Self::Copy(ip) => ip,
            Self::Placed(buffer, _) => &buffer.room()[ETHERNET..ETHERNET + length],
        }
    }
}

/// About whom and to whom an error in forwarding is told.
#[derive(Clone, Copy)]
pub(super) struct Transit {
    pub arrival: Arrival,
    /// How an ICMP error goes back.
    pub answer: Way,
    /// The packet came out of an SA: errors about it come from the protected side.
    pub opened: bool,
    /// It crosses the boundary in clear: its TCP segment sizes are still to be clamped.
    pub crossing: Option<Direction>,
}

/// A hash of what stays the same within a flow.
fn flow_hash(packet: &Packet) -> u32 {
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
fn path(snapshot: &Snapshot, version: Version, destination: u128, hash: u32) -> Option<Path> {
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
fn outer_path(snapshot: &Snapshot, sa: &Sa, inner: &Packet) -> Option<Path> {
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
        let exit = Exit {
            port: next.port,
            mtu: path.mtu,
            link: mac.map_or(Link::UNKNOWN, Link::known),
        };
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
        let mut exit = self.way(snapshot, outer_destination(sa), inner)?;
        exit.mtu = learned(exit.mtu, sa);
        Some(exit)
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
        let port = path.next.port;
        Ok(Exit { port, link, ..exit })
    }

    /// A frame of a port's queue for an IP packet of `length` bytes.
    pub(super) fn allocate(
        &mut self,
        port: PortIndex,
        length: usize,
    ) -> Result<P::Transmit, DropReason> {
        let lane = self.egress[port.index()];
        self.lanes[lane].port.allocate(ETHERNET + length)
    }

    /// Gives a frame back.
    pub(super) fn discard(&mut self, port: PortIndex, buffer: P::Transmit) {
        let lane = self.egress[port.index()];
        self.lanes[lane].port.discard(buffer);
    }

    /// The end of a packet that goes nowhere.
    pub(super) fn drop(&mut self, reason: DropReason, arrival: Arrival) {
        if arrival != Arrival::Own {
            self.tally.drop(reason);
        }
    }

    /// Sends the IP packet that lies in `buffer` behind the room for the Ethernet header, or lets
    /// it wait for its neighbour.
    pub(super) fn finish(
        &mut self,
        snapshot: &Snapshot,
        exit: Exit,
        mut buffer: P::Transmit,
        (version, length): (Version, usize),
        arrival: Arrival,
        now: Time,
    ) {
        let port = exit.port;
        let frame = &mut buffer.room()[..ETHERNET + length];
        let source = snapshot.ports[port.index()].mac;
        let link = exit.link.resolved();
        let destination = link.unwrap_or([0; 6]);
        let ether_type = ether_type_of(version);
        frame[..ETHERNET].copy_from_slice(
            &Header {
                destination,
                source,
                ether_type,
            }
            .to_bytes(),
        );
        match link {
            Ok(_) => self.transmit(port, buffer, ETHERNET + length, arrival),
            Err(queue) => {
                let own = arrival == Arrival::Own;
                let keep = |queue| self.pending.keep(queue, frame, own, now);
                let kept = queue.is_some_and(keep);
                self.discard(port, buffer);
                if !kept {
                    self.drop(DropReason::NoNeighbor, arrival);
                } else if !own {
                    self.tally.hold(1);
                }
            }
        }
    }

    /// Puts a whole frame into its port's transmit ring and counts it.
    fn transmit(&mut self, port: PortIndex, buffer: P::Transmit, length: usize, arrival: Arrival) {
        let lane = self.egress[port.index()];
        self.lanes[lane].port.transmit(buffer, length);
        if arrival == Arrival::Own {
            self.tally.add(Cell::Created, 1);
        }
        self.tally.add(Cell::Tx, 1);
        self.tally.port(port.index(), PortCell::TxPackets, 1);
        self.tally
            .port(port.index(), PortCell::TxBytes, length as u64);
    }

    /// Forwards a packet in clear: hop limit, size, route, neighbour, out.
    pub(super) fn forward(
        &mut self,
        snapshot: &Snapshot,
        packet: &Packet,
        mut carrier: Carrier<'_, P::Transmit>,
        transit: Transit,
        now: Time,
    ) {
        let length = usize::from(packet.length);
        let ended = match self.way_out(snapshot, (carrier.ip(length), packet), transit, now) {
            Err(reason) => Err((reason, carrier)),
            Ok(way) if packet.length > way.mtu => {
                let ip = carrier.ip(length);
                self.forward_fragments(snapshot, (ip, packet), way, transit, now);
                self.abandon(carrier);
                Ok(())
            }
            Ok(way) => self.load(carrier, way.port, length).map(|mut buffer| {
                let ip = &mut buffer.room()[ETHERNET..ETHERNET + length];
                if let Some(direction) = transit.crossing {
                    clamp(snapshot, ip, packet, direction, self.number);
                }
                if !transit.arrival.is_local() {
                    // A hop limit of 1 or less ended in `way_out`.
                    hop::decrement(ip).unwrap_or_default();
                }
                let size = (packet.version, length);
                self.finish(snapshot, way, buffer, size, transit.arrival, now);
            }),
        };
        if let Err((reason, carrier)) = ended {
            self.drop(reason, transit.arrival);
            self.abandon(carrier);
        }
    }

    /// Hop limit, size, route and neighbour, in this order; tells the sender what is wrong.
    fn way_out(
        &mut self,
        snapshot: &Snapshot,
        (ip, packet): (&[u8], &Packet),
        transit: Transit,
        now: Time,
    ) -> Result<Exit, DropReason> {
        let to = (packet.version, packet.destination);
        let way = self.way(snapshot, to, packet);
        let toward = way.map(|exit| exit.port);
        if !transit.arrival.is_local() && packet.hop_limit <= 1 {
            let complaint = Complaint::TimeExceeded;
            self.complain(snapshot, complaint, (ip, packet), transit, toward, now);
            return Err(DropReason::HopLimit);
        }
        let mtu = way.map_or(u16::MAX, |exit| exit.mtu);
        if packet.length > mtu && packet.dont_fragment {
            let complaint = Complaint::TooBig(mtu);
            self.complain(snapshot, complaint, (ip, packet), transit, toward, now);
            return Err(DropReason::TooBig);
        }
        let exit = way.ok_or(DropReason::NoRoute)?;
        self.link(snapshot, exit, to, packet)
    }

    /// The packet in a frame of `port`: the one that it lies in, or a copy.
    fn load<'c>(
        &mut self,
        mut carrier: Carrier<'c, P::Transmit>,
        port: PortIndex,
        length: usize,
    ) -> Result<P::Transmit, (DropReason, Carrier<'c, P::Transmit>)> {
        match carrier {
            Carrier::Placed(buffer, place) if place == port => return Ok(buffer),
            Carrier::Copy(_) | Carrier::Placed(..) => {}
        }
        let mut fresh = match self.allocate(port, length) {
            Ok(fresh) => fresh,
            Err(reason) => return Err((reason, carrier)),
        };
        fresh.room()[ETHERNET..ETHERNET + length].copy_from_slice(carrier.ip(length));
        self.abandon(carrier);
        Ok(fresh)
    }

    /// Gives back the frame that a packet lies in, if it has one.
    fn abandon(&mut self, carrier: Carrier<'_, P::Transmit>) {
        if let Carrier::Placed(buffer, port) = carrier {
            self.discard(port, buffer);
        }
    }

    /// Forwards an IPv4 packet without DF that is too long for the way, in fragments.
    fn forward_fragments(
        &mut self,
        snapshot: &Snapshot,
        (ip, packet): (&[u8], &Packet),
        exit: Exit,
        transit: Transit,
        now: Time,
    ) {
        let Some(plan) = fragment::Plan::transit(ip, packet, exit.mtu) else {
            return self.drop(DropReason::TooBig, transit.arrival);
        };
        for index in 0..plan.count() {
            if index > 0 && transit.arrival != Arrival::Own {
                self.tally.add(Cell::Created, 1);
            }
            let mut buffer = match self.allocate(exit.port, usize::from(exit.mtu)) {
                Ok(buffer) => buffer,
                Err(reason) => {
                    self.drop(reason, transit.arrival);
                    continue;
                }
            };
            let room = &mut buffer.room()[ETHERNET..];
            let Some(length) = plan.write(ip, index, room) else {
                self.discard(exit.port, buffer);
                self.drop(DropReason::NoFrame, transit.arrival);
                continue;
            };
            if !transit.arrival.is_local() {
                // A hop limit of 1 or less ended in `way_out`.
                hop::decrement(&mut room[..length]).unwrap_or_default();
            }
            let size = (packet.version, length);
            self.finish(snapshot, exit, buffer, size, transit.arrival, now);
        }
    }

    /// Ends the waits that are over: the neighbour is known, or the second is up.
    pub(super) fn settle(&mut self, snapshot: &Snapshot, now: Time) {
        if self.pending.is_empty() {
            return;
        }
        let mut over = Vec::new();
        self.pending
            .settle(&snapshot.neighbors, now, |hop, waiting, mac| {
                over.push((hop, waiting, mac));
            });
        for (hop, mut waiting, mac) in over {
            let arrival = if waiting.own {
                Arrival::Own
            } else {
                Arrival::Host
            };
            if !waiting.own {
                self.tally.unhold(1);
            }
            let Some(mac) = mac else {
                self.drop(DropReason::NoNeighbor, arrival);
                continue;
            };
            waiting.frame[..6].copy_from_slice(&mac);
            let length = waiting.frame.len();
            match self.allocate(hop.port, length - ETHERNET) {
                Ok(mut buffer) => {
                    buffer.room()[..length].copy_from_slice(&waiting.frame);
                    self.transmit(hop.port, buffer, length, arrival);
                }
                Err(reason) => self.drop(reason, arrival),
            }
        }
    }

    /// Ends every wait for a neighbour: the worker stops.
    pub(super) fn abandon_pending(&mut self) {
        let mut dropped = 0;
        self.pending
            .abandon(|_, waiting, _| dropped += u64::from(!waiting.own));
        for _ in 0..dropped {
            self.tally.unhold(1);
            self.tally.drop(DropReason::NoNeighbor);
        }
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
    .is_some_and(|path| {
        snapshot.ports[path.next.port.index()].side == crate::port::settings::Side::Protected
    })
}

/// Clamps the SYN `ip` with the descriptor `packet`, which crosses the boundary in `direction` on
/// `worker`; what is no SYN, and what no policy with `tcp_mss` takes, stays as it is.
pub(super) fn clamp(
    snapshot: &Snapshot,
    ip: &mut [u8],
    packet: &Packet,
    direction: Direction,
    worker: u16,
) {
    if !snapshot.tables.clamps() || !tcp_mss::is_syn(ip, packet) {
        return;
    }
    let Some(clamp) = snapshot.tables.clamp(packet, direction) else {
        return;
    };
    let limit = match clamp.limit {
        TcpMss::Off => return,
        TcpMss::Bytes(bytes) => Some(bytes),
        TcpMss::Auto => largest(snapshot, packet, clamp.outbound, direction, worker)
            .map(|mtu| tcp_mss::fitting(packet.version, mtu)),
    };
    if let Some(limit) = limit {
        tcp_mss::clamp(ip, packet, limit);
    }
}

/// The longest packet of the connection that crosses to the unprotected side whole, bytes. Both
/// ends are told the same: what fits the peer's way here nobody knows.
fn largest(
    snapshot: &Snapshot,
    packet: &Packet,
    outbound: Option<&Policy>,
    direction: Direction,
    worker: u16,
) -> Option<u16> {
    match outbound {
        Some(policy) if policy.action == Action::Protect => {
            let sas = snapshot.tables.first_sas(policy, worker).ok()?;
            let path = outer_path(snapshot, sas.outer, packet)?;
            Some(match sas.inner {
                Some(inner) => largest_inner(&[inner, sas.outer], path.mtu),
                None => largest_inner(&[sas.outer], path.mtu),
            })
        }
        _ => {
            let remote = match direction {
                Direction::Out => packet.destination,
                Direction::In => packet.source,
            };
            let path = path(snapshot, packet.version, remote, flow_hash(packet));
            path.map(|path| path.mtu)
        }
    }
}
