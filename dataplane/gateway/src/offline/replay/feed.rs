//! The pipeline of `replay` without capture files: frames go in from memory, one or a burst at a
//! time, and what comes out is taken from memory. For fuzzing, and for tests of many packets.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ipsec::sa::association::NO_HOME;
use ipsec::time::Time;
use ipsec::verdict::DropReason;

use crate::assembly;
use crate::config::Config;
use crate::observe::stats::Document;
use crate::offline::capture::Captured;
use crate::offline::replay::{Entry, Pipeline, ReplayError, counters, worker};
use crate::port::Port;
use crate::port::memory::MemoryPort;

/// A gateway in memory.
pub struct Feed(Pipeline);

impl Feed {
    /// A gateway of `config` whose ports have `frames` frames of `frame_size` bytes on each side.
    ///
    /// # Errors
    /// [`ReplayError`], when SAs and policies cannot be put together.
    pub fn new(config: Config, frames: usize, frame_size: usize) -> Result<Self, ReplayError> {
        Pipeline::new(config, frames, frame_size).map(Self)
    }

    /// The same gateway as it was before its first packet: SAs begin anew, counters at zero. What
    /// configuration alone decides (tables, expanded keys) and the ports' memory stay, so this
    /// costs a small part of [`Self::new`].
    ///
    /// # Errors
    /// As [`Self::new`].
    ///
    /// # Panics
    /// When a frame is not home: a port must have been emptied by [`Self::sent`].
    pub fn restart(&mut self) -> Result<(), ReplayError> {
        assert!(self.every_frame_is_home(), "a frame is on its way");
        let pipeline = &mut self.0;
        for (sa, start) in pipeline.sas.iter().zip(&pipeline.starts) {
            sa.home.store(NO_HOME, Ordering::Release);
            assembly::park(sa, start, Time(0))?;
            let [_, place] = sa.parameters.ends();
            if let Some(peer) = &sa.peer {
                peer.restart(place);
            }
        }
        pipeline.snapshot.tables = Arc::new(pipeline.snapshot.tables.with_moved_peers());
        let lanes = pipeline.worker.lanes_mut().iter_mut();
        let ports = lanes.map(|lane| std::mem::replace(&mut lane.port, MemoryPort::new(0, 0)));
        let ports = ports.collect();
        pipeline.policies = counters(pipeline.policies.len());
        pipeline.worker = worker(
            &pipeline.config,
            pipeline.sas.len(),
            &pipeline.policies,
            ports,
        )?;
        pipeline.drops_before = [0; DropReason::COUNT];
        pipeline.now = Time(0);
        Ok(())
    }

    /// Frames that arrive together on the port with that place in the configuration. Answers how
    /// many of them the port had room for.
    pub fn arrive(&mut self, port: usize, frames: &[Vec<u8>], now: Time) -> usize {
        let lane = &mut self.0.worker.lanes_mut()[port];
        let taken = frames.iter().take_while(|frame| lane.port.inject(frame));
        let taken = taken.count();
        let mut left = taken;
        while left > 0 {
            left -= self.0.worker.serve(port, left, &self.0.snapshot, now);
        }
        self.0.end(now);
        taken
    }

    /// A packet of the machine itself, behind an Ethernet header that means nothing.
    pub fn host_sends(&mut self, frame: &[u8], now: Time) {
        let packet = Captured {
            timestamp: now.0,
            frame: frame.to_vec(),
        };
        self.0.offer(Entry::Host, &packet, now);
    }

    /// The oldest frame that the port has sent and nobody has taken yet.
    pub fn sent(&mut self, port: usize) -> Option<Vec<u8>> {
        self.0.worker.lanes_mut()[port].port.collect(<[u8]>::to_vec)
    }

    /// What went to the machine itself since the last call.
    pub fn delivered(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.0.worker.host_mut().frames)
    }

    /// All counters.
    #[must_use]
    pub fn document(&self) -> Document {
        self.0.document()
    }

    /// Whether every frame of every port lies where it belongs.
    pub fn every_frame_is_home(&mut self) -> bool {
        let mut lanes = self.0.worker.lanes_mut().iter();
        lanes.all(|lane| lane.port.ledger().balances() && lane.port.ledger().is_home())
    }
}
