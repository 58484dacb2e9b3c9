//! Packets whose SA lives on another worker: descriptors go there over bounded queues, the home
//! reads the bytes in place and writes its own transmit frame, and the frame's token comes back
//! (design: "Many cores").

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use crossbeam::queue::ArrayQueue;
use ipsec::packet::Packet;
use ipsec::sa::association::Direction;

use crate::counters::Cuts;
use crate::port::bell::Bell;
use crate::worker::frame::Arrival;
use crate::worker::lend::Lending;
use crate::worker::orders::Order;

/// Frames that may be on their way between two workers, at most: four batches hide a home's longest
/// round, more only adds latency under overload.
pub const PARCELS: usize = 4 * ipsec::limits::BATCH;

/// Orders for dummies that may wait for one worker: a person types them.
const ORDERS: usize = 64;

/// A frame on its way to its SA's home.
pub struct Parcel<R> {
    /// The received frame; it belongs to the worker that sent the parcel.
    pub frame: R,
    /// That worker's lane.
    pub lane: usize,
    /// Parsed already.
    pub packet: Packet,
    /// Where it came from.
    pub arrival: Arrival,
    /// The cut of the counters that its sender was at.
    pub cut: u64,
}

/// A packet on its way to its SA's home that lies in no received frame, copied behind an Ethernet
/// header: the machine's own, one that was opened here and crosses the boundary again, or one that
/// was put together from fragments.
#[derive(Debug)]
pub struct LooseParcel {
    /// Ethernet header and IP packet.
    pub frame: Vec<u8>,
    /// Parsed already.
    pub packet: Packet,
    /// Where it came from.
    pub arrival: Arrival,
    /// Which way across the boundary it goes.
    pub direction: Direction,
    /// The cut of the counters that its sender was at.
    pub cut: u64,
}

struct Route<R> {
    there: ArrayQueue<Parcel<R>>,
    back: ArrayQueue<(usize, R)>,
}

/// The queues between all workers of a gateway, for frames received (`R`) and to be sent (`T`).
pub struct Exchange<R, T = R> {
    workers: usize,
    routes: Vec<Route<R>>,
    loose: Vec<ArrayQueue<LooseParcel>>,
    /// Dummies to send, by worker.
    orders: Vec<ArrayQueue<Order>>,
    lending: Lending<R, T>,
    bells: Vec<Arc<Bell>>,
    cuts: Cuts,
}

impl<R: Send, T: Send> Exchange<R, T> {
    /// Queues for `workers` workers.
    ///
    /// # Errors
    /// When the kernel gives no event descriptors.
    pub fn new(workers: usize) -> std::io::Result<Self> {
        let route = || Route {
            there: ArrayQueue::new(PARCELS),
            back: ArrayQueue::new(PARCELS),
        };
        Ok(Self {
            workers,
            routes: (0..workers * workers).map(|_| route()).collect(),
            loose: (0..workers).map(|_| ArrayQueue::new(PARCELS)).collect(),
            orders: (0..workers).map(|_| ArrayQueue::new(ORDERS)).collect(),
            lending: Lending::new(workers),
            bells: (0..workers)
                .map(|_| Bell::new().map(Arc::new))
                .collect::<Result<_, _>>()?,
            cuts: Cuts::default(),
        })
    }

    /// Cuts through the counters of all workers.
    #[must_use]
    pub const fn cuts(&self) -> &Cuts {
        &self.cuts
    }

    /// Has a worker send dummies.
    ///
    /// # Errors
    /// The order itself when too many wait there already.
    pub fn order(&self, worker: usize, order: Order) -> Result<(), Order> {
        self.orders[worker].push(order)?;
        self.bells[worker].ring();
        Ok(())
    }

    /// Rings every worker's bell.
    pub fn wake(&self) {
        for bell in &self.bells {
            bell.ring();
        }
    }

    /// A worker's bell.
    #[must_use]
    pub fn bell(&self, worker: usize) -> &Arc<Bell> {
        &self.bells[worker]
    }

    /// The queue of loose packets for a worker.
    #[must_use]
    pub fn loose(&self, worker: usize) -> &ArrayQueue<LooseParcel> {
        &self.loose[worker]
    }

