//! ICMP errors of our own (RFC 792, RFC 4443, RFC 4301 §6 and §8.2): built when a packet is
//! dropped, sent at the end of the burst.

use ipsec::ip::icmp_error::{self, Unreachable};
use ipsec::packet::{Packet, Version};
use ipsec::time::Time;
use ipsec::verdict::DropReason;

use crate::port::Port;
use crate::route::PortIndex;
use crate::snapshot::Snapshot;
use crate::worker::egress::{Carrier, Transit};
use crate::worker::exit::leads_to_protected;
use crate::worker::frame::{Arrival, Look, Source, ether_type_of, look_from_host};
use crate::worker::host::Host;
use crate::worker::outbox::Way;
use crate::worker::process::Worker;

/// What an ICMP error says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Complaint {
    /// The hop limit is used up.
    TimeExceeded,
    /// The packet is too long; the MTU to be told, before the floors of RFC 791 and RFC 8200.
    TooBig(u16),
    /// It may not, or cannot, go to the unprotected side.
    Unreachable(Unreachable),
}

impl<P: Port, H: Host> Worker<P, H> {
    /// What the sender of an outbound packet that is dropped for `reason` is told, if anything.
    //= T118 (RFC 4301 section 5.1.1)
    pub(super) fn complaint(&self, reason: DropReason) -> Option<Complaint> {
        let unreachable = |why| self.send_unreachable.then_some(Complaint::Unreachable(why));
        match reason {
            DropReason::HopLimit => Some(Complaint::TimeExceeded),
            DropReason::PolicyDiscard | DropReason::NoPolicy => {
                unreachable(Unreachable::Prohibited)
            }
            DropReason::NoRoute => unreachable(Unreachable::Peer),
            _ => None,
        }
    }

    /// Answers a dropped packet with an ICMP error, if rate and the rules of ICMP allow.
    ///
    /// The error comes from the port by which the packet came in; about an opened packet
    /// (`toward` is then the port it would have left by) from that port or the first protected
    /// one.
    pub(super) fn complain(
        &mut self,
        snapshot: &Snapshot,
        complaint: Complaint,
        (ip, packet): (&[u8], &Packet),
        transit: Transit,
        toward: Option<PortIndex>,
        now: Time,
    ) {
        let port = match transit.arrival {
            Arrival::Own => return,
            Arrival::Port(port, _) if !transit.opened => port,
            _ => toward.unwrap_or(snapshot.first_protected),
        };
        //= T131 (RFC 1122 section 3.2.2): nobody answers a broadcast, nor one that forged it
        let (version, ends) = (packet.version, [packet.source, packet.destination]);
        if ends.iter().any(|end| snapshot.is_broadcast(version, *end)) {
            return;
        }
        let Some(from) = snapshot.ports[port.index()].address(packet.version) else {
            return;
        };
        let errors = &mut self.errors;
        self.outbox
            .post(transit.answer, ether_type_of(packet.version), |out| {
                let length = match complaint {
                    Complaint::TimeExceeded => icmp_error::time_exceeded(ip, packet, from, out),
                    Complaint::TooBig(mtu) => {
                        let mtu = mtu.max(least_mtu(packet.version));
                        icmp_error::too_big(ip, packet, from, mtu, out)
                    }
                    Complaint::Unreachable(why) => {
                        icmp_error::unreachable(ip, packet, from, why, out)
                    }
                }?;
                // Last: what may not be answered does not use up the rate.
                errors.allow(now).then_some(length)
            });
    }

    /// Sends what waits in the outbox, unless batches are out that it must not overtake. What
    /// cannot be sent was never created.
    pub(super) fn post(&mut self, snapshot: &Snapshot, now: Time) {
        if !self.lender.is_home() {
            return;
        }
        self.ways.forget();
        while let Some(mut letter) = self.outbox.take() {
            let way = letter.way;
            if let Look::Packet(packet) = look_from_host(letter.frame()) {
                let mut source = Source {
                    frame: letter.frame(),
                    packet,
                    arrival: Arrival::Own,
                };
                self.send_own(snapshot, &mut source, way, now);
            }
            self.outbox.give_back(letter);
        }
    }

    fn send_own(&mut self, snapshot: &Snapshot, source: &mut Source<'_>, way: Way, now: Time) {
        let packet = source.packet;
        match way {
            Way::Host => {
                let ethernet = source.ethernet(packet.version);
                if self.host.deliver(&ethernet, source.ip()).is_ok() {
                    self.tally.add(crate::counters::Cell::Created, 1);
                    self.tally.add(crate::counters::Cell::ToHost, 1);
                }
            }
            Way::Route if leads_to_protected(snapshot, &packet) => {
                let transit = Transit {
                    arrival: Arrival::Own,
                    answer: Way::Route,
                    opened: false,
                    crossing: None,
                };
                self.forward(snapshot, &packet, Carrier::Copy(source.ip()), transit, now);
            }
            Way::Route | Way::Policy => {
                // An error whose SA lives elsewhere is not worth a hand-over: never created.
                drop(self.outbound(std::slice::from_mut(source), snapshot, now));
            }
        }
    }
}

/// The least MTU that may be told (RFC 791 §3.2, RFC 8200 §5), bytes.
const fn least_mtu(version: Version) -> u16 {
    match version {
        Version::V4 => 68,
        Version::V6 => 1280,
    }
}
