//! `xipsec replay`: the same pipeline over capture files, one packet at a time, in the order of
//! their timestamps.

/// The pipeline fed from memory.
pub mod feed;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ipsec::crypto::iv::RandomIvs;
use ipsec::tables::{Count, Unmatched};
use ipsec::time::{MILLISECOND, Time};
use ipsec::verdict::DropReason;

use crate::assembly::{self, AssemblyError};
use crate::config::Config;
use crate::counters::Block;
use crate::observe::stats::Document;
use crate::offline::capture::{self, Captured, Writer};
use crate::port::memory::MemoryPort;
use crate::port::settings::{Checksum, Side};
use crate::route::PortIndex;
use crate::snapshot::{PortFacts, Snapshot, broadcasts};
use crate::state;
use crate::worker::handoff::Exchange;
use crate::worker::host::{ETHERNET, Host};
use crate::worker::{Lane, Worker, WorkerSettings};

/// The pseudo port of the machine itself.
pub const HOST: &str = "host";

/// Frames that one packet may turn into: 64 KiB cut for the smallest MTU.
const FRAMES: usize = 2048;

/// Room of a frame at least, bytes: the longest IP packet, and more where a capture has more.
const FRAME_SIZE: usize = 66 * 1024;

/// Which captures go where.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Port name and capture, in the order of the command line.
    pub inputs: Vec<(String, PathBuf)>,
    /// Port name and capture to write.
    pub outputs: Vec<(String, PathBuf)>,
    /// Where dropped packets go.
    pub drops: Option<PathBuf>,
}

