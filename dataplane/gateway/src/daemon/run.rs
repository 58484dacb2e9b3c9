//! `xipsec run`: start, follow, stop.
//!
//! The order of the start leaves no gap: the guard closes the kernel's path first, then the
//! programs attach with empty tables (everything passes to the guarded kernel), then sockets,
//! workers, and last the tables that steer packets to them. The stop goes the other way.

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::thread::JoinHandle;
use std::time::Instant;

use arc_swap::ArcSwap;
use crossbeam::queue::ArrayQueue;
use ipsec::sa::Sa;

use crate::assembly;
use crate::config::{self, Config, Forwarding, Workers};
use crate::control::protocol::Choice;
use crate::control::server::Socket;
use crate::daemon::answers::Running;
use crate::daemon::cores;
use crate::daemon::follow::{Follower, Kernelside};
use crate::daemon::numbers::Numbers;
use crate::daemon::ports::{self, OpenPort, OpenQueue};
use crate::daemon::publish;
use crate::daemon::workers::{Crew, LiveExchange, Surroundings};
use crate::netlink::guard::{Guard, GuardParameters, PortSide};
use crate::netlink::{Kernel, Mirror};
use crate::port::host::{HostCounters, HostLink, HostPort};
use crate::port::xdp::probe::Facts;
use crate::route::PortIndex;
use crate::snapshot::PortFacts;
use crate::worker::handoff::Exchange;
use crate::worker::pending::NextHop;
use crate::worker::run::Shared;

/// Next hops that may wait to be asked for.
const NEIGHBOR_REQUESTS: usize = 1024;

/// Why the gateway does not run, in one line.
#[derive(Debug)]
pub struct Refusal(String);

impl Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Refusal {
    pub(super) fn of(error: impl Display) -> Self {
        Self(error.to_string())
    }
}

/// Where every automatic choice and warning goes, a line each.
pub type Print = fn(&str);

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
    let facts = ports::probe(&config.ports).map_err(Refusal::of)?;
    let cores = choose_cores(&config, &facts)?;
    let start = Instant::now();
    let parameters = std::mem::take(&mut config.sas);
    let (mut numbers, starts) = Numbers::open(&config, &parameters)?;
    let sas = assembly::sas(parameters, &starts, ipsec::time::Time(0)).map_err(Refusal::of)?;
    let kernel = Kernel::connect().map_err(Refusal::of)?;
    let host_port = config.dataplane.host_port.clone().unwrap_or_default();
    let names: Vec<String> = config.ports.iter().map(|port| port.name.clone()).collect();
    let host = open_host(&host_port)?;
    let mirror = Mirror::new(kernel.clone(), names, host_port.clone())
        .await
        .map_err(Refusal::of)?;
    let view = mirror.view();
    let first = port_facts(&config, &facts);
    let port_facts: Arc<[PortFacts]> = publish::facts(&config, &view, &first).into();
    let snapshot = publish::snapshot(1, &config, &sas, &view, port_facts).map_err(Refusal::of)?;
    let policies = snapshot.tables.policy_count();
    let mut guard = load_guard(&config, print)?;
    let opened = open_ports(&config, facts, print)?;
    let shared = Arc::new(Shared {
        snapshot: ArcSwap::from_pointee(snapshot),
        stop: AtomicBool::new(false),
        draining: AtomicUsize::new(0),
        workers: cores.len(),
        start,
        batch: config.dataplane.batch,
        idle: config.dataplane.idle,
    });
    let exchange: Arc<LiveExchange> = Arc::new(Exchange::new(cores.len()).map_err(Refusal::of)?);
    let next_hops = (config.dataplane.forwarding == Forwarding::Kernel)
        .then(|| Arc::new(ArrayQueue::<NextHop>::new(NEIGHBOR_REQUESTS)));
    let (host_thread, links) = connect_host(host.as_ref(), &exchange, cores.len())?;
    numbers.start(&sas, print).map_err(Refusal::of)?;
    let around = Surroundings {
        shared: Arc::clone(&shared),
        exchange,
        neighbor_requests: next_hops.clone(),
        number_requests: numbers.requests(),
        complete_checksums: opened
            .0
            .iter()
            .map(|port| port.complete_checksums)
            .collect(),
        sas: sas.len(),
        policies,
    };
    let crew =
        Crew::start(&cores, opened.1, links, &config.dataplane, &around).map_err(Refusal::of)?;
    say_cores(&crew, &cores, print);
    let running = std::rc::Rc::new(running(
        &config,
        &shared,
        &sas,
        opened.0,
        &crew,
        host_thread.as_ref(),
        &host_port,
    ));
    let mut follower = Follower::new(
        &config,
        Arc::clone(&shared),
        &sas,
        mirror,
        Kernelside::new(kernel, next_hops, host.as_ref()),
    );
    follower.begin(&running, host.as_ref(), print).await?;
    let socket = bind(&config, print)?;
    let ended = follower
        .follow(&running, &mut guard, &socket, host.as_ref(), print)
        .await;
    drop(socket);
    let stopped = stop(running, crew, host_thread, numbers, &sas, print);
    let ended = ended.and(stopped);
    // After a bad end the guard stands: nobody else keeps the kernel's path closed.
    let guard = guard.filter(|_| ended.is_ok());
    follower.end(guard, print).await;
    drop(host);
    ended
}