    fn route(&self, from: usize, to: usize) -> &Route<R> {
        &self.routes[from * self.workers + to]
    }
}

/// One worker's end of the exchange.
pub struct Desk<R, T = R> {
    exchange: Arc<Exchange<R, T>>,
    own: usize,
    /// Parcels sent to each worker whose frames have not come back. Bounded by [`PARCELS`], so that
    /// the way back always has room.
    out: Vec<usize>,
    /// Workers that got something since the bells were rung.
    unrung: Vec<bool>,
}

impl<R: Send, T: Send> Desk<R, T> {
    /// The desk of worker `own`.
    #[must_use]
    pub fn new(exchange: Arc<Exchange<R, T>>, own: u16) -> Self {
        let workers = exchange.workers;
        Self {
            exchange,
            own: usize::from(own),
            out: vec![0; workers],
            unrung: vec![false; workers],
        }
    }

    /// Number of the cut that every worker should be at.
    #[must_use]
    pub fn cut(&self) -> u64 {
        self.exchange.cuts.current()
    }

    /// Wakes those who got something and may sleep: once a batch, not once a parcel.
    pub fn ring(&mut self) {
        for (to, unrung) in self.unrung.iter_mut().enumerate() {
            if std::mem::take(unrung) {
                self.exchange.bell(to).ring();
            }
        }
    }

    /// Sends a parcel. Followed by [`Self::ring`] at the end of the batch.
    ///
    /// # Errors
    /// The parcel itself when the queue is full or there is no such worker.
    pub fn send(&mut self, to: u16, parcel: Parcel<R>) -> Result<(), Parcel<R>> {
        let to = usize::from(to);
        if to >= self.out.len() || to == self.own || self.out[to] >= PARCELS {
            return Err(parcel);
        }
        self.exchange.route(self.own, to).there.push(parcel)?;
        self.out[to] += 1;
        self.unrung[to] = true;
        Ok(())
    }

    /// Sends a copied packet. Followed by [`Self::ring`].
    ///
    /// # Errors
    /// The packet itself when the queue is full or there is no such worker.
    pub fn send_loose(&mut self, to: u16, packet: LooseParcel) -> Result<(), LooseParcel> {
        let to = usize::from(to);
        if to >= self.out.len() || to == self.own {
            return Err(packet);
        }
        self.exchange.loose(to).push(packet)?;
        self.unrung[to] = true;
        Ok(())
    }

    /// Passes on an order for dummies of an SA that lives elsewhere. Followed by [`Self::ring`].
    ///
    /// # Errors
    /// The order itself when too many wait there or there is no such worker.
    pub fn send_order(&mut self, to: u16, order: Order) -> Result<(), Order> {
        let to = usize::from(to);
        if to >= self.out.len() || to == self.own {
            return Err(order);
        }
        self.exchange.orders[to].push(order)?;
        self.unrung[to] = true;
        Ok(())
    }

    /// The next order for dummies.
    pub fn next_order(&self) -> Option<Order> {
        self.exchange.orders[self.own].pop()
    }

    /// The next parcel from worker `from`.
    pub fn receive(&self, from: usize) -> Option<Parcel<R>> {
        self.exchange.route(from, self.own).there.pop()
    }

    /// The next copied packet that another worker sent here.
    pub fn receive_loose(&self) -> Option<LooseParcel> {
        self.exchange.loose(self.own).pop()
    }

    /// Sends a frame back to the worker that it belongs to. Followed by [`Self::ring`] at the end
    /// of the batch.
    pub fn give_back(&mut self, to: usize, lane: usize, frame: R) {
        let pushed = self.exchange.route(to, self.own).back.push((lane, frame));
        assert!(pushed.is_ok(), "no more frames come back than were sent");
        self.unrung[to] = true;
    }

    /// The next own frame that has come back, with its lane.
    pub fn take_back(&mut self) -> Option<(usize, R)> {
        for to in 0..self.out.len() {
            if self.out[to] > 0
                && let Some(home) = self.exchange.route(self.own, to).back.pop()
            {
                self.out[to] -= 1;
                return Some(home);
            }
        }
        None
    }

    /// Frames that are away.
    #[must_use]
    pub fn away(&self) -> usize {
        self.out.iter().sum()
    }

