//! `xipsec run`: start, follow, stop.
//!
//! The order of the start leaves no gap: the guard closes the kernel's path first, then the
//! programs attach with empty tables (everything passes to the guarded kernel), then sockets,
//! workers, and last the tables that steer packets to them. The stop goes the other way.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Instant;

use arc_swap::ArcSwap;
use crossbeam::queue::ArrayQueue;
use ipsec::sa::Sa;

use crate::assembly;
use crate::config::{Config, Forwarding};
use crate::daemon::answers::Running;
use crate::daemon::follow::{Follower, Kernelside, Signals};
use crate::daemon::numbers::Numbers;
use crate::daemon::refusal::{Print, Refusal};
use crate::daemon::start::{self, HostSide};
use crate::daemon::workers::{Crew, LiveExchange, Surroundings};
use crate::daemon::{ports, publish};
use crate::netlink::{Kernel, Mirror};
use crate::port::host::HostPort;
use crate::port::xdp::probe::Facts;
use crate::snapshot::PortFacts;
use crate::worker::handoff::Exchange;
use crate::worker::pending::NextHop;
use crate::worker::run::{ORIGIN, Shared};

/// Next hops that may wait to be asked for.
const NEIGHBOR_REQUESTS: usize = 1024;

/// Runs the gateway of a checked configuration until SIGTERM or SIGINT. `print` gets every
/// automatic choice and warning, a line each.
///
/// # Errors
/// The line that says why it does not start, or how it ended badly.
pub fn run(config: Config, print: Print) -> Result<(), Refusal> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Refusal::of)?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, Box::pin(live(config, print)))
}

async fn live(mut config: Config, print: Print) -> Result<(), Refusal> {
    let mut signals = Signals::new().map_err(Refusal::of)?;
    let _only = start::be_the_only_one()?;
    let facts = ports::probe(&config.ports).map_err(Refusal::of)?;
    let cores = start::choose_cores(&config, &facts)?;
    start::check_huge_pages(&config, &facts)?;
    let parameters = std::mem::take(&mut config.sas);
    let (mut numbers, starts) = Numbers::open(&config, &parameters)?;
    let sas = assembly::sas(parameters, &config.policies, &starts, ORIGIN).map_err(Refusal::of)?;
    let kernel = Kernel::connect().map_err(Refusal::of)?;
    let host_port = config.dataplane.host_port.clone().unwrap_or_default();
    let names: Vec<String> = config.ports.iter().map(|port| port.name.clone()).collect();
    let host = start::open_host(&host_port)?;
    let mirror = Mirror::new(kernel.clone(), names, host_port.clone());
    let mirror = mirror.await.map_err(Refusal::of)?;
    let shared = share(&config, &facts, &sas, &mirror, cores.len())?;
    let guard = start::load_guard(&config, &sas, print)?;
    let (open, queues) = start::open_ports(&config, facts, &cores, print)?;
    let exchange: Arc<LiveExchange> = Arc::new(Exchange::new(cores.len()).map_err(Refusal::of)?);
    let next_hops = (config.dataplane.forwarding == Forwarding::Kernel)
        .then(|| Arc::new(ArrayQueue::<NextHop>::new(NEIGHBOR_REQUESTS)));
    let (host_side, links) = start::connect_host(host.as_ref(), &exchange, cores.len())?;
    numbers.start(&sas, print)?;
    let around = Surroundings {
        shared: Arc::clone(&shared),
        exchange,
        neighbor_requests: next_hops.clone(),
        number_requests: numbers.requests(),
        complete_checksums: open.iter().map(|port| port.complete_checksums).collect(),
        sas: sas.len(),
        policies: shared.snapshot.load().tables.policy_count(),
    };
    let crew = Crew::start(&cores, queues, links, &config.dataplane, &around);
    let crew = crew.map_err(Refusal::of)?;
    start::say_cores(&crew, &cores, print);
    start::say_far(&config, &cores, print);
    let running = Rc::new(start::running(
        &config,
        &shared,
        &sas,
        open,
        &crew,
        host_side.as_ref(),
        &host_port,
    ));
    let side = Kernelside::new(kernel, next_hops, host.as_ref());
    let mut follower = Follower::new(&config, shared, &sas, mirror, guard, side, print);
    let around = (&config, host.as_ref());
    let followed = follow(&mut follower, &mut signals, &running, around, print).await;
    let stopped = stop(running, crew, host_side, numbers, &sas, print);
    let ended = followed.and(stopped);
    follower.end(ended.is_ok(), print).await;
    ended
}

/// Builds the first generation.
fn share(
    config: &Config,
    facts: &[Facts],
    sas: &[Arc<Sa>],
    mirror: &Mirror,
    workers: usize,
) -> Result<Arc<Shared>, Refusal> {
    let view = mirror.view();
    let first = start::port_facts(config, facts);
    let ports: Arc<[PortFacts]> = publish::facts(config, &view, &first).into();
    let snapshot = publish::snapshot(1, config, sas, &view, ports).map_err(Refusal::of)?;
    Ok(Arc::new(Shared {
        snapshot: ArcSwap::from_pointee(snapshot),
        stop: AtomicBool::new(false),
        draining: AtomicUsize::new(0),
        workers,
        start: Instant::now(),
        batch: config.dataplane.batch,
        idle: config.dataplane.idle,
    }))
}

/// From the tables in the XDP programs to the signal that ends it all. The control socket is
/// there, and so the gateway ready, only in between.
async fn follow(
    follower: &mut Follower<'_>,
    signals: &mut Signals,
    running: &Rc<Running>,
    (config, host): (&Config, Option<&HostPort>),
    print: Print,
) -> Result<(), Refusal> {
    follower.begin(running, host, print).await?;
    let socket = start::bind(config, print)?;
    follower
        .follow(signals, running, &socket, host, print)
        .await
}

/// Takes everything down: no new packets, workers drained, states saved.
fn stop(
    running: Rc<Running>,
    crew: Crew,
    host: Option<HostSide>,
    numbers: Numbers,
    sas: &[Arc<Sa>],
    print: Print,
) -> Result<(), Refusal> {
    for port in running.ports.borrow_mut().iter_mut() {
        // From here on the kernel has every packet, and the guard stands.
        port.program.detach();
    }
    let farewells = crew
        .stop()
        .map_err(|count| Refusal::of(format!("{count} workers ended badly (see above)")))?;
    if let Some(host) = host {
        host.stop.store(true, std::sync::atomic::Ordering::Release);
        host.bell.ring();
        if host.thread.join().is_err() {
            print("warning: the host port's thread panicked");
        }
    }
    for ledger in farewells.iter().flat_map(|farewell| &farewell.ledgers) {
        if !ledger.is_home() {
            print(&format!(
                "warning: frames unaccounted for at the end: {ledger:?}"
            ));
        }
    }
    let tally = running.last_tally();
    if !tally.balances() {
        let (began, ended) = tally.sides();
        print(&format!(
            "warning: accounting is off: {began} packets began, {ended} ended"
        ));
    }
    numbers.close(sas).map_err(Refusal::of)
}
