//! NAT keepalives (RFC 3948 §2.3): one byte to a peer to which nothing else was sent for a while,
//! so that a NAT on the way keeps its mapping. One worker sends them for all.

use ipsec::outbound;
use ipsec::packet::Packet;
use ipsec::sa::Sa;
use ipsec::time::Time;
use ipsec::verdict::DropReason;

use crate::port::{Buffer, Port};
use crate::snapshot::Snapshot;
use crate::worker::exit::{outer_destination, outer_version};
use crate::worker::frame::Arrival;
use crate::worker::host::{ETHERNET, Host};
use crate::worker::process::Worker;

/// The worker that sends them.
const SENDER: u16 = 0;

/// Room for a keepalive, bytes: IPv6 header, UDP header, one byte.
const ROOM: usize = 49;

impl<P: Port, H: Host> Worker<P, H> {
    /// Sends the keepalives that are due. Answers their number.
    pub(super) fn keep_alive(&mut self, snapshot: &Snapshot, now: Time) -> usize {
        if self.number != SENDER {
            return 0;
        }
        // Taken out, so that the worker can send while it looks.
        let mut silence = std::mem::take(&mut self.silence);
        silence.adopt(&snapshot.tables.sad, now);
        let mut sent = 0;
        for (_, watch) in silence.turn(now) {
            let Some(sa) = watch.due(now) else { continue };
            // What cannot be sent was never created; the next pass tries again.
            if self.send_keepalive(sa, snapshot, now).is_ok() {
                watch.sent_at(now);
                sent += 1;
            }
        }
        self.silence = silence;
        sent
    }

    fn send_keepalive(
        &mut self,
        sa: &Sa,
        snapshot: &Snapshot,
        now: Time,
    ) -> Result<(), DropReason> {
        let version = outer_version(sa);
        let nothing = Packet::nothing(version);
        // No burst that could have found it.
        self.ways.forget();
        let exit = self.outer_way(snapshot, sa, &nothing);
        let exit = exit.ok_or(DropReason::NoRoute)?;
        let exit = self.link(snapshot, exit, outer_destination(sa), &nothing)?;
        let mut buffer = self.allocate(exit.port(), ROOM)?;
        match outbound::keepalive(sa, &mut buffer.room()[ETHERNET..]) {
            Some(length) => {
                let size = (version, length);
                self.finish(snapshot, exit, buffer, size, Arrival::Own, now);
                Ok(())
            }
            None => {
                self.discard(exit.port(), buffer);
                Err(DropReason::NoFrame)
            }
        }
    }
}
