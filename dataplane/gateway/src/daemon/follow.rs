//! The control thread's loop: follows the kernel's tables, keeps neighbours fresh, answers the
//! control socket, until a signal ends it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::queue::ArrayQueue;
use ipsec::packet::Version;
use ipsec::sa::Sa;
use ipsec::sa::association::{Direction, Mode};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use crate::config::{Config, Forwarding};
use crate::control::server::Socket;
use crate::daemon::answers::Running;
use crate::daemon::lifetimes::Lifetimes;
use crate::daemon::path_mtu::PathMtus;
use crate::daemon::peers::Peers;
use crate::daemon::ports::OpenPort;
use crate::daemon::publish;
use crate::daemon::refusal::{Print, Refusal};
use crate::daemon::start::guard_with;
use crate::netlink::guard::Guard;
use crate::netlink::host_routes::{HostRoute, HostRoutes};
use crate::netlink::neighbors::{NeighborKeeper, NextHop, REFRESH};
use crate::netlink::{Changes, Kernel, Mirror};
use crate::port::host::HostPort;
use crate::port::xdp::program::ProgramError;
use crate::port::xdp::steer::SteeringTables;
use crate::snapshot::{PortFacts, Snapshot};
use crate::worker::pending;
use crate::worker::run::Shared;

/// How often workers' requests for neighbours are looked at. A first packet waits up to a second.
const REQUESTS: Duration = Duration::from_millis(5);

/// How often the guard's counters are read, which takes a process, and path MTUs are aged.
const GUARD_COUNTS: Duration = Duration::from_secs(5);

/// How often the SAs' lifetimes are looked at.
const LIVES: Duration = Duration::from_secs(1);

/// Next hops kept fresh at once, at most; a scan of the link must not fill the kernel's table.
const NEXT_HOPS: usize = 4096;

/// What the follower asks of the kernel.
pub struct Kernelside {
    kernel: Kernel,
    requests: Option<Arc<ArrayQueue<pending::NextHop>>>,
    host: Option<u32>,
}

impl Kernelside {
    /// The kernel, the workers' requests for neighbours, and the host port if there is one.
    #[must_use]
    pub fn new(
        kernel: Kernel,
        requests: Option<Arc<ArrayQueue<pending::NextHop>>>,
        host: Option<&HostPort>,
    ) -> Self {
        Self {
            kernel,
            requests,
            host: host.map(HostPort::index),
        }
    }
}

/// The signals that a gateway knows. Made first of all, so that none during the start is missed.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// From now on they wait here.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// Follows the kernel.
pub struct Follower<'c> {
    config: &'c Config,
    shared: Arc<Shared>,
    sas: Vec<Arc<Sa>>,
    mirror: Mirror,
    side: Kernelside,
    neighbors: Option<NeighborKeeper>,
    host_routes: Option<HostRoutes>,
    guard: Option<Guard>,
    path_mtus: PathMtus,
    peers: Peers,
    lifetimes: Lifetimes,
    /// Next hops that packets asked for.
    asked: BTreeSet<NextHop>,
    /// Generations that some worker may still hold.
    old: Vec<Arc<Snapshot>>,
}

impl<'c> Follower<'c> {
    /// Nothing is done yet.
    #[must_use]
    pub fn new(
        config: &'c Config,
        shared: Arc<Shared>,
        sas: &[Arc<Sa>],
        mirror: Mirror,
        guard: Option<Guard>,
        side: Kernelside,
        print: Print,
    ) -> Self {
        Self {
            config,
            shared,
            sas: sas.to_vec(),
            mirror,
            side,
            neighbors: None,
            host_routes: None,
            guard,
            path_mtus: PathMtus::new(&config.dataplane, print),
            peers: Peers::new(sas),
            lifetimes: Lifetimes::default(),
            old: Vec::new(),
            asked: BTreeSet::new(),
        }
    }

