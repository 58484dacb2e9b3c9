//! The way out, the same for opened, sealed and clear packets: hop limit, size, frame, ring.

use ipsec::ip::{fragment, hop};
use ipsec::packet::{Packet, Version};
use ipsec::sa::association::Direction;
use ipsec::time::Time;
use ipsec::verdict::DropReason;
use ipsec::wire::ethernet::Header;

use crate::counters::Cell;
use crate::port::{Buffer, Port};
use crate::route::PortIndex;
use crate::snapshot::Snapshot;
use crate::worker::clamp::clamp;
use crate::worker::exit::Exit;
use crate::worker::frame::{Arrival, ether_type_of};
use crate::worker::host::{ETHERNET, Host};
use crate::worker::originate::Complaint;
use crate::worker::outbox::Way;
use crate::worker::pending::QueueIndex;
use crate::worker::process::Worker;

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
impl<P: Port, H: Host> Worker<P, H> {
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
    #[inline]
    pub(super) fn finish(
        &mut self,
        snapshot: &Snapshot,
        exit: Exit,
        mut buffer: P::Transmit,
        (version, length): (Version, usize),
        arrival: Arrival,
        now: Time,
    ) {
        let port = exit.port();
        let link = exit.link.resolved();
        let header = Header {
            destination: link.unwrap_or([0; 6]),
            source: snapshot.ports[port.index()].mac,
            ether_type: ether_type_of(version),
        };
        let written = header.write(buffer.room());
        debug_assert!(written.is_some(), "every frame has room for its header");
        match link {
            Ok(_) => self.transmit(port, buffer, ETHERNET + length, arrival),
            Err(queue) => self.wait(port, buffer, (queue, ETHERNET + length), arrival, now),
        }
    }

    /// Lets a frame wait for its neighbour.
    #[inline(never)]
    fn wait(
        &mut self,
        port: PortIndex,
        mut buffer: P::Transmit,
        (queue, length): (Option<QueueIndex>, usize),
        arrival: Arrival,
        now: Time,
    ) {
        let own = arrival == Arrival::Own;
        let frame = &buffer.room()[..length];
        let kept = queue.is_some_and(|queue| self.pending.keep(queue, frame, own, now));
        self.discard(port, buffer);
        if !kept {
            self.drop(DropReason::NoNeighbor, arrival);
        } else if !own {
            self.tally.hold(1);
        }
    }

    /// Puts a whole frame into its port's transmit ring and counts it.
    #[inline]
    fn transmit(&mut self, port: PortIndex, buffer: P::Transmit, length: usize, arrival: Arrival) {
        let lane = self.egress[port.index()];
        self.lanes[lane].port.transmit(buffer, length);
        if arrival == Arrival::Own {
            self.tally.add(Cell::Created, 1);
        }
        self.tally.sent(port.index(), length as u64);
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
            Ok(way) if packet.length > way.mtu() => {
                let ip = carrier.ip(length);
                self.forward_fragments(snapshot, (ip, packet), way, transit, now);
                self.abandon(carrier);
                Ok(())
            }
            Ok(way) => self.load(carrier, way.port(), length).map(|mut buffer| {
                let ip = &mut buffer.room()[ETHERNET..ETHERNET + length];
                if let Some(direction) = transit.crossing {
                    clamp(snapshot, ip, packet, direction, (self.number, now));
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
        let toward = way.map(|exit| exit.port());
        if !transit.arrival.is_local() && packet.hop_limit <= 1 {
            let complaint = Complaint::TimeExceeded;
            self.complain(snapshot, complaint, (ip, packet), transit, toward, now);
            return Err(DropReason::HopLimit);
        }
        let mtu = way.map_or(u16::MAX, |exit| exit.mtu());
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

    /// How a packet of others is cut, if it may be. IPv6 is cut by its sender alone, so only what
    /// the machine itself had cut and we have put together (RFC 8200 §4.5).
    pub(super) fn plan(&mut self, ip: &[u8], packet: &Packet, mtu: u16) -> Option<fragment::Plan> {
        match packet.version {
            Version::V4 => fragment::Plan::transit(ip, packet, mtu),
            Version::V6 if packet.dont_fragment => None,
            Version::V6 => {
                self.identification = self.identification.wrapping_add(1);
                fragment::Plan::own(ip, self.identification, mtu)
            }
        }
    }

    /// Gives back the frame that a packet lies in, if it has one.
    fn abandon(&mut self, carrier: Carrier<'_, P::Transmit>) {
        if let Carrier::Placed(buffer, port) = carrier {
            self.discard(port, buffer);
        }
    }

    /// Forwards a packet that may be cut and is too long for the way, in fragments.
    fn forward_fragments(
        &mut self,
        snapshot: &Snapshot,
        (ip, packet): (&[u8], &Packet),
        exit: Exit,
        transit: Transit,
        now: Time,
    ) {
        let Some(plan) = self.plan(ip, packet, exit.mtu()) else {
            return self.drop(DropReason::TooBig, transit.arrival);
        };
        for index in 0..plan.count() {
            if index > 0 && transit.arrival != Arrival::Own {
                self.tally.add(Cell::Created, 1);
            }
            let mut buffer = match self.allocate(exit.port(), usize::from(exit.mtu())) {
                Ok(buffer) => buffer,
                Err(reason) => {
                    self.drop(reason, transit.arrival);
                    continue;
                }
            };
            let room = &mut buffer.room()[ETHERNET..];
            let Some(length) = plan.write(ip, index, room) else {
                self.discard(exit.port(), buffer);
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
