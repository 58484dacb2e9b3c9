//! What a worker owns, and one burst from ring to ring.

use std::sync::Arc;

use arrayvec::ArrayVec;
use crossbeam::queue::ArrayQueue;
use ipsec::crypto::iv::RandomIvs;
use ipsec::inbound;
use ipsec::ip::icmp_error::Heeded;
use ipsec::ip::rate_limit::RateLimit;
use ipsec::ip::reassemble::Bounds;
use ipsec::limits::BATCH;
use ipsec::outbound;
use ipsec::packet::checksum;
use ipsec::policy::Memory;
use ipsec::policy::PolicyIndex;
use ipsec::sa::SaSlot;
use ipsec::sa::state::States;
use ipsec::tables::Count;
use ipsec::time::Time;

use crate::counters::{Block, Cell, PortCell, Tally};
use crate::port::settings::Side;
use crate::port::{Frame, Port};
use crate::route::PortIndex;
use crate::snapshot::Snapshot;
use crate::worker::frame::{Arrival, Look, Source, look};
use crate::worker::handoff::{Desk, Exchange};
use crate::worker::held::Shelf;
use crate::worker::host::{ETHERNET, Host};
use crate::worker::lend::Lender;
use crate::worker::orders::UnderWay;
use crate::worker::outbound::LONG;
use crate::worker::outbox::Outbox;
use crate::worker::pending::{NextHop, Pending};
use crate::worker::reassembly::{Assembly, Gathered, Keeps, kept};
use crate::worker::requests::NumberRequests;
use crate::worker::silence::Silence;
use crate::worker::ways::Ways;

/// One queue of a port, as its worker serves it.
pub struct Lane<P: Port> {
    /// The queue.
    pub port: P,
    /// Which port it belongs to.
    pub index: PortIndex,
    /// TCP and UDP checksums may arrive unfinished and are completed.
    pub complete_checksums: bool,
}

/// What a worker is told at its birth.
pub struct WorkerSettings {
    /// Its number, from 0.
    pub number: u16,
    /// Ports in the configuration.
    pub ports: usize,
    /// Slots of SAs.
    pub sas: usize,
    /// ICMP errors a second that this worker may send.
    pub errors_per_second: u32,
    /// Senders are told of outbound packets that policy discards or that have no way to a peer.
    pub send_unreachable: bool,
    /// ICMP errors that the machine hears from the protected side and out of SAs.
    pub heeded: Heeded,
    /// First fragments whose decision is remembered.
    pub remembered_fragments: usize,
    /// How long, nanoseconds.
    pub fragment_timeout: u64,
    /// Bounds of reassembly.
    pub reassembly: Bounds,
    /// Fragments of UDP to endpoints are reassembled too.
    pub reassemble_udp: bool,
    /// Where unpredictable IVs come from.
    pub ivs: RandomIvs,
    /// Random, the same for all workers.
    pub flow_label_seed: u64,
    /// Where its counters are published.
    pub block: Arc<Block>,
    /// Counters of the policies, this worker's own.
    pub policies: Arc<[Count]>,
    /// Where unknown next hops are asked for; `None`: they are not.
    pub neighbor_requests: Option<Arc<ArrayQueue<NextHop>>>,
    /// Where SAs ask for more reserved numbers; `None`: nothing is reserved.
    pub number_requests: Option<Arc<NumberRequests>>,
}

/// Why a frame must be kept by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// It need not be: the packet has ended.
    No,
    /// The SA lives on another worker.
    For(u16),
    /// Its key's work is lent: the frame joins its batch.
    Lent,
    /// Authentic, but its number is not reserved yet: numbers of that SA are up to that one.
    Held(SaSlot, u64),
}

/// The packets of a burst, by their places in it, whose frames must be kept: nearly always none.
pub(super) type Ends = ArrayVec<(usize, Kept), BATCH>;

/// Notes what became of the packet at `place`.
#[inline(always)]
pub(super) fn note(ends: &mut Ends, place: usize, kept: Kept) {
    if kept != Kept::No {
        ends.push((place, kept));
    }
}