/// Why a replay failed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// No such port.
    #[error("{0}: no such port in the configuration (`host` is the machine itself)")]
    UnknownPort(String),
    /// A capture cannot be read or written.
    #[error("{}: {why}", file.display())]
    Capture {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// SAs and policies cannot be put together.
    #[error(transparent)]
    Assembly(#[from] AssemblyError),
    /// The kernel gives no descriptors.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

fn capture_error(file: &Path, why: String) -> ReplayError {
    ReplayError::Capture {
        file: file.to_owned(),
        why,
    }
}

/// What the machine was given.
#[derive(Default)]
struct Received {
    frames: Vec<Vec<u8>>,
}

impl Host for Received {
    fn deliver(&mut self, ethernet: &[u8; ETHERNET], packet: &[u8]) -> Result<(), DropReason> {
        self.frames.push([&ethernet[..], packet].concat());
        Ok(())
    }

    fn pass(&mut self, frame: &[u8]) -> Result<(), DropReason> {
        self.frames.push(frame.to_vec());
        Ok(())
    }
}

/// The result: the document, and the damage of a capture if there was one.
#[derive(Debug)]
pub struct Outcome {
    /// All counters.
    pub document: Document,
    /// A capture that could not be read to its end: file, and what is wrong behind which packet.
    pub damage: Vec<ReplayError>,
}

/// A captured frame and where it enters.
type Offered = (Entry, Captured);

/// Where a packet enters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Entry {
    Port(usize),
    Host,
}

struct Outputs {
    by_port: Vec<Vec<(PathBuf, Writer)>>,
    host: Vec<(PathBuf, Writer)>,
    drops: Option<(PathBuf, Writer)>,
}

/// Runs the captures of `plan` through the pipeline of `config`.
///
/// # Errors
/// [`ReplayError`]; damaged captures are in the outcome.
pub fn run(config: Config, plan: &Plan) -> Result<Outcome, ReplayError> {
    let (packets, damage) = read_inputs(&config, plan)?;
    let mut outputs = Outputs::create(&config, plan)?;
    let longest = packets.iter().map(|(_, packet)| packet.frame.len()).max();
    let mut pipeline = Pipeline::new(config, FRAMES, longest.unwrap_or(0).max(FRAME_SIZE))?;
    let first = packets.first().map_or(0, |(_, packet)| packet.timestamp);
    for (number, (entry, packet)) in (0..).zip(&packets) {
        pipeline.worker.name_frames(number);
        pipeline.offer(*entry, packet, Time(packet.timestamp - first));
        pipeline.collect_lost(&packets, &mut outputs)?;
        pipeline.collect(packet, &mut outputs)?;
    }
    pipeline.worker.abandon_fragments();
    pipeline.collect_lost(&packets, &mut outputs)?;
    outputs.finish()?;
    Ok(Outcome {
        document: pipeline.document(),
        damage,
    })
}

fn read_inputs(
    config: &Config,
    plan: &Plan,
) -> Result<(Vec<Offered>, Vec<ReplayError>), ReplayError> {
    let mut packets = Vec::new();
    let mut damage = Vec::new();
    for (name, _) in plan.inputs.iter().chain(&plan.outputs) {
        entry(config, name)?;
    }
    for (name, path) in &plan.inputs {
        let entry = entry(config, name)?;
        let contents = match capture::read(path) {
            Ok(contents) => contents,
            Err(why) => {
                damage.push(capture_error(path, why));
                continue;
            }
        };
        if let Some(what) = contents.damage {
            let number = contents.packets.len() + 1;
            let why = format!("packet {number}: {what}");
            damage.push(capture_error(path, why));
        }
        packets.extend(contents.packets.into_iter().map(|packet| (entry, packet)));
    }
    // Stable: equal timestamps keep the order of command line and file.
    packets.sort_by_key(|(_, packet)| packet.timestamp);
    Ok((packets, damage))
}

fn entry(config: &Config, name: &str) -> Result<Entry, ReplayError> {
    if name == HOST {
        return Ok(Entry::Host);
    }
    config
        .port(name)
        .map(|port| Entry::Port(port.index()))
        .ok_or_else(|| ReplayError::UnknownPort(name.to_owned()))
}

impl Outputs {
    fn create(config: &Config, plan: &Plan) -> Result<Self, ReplayError> {
        let mut outputs = Self {
            by_port: config.ports.iter().map(|_| Vec::new()).collect(),
            host: Vec::new(),
            drops: None,
        };
        for (name, path) in &plan.outputs {
            let writer = Writer::create(path).map_err(|error| capture_error(path, error))?;
            match entry(config, name)? {
                Entry::Port(port) => outputs.by_port[port].push((path.clone(), writer)),
                Entry::Host => outputs.host.push((path.clone(), writer)),
            }
        }
        if let Some(path) = &plan.drops {
            let writer = Writer::create_pcapng(path).map_err(|error| capture_error(path, error))?;
            outputs.drops = Some((path.clone(), writer));
        }
        Ok(outputs)
    }

    fn drop(&mut self, packet: &Captured, reason: DropReason) -> Result<(), ReplayError> {
        if let Some((path, writer)) = &mut self.drops {
            writer
                .write(packet.timestamp, &packet.frame, Some(reason.name()))
                .map_err(|error| capture_error(path, error))?;
        }
        Ok(())
    }

    fn finish(self) -> Result<(), ReplayError> {
        let files = self
            .by_port
            .into_iter()
            .flatten()
            .chain(self.host)
            .chain(self.drops);
        for (path, writer) in files {
            writer
                .finish()
                .map_err(|error| capture_error(&path, error.to_string()))?;
        }
        Ok(())
    }
}

fn append(
    files: &mut [(PathBuf, Writer)],
    timestamp: u64,
    frame: &[u8],
) -> Result<(), ReplayError> {
    for (path, writer) in files {
        writer
            .write(timestamp, frame, None)
            .map_err(|error| capture_error(path, error))?;
    }
    Ok(())
}

struct Pipeline {
    worker: Worker<MemoryPort, Received>,
    snapshot: Snapshot,
    config: Config,
    starts: Vec<state::Reservation>,
    port_names: Vec<String>,
    policy_names: Vec<String>,
    sas: Vec<Arc<ipsec::sa::Sa>>,
    policies: Arc<[Count]>,
    drops_before: [u64; DropReason::COUNT],
    /// How often peers have moved.
    moves: u64,
    /// Of the last packet.
    now: Time,
}

impl Pipeline {
    fn new(mut config: Config, frames: usize, frame_size: usize) -> Result<Self, ReplayError> {
        let parameters = std::mem::take(&mut config.sas);
        let starts = state::unreserved(&parameters);
        let sas = assembly::sas(parameters, &config.policies, &starts, Time(0))?;
        let local = config
            .ports
            .iter()
            .flat_map(|port| port.addresses.iter().map(|a| a.address));
        let tables = assembly::tables(&sas, &config.policies, local, Unmatched::Discard)?;
        let policies = counters(tables.policy_count());
        let ports: Arc<[PortFacts]> = config.ports.iter().map(facts).collect();
        let first_protected = ports
            .iter()
            .position(|port| port.side == Side::Protected)
            .unwrap_or(0);
        let snapshot = Snapshot {
            generation: 1,
            tables: Arc::new(tables),
            fib: Arc::new(assembly::static_fib(&config)),
            neighbors: Arc::new(assembly::static_neighbors(&config)),
            first_protected: PortIndex(u16::try_from(first_protected).unwrap_or(0)),
            ports,
        };
        let ports = config.ports.iter();
        let ports = ports.map(|_| MemoryPort::new(frames, frame_size)).collect();
        Ok(Self {
            worker: worker(&config, sas.len(), &policies, ports)?,
            snapshot,
            port_names: config.ports.iter().map(|port| port.name.clone()).collect(),
            policy_names: config
                .policies
                .iter()
                .map(|policy| policy.name.clone())
                .collect(),
            config,
            starts,
            sas,
            policies,
            drops_before: [0; DropReason::COUNT],
            moves: 0,
            now: Time(0),
        })
    }

    fn offer(&mut self, entry: Entry, packet: &Captured, now: Time) {
        self.now = now;
        match entry {
            Entry::Port(port) => {
                let taken = self.worker.lanes_mut()[port].port.inject(&packet.frame);
                debug_assert!(taken, "the ports have room for the longest frame");
                self.worker.serve(port, 1, &self.snapshot, now);
            }
            Entry::Host => {
                self.worker
                    .serve_host(&mut packet.frame.clone(), &self.snapshot, now);
            }
        }
        self.end(now);
    }

    /// The end of a round. A peer that moved in it is known by its new address from now on.
    fn end(&mut self, now: Time) {
        self.worker.end_round(&self.snapshot, now);
        let peer = self.sas.iter().find_map(|sa| sa.peer.as_ref());
        let moves = peer.map_or(0, |peer| peer.news().load(Ordering::Relaxed));
        if moves != self.moves {
            self.moves = moves;
            self.snapshot.tables = Arc::new(self.snapshot.tables.with_moved_peers());
        }
    }

    /// Writes what one packet has caused.
    fn collect(&mut self, packet: &Captured, outputs: &mut Outputs) -> Result<(), ReplayError> {
        for (lane, files) in self.worker.lanes_mut().iter_mut().zip(&mut outputs.by_port) {
            while let Some(frame) = lane.port.collect(<[u8]>::to_vec) {
                append(files, packet.timestamp, &frame)?;
            }
        }
        for frame in self.worker.host_mut().frames.drain(..) {
            append(&mut outputs.host, packet.timestamp, &frame)?;
        }
        for reason in DropReason::ALL {
            let dropped = self.worker.tally().drops(reason);
            let before = std::mem::replace(&mut self.drops_before[reason.index()], dropped);
            for _ in before..dropped {
                outputs.drop(packet, reason)?;
            }
        }
        Ok(())
    }

    /// Writes the fragments that waited in vain, each as it was received.
    fn collect_lost(
        &mut self,
        packets: &[Offered],
        outputs: &mut Outputs,
    ) -> Result<(), ReplayError> {
        for number in self.worker.take_lost() {
            self.drops_before[DropReason::Fragment.index()] += 1;
            let place = usize::try_from(number).unwrap_or(usize::MAX);
            if let Some((_, packet)) = packets.get(place) {
                outputs.drop(packet, DropReason::Fragment)?;
            }
        }
        Ok(())
    }

    fn document(&self) -> Document {
        Document::gather(
            self.worker.tally(),
            &self.port_names,
            (&self.sas, self.now),
            &self.policy_names,
            &[Arc::clone(&self.policies)],
        )
    }
}

/// A counter for each policy.
fn counters(count: usize) -> Arc<[Count]> {
    (0..count).map(|_| Count::default()).collect()
}

/// The one worker of a pipeline, which has seen no packet yet.
fn worker(
    config: &Config,
    sas: usize,
    policies: &Arc<[Count]>,
    ports: Vec<MemoryPort>,
) -> Result<Worker<MemoryPort, Received>, ReplayError> {
    let fragments = config.dataplane.fragments;
    let settings = WorkerSettings {
        number: 0,
        ports: config.ports.len(),
        sas,
        errors_per_second: config.dataplane.icmp.errors_per_second,
        send_unreachable: config.dataplane.icmp.send_unreachable,
        heeded: assembly::heeded(&config.dataplane.icmp.accept_protected),
        remembered_fragments: fragments.packets as usize,
        fragment_timeout: u64::from(fragments.timeout_ms) * MILLISECOND,
        reassembly: assembly::reassembly(fragments),
        reassemble_udp: fragments.reassemble_udp,
        // As foreseeable as the rest: the same captures give the same output.
        ivs: RandomIvs::seeded(&[0; 32], 0),
        flow_label_seed: 0,
        block: Arc::new(Block::new(config.ports.len())),
        policies: Arc::clone(policies),
        neighbor_requests: None,
        number_requests: None,
    };
    let lanes = (0..).zip(&config.ports).zip(ports);
    let lanes = lanes.map(|((index, facts), port)| Lane {
        port,
        index: PortIndex(index),
        complete_checksums: facts.checksum == Checksum::Complete,
    });
    let exchange = Arc::new(Exchange::new(1)?);
    let host = Received::default();
    Ok(Worker::new(settings, lanes.collect(), host, exchange))
}

fn facts(port: &crate::config::PortConfig) -> PortFacts {
    PortFacts {
        name: port.name.clone(),
        side: port.side,
        mac: port.mac.unwrap_or_default(),
        mtu: port.mtu.unwrap_or(1500),
        addresses: port.addresses.iter().map(|own| own.address).collect(),
        broadcasts: broadcasts(
            port.addresses
                .iter()
                .map(|own| (own.address, own.prefix_length)),
        ),
    }
}
