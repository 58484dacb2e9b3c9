//! Packets that wait for a neighbour: finished frames, copied, at most 16 a next hop and for a
//! second (design: "Neighbours").

use std::collections::VecDeque;

use crossbeam::queue::ArrayQueue;
use ipsec::packet::Version;
use ipsec::time::{SECOND, Time};

use crate::route::{Mac, Neighbors, PortIndex};

/// Frames that wait for one next hop, at most: what Linux keeps too (`unres_qlen` in packets).
const FRAMES: usize = 16;

/// Next hops waited for at once, at most; a scan of the link must not fill the memory.
const HOPS: usize = 256;

/// How long a frame waits at most.
const PATIENCE: u64 = SECOND;

/// A next hop on a port's link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NextHop {
    /// The port.
    pub port: PortIndex,
    /// Family of the address.
    pub version: Version,
    /// The address, as [`ipsec::packet::address_bits`] has it.
    pub address: u128,
}

/// A frame that waited, with its destination MAC address still to be written.
pub(super) struct Waiting {
    pub frame: Vec<u8>,
    pub since: Time,
    /// Ours: counted only if it leaves.
    pub own: bool,
}

/// Names the queue of a next hop until the end of the round, when [`Pending::settle`] may take
/// queues away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QueueIndex(pub u16);

struct Queue {
    hop: NextHop,
    frames: VecDeque<Waiting>,
}

/// All that waits on one worker.
pub(super) struct Pending {
    queues: Vec<Queue>,
    /// Where the control side is asked to have the kernel resolve a next hop; `None`: nobody can,
    /// so nothing waits.
    requests: Option<std::sync::Arc<ArrayQueue<NextHop>>>,
}

impl Pending {
    pub(super) const fn new(requests: Option<std::sync::Arc<ArrayQueue<NextHop>>>) -> Self {
        Self {
            queues: Vec::new(),
            requests,
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// The queue of `hop`, if one more frame will probably find a place in it; [`Self::keep`]
    /// decides, since others of the same burst may take it. Asks for the neighbour on the first.
    pub(super) fn admits(&mut self, hop: NextHop) -> Option<QueueIndex> {
        let requests = self.requests.as_ref()?;
        let known = self.queues.iter().position(|queue| queue.hop == hop);
        let index = match known {
            Some(index) if self.queues[index].frames.len() < FRAMES => index,
            // A full request queue: the kernel is asked when the next packet comes.
            None if self.queues.len() < HOPS && requests.push(hop).is_ok() => {
                let frames = VecDeque::new();
                self.queues.push(Queue { hop, frames });
                self.queues.len() - 1
            }
            Some(_) | None => return None,
        };
        u16::try_from(index).ok().map(QueueIndex)
    }

    /// Keeps a copy of a frame. False: there is no place, the packet must end.
    #[must_use]
    pub(super) fn keep(&mut self, queue: QueueIndex, frame: &[u8], own: bool, now: Time) -> bool {
        let Some(queue) = self.queues.get_mut(usize::from(queue.0)) else {
            return false;
        };
        let frames = &mut queue.frames;
        if frames.len() >= FRAMES {
            return false;
        }
        frames.push_back(Waiting {
            frame: frame.to_vec(),
            since: now,
            own,
        });
        true
    }

    /// Hands every frame whose wait is over to `end`: with the MAC address if the neighbour is
    /// known now, without if the time is up.
    pub(super) fn settle(
        &mut self,
        neighbors: &Neighbors,
        now: Time,
        mut end: impl FnMut(NextHop, Waiting, Option<Mac>),
    ) {
        self.queues.retain_mut(|queue| {
            let hop = queue.hop;
            if let Some(mac) = neighbors.lookup(hop.port, hop.version, hop.address) {
                for waiting in queue.frames.drain(..) {
                    end(hop, waiting, Some(mac));
                }
            }
            while queue
                .frames
                .front()
                .is_some_and(|first| now.since(first.since) >= PATIENCE)
            {
                if let Some(waiting) = queue.frames.pop_front() {
                    end(hop, waiting, None);
                }
            }
            !queue.frames.is_empty()
        });
    }

    /// Ends every wait: the worker stops.
    pub(super) fn abandon(&mut self, mut end: impl FnMut(NextHop, Waiting, Option<Mac>)) {
        for mut queue in self.queues.drain(..) {
            for waiting in queue.frames.drain(..) {
                end(queue.hop, waiting, None);
            }
        }
    }
}