/// One worker: its queues, its SAs' states, its counters.
pub struct Worker<P: Port, H: Host> {
    pub(super) number: u16,
    pub(super) lanes: Vec<Lane<P>>,
    /// By port: the lane by which this worker sends.
    pub(super) egress: Vec<usize>,
    pub(super) states: States,
    pub(super) memory: Memory,
    pub(super) tally: Tally,
    /// The cut of the counters that the tally is at.
    pub(super) cut: u64,
    pub(super) host: H,
    pub(super) outbox: Outbox,
    pub(super) pending: Pending,
    pub(super) errors: RateLimit,
    pub(super) send_unreachable: bool,
    pub(super) heeded: Heeded,
    pub(super) predicted: Option<PortIndex>,
    pub(super) ways: Ways,
    /// Room for the pieces of a packet that is cut before sealing.
    pub(super) scratch: Box<[u8]>,
    pub(super) desk: Desk<P::Received, P::Transmit>,
    pub(super) lender: Lender<P::Received, P::Transmit>,
    pub(super) shelf: Shelf,
    pub(super) assembly: Assembly,
    /// Room for packets that are opened and too long for a frame of the egress port.
    pub(super) opened: Box<[u8]>,
    /// Room for packets that are sealed, then cut, and too long for a frame in between.
    pub(super) long: Box<[u8]>,
    /// Dummies that are being sent.
    pub(super) order: Option<UnderWay>,
    /// When keepalives are due.
    pub(super) silence: Silence,
    requests: Option<Arc<NumberRequests>>,
    ivs: RandomIvs,
    flow_label_seed: u64,
    /// Room for one packet of the machine.
    pub(super) host_frame: Box<[u8]>,
    /// Room for a packet between two SAs of a bundle.
    between: Box<[u8]>,
    /// SAs that asked for more numbers during a batch.
    wanted: ArrayVec<SaSlot, BATCH>,
    /// Identification of the last IPv6 packet that we fragmented.
    pub(super) identification: u32,
    block: Arc<Block>,
    policies: Arc<[Count]>,
}

/// The least number of frames that a lane has for one way.
fn least_frames<P: Port>(lanes: &[Lane<P>]) -> u64 {
    let ledgers = lanes.iter().map(|lane| lane.port.ledger());
    let frames = ledgers.map(|ledger| ledger.receive_total.min(ledger.transmit_total));
    frames.min().unwrap_or(0)
}

impl<P: Port, H: Host> Worker<P, H> {
    /// A worker that serves `lanes`; of each port at least one queue must be among them.
    ///
    /// # Panics
    /// When a port has no lane: the caller distributes the queues.
    #[must_use]
    pub fn new(
        settings: WorkerSettings,
        lanes: Vec<Lane<P>>,
        host: H,
        exchange: Arc<Exchange<P::Received, P::Transmit>>,
    ) -> Self {
        let desk = Desk::new(exchange, settings.number);
        let egress = (0..settings.ports)
            .map(|port| {
                let lane = lanes.iter().position(|lane| lane.index.index() == port);
                lane.expect("every worker serves a queue of every port")
            })
            .collect();
        let lender = Lender::new(desk.workers(), least_frames(&lanes));
        Self {
            number: settings.number,
            lanes,
            egress,
            states: {
                let mut states = States::new(settings.number);
                states.reserve(settings.sas);
                states
            },
            memory: Memory::new(settings.remembered_fragments, settings.fragment_timeout),
            tally: Tally::new(settings.ports),
            cut: 0,
            host,
            outbox: Outbox::new(),
            pending: Pending::new(settings.neighbor_requests),
            errors: RateLimit::new(settings.errors_per_second),
            send_unreachable: settings.send_unreachable,
            heeded: settings.heeded,
            predicted: None,
            ways: Ways::new(),
            scratch: vec![0; BATCH * (ETHERNET + ipsec::limits::PACKET)].into_boxed_slice(),
            lender,
            desk,
            shelf: Shelf::default(),
            assembly: Assembly::new(
                settings.reassembly,
                settings.reassemble_udp,
                settings.flow_label_seed,
            ),
            opened: vec![0; BATCH * (ETHERNET + ipsec::limits::PACKET)].into_boxed_slice(),
            long: vec![0; BATCH * LONG].into_boxed_slice(),
            order: None,
            silence: Silence::default(),
            requests: settings.number_requests,
            ivs: settings.ivs,
            flow_label_seed: settings.flow_label_seed,
            host_frame: vec![0; ETHERNET + ipsec::limits::PACKET].into_boxed_slice(),
            between: vec![0; outbound::BUNDLE_ROOM].into_boxed_slice(),
            wanted: ArrayVec::new(),
            identification: u32::from(settings.number) << 24,
            block: settings.block,
            policies: settings.policies,
        }
    }

    /// What the outbound stages of `ipsec` read and own.
    pub(super) fn outbound_context<'a, 'w>(
        &'w mut self,
        snapshot: &'a Snapshot,
        now: Time,
    ) -> outbound::Context<'a, 'w> {
        outbound::Context {
            tables: &snapshot.tables,
            states: &mut self.states,
            memory: &mut self.memory,
            policies: &self.policies,
            wanted: &mut self.wanted,
            ivs: &mut self.ivs,
            flow_label_seed: self.flow_label_seed,
            bundle: &mut self.between,
            worker: self.number,
            now,
        }
    }

    /// What the inbound stages of `ipsec` read and own.
    pub(super) fn inbound_context<'a, 'w>(
        &'w mut self,
        snapshot: &'a Snapshot,
        now: Time,
    ) -> inbound::Context<'a, 'w> {
        inbound::Context {
            tables: &snapshot.tables,
            states: &mut self.states,
            memory: &mut self.memory,
            policies: &self.policies,
            wanted: &mut self.wanted,
            bundle: &mut self.between,
            now,
        }
    }

    /// A policy decided the fate of a packet that `select` left uncounted.
    pub(super) fn count_policy(&self, policy: Option<PolicyIndex>, length: u16) {
        Count::add(&self.policies, policy, length);
    }

