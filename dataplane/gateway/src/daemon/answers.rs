//! What the control socket answers about the running gateway.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use ipsec::crypto::Backend;
use ipsec::policy::{AddressRange, AddressSelector, PolicyParameters, PortSelector, Selector};
use ipsec::sa::Sa;
use ipsec::sa::association::{Direction, Mode, NO_HOME, Protocol};
use ipsec::tables::Count;
use ipsec::time::{SECOND, Time};
use serde_json::{Value, json};

use crate::control::protocol::{
    Choice, CryptoRow, Method, PolicyRow, PortRow, SaRow, Status, WorkerRow,
};
use crate::control::server::{Answers, Refused};
use crate::counters::{self, Block, Cell, Tally};
use crate::daemon::cores;
use crate::daemon::orders;
use crate::daemon::ports::OpenPort;
use crate::daemon::workers::LiveExchange;
use crate::observe::stats::{Document, SaStats, direction_name};
use crate::port::host::HostCounters;
use crate::port::settings::Side;
use crate::worker::orders::Order;
use crate::worker::run::Shared;

/// What can be asked about.
pub struct Running {
    /// The configuration file.
    pub file: String,
    /// Since readiness.
    pub since: Instant,
    /// Snapshot and time line.
    pub shared: Arc<Shared>,
    /// The ports, with their programs.
    pub ports: RefCell<Vec<OpenPort>>,
    /// In file order.
    pub sas: Vec<Arc<Sa>>,
    /// In file order.
    pub policies: Vec<PolicyParameters>,
    /// What each worker publishes.
    pub blocks: Vec<Arc<Block>>,
    /// What the workers share among each other.
    pub exchange: Arc<LiveExchange>,
    /// Each worker's policy counters.
    pub policy_cells: Vec<Arc<[Count]>>,
    /// Each worker's core.
    pub cores: Vec<Option<usize>>,
    /// The host thread's counters.
    pub host: Option<Arc<HostCounters>>,
    /// `closed` or `open`.
    pub guard: &'static str,
    /// Packets that the guard dropped, at the last look.
    pub guard_drops: std::cell::Cell<u64>,
    /// The TUN's name.
    pub host_port: String,
    /// The state directory.
    pub state_dir: String,
    /// Automatic choices of the gateway as a whole.
    pub choices: Vec<Choice>,
}

