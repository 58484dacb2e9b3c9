//! The thread that owns the device: writes what workers send, reads what the machine sends.

use std::hash::BuildHasher;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use foldhash::fast::FixedState;
use ipsec::limits::BATCH;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::exchange::{DEPTH, Exchange, HostLink, HostPacket};
use crate::port::bell::Bell;

/// Longest sleep, so that a stop is noticed without a bell.
const SLEEP: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// Pause between two looks at a device that is gone.
const PAUSE: Duration = Duration::from_millis(100);

/// What the host thread counts. It alone writes.
#[derive(Debug, Default)]
pub struct HostCounters {
    /// Packets of the machine that no worker had room for: they count as from the host and as
    /// dropped, `host_full`.
    pub full: AtomicU64,
    /// Packets that the kernel took.
    pub written: AtomicU64,
    /// Packets that it refused, for instance because the device is down.
    pub refused: AtomicU64,
    /// Packets that the machine sent.
    pub read: AtomicU64,
}

impl HostCounters {
    /// One more, by the only writer.
    fn add(counter: &AtomicU64) {
        counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
}

/// The device with its queues.
#[derive(Debug)]
pub struct HostThread {
    device: Arc<OwnedFd>,
    bell: Arc<Bell>,
    to_host: Arc<Exchange>,
    workers: Vec<(Arc<Exchange>, Arc<Bell>)>,
    /// The buffer that the next packet is read into.
    next: HostPacket,
    counters: Arc<HostCounters>,
}

impl HostThread {
    pub(super) fn new(
        device: Arc<OwnedFd>,
        bells: Vec<Arc<Bell>>,
    ) -> io::Result<(Self, Vec<HostLink>)> {
        let bell = Arc::new(Bell::new()?);
        let to_host = Arc::new(Exchange::new(DEPTH * bells.len().max(1)));
        let workers: Vec<_> = bells
            .into_iter()
            .map(|bell| (Arc::new(Exchange::new(DEPTH)), bell))
            .collect();
        let link = |(from_host, _): &(Arc<Exchange>, Arc<Bell>)| HostLink {
            to_host: Arc::clone(&to_host),
            from_host: Arc::clone(from_host),
            host: Arc::clone(&bell),
        };
        let links = workers.iter().map(link).collect();
        let thread = Self {
            device,
            bell,
            to_host,
            workers,
            next: HostPacket::new(),
            counters: Arc::default(),
        };
        Ok((thread, links))
    }

    /// What it counts, to be read by others.
    #[must_use]
    pub fn counters(&self) -> Arc<HostCounters> {
        Arc::clone(&self.counters)
    }

    /// Rung to end a sleep before a stop.
    #[must_use]
    pub fn bell(&self) -> Arc<Bell> {
        Arc::clone(&self.bell)
    }

    /// Works until `stop`, then writes what is left.
    pub fn run(mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            if self.turn() == 0 {
                self.sleep();
            }
        }
        while self.write() > 0 {}
    }

    /// One pass over both directions: how many packets moved.
    pub fn turn(&mut self) -> usize {
        self.write() + self.read()
    }

    fn write(&self) -> usize {
        for count in 0..BATCH {
            let Some(packet) = self.to_host.full.pop() else {
                return count;
            };
            let counter = match rustix::io::write(&self.device, packet.bytes()) {
                Ok(_) => &self.counters.written,
                Err(_) => &self.counters.refused,
            };
            HostCounters::add(counter);
            self.to_host.give_back(packet);
        }
        BATCH
    }

    fn read(&mut self) -> usize {
        for count in 0..BATCH {
            match rustix::io::read(&self.device, self.next.room()) {
                Ok(length) => self.next.set_length(length),
                Err(Errno::INTR) => continue,
                Err(_) => {
                    self.ring_workers(count);
                    return count;
                }
            }
            if is_about_the_link(self.next.bytes()) {
                continue;
            }
            HostCounters::add(&self.counters.read);
            self.deliver();
        }
        self.ring_workers(BATCH);
        BATCH
    }