    /// Passes on which SAs want more numbers reserved.
    pub(super) fn ask_for_numbers(&mut self) {
        for slot in self.wanted.drain(..) {
            if let Some(requests) = &self.requests {
                requests.ask(slot);
            }
        }
    }

    /// One burst from one lane. Answers the number of frames it brought.
    pub fn serve(&mut self, lane: usize, limit: usize, snapshot: &Snapshot, now: Time) -> usize {
        let mut burst = ArrayVec::new();
        self.lanes[lane].port.receive(&mut burst, limit);
        let count = burst.len();
        self.lender.saw_burst(count, count >= limit);
        self.count_losses(lane);
        if count > 0 {
            self.take(lane, &mut burst, snapshot, now);
        }
        count
    }

    /// Packets that the port itself had to drop were received all the same.
    fn count_losses(&mut self, lane: usize) {
        let losses = self.lanes[lane].port.take_losses();
        if losses.total() == 0 {
            return;
        }
        let port = self.lanes[lane].index.index();
        self.tally.add(Cell::Rx, losses.total());
        self.tally.port(port, PortCell::RxPackets, losses.total());
        for (reason, count) in losses.by_reason() {
            for _ in 0..count {
                self.tally.drop(reason);
            }
        }
    }

    fn take(
        &mut self,
        lane: usize,
        burst: &mut ArrayVec<P::Received, BATCH>,
        snapshot: &Snapshot,
        now: Time,
    ) {
        let index = self.lanes[lane].index;
        let facts = &snapshot.ports[index.index()];
        let complete = self.lanes[lane].complete_checksums;
        let arrival = Arrival::Port(index, facts.side);
        self.tally.add(Cell::Batches, 1);
        self.tally.add(Cell::Rx, burst.len() as u64);
        self.tally
            .port(index.index(), PortCell::RxPackets, burst.len() as u64);
        let mut rooms = self.assembly.rooms();
        let mut keeps = Keeps::new();
        let mut gathered = Gathered::new(&mut rooms, &mut keeps);
        let mut bytes = 0;
        for (place, frame) in burst.iter_mut().enumerate() {
            let frame = frame.bytes_mut();
            bytes += frame.len() as u64;
            // In its place before it is looked at: nothing is moved there.
            let source = gathered.begin(place, frame, arrival);
            match look(source.frame, facts, &mut source.packet) {
                Look::Packet(()) => {
                    if complete {
                        let Source { frame, packet, .. } = source;
                        let end = ETHERNET + usize::from(packet.length);
                        checksum::complete(&mut frame[ETHERNET..end], packet);
                    }
                    self.gather(&mut gathered, place, snapshot, now);
                }
                other => {
                    if let (Some(source), Look::Host) = (gathered.take_last(), &other) {
                        self.pass(source.frame, arrival);
                    } else if let Look::Drop(reason) = other {
                        self.tally.drop(reason);
                    }
                }
            }
        }
        self.tally.port(index.index(), PortCell::RxBytes, bytes);
        let in_frames = || gathered.lies_in_frames();
        self.begin_batch((arrival, None), in_frames, snapshot, now);
        let ends = match facts.side {
            Side::Unprotected => self.inbound(&gathered.sources, snapshot, now),
            Side::Protected => self.outbound(&mut gathered.sources, snapshot, now),
        };
        self.settle_gathered(gathered, &ends, now);
        self.assembly.put_back(rooms);
        for (place, frame) in burst.drain(..).enumerate() {
            let done = match kept(&keeps, place) {
                Some(kept) => self.keep(lane, frame, kept, arrival, now),
                None => Some(frame),
            };
            if let Some(frame) = done {
                self.lanes[lane].port.release(frame);
            }
        }
        self.end_batch(snapshot);
        self.desk.ring();
        self.post(snapshot, now);
    }

    /// The end of a round over all lanes: what is due, completions, kicks, counters. True: a kick
    /// is pending, do not sleep.
    pub fn end_round(&mut self, snapshot: &Snapshot, now: Time) -> bool {
        if self.lender.is_home() {
            self.retry_shelf(snapshot, now);
        }
        self.expire_fragments(now);
        self.settle(snapshot, now);
        self.host.flush();
        self.desk.ring();
        let mut again = false;
        for lane in &mut self.lanes {
            again |= lane.port.flush();
        }
        self.block.publish(&self.tally);
        self.come_to(self.desk.cut());
        again
    }

    /// Freezes the counters for the readers of cut number `cut`, unless the tally has gone on from
    /// there. Between batches only.
    pub(super) fn come_to(&mut self, cut: u64) {
        if cut > self.cut {
            self.cut = cut;
            self.block.freeze(cut, &self.tally);
        }
    }

    /// The lanes, for whoever feeds memory ports.
    pub fn lanes_mut(&mut self) -> &mut [Lane<P>] {
        &mut self.lanes
    }

    /// The counters so far.
    #[must_use]
    pub const fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The host side, for whoever reads what it was given.
    pub const fn host_mut(&mut self) -> &mut H {
        &mut self.host
    }
}
