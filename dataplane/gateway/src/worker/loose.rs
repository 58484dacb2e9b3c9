//! Packets that lie in no frame of a port, on their way out: the machine's own, and copies.

use ipsec::sa::association::Direction;
use ipsec::time::Time;
use ipsec::verdict::DropReason;

use crate::counters::Cell;
use crate::port::Port;
use crate::snapshot::Snapshot;
use crate::worker::frame::{Arrival, Look, Source, look_from_host};
use crate::worker::host::Host;
use crate::worker::process::{Kept, Worker};

impl<P: Port, H: Host> Worker<P, H> {
    /// One packet from the machine itself, behind an Ethernet header that means nothing.
    pub fn serve_host(&mut self, frame: &mut [u8], snapshot: &Snapshot, now: Time) {
        self.tally.add(Cell::FromHost, 1);
        match look_from_host(frame) {
            Look::Packet(packet) if snapshot.tables.takes_whole(&packet) => {
                self.gather_own((frame, &packet), snapshot, now);
            }
            look => self.serve_look(frame, look, Arrival::Host, snapshot, now),
        }
        self.post(snapshot, now);
    }

    /// Packets that the machine sent, as many as wait but at most `limit`. Answers their number.
    pub(super) fn serve_host_queue(
        &mut self,
        limit: usize,
        snapshot: &Snapshot,
        now: Time,
    ) -> usize {
        // Taken out, so that the packet may be borrowed while the worker works on it.
        let mut frame = std::mem::take(&mut self.host_frame);
        let mut count = 0;
        while count < limit
            && let Some(length) = self.host.receive(&mut frame)
        {
            count += 1;
            self.serve_host(&mut frame[..length], snapshot, now);
        }
        self.host_frame = frame;
        count
    }

    /// A packet for the outbound policy that lies in no frame of a port: the machine's own, or
    /// what was opened on another worker.
    pub(super) fn serve_loose(
        &mut self,
        frame: &mut [u8],
        arrival: Arrival,
        snapshot: &Snapshot,
        now: Time,
    ) {
        let look = look_from_host(frame);
        self.serve_look(frame, look, arrival, snapshot, now);
    }

    /// The same, looked at already.
    pub(super) fn serve_look(
        &mut self,
        frame: &mut [u8],
        look: Look,
        arrival: Arrival,
        snapshot: &Snapshot,
        now: Time,
    ) {
        match look {
            Look::Packet(packet) => {
                let mut source = Source {
                    frame,
                    packet,
                    arrival,
                };
                let ends = self.outbound(std::slice::from_mut(&mut source), snapshot, now);
                if let Some((_, Kept::For(to))) = ends.first() {
                    self.hand_over_copy(*to, &source, Direction::Out);
                }
            }
            Look::Host => self.tally.drop(DropReason::Malformed),
            Look::Drop(reason) => self.tally.drop(reason),
        }
    }
}
