//! Authentic packets whose numbers lie beyond what is reserved on disk: kept as received, offered
//! again when the reservation has grown (design: "What outlives a restart").

use std::collections::VecDeque;

use ipsec::packet::Packet;
use ipsec::sa::SaSlot;
use ipsec::sa::state::HELD_AT_MOST;
use ipsec::time::Time;

use crate::worker::frame::Arrival;

/// Packets that one SA may have waiting.
const PER_SA: usize = 256;

/// Packets that one worker may have waiting for all its SAs.
const IN_ALL: usize = 4096;

/// How long a packet waits at most: longer than a commit takes on a busy disk, and nobody waits
/// longer for a lost packet's successor.
pub(super) const PATIENCE: u64 = HELD_AT_MOST;

/// One packet that waits.
pub(super) struct Held {
    pub frame: Vec<u8>,
    pub packet: Packet,
    pub arrival: Arrival,
    pub slot: SaSlot,
    /// It came out of this SA, which has accepted and counted it.
    pub behind: Option<SaSlot>,
    pub since: Time,
    /// How far the SA's numbers were reserved when the packet was last offered.
    pub reserved_end: u64,
}

/// All that waits on one worker, oldest first.
#[derive(Default)]
pub(super) struct Shelf {
    waiting: VecDeque<Held>,
}

impl Shelf {
    /// Keeps a copy of a frame for the SA in `slot`. `behind`: the packet came out of that one, and
    /// the frame is what it gave behind an Ethernet header. False: no room, the packet must end.
    pub(super) fn keep(
        &mut self,
        frame: &[u8],
        packet: Packet,
        arrival: Arrival,
        (behind, slot, reserved_end): (Option<SaSlot>, SaSlot, u64),
        now: Time,
    ) -> bool {
        let same = self.waiting.iter().filter(|held| held.slot == slot).count();
        if same >= PER_SA || self.waiting.len() >= IN_ALL {
            return false;
        }
        self.waiting.push_back(Held {
            frame: frame.to_vec(),
            packet,
            arrival,
            slot,
            behind,
            since: now,
            reserved_end,
        });
        true
    }

    /// Takes all that waits; what must wait on is put back with [`Shelf::put_back`].
    pub(super) fn take(&mut self) -> VecDeque<Held> {
        std::mem::take(&mut self.waiting)
    }

    pub(super) fn put_back(&mut self, held: Held) {
        self.waiting.push_back(held);
    }

    /// True when packets of that SA wait.
    pub(super) fn keeps_any_of(&self, slot: SaSlot) -> bool {
        self.waiting.iter().any(|held| held.slot == slot)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}