    /// Steers packets to the workers: the last step of the start.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn begin(
        &mut self,
        running: &Running,
        host: Option<&HostPort>,
        print: Print,
    ) -> Result<(), Refusal> {
        if self.config.dataplane.forwarding == Forwarding::Kernel {
            let keeper = NeighborKeeper::new(self.side.kernel.clone());
            self.neighbors = Some(keeper.await.map_err(Refusal::of)?);
        }
        if self.side.host.is_some() {
            let routes = HostRoutes::new(self.side.kernel.clone());
            self.host_routes = Some(routes.await.map_err(Refusal::of)?);
        }
        for notice in self.mirror.notices() {
            print(&format!("warning: {notice}"));
        }
        self.keep_neighbors().await.map_err(Refusal::of)?;
        self.steer(running).map_err(Refusal::of)?;
        self.route_host(host).await.map_err(Refusal::of)
    }

    /// Follows until SIGTERM or SIGINT.
    ///
    /// # Errors
    /// When the kernel's notifications are lost for good.
    pub async fn follow(
        &mut self,
        signals: &mut Signals,
        running: &Rc<Running>,
        socket: &Socket,
        host: Option<&HostPort>,
        print: Print,
    ) -> Result<(), Refusal> {
        let mut requests = ticks(REQUESTS);
        let mut refresh = ticks(REFRESH);
        let mut counts = ticks(GUARD_COUNTS);
        let mut lives = ticks(LIVES);
        let serving = socket.serve(Rc::clone(running) as _);
        tokio::pin!(serving);
        loop {
            tokio::select! {
                _ = signals.terminate.recv() => return Ok(()),
                _ = signals.interrupt.recv() => return Ok(()),
                _ = signals.hangup.recv() => {
                    print("warning: reload is not built yet: the running configuration stays");
                }
                due = self.mirror.due() => {
                    due.map_err(Refusal::of)?;
                    // Here, where nothing cancels it: a dump that is cut off blocks the next one.
                    match self.mirror.collect().await {
                        Ok(changes) if changes.any() => {
                            self.take(changes, running, host, print).await;
                        }
                        Ok(_) => {}
                        Err(error) => print(&format!("warning: {error} (tried again)")),
                    }
                }
                _ = requests.tick() => {
                    self.serve_requests(print).await;
                    if self.peers.take(self.shared.now(), print) {
                        self.follow_peers(running, host, print).await;
                    }
                }
                _ = refresh.tick() => {
                    if let Some(neighbors) = &mut self.neighbors {
                        warn(neighbors.refresh(&self.mirror).await, print);
                    }
                }
                _ = counts.tick() => {
                    count_guard(running, self.guard.as_ref());
                    if self.path_mtus.forget(self.shared.now()) {
                        self.size_host(host);
                    }
                }
                _ = lives.tick() => {
                    let lines = self.lifetimes.look(&self.sas, self.shared.now());
                    lines.iter().for_each(|line| print(line));
                }
                errors = self.path_mtus.receive(print) => {
                    let snapshot = self.shared.snapshot.load_full();
                    if self.path_mtus.take(&errors, &snapshot, self.shared.now(), print) {
                        self.size_host(host);
                    }
                }
                () = &mut serving => {}
            }
        }
    }

    /// The last step of the stop: what the kernel was asked for is taken back. The guard goes only
    /// after a `clean` one: after another nobody else keeps the kernel's path closed.
    pub async fn end(mut self, clean: bool, print: Print) {
        if let Some(mut routes) = self.host_routes.take() {
            warn(routes.remove().await, print);
        }
        if let Some(mut neighbors) = self.neighbors.take() {
            warn(neighbors.release().await, print);
        }
        if let Some(guard) = self.guard.filter(|_| clean) {
            warn(guard.remove(), print);
        }
    }

    /// The kernel's tables have changed: the next generation.
    async fn take(
        &mut self,
        changes: Changes,
        running: &Running,
        host: Option<&HostPort>,
        print: Print,
    ) {
        for notice in self.mirror.notices() {
            print(&format!("warning: {notice}"));
        }
        let before = self.shared.snapshot.load_full();
        if let Err(error) = self.publish(&before, changes) {
            print(&format!(
                "warning: the kernel's tables could not be taken over: {error}"
            ));
            return;
        }
        if changes.routes || changes.links || changes.addresses {
            warn(self.keep_neighbors().await, print);
            warn(self.route_host(host).await, print);
        }
        if changes.links || changes.addresses {
            warn(self.steer(running), print);
        }
        if changes.links
            && let Some(guard) = &mut self.guard
        {
            let loaded = guard_with(self.config, &self.sas, |parameters| guard.load(parameters));
            warn(loaded, print);
        }
    }

    /// Peers have moved: whoever knows them by their address must know the new one.
    async fn follow_peers(&mut self, running: &Running, host: Option<&HostPort>, print: Print) {
        let before = self.shared.snapshot.load_full();
        self.exchange(Snapshot {
            generation: before.generation + 1,
            tables: Arc::new(before.tables.with_moved_peers()),
            fib: Arc::clone(&before.fib),
            neighbors: Arc::clone(&before.neighbors),
            ports: Arc::clone(&before.ports),
            first_protected: before.first_protected,
        });
        warn(self.keep_neighbors().await, print);
        warn(self.steer(running), print);
        warn(self.route_host(host).await, print);
    }

    /// Publishes the next generation. Those before it are kept until no worker holds them: whoever
    /// lets go last frees the tables, which takes long, and that must not be a worker in its loop.
    fn exchange(&mut self, next: Snapshot) {
        self.old.push(self.shared.snapshot.swap(Arc::new(next)));
        self.old.retain(|old| Arc::strong_count(old) > 1);
    }

    fn publish(
        &mut self,
        before: &Snapshot,
        changes: Changes,
    ) -> Result<(), crate::assembly::AssemblyError> {
        let view = self.mirror.view();
        let generation = before.generation + 1;
        let next = if changes.addresses || changes.links {
            let ports: Arc<[PortFacts]> = publish::facts(self.config, &view, &before.ports).into();
            publish::snapshot(generation, self.config, &self.sas, &view, ports)?
        } else {
            // SAs and policies are as they were, and so are the compiled tables.
            let (fib, neighbors) = publish::routes(self.config, &view);
            Snapshot {
                generation,
                tables: Arc::clone(&before.tables),
                fib,
                neighbors,
                ports: Arc::clone(&before.ports),
                first_protected: before.first_protected,
            }
        };
        self.exchange(next);
        Ok(())
    }

    fn steer(&self, running: &Running) -> Result<(), ProgramError> {
        let local = publish::local_addresses(self.config, &self.mirror.view());
        let tables = publish::steering(self.config, &self.sas, &local);
        let snapshot = self.shared.snapshot.load();
        let mut ports = running.ports.borrow_mut();
        let mut result = Ok(());
        // A port that fails must not leave those behind it with old tables.
        for (port, facts) in ports.iter_mut().zip(snapshot.ports.iter()) {
            let steered = steer_port(port, facts, &tables);
            result = result.and(steered);
        }
        result
    }

    async fn serve_requests(&mut self, print: Print) {
        let Some(requests) = &self.side.requests else {
            return;
        };
        let mut new = false;
        while let Some(hop) = requests.pop() {
            if self.asked.len() >= NEXT_HOPS {
                // Begin anew: those in use are asked for again by their next packet.
                self.asked.clear();
            }
            let address = ipsec::packet::address(hop.version, hop.address);
            new |= self.asked.insert(NextHop {
                port: hop.port,
                address,
            });
        }
        if new {
            warn(self.keep_neighbors().await, print);
        }
    }

    /// Has the kernel resolve and keep the next hops of all outbound SAs and of what was asked.
    async fn keep_neighbors(&mut self) -> Result<(), crate::netlink::NetlinkError> {
        let Some(keeper) = &mut self.neighbors else {
            return Ok(());
        };
        let snapshot = self.shared.snapshot.load();
        let outbound = self
            .sas
            .iter()
            .filter(|sa| sa.parameters.direction == Direction::Out);
        let wanted: BTreeSet<NextHop> = outbound
            .filter_map(|sa| next_hop(&snapshot, sa.peer_address()))
            .chain(self.asked.iter().copied())
            .collect();
        keeper.keep(wanted, &self.mirror).await
    }

    /// The host port takes what fits every SA behind it.
    fn size_host(&self, host: Option<&HostPort>) {
        let snapshot = self.shared.snapshot.load_full();
        if let Some(host) = host {
            // A too large MTU costs an ICMP error, a refused one nothing else.
            host.set_mtu(publish::host_mtu(&snapshot))
                .unwrap_or_default();
        }
    }

    async fn route_host(
        &mut self,
        host: Option<&HostPort>,
    ) -> Result<(), crate::netlink::NetlinkError> {
        self.size_host(host);
        let (Some(routes), Some(host)) = (&mut self.host_routes, host) else {
            return Ok(());
        };
        let local = publish::local_addresses(self.config, &self.mirror.view());
        let wanted: Vec<HostRoute> = publish::host_routes(self.config, &local)
            .into_iter()
            .map(|(remote, prefix_length, source)| HostRoute {
                remote,
                prefix_length,
                source,
            })
            .collect();
        // In transport mode what goes to the peer itself is what policy protects.
        let tunnels = |sa: &&Arc<Sa>| sa.parameters.mode == Mode::Tunnel;
        let tunnels = self.sas.iter().filter(tunnels);
        let peers: Vec<IpAddr> = tunnels.map(|sa| sa.peer_address()).collect();
        routes.apply(host.index(), &wanted, &peers).await
    }
}