impl Running {
    /// The sum of all counters at one moment of running workers.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let ports = self.ports.borrow().len();
        let cuts = self.exchange.cuts();
        self.with_host(cuts.sum(&self.blocks, ports, || self.exchange.wake()))
    }

    /// The sum of all counters when no worker runs any more.
    #[must_use]
    pub fn last_tally(&self) -> Tally {
        let ports = self.ports.borrow().len();
        self.with_host(counters::total(&self.blocks, ports))
    }

    fn with_host(&self, mut sum: Tally) -> Tally {
        if let Some(host) = &self.host {
            let full = host.full.load(Ordering::Relaxed);
            sum.add(Cell::FromHost, full);
            sum.add_drops(ipsec::verdict::DropReason::HostFull, full);
        }
        sum
    }

    /// The statistics document.
    #[must_use]
    pub fn document(&self) -> Document {
        let names: Vec<String> = self
            .ports
            .borrow()
            .iter()
            .map(|port| port.name.clone())
            .collect();
        let policies: Vec<String> = self
            .policies
            .iter()
            .map(|policy| policy.name.clone())
            .collect();
        Document::gather(
            &self.tally(),
            &names,
            (&self.sas, self.shared.now()),
            &policies,
            &self.policy_cells,
        )
    }

    fn status(&self) -> Status {
        let tallies = self.blocks.iter().map(|block| block.read());
        let workers = (0..).zip(self.cores.iter().zip(tallies));
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: self.since.elapsed().as_secs(),
            config: self.file.clone(),
            generation: self.shared.snapshot.load().generation,
            workers: workers
                .map(|(number, (core, tally))| WorkerRow {
                    number,
                    core: *core,
                    node: core.and_then(cores::node_of),
                    lent: tally.of(Cell::Lent),
                    taken_back: tally.of(Cell::TakenBack),
                    helped: tally.of(Cell::Helped),
                })
                .collect(),
            ports: self
                .ports
                .borrow()
                .iter()
                .map(|port| port.name.clone())
                .collect(),
            sas: self.sas.len(),
            policies: self.policies.len(),
            guard: self.guard.to_owned(),
            guard_drops: self.guard_drops.get(),
            host_port: self.host_port.clone(),
            state_dir: self.state_dir.clone(),
            crypto: crypto(),
            choices: self.choices.clone(),
        }
    }

    fn port_rows(&self) -> Vec<PortRow> {
        let snapshot = self.shared.snapshot.load();
        let ports = self.ports.borrow();
        let rows = ports
            .iter()
            .zip(snapshot.ports.iter())
            .map(|(port, facts)| PortRow {
                name: port.name.clone(),
                side: match facts.side {
                    Side::Protected => "protected",
                    Side::Unprotected => "unprotected",
                }
                .to_owned(),
                mac: facts.mac.map(|byte| format!("{byte:02x}")).join(":"),
                mtu: facts.mtu,
                addresses: facts.addresses.iter().map(ToString::to_string).collect(),
                queues: port.facts.receive_queues,
                program_id: port.program_id,
                choices: port.choices_now(),
            });
        rows.collect()
    }

    fn policy_rows(&self) -> Vec<PolicyRow> {
        let count = |index: usize| {
            let cells = self
                .policy_cells
                .iter()
                .filter_map(|cells| cells.get(index));
            let sums = cells.map(Count::read);
            sums.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
        };
        let snapshot = self.shared.snapshot.load();
        let builtin = snapshot.tables.builtins().map(|(index, name)| {
            let (packets, bytes) = count(index.0 as usize);
            builtin_row(name, packets, bytes)
        });
        let (last, first): (Vec<_>, Vec<_>) = builtin.partition(|row| {
            row.name == ipsec::tables::BUILTIN_LOCAL || row.name == ipsec::tables::BUILTIN_UNMATCHED
        });
        let mut rows = first;
        let mut files: Vec<_> = self.policies.iter().enumerate().collect();
        files.sort_by_key(|(_, policy)| policy.priority);
        rows.extend(files.into_iter().map(|(index, policy)| {
            let (packets, bytes) = count(index);
            policy_row(policy, packets, bytes)
        }));
        rows.extend(last);
        rows
    }

    fn order(&self, worker: u16, order: Order) -> Result<(), Refused> {
        let worker = usize::from(worker).min(self.blocks.len().saturating_sub(1));
        let taken = self.exchange.order(worker, order);
        taken.map_err(|_| Refused::new("Busy", "too many dummies wait already (try again later)"))
    }

    fn stats(&self) -> Value {
        let mut value = serde_json::to_value(self.document()).unwrap_or(Value::Null);
        let mut steering = serde_json::Map::new();
        let mut xdp = serde_json::Map::new();
        for port in self.ports.borrow().iter() {
            let mut queues = serde_json::Map::new();
            for counter in port.program.counters().unwrap_or_default() {
                let queue = queues
                    .entry(counter.queue.to_string())
                    .or_insert_with(|| json!({}));
                if let Value::Object(members) = queue {
                    members.insert(counter.outcome.name().to_owned(), counter.packets.into());
                }
            }
            steering.insert(port.name.clone(), Value::Object(queues));
            xdp.insert(port.name.clone(), json!({ "program_id": port.program_id }));
        }
        let workers: Vec<Value> = self
            .blocks
            .iter()
            .enumerate()
            .map(|(number, block)| {
                let tally = block.read();
                json!({
                    "number": number,
                    "rx": tally.of(Cell::Rx),
                    "tx": tally.of(Cell::Tx),
                    "batches": tally.of(Cell::Batches),
                    "lent": tally.of(Cell::Lent),
                    "taken_back": tally.of(Cell::TakenBack),
                    "helped": tally.of(Cell::Helped),
                })
            })
            .collect();
        if let Value::Object(members) = &mut value {
            members.insert("steering".to_owned(), Value::Object(steering));
            members.insert("workers".to_owned(), Value::Array(workers));
            members.insert("guard_drops".to_owned(), self.guard_drops.get().into());
        }
        value
    }
}

impl Answers for Running {
    fn answer(&self, method: Method, parameters: &Value) -> Result<Value, Refused> {
        let value = match method {
            Method::Status => serde_json::to_value(self.status()),
            Method::Sas => {
                let now = self.shared.now();
                let rows: Vec<SaRow> = self.sas.iter().map(|sa| sa_row(sa, now)).collect();
                Ok(json!({ "rows": rows }))
            }
            Method::Policies => Ok(json!({ "rows": self.policy_rows() })),
            Method::Ports => Ok(json!({ "rows": self.port_rows() })),
            Method::Stats => Ok(self.stats()),
            Method::SendDummies => {
                orders::dummies(&self.sas, self.shared.now(), parameters)
                    .and_then(|(worker, order)| self.order(worker, order))?;
                Ok(json!({}))
            }
        };
        value.map_err(|_| Refused::new("Internal", ""))
    }
}