    /// This worker's number.
    pub(super) const fn own(&self) -> usize {
        self.own
    }

    /// Who lends what.
    pub(super) fn lending(&self) -> &Lending<R, T> {
        &self.exchange.lending
    }

    /// Wakes one worker that sleeps and has time, if there is one. To be called after something
    /// was offered.
    pub(super) fn wake_helper(&self) {
        fence(Ordering::SeqCst);
        let free = self.exchange.lending.free(self.own);
        let mut sleepers = free.map(|worker| self.exchange.bell(worker));
        if let Some(bell) = sleepers.find(|bell| bell.is_sleeping()) {
            bell.ring();
        }
    }

    /// A copied packet or an order waits for this worker.
    pub(super) fn has_loose_mail(&self) -> bool {
        !self.exchange.loose(self.own).is_empty() || !self.exchange.orders[self.own].is_empty()
    }

    /// Something waits for this worker.
    #[must_use]
    pub fn has_mail(&self) -> bool {
        self.has_loose_mail()
            || (0..self.out.len()).any(|other| {
                !self.exchange.route(other, self.own).there.is_empty()
                    || !self.exchange.route(self.own, other).back.is_empty()
            })
    }

    /// Workers of the exchange.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.out.len()
    }

    /// This worker's bell.
    #[must_use]
    pub fn bell(&self) -> &Arc<Bell> {
        self.exchange.bell(self.own)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use super::*;
    use crate::port::settings::Side;
    use crate::route::PortIndex;

    fn parcel(frame: u32) -> Parcel<u32> {
        let ip = [
            0x45, 0, 0, 20, 0, 0, 0, 0, 64, 59, 0xb1, 0x8d, 10, 0, 0, 1, 10, 0, 0, 2,
        ];
        let mut ip = ip;
        ip[10..12].fill(0);
        let sum = ipsec::wire::checksum::Sum::ZERO.bytes(&ip).checksum();
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        let packet = ipsec::packet::parse(&ip).unwrap();
        Parcel {
            frame,
            lane: 1,
            packet,
            arrival: Arrival::Port(PortIndex(0), Side::Unprotected),
            cut: 0,
        }
    }

    #[test]
    fn a_sleeper_is_woken_once_for_a_whole_batch() {
        let exchange = Arc::new(Exchange::<u32>::new(2).unwrap());
        let mut here = Desk::new(exchange.clone(), 0);
        let rung = || {
            let mut count = [0; 8];
            rustix::io::read(exchange.bell(1), &mut count).is_ok()
        };
        exchange.bell(1).prepare_to_sleep();
        for frame in 0..3 {
            assert!(here.send(1, parcel(frame)).is_ok());
        }
        assert!(!rung(), "not once a parcel");
        here.ring();
        assert!(rung());
        exchange.bell(1).prepare_to_sleep();
        here.ring();
        assert!(!rung(), "nothing new");
    }

    #[test]
    fn a_full_queue_gives_the_parcel_back_and_every_frame_comes_home() {
        let exchange = Arc::new(Exchange::<u32>::new(2).unwrap());
        let mut here = Desk::new(exchange.clone(), 0);
        let mut there = Desk::new(exchange, 1);
        for frame in 0..PARCELS {
            assert!(here.send(1, parcel(u32::try_from(frame).unwrap())).is_ok());
        }
        assert_eq!(here.send(1, parcel(7)).unwrap_err().frame, 7);
        assert!(here.send(0, parcel(8)).is_err(), "not to itself");
        assert!(here.send(2, parcel(9)).is_err(), "not to nobody");
        assert!(there.has_mail() && !here.has_mail());
        // Taken but not given back still counts as away.
        let first = there.receive(0).unwrap();
        assert!(here.send(1, parcel(10)).is_err());
        there.give_back(0, first.lane, first.frame);
        assert_eq!(here.take_back(), Some((1, 0)));
        assert!(here.send(1, parcel(11)).is_ok());
        while let Some(parcel) = there.receive(0) {
            there.give_back(0, parcel.lane, parcel.frame);
        }
        while here.take_back().is_some() {}
        assert_eq!(here.away(), 0);
    }
}