/// Tells one port's program its MAC address and the tables. The address is told again as long as
/// it fails, and the tables are updated whatever becomes of it.
fn steer_port(
    port: &mut OpenPort,
    facts: &PortFacts,
    tables: &SteeringTables,
) -> Result<(), ProgramError> {
    let mut told = Ok(());
    if port.facts.mac != facts.mac {
        told = port.program.change_mac(facts.mac);
        if told.is_ok() {
            port.facts.mac = facts.mac;
        }
    }
    let updated = port.program.update(tables);
    told.and(updated)
}

fn next_hop(snapshot: &Snapshot, destination: IpAddr) -> Option<NextHop> {
    let version = if destination.is_ipv4() {
        Version::V4
    } else {
        Version::V6
    };
    let hop = snapshot
        .fib
        .lookup(version, ipsec::packet::address_bits(destination), 0)?;
    Some(NextHop {
        port: hop.port,
        address: hop.via.unwrap_or(destination),
    })
}

fn count_guard(running: &Running, guard: Option<&Guard>) {
    if let Some(counts) = guard.and_then(|guard| guard.counts().ok()) {
        running
            .guard_drops
            .set(counts.iter().map(|count| count.packets).sum());
    }
}

fn ticks(period: Duration) -> tokio::time::Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

fn warn<E: std::fmt::Display>(result: Result<(), E>, print: Print) {
    if let Err(error) = result {
        print(&format!("warning: {error}"));
    }
}