fn sa_row(sa: &Sa, now: Time) -> SaRow {
    let stats = SaStats::of(sa, now);
    let parameters = &sa.parameters;
    let reserved = sa.published.reserved_end.load(Ordering::Relaxed);
    let home = sa.home.load(Ordering::Relaxed);
    let path_mtu = sa.published.path_mtu.learned();
    let peer = (sa.peer_address(), sa.peer_place().port);
    let [own, _] = parameters.ends();
    let ports = match parameters.direction {
        Direction::In => [peer.1, own.port],
        Direction::Out => [own.port, peer.1],
    };
    let [source_port, destination_port] =
        ports.map(|port| parameters.udp_encapsulation.map(|_| port));
    let [source, destination] = match parameters.direction {
        Direction::In => [peer.0, parameters.destination],
        Direction::Out => [parameters.source, peer.0],
    };
    let usage = sa.published.usage(now);
    SaRow {
        name: stats.name,
        spi: stats.spi,
        direction: stats.direction,
        protocol: match parameters.protocol {
            Protocol::Esp => "esp",
            Protocol::Ah => "ah",
        }
        .to_owned(),
        mode: match parameters.mode {
            Mode::Tunnel => "tunnel",
            Mode::Transport => "transport",
        }
        .to_owned(),
        source: source.to_string(),
        destination: destination.to_string(),
        source_port,
        destination_port,
        encryption: parameters.suite.encryption.name().to_owned(),
        integrity: parameters
            .suite
            .integrity
            .map_or("", |mac| mac.name())
            .to_owned(),
        esn: parameters.esn,
        replay_window: parameters.replay_window,
        packets: stats.packets,
        bytes: stats.bytes,
        lifetime_packets: usage.packets,
        lifetime_bytes: usage.bytes,
        age_seconds: usage.seconds,
        sequence: stats.sequence,
        reserved_end: (reserved != u64::MAX).then_some(reserved),
        state: stats.state,
        worker: (home != NO_HOME).then_some(home),
        path_mtu: path_mtu.map(|(bytes, _)| bytes),
        path_mtu_age_seconds: path_mtu.map(|(_, heard)| now.since(heard) / SECOND),
        peer_moves: sa.peer.as_ref().map(|peer| peer.moves()),
    }
}

fn builtin_row(name: &str, packets: u64, bytes: u64) -> PolicyRow {
    let action = if name == ipsec::tables::BUILTIN_UNMATCHED {
        "unmatched"
    } else {
        "bypass"
    };
    PolicyRow {
        name: name.to_owned(),
        direction: "both".to_owned(),
        action: action.to_owned(),
        local: "any".to_owned(),
        remote: "any".to_owned(),
        upper: "any".to_owned(),
        priority: None,
        sa: Vec::new(),
        packets,
        bytes,
    }
}

fn policy_row(policy: &PolicyParameters, packets: u64, bytes: u64) -> PolicyRow {
    use ipsec::policy::Action;
    PolicyRow {
        name: policy.name.clone(),
        direction: direction_name(policy.direction).to_owned(),
        action: match policy.action {
            Action::Protect => "protect",
            Action::Bypass => "bypass",
            Action::Discard => "discard",
        }
        .to_owned(),
        local: addresses(&policy.selector.local),
        remote: addresses(&policy.selector.remote),
        upper: upper(&policy.selector),
        priority: Some(policy.priority),
        sa: policy.bundles.clone(),
        packets,
        bytes,
    }
}

/// A selector's addresses as the configuration writes them.
fn addresses(selector: &AddressSelector) -> String {
    match selector {
        AddressSelector::Any => "any".to_owned(),
        AddressSelector::Ranges(ranges) => ranges.iter().map(range).collect::<Vec<_>>().join(","),
    }
}

fn range(range: &AddressRange) -> String {
    let first = ipsec::packet::address(range.version, range.first);
    let last = ipsec::packet::address(range.version, range.last);
    let span = range.first ^ range.last;
    let host_bits = 128 - span.leading_zeros();
    let is_prefix = span.count_ones() == host_bits && range.first & span == 0;
    let bits = if first.is_ipv4() { 32 } else { 128 };
    match (span, is_prefix) {
        (0, _) => first.to_string(),
        (_, true) => format!("{first}/{}", bits - host_bits),
        (_, false) => format!("{first}-{last}"),
    }
}

/// Whose code keys are expanded for.
fn crypto() -> Vec<CryptoRow> {
    let families = Backend::chosen().by_family().into_iter();
    let rows = families.map(|(algorithms, code)| CryptoRow {
        algorithms: algorithms.to_owned(),
        code: code.to_owned(),
    });
    rows.collect()
}

fn upper(selector: &Selector) -> String {
    let Some(protocol) = selector.protocol else {
        return "any".to_owned();
    };
    let mut text = format!("protocol {protocol}");
    for (name, ports) in [
        ("local", &selector.local_port),
        ("remote", &selector.remote_port),
    ] {
        if let PortSelector::List { opaque, ranges } = ports {
            let mut parts: Vec<String> = ranges
                .iter()
                .map(|(first, last)| {
                    if first == last {
                        first.to_string()
                    } else {
                        format!("{first}-{last}")
                    }
                })
                .collect();
            if *opaque {
                parts.push("opaque".to_owned());
            }
            text += &format!(" {name} {}", parts.join(","));
        }
    }
    if let Some((first, last)) = selector.icmp {
        text += &format!(
            " icmp {}/{}-{}/{}",
            first >> 8,
            first & 255,
            last >> 8,
            last & 255
        );
    }
    text
}
