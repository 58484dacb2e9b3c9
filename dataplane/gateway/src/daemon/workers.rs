//! The workers' threads: queues distributed, pinned, started, and taken leave of.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use core_affinity::CoreId;
use ipsec::crypto::iv::RandomIvs;
use ipsec::tables::Count;
use ipsec::time::MILLISECOND;

use crate::assembly;
use crate::config::Dataplane;
use crate::counters::Block;
use crate::daemon::ports::OpenQueue;
use crate::port::host::HostLink;
use crate::port::xdp::XdpPort;
use crate::worker::handoff::Exchange;
use crate::worker::host::{AnyHost, LiveHost, NoHost};
use crate::worker::pending::NextHop;
use crate::worker::requests::NumberRequests;
use crate::worker::run::{self, Farewell, Shared};
use crate::worker::{Lane, Worker, WorkerSettings};

/// The exchange of a gateway's workers.
pub type LiveExchange =
    Exchange<<XdpPort as crate::port::Port>::Received, <XdpPort as crate::port::Port>::Transmit>;

/// What workers need beside their queues.
pub struct Surroundings {
    /// Snapshot, stop flag, time line.
    pub shared: Arc<Shared>,
    /// Queues between workers.
    pub exchange: Arc<LiveExchange>,
    /// Where next hops are asked for; `None` with static neighbours.
    pub neighbor_requests: Option<Arc<crossbeam::queue::ArrayQueue<NextHop>>>,
    /// Where numbers are asked for; `None` without persistence.
    pub number_requests: Option<Arc<NumberRequests>>,
    /// By port: checksums are completed.
    pub complete_checksums: Vec<bool>,
    /// SAs in all.
    pub sas: usize,
    /// Policies in all, built-in ones included.
    pub policies: usize,
}

/// The running workers.
pub struct Crew {
    threads: Vec<JoinHandle<Farewell>>,
    shared: Arc<Shared>,
    /// What they share among each other.
    pub exchange: Arc<LiveExchange>,
    /// What each publishes.
    pub blocks: Vec<Arc<Block>>,
    /// Each one's policy counters.
    pub policies: Vec<Arc<[Count]>>,
    /// Each one's core, if it could be pinned.
    pub cores: Vec<Option<usize>>,
}

impl Crew {
    /// Starts one worker per core; worker w serves the queues q with q mod workers = w.
    ///
    /// # Errors
    /// When a thread cannot be started or no randomness is to be had.
    pub fn start(
        cores: &[usize],
        queues: Vec<OpenQueue>,
        mut links: Vec<HostLink>,
        dataplane: &Dataplane,
        around: &Surroundings,
    ) -> std::io::Result<Self> {
        let ports = around.complete_checksums.len();
        let count = cores.len();
        let mut shares: Vec<Vec<Lane<XdpPort>>> = (0..count).map(|_| Vec::new()).collect();
        for queue in queues {
            let lane = Lane {
                port: queue.socket,
                index: queue.port,
                complete_checksums: around.complete_checksums[queue.port.index()],
            };
            shares[queue.queue as usize % count].push(lane);
        }
        let mut crew = Self {
            threads: Vec::new(),
            exchange: Arc::clone(&around.exchange),
            shared: Arc::clone(&around.shared),
            blocks: Vec::new(),
            policies: Vec::new(),
            cores: Vec::new(),
        };
        let seed = random_seed()?;
        links.reverse();
        for (number, (lanes, core)) in shares.into_iter().zip(cores).enumerate() {
            let host = links.pop().map_or(AnyHost::None(NoHost), |link| {
                AnyHost::Live(LiveHost::new(link))
            });
            let settings = crew.settings(number, ports, seed, dataplane, around)?;
            crew.spawn(settings, lanes, host, *core)?;
        }
        Ok(crew)
    }

    fn settings(
        &mut self,
        number: usize,
        ports: usize,
        flow_label_seed: u64,
        dataplane: &Dataplane,
        around: &Surroundings,
    ) -> std::io::Result<WorkerSettings> {
        let block = Arc::new(Block::new(ports));
        let policies: Arc<[Count]> = (0..around.policies).map(|_| Count::default()).collect();
        self.blocks.push(Arc::clone(&block));
        self.policies.push(Arc::clone(&policies));
        let workers = u32::try_from(around.shared.workers)
            .unwrap_or(u32::MAX)
            .max(1);
        Ok(WorkerSettings {
            number: u16::try_from(number).unwrap_or(u16::MAX),
            ports,
            sas: around.sas,
            errors_per_second: dataplane.icmp.errors_per_second.div_ceil(workers),
            send_unreachable: dataplane.icmp.send_unreachable,
            heeded: assembly::heeded(&dataplane.icmp.accept_protected),
            remembered_fragments: dataplane.fragments.packets as usize,
            fragment_timeout: u64::from(dataplane.fragments.timeout_ms) * MILLISECOND,
            reassembly: assembly::reassembly(dataplane.fragments),
            reassemble_udp: dataplane.fragments.reassemble_udp,
            ivs: RandomIvs::new().map_err(std::io::Error::other)?,
            flow_label_seed,
            block,
            policies,
            neighbor_requests: around.neighbor_requests.clone(),
            number_requests: around.number_requests.clone(),
        })
    }

    fn spawn(
        &mut self,
        settings: WorkerSettings,
        lanes: Vec<Lane<XdpPort>>,
        host: AnyHost,
        core: usize,
    ) -> std::io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let exchange = Arc::clone(&self.exchange);
        let (pinned, was_pinned) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new()
            .name(format!("worker-{}", settings.number))
            .spawn(move || {
                // Not from `get_core_ids`, which hides isolated cores.
                let done = core_affinity::set_for_current(CoreId { id: core });
                let _ = pinned.send(done);
                run::run(Worker::new(settings, lanes, host, exchange), &shared)
            })?;
        self.threads.push(thread);
        self.cores
            .push(was_pinned.recv().unwrap_or(false).then_some(core));
        Ok(())
    }

    /// Tells the workers to drain and waits for them. A worker that panicked is an error.
    ///
    /// # Errors
    /// How many workers did not end well.
    pub fn stop(self) -> Result<Vec<Farewell>, usize> {
        self.shared.stop.store(true, Ordering::Release);
        for worker in 0..self.threads.len() {
            self.exchange.bell(worker).ring();
        }
        let count = self.threads.len();
        let farewells: Vec<_> = self
            .threads
            .into_iter()
            .filter_map(|thread| thread.join().ok())
            .collect();
        if farewells.len() == count {
            Ok(farewells)
        } else {
            Err(count - farewells.len())
        }
    }
}

fn random_seed() -> std::io::Result<u64> {
    let mut bytes = [0; 8];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes)
        .map_err(|_| std::io::Error::other("the system gives no random bytes"))?;
    Ok(u64::from_ne_bytes(bytes))
}
