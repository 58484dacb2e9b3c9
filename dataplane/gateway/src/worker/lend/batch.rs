//! What is lent: the tokens of a burst's packets, what is to be done with each, and the generation
//! of the tables that their SAs are in.

use std::sync::Arc;

use ipsec::inbound::{self, Opening};
use ipsec::limits::BATCH;
use ipsec::outbound::{self, Sealing};
use ipsec::packet::Packet;
use ipsec::sa::association::Direction;
use ipsec::sa::{Sa, SaSlot};
use ipsec::tables::Tables;

use arrayvec::ArrayVec;

use crate::port::{Buffer, Frame};
use crate::route::PortIndex;
use crate::worker::frame::Arrival;
use crate::worker::host::ETHERNET;
use crate::worker::outbound::Fate;

/// A received packet and the frame that it will leave in.
pub(super) struct Pair<R, T> {
    /// The lane of the worker that received it.
    pub lane: usize,
    pub frame: R,
    pub buffer: T,
}

/// A packet that is to be opened.
#[derive(Clone, Copy)]
pub(super) struct ToOpen {
    pub task: inbound::Task,
    pub packet: Packet,
    pub slot: SaSlot,
}

impl ToOpen {
    /// Of the IP packet as received, bytes.
    pub(super) fn length(&self) -> usize {
        self.packet.length.into()
    }
}

/// A packet that is to be sealed.
pub(super) struct ToSeal {
    pub task: outbound::Task,
    pub slot: SaSlot,
    pub sealed: bool,
}

/// Up to a burst of packets of one direction and one arrival. Made once and used again and again.
pub(in crate::worker) struct Batch<R, T> {
    pub(super) tables: Option<Arc<Tables>>,
    pub(super) direction: Direction,
    pub(super) arrival: Arrival,
    /// The worker that handed the packets over, if one did.
    pub(super) from: Option<usize>,
    /// Inbound: the port that the buffers belong to.
    pub(super) port: PortIndex,
    pub(super) pairs: Vec<Pair<R, T>>,
    /// Frames to send, until the received ones join them.
    pub(in crate::worker) buffers: ArrayVec<T, BATCH>,
    pub(super) openings: Vec<ToOpen>,
    pub(super) sealings: Vec<ToSeal>,
    /// Where sealed packets go.
    pub(super) fates: Vec<Fate>,
    /// Another worker has done it.
    pub(in crate::worker) helped: bool,
}

impl<R: Frame, T: Buffer> Batch<R, T> {
    pub(super) fn new() -> Box<Self> {
        Box::new(Self {
            tables: None,
            direction: Direction::In,
            arrival: Arrival::Own,
            from: None,
            port: PortIndex(0),
            pairs: Vec::with_capacity(BATCH),
            buffers: ArrayVec::new(),
            openings: Vec::with_capacity(BATCH),
            sealings: Vec::with_capacity(BATCH),
            fates: Vec::with_capacity(BATCH),
            helped: false,
        })
    }

    /// Puts in what is left to do of a burst that was prepared for buffers of `port`.
    pub(in crate::worker) fn add_openings(&mut self, items: &[inbound::Item<'_>], port: PortIndex) {
        self.direction = Direction::In;
        self.port = port;
        self.openings.extend(items.iter().filter_map(|item| {
            Some(ToOpen {
                task: item.task()?,
                packet: item.packet,
                slot: item.sa?.slot,
            })
        }));
    }

    /// Puts in what is left to do of a burst that was written.
    pub(in crate::worker) fn add_sealings(&mut self, items: &[outbound::Item<'_>]) {
        self.direction = Direction::Out;
        self.sealings.extend(items.iter().filter_map(|item| {
            Some(ToSeal {
                task: item.task()?,
                slot: item.sa?.slot,
                sealed: false,
            })
        }));
    }

    /// Does what is to be done, with keys and bytes alone.
    pub(in crate::worker) fn run(&mut self) {
        let Some(tables) = &self.tables else { return };
        match self.direction {
            Direction::In => open(tables, &mut self.pairs, &mut self.openings),
            Direction::Out => seal(tables, &mut self.pairs, &mut self.sealings),
        }
    }
}

/// The SA in `slot`.
pub(super) fn sa(tables: &Tables, slot: SaSlot) -> Option<&Sa> {
    tables.sad.by_slot(slot).map(|sa| &**sa)
}

fn seal<R: Frame, T: Buffer>(tables: &Tables, pairs: &mut [Pair<R, T>], sealings: &mut [ToSeal]) {
    let works = pairs.iter_mut().zip(&*sealings).filter_map(|(pair, to)| {
        Some(Sealing {
            task: to.task,
            sa: sa(tables, to.slot)?,
            source: pair.frame.bytes().get(ETHERNET..)?,
            destination: pair.buffer.room().get_mut(ETHERNET..)?,
            sealed: false,
        })
    });
    let mut works: ArrayVec<Sealing<'_>, BATCH> = works.collect();
    outbound::seal(&mut works);
    debug_assert_eq!(works.len(), sealings.len(), "the generation has their SAs");
    if works.len() == sealings.len() {
        for (work, to) in works.iter().zip(sealings) {
            to.sealed = work.sealed;
        }
    }
}

fn open<R: Frame, T: Buffer>(tables: &Tables, pairs: &mut [Pair<R, T>], openings: &mut [ToOpen]) {
    let works = pairs.iter_mut().zip(openings).filter_map(|(pair, to)| {
        Some(Opening {
            task: &mut to.task,
            sa: sa(tables, to.slot)?,
            source: pair.frame.bytes().get(ETHERNET..)?,
            destination: pair.buffer.room().get_mut(ETHERNET..)?,
        })
    });
    let mut works: ArrayVec<Opening<'_>, BATCH> = works.collect();
    inbound::decrypt(&mut works);
}