fn choose_cores(config: &Config, facts: &[Facts]) -> Result<Vec<usize>, Refusal> {
    let smallest = facts
        .iter()
        .map(|facts| facts.receive_queues.min(facts.transmit_queues))
        .zip(facts)
        .min_by_key(|(queues, _)| *queues);
    let Some((queues, port)) = smallest else {
        return Err(Refusal("no ports".to_owned()));
    };
    let available = cores::available();
    let given = config.dataplane.cores.as_ref();
    let wanted = match (config.dataplane.workers, given) {
        (Workers::Count(count), _) => usize::from(count),
        (Workers::Auto, Some(cores)) => cores.len(),
        (Workers::Auto, None) => cores::automatic(available.len(), queues),
    };
    if u32::try_from(wanted).unwrap_or(u32::MAX) > queues {
        return Err(Refusal(format!(
            "workers: {wanted} workers, but port {} has {queues} queues (fewer workers, or \
             `ethtool -L {} combined {wanted}`)",
            port.name, port.name
        )));
    }
    if let Some(cores) = given {
        return Ok(cores.iter().map(|core| usize::from(*core)).collect());
    }
    let node = cores::node_of_interface(&port.name);
    let mut chosen = cores::choose(&available, node, wanted);
    if chosen.is_empty() {
        chosen.push(0);
    }
    // More workers than cores was asked for by number: they share.
    let found = chosen.len();
    chosen.extend(
        (found..wanted)
            .map(|extra| extra % found)
            .collect::<Vec<_>>()
            .iter()
            .map(|place| available[*place % available.len().max(1)].number),
    );
    Ok(chosen)
}

fn say_cores(crew: &Crew, cores: &[usize], print: Print) {
    for (number, (pinned, core)) in crew.cores.iter().zip(cores).enumerate() {
        match pinned {
            Some(core) => print(&format!("worker {number}: core {core}")),
            None => print(&format!(
                "warning: worker {number} could not be pinned to core {core} (is it online and \
                 allowed?)"
            )),
        }
    }
}

fn port_facts(config: &Config, facts: &[Facts]) -> Vec<PortFacts> {
    let ports = config.ports.iter().zip(facts);
    ports
        .map(|(port, facts)| {
            let interface = u16::try_from(facts.mtu).unwrap_or(u16::MAX);
            PortFacts {
                name: port.name.clone(),
                side: port.side,
                mac: facts.mac,
                mtu: port.mtu.map_or(interface, |mtu| mtu.min(interface)),
                addresses: port.addresses.iter().map(|own| own.address).collect(),
            }
        })
        .collect()
}

fn open_host(name: &str) -> Result<Option<HostPort>, Refusal> {
    if name.is_empty() {
        return Ok(None);
    }
    HostPort::open(name).map(Some).map_err(Refusal::of)
}

struct HostSide {
    stop: Arc<AtomicBool>,
    bell: Arc<crate::port::bell::Bell>,
    counters: Arc<HostCounters>,
    thread: JoinHandle<()>,
}

fn connect_host(
    host: Option<&HostPort>,
    exchange: &Arc<LiveExchange>,
    workers: usize,
) -> Result<(Option<HostSide>, Vec<HostLink>), Refusal> {
    let Some(host) = host else {
        return Ok((None, Vec::new()));
    };
    let bells = (0..workers)
        .map(|worker| Arc::clone(exchange.bell(worker)))
        .collect();
    let (thread, links) = host.connect(bells).map_err(Refusal::of)?;
    let (counters, bell) = (thread.counters(), thread.bell());
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let thread = std::thread::Builder::new()
        .name("host".to_owned())
        .spawn(move || thread.run(&stopped))
        .map_err(Refusal::of)?;
    Ok((
        Some(HostSide {
            stop,
            bell,
            counters,
            thread,
        }),
        links,
    ))
}