    /// Hands the packet just read to the worker of its flow, against an empty buffer.
    fn deliver(&mut self) {
        let worker = flow(self.next.bytes()) % self.workers.len().max(1);
        let exchange = self.workers.get(worker).map(|(exchange, _)| exchange);
        let empty = exchange.and_then(|exchange| exchange.empty.pop());
        match (exchange, empty) {
            (Some(exchange), Some(empty)) => {
                exchange.hand_over(std::mem::replace(&mut self.next, empty));
            }
            _ => HostCounters::add(&self.counters.full),
        }
    }

    fn ring_workers(&self, moved: usize) {
        if moved > 0 {
            for (_, bell) in &self.workers {
                bell.ring();
            }
        }
    }

    fn sleep(&self) {
        self.bell.prepare_to_sleep();
        if self.to_host.full.is_empty() {
            let mut fds = [
                PollFd::from_borrowed_fd(self.device.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(self.bell.as_fd(), PollFlags::IN),
            ];
            // A signal ends the sleep early, which does no harm.
            poll(&mut fds, Some(&SLEEP)).unwrap_or_default();
            if fds[0].revents().contains(PollFlags::ERR) {
                // Somebody deleted the device, and poll will not wait any more.
                thread::sleep(PAUSE);
            }
        }
        self.bell.awake();
    }
}

/// True for what the kernel says to a link that the device does not have: multicast listener
/// reports, router solicitations, discovery of all kinds. No policy is asked and nothing counted.
fn is_about_the_link(packet: &[u8]) -> bool {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => matches!(
            packet.get(16..20),
            Some([224, 0, 0, _] | [169, 254, _, _] | [255, 255, 255, 255])
        ),
        Some(6) => match packet.get(24..26) {
            // Multicast of interface or link scope (RFC 4291 section 2.7).
            Some([0xff, scope]) => matches!(scope & 15, 1 | 2),
            Some([0xfe, second]) => second & 0xc0 == 0x80,
            _ => false,
        },
        _ => false,
    }
}

/// The same number for all packets between two addresses.
fn flow(packet: &[u8]) -> usize {
    let addresses = match packet.first().map(|byte| byte >> 4) {
        Some(4) => packet.get(12..20),
        Some(6) => packet.get(8..40),
        _ => None,
    };
    let hash = FixedState::default().hash_one(addresses.unwrap_or_default());
    usize::try_from(hash >> 32).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_about_a_link_is_told_from_what_has_a_destination() {
        let v4 = |destination: [u8; 4]| {
            let mut bytes = [0x45; 20];
            bytes[16..].copy_from_slice(&destination);
            is_about_the_link(&bytes)
        };
        let link = [[224, 0, 0, 22], [169, 254, 1, 1], [255; 4]];
        assert!(link.into_iter().all(v4));
        let others = [[224, 0, 1, 22], [10, 0, 0, 22], [169, 253, 1, 1]];
        assert!(!others.into_iter().any(v4));
        let v6 = |first, second| {
            let mut bytes = [0x60; 40];
            bytes[24..26].copy_from_slice(&[first, second]);
            is_about_the_link(&bytes)
        };
        assert!(v6(0xff, 0x02) && v6(0xff, 0x12) && v6(0xff, 0x01) && v6(0xfe, 0x80));
        assert!(!v6(0xff, 0x05) && !v6(0xfe, 0xc0) && !v6(0x20, 0x01));
        assert!(!is_about_the_link(&[]) && !is_about_the_link(&[0x60; 24]));
    }

    #[test]
    fn a_flow_stays_together_and_flows_spread() {
        let packet = |last: u8, payload: u8| {
            let mut bytes = [payload; 40];
            bytes[0] = 0x45;
            bytes[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, last]);
            bytes
        };
        assert_eq!(flow(&packet(1, 7)), flow(&packet(1, 9)));
        let workers: std::collections::BTreeSet<_> =
            (0..64).map(|last| flow(&packet(last, 0)) % 2).collect();
        assert_eq!(workers.len(), 2);
        assert_eq!(
            flow(&[]),
            flow(&[0x45, 0]),
            "a stub of a packet is no panic"
        );
    }
}
