//! The steps of the start, each with one clear line when it is refused.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::Instant;

use ipsec::sa::Sa;

use crate::config::{self, Config, PortConfig, Workers};
use crate::control::protocol::Choice;
use crate::control::server::Socket;
use crate::daemon::answers::Running;
use crate::daemon::cores;
use crate::daemon::ports::{self, OpenPort, OpenQueue};
use crate::daemon::publish;
use crate::daemon::refusal::{Print, Refusal};
use crate::daemon::workers::{Crew, LiveExchange};
use crate::netlink::guard::{Guard, GuardParameters, PortSide};
use crate::port::host::{HostCounters, HostLink, HostPort};
use crate::port::xdp::huge_pages::Pool;
use crate::port::xdp::probe::Facts;
use crate::route::PortIndex;
use crate::snapshot::{PortFacts, broadcasts};
use crate::worker::run::Shared;

pub(super) fn choose_cores(config: &Config, facts: &[Facts]) -> Result<Vec<usize>, Refusal> {
    let smallest = facts
        .iter()
        .map(|facts| facts.receive_queues.min(facts.transmit_queues))
        .zip(facts)
        .min_by_key(|(queues, _)| *queues);
    let Some((queues, port)) = smallest else {
        return Err(Refusal::of("no ports"));
    };
    let available = cores::available();
    let given = config.dataplane.cores.as_ref();
    let wanted = match (config.dataplane.workers, given) {
        (Workers::Count(count), _) => usize::from(count),
        (Workers::Auto, Some(cores)) => cores.len(),
        (Workers::Auto, None) => cores::automatic(available.len(), queues),
    };
    if u32::try_from(wanted).unwrap_or(u32::MAX) > queues {
        return Err(Refusal::of(format!(
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

/// Refuses packet memory for which the machine has too few huge pages.
pub(super) fn check_huge_pages(config: &Config, facts: &[Facts]) -> Result<(), Refusal> {
    let umem = config.dataplane.umem;
    if !umem.huge_pages {
        return Ok(());
    }
    let sockets = facts.iter().map(|facts| u64::from(facts.receive_queues));
    let pool = Pool::of_machine().map_err(Refusal::of)?;
    let needed = pool.check(umem, sockets.sum());
    needed.map(drop).map_err(Refusal::of)
}

pub(super) fn say_cores(crew: &Crew, cores: &[usize], print: Print) {
    for (number, (pinned, core)) in crew.cores.iter().zip(cores).enumerate() {
        match pinned {
            Some(core) => {
                let node = cores::node_of(*core).map(|node| format!(", NUMA node {node}"));
                let node = node.unwrap_or_default();
                print(&format!("worker {number}: core {core}{node}"));
            }
            None => print(&format!(
                "warning: worker {number} could not be pinned to core {core} (is it online and \
                 allowed?)"
            )),
        }
    }
}

/// Warns of workers that are far from a port.
pub(super) fn say_far(config: &Config, cores: &[usize], print: Print) {
    let ports = config.ports.iter().map(|port| port.name.as_str());
    let ports: Vec<_> = ports
        .map(|name| (name, cores::node_of_interface(name)))
        .collect();
    let workers: Vec<_> = cores
        .iter()
        .map(|core| (*core, cores::node_of(*core)))
        .collect();
    for warning in cores::far(&ports, &workers) {
        print(&format!("warning: {warning}"));
    }
}

pub(super) fn port_facts(config: &Config, facts: &[Facts]) -> Vec<PortFacts> {
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
                broadcasts: broadcasts(
                    port.addresses
                        .iter()
                        .map(|own| (own.address, own.prefix_length)),
                ),
            }
        })
        .collect()
}

pub(super) fn open_host(name: &str) -> Result<Option<HostPort>, Refusal> {
    if name.is_empty() {
        return Ok(None);
    }
    HostPort::open(name).map(Some).map_err(Refusal::of)
}

/// The host port's thread.
pub(super) struct HostSide {
    pub(super) stop: Arc<AtomicBool>,
    pub(super) bell: Arc<crate::port::bell::Bell>,
    pub(super) counters: Arc<HostCounters>,
    pub(super) thread: JoinHandle<()>,
}

pub(super) fn connect_host(
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

pub(super) fn load_guard(
    config: &Config,
    sas: &[Arc<Sa>],
    print: Print,
) -> Result<Option<Guard>, Refusal> {
    if config.dataplane.guard == config::Guard::Open {
        print(
            "warning: guard = \"open\": what policy protects may pass in the clear while the \
             gateway is down",
        );
        return Ok(None);
    }
    let mut guard = Guard::new();
    guard_with(config, sas, |parameters| guard.load(parameters)).map_err(Refusal::of)?;
    Ok(Some(guard))
}

/// Lets `load` see what the guard's rules follow from.
pub(super) fn guard_with<T>(
    config: &Config,
    sas: &[Arc<Sa>],
    load: impl FnOnce(&GuardParameters<'_>) -> T,
) -> T {
    let side = |port: &PortConfig| PortSide {
        name: port.name.clone(),
        side: port.side,
    };
    let ports: Vec<PortSide> = config.ports.iter().map(side).collect();
    let encapsulation: Vec<_> = publish::encapsulation(sas).into_iter().collect();
    load(&GuardParameters {
        policies: &config.policies,
        ports: &ports,
        encapsulation: &encapsulation,
        discard_unmatched: config.dataplane.unmatched == config::Unmatched::Discard,
    })
}

pub(super) fn open_ports(
    config: &Config,
    facts: Vec<Facts>,
    cores: &[usize],
    print: Print,
) -> Result<(Vec<OpenPort>, Vec<OpenQueue>), Refusal> {
    let mut open = Vec::new();
    let mut queues = Vec::new();
    for (index, (port, facts)) in (0..).zip(config.ports.iter().zip(facts)) {
        let (port, of_port) = ports::open(PortIndex(index), port, facts, &config.dataplane, cores)
            .map_err(Refusal::of)?;
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
    let pages = if umem.huge_pages {
        ", in huge pages"
    } else {
        ""
    };
    // Tiny memory is not said to be none.
    let (amount, unit) = if bytes < 1 << 20 {
        (bytes >> 10, "KiB")
    } else {
        (bytes >> 20, "MiB")
    };
    let sockets = queues.len();
    print(&format!(
        "packet memory: {amount} {unit} in {sockets} sockets{pages}"
    ));
    Ok((open, queues))
}

pub(super) fn running(
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
        exchange: Arc::clone(&crew.exchange),
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

pub(super) fn bind(config: &Config, print: Print) -> Result<Socket, Refusal> {
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
        .map_err(|error| Refusal::of(format!("control socket {}: {error}", path.display())))
}

/// The number of a group, by the machine's own list.
fn group_number(name: &str) -> Option<u32> {
    let groups = std::fs::read_to_string(Path::new("/etc/group")).ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    })
}

/// Held while this process is the gateway of its network namespace.
pub(super) struct OnlyOne {
    _name: std::os::unix::net::UnixListener,
}

/// Guard, policy routes and XDP hooks belong to one gateway of a network namespace, and so does
/// this abstract name: a second one is refused before it touches any of them.
pub(super) fn be_the_only_one() -> Result<OnlyOne, Refusal> {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};
    let name = SocketAddr::from_abstract_name("xipsec").map_err(Refusal::of)?;
    UnixListener::bind_addr(&name)
        .map(|name| OnlyOne { _name: name })
        .map_err(|_| Refusal::of("another gateway runs in this network namespace (stop it first)"))
}