fn load_guard(config: &Config, print: Print) -> Result<Option<Guard>, Refusal> {
    if config.dataplane.guard == config::Guard::Open {
        print(
            "warning: guard = \"open\": what policy protects may pass in the clear while the \
             gateway is down",
        );
        return Ok(None);
    }
    let mut guard = Guard::new();
    let sides = port_sides(config);
    guard
        .load(&guard_parameters(config, &sides))
        .map_err(Refusal::of)?;
    Ok(Some(guard))
}

pub(super) fn port_sides(config: &Config) -> Vec<PortSide> {
    let ports = config.ports.iter();
    ports
        .map(|port| PortSide {
            name: port.name.clone(),
            side: port.side,
        })
        .collect()
}

pub(super) fn guard_parameters<'a>(
    config: &'a Config,
    sides: &'a [PortSide],
) -> GuardParameters<'a> {
    GuardParameters {
        policies: &config.policies,
        ports: sides,
        discard_unmatched: config.dataplane.unmatched == config::Unmatched::Discard,
    }
}

fn open_ports(
    config: &Config,
    facts: Vec<Facts>,
    print: Print,
) -> Result<(Vec<OpenPort>, Vec<OpenQueue>), Refusal> {
    let mut open = Vec::new();
    let mut queues = Vec::new();
    for (index, (port, facts)) in (0..).zip(config.ports.iter().zip(facts)) {
        let (port, of_port) =
            ports::open(PortIndex(index), port, facts, &config.dataplane).map_err(Refusal)?;
        open.push(port);
        queues.extend(of_port);
    }
    for port in &open {
        for choice in &port.choices {
            print(&format!(
                "port {}: {}: {} (asked: {}; {})",
                port.name, choice.what, choice.got, choice.asked, choice.why
            ));
        }
    }
    let umem = config.dataplane.umem;
    let bytes = queues.len() as u64 * u64::from(umem.frames) * u64::from(umem.frame_size);
    print(&format!(
        "packet memory: {} MiB in {} sockets",
        bytes >> 20,
        queues.len()
    ));
    Ok((open, queues))
}

fn running(
    config: &Config,
    shared: &Arc<Shared>,
    sas: &[Arc<Sa>],
    ports: Vec<OpenPort>,
    crew: &Crew,
    host: Option<&HostSide>,
    host_port: &str,
) -> Running {
    Running {
        file: config.file.display().to_string(),
        since: Instant::now(),
        shared: Arc::clone(shared),
        ports: RefCell::new(ports),
        sas: sas.to_vec(),
        policies: config.policies.clone(),
        blocks: crew.blocks.clone(),
        policy_cells: crew.policies.clone(),
        cores: crew.cores.clone(),
        host: host.map(|side| Arc::clone(&side.counters)),
        guard: if config.dataplane.guard == config::Guard::Open {
            "open"
        } else {
            "closed"
        },
        guard_drops: Cell::new(0),
        host_port: host_port.to_owned(),
        state_dir: config
            .dataplane
            .state_dir
            .as_ref()
            .map_or_else(String::new, |path| path.display().to_string()),
        choices: vec![Choice {
            what: "workers".to_owned(),
            asked: match config.dataplane.workers {
                Workers::Auto => "auto".to_owned(),
                Workers::Count(count) => count.to_string(),
            },
            got: crew.cores.len().to_string(),
            why: "one core stays free, and no port has fewer queues".to_owned(),
        }],
    }
}

fn bind(config: &Config, print: Print) -> Result<Socket, Refusal> {
    let name = &config.dataplane.control_group;
    let group = if name.is_empty() {
        None
    } else {
        group_number(name)
    };
    if group.is_none() && !name.is_empty() {
        print(&format!(
            "warning: control_group: there is no group {name}; the control socket is for its \
             owner alone"
        ));
    }
    let path = &config.dataplane.control_socket;
    Socket::bind(path, group)
        .map_err(|error| Refusal(format!("control socket {}: {error}", path.display())))
}

/// The number of a group, by the machine's own list.
fn group_number(name: &str) -> Option<u32> {
    let groups = std::fs::read_to_string(Path::new("/etc/group")).ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    })
}

/// Takes everything down: no new packets, workers drained, states saved.
fn stop(
    running: std::rc::Rc<Running>,
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
        .map_err(|count| Refusal(format!("{count} workers ended badly (see above)")))?;
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
    let tally = running.tally();
    if !tally.balances() {
        let (began, ended) = tally.sides();
        print(&format!(
            "warning: accounting is off: {began} packets began, {ended} ended"
        ));
    }
    numbers.close(sas).map_err(Refusal::of)
}
