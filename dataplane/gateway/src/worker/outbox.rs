//! Frames that we make ourselves wait here, in buffers from a fixed pool: ICMP errors, and nothing
//! is allocated to answer a flood.

use std::collections::VecDeque;

use ipsec::wire::ethernet::Header;

use crate::worker::host::ETHERNET;

/// Longest frame that we originate, bytes: an ICMPv6 error fills the least IPv6 MTU.
const ROOM: usize = ETHERNET + ipsec::limits::IPV6_MTU_MINIMUM;

/// Errors that may wait for the end of the burst that caused them. More than the rate limit's
/// burst is of no use.
const WAITING: usize = 64;

/// How a packet of ours is to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// By the routes, in clear: an answer to the side that is already protected.
    Route,
    /// Through the outbound policy.
    Policy,
    /// To the machine itself.
    Host,
}

/// Boxed, so that posting moves a pointer and not the bytes.
type Room = Box<[u8; ROOM]>;

/// One frame of ours.
pub(super) struct Letter {
    buffer: Room,
    length: usize,
    pub way: Way,
}

impl Letter {
    pub(super) fn frame(&mut self) -> &mut [u8] {
        &mut self.buffer[..self.length]
    }
}

/// The pool and what waits, oldest first.
pub(super) struct Outbox {
    free: Vec<Room>,
    waiting: VecDeque<Letter>,
}

impl Outbox {
    pub(super) fn new() -> Self {
        Self {
            free: (0..WAITING).map(|_| Box::new([0; ROOM])).collect(),
            waiting: VecDeque::with_capacity(WAITING),
        }
    }

    /// Lets `write` fill a packet (behind room for the Ethernet header) and posts it if `write`
    /// gives a length. False: nothing was posted.
    pub(super) fn post(
        &mut self,
        way: Way,
        ether_type: u16,
        write: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) -> bool {
        let Some(mut buffer) = self.free.pop() else {
            return false;
        };
        let header = Header {
            destination: [0; 6],
            source: [0; 6],
            ether_type,
        };
        buffer[..ETHERNET].copy_from_slice(&header.to_bytes());
        match write(&mut buffer[ETHERNET..]) {
            Some(length) => {
                self.waiting.push_back(Letter {
                    buffer,
                    length: ETHERNET + length,
                    way,
                });
                true
            }
            None => {
                self.free.push(buffer);
                false
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn take(&mut self) -> Option<Letter> {
        self.waiting.pop_front()
    }

    pub(super) fn give_back(&mut self, letter: Letter) {
        self.free.push(letter.buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_leave_in_the_order_of_posting_and_their_rooms_come_back() {
        let mut outbox = Outbox::new();
        for round in 0..2 {
            for number in 0..WAITING {
                let posted = outbox.post(Way::Route, 0x0800, |out| {
                    out[0] = u8::try_from(number + round).ok()?;
                    Some(1)
                });
                assert!(posted);
            }
            assert!(!outbox.post(Way::Route, 0x0800, |_| Some(1)), "full");
            for number in 0..WAITING {
                let mut letter = outbox.take().expect("as many as were posted");
                assert_eq!(usize::from(letter.frame()[ETHERNET]), number + round);
                outbox.give_back(letter);
            }
            assert!(outbox.take().is_none());
        }
    }
}
