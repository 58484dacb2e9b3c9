//! The test network: hostA – gwA – gwB – hostB, in namespaces of this run.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::binary;
use crate::config::{Config, Family, LEFT, RIGHT, Sa, Side, text};
use crate::expect;
use crate::files;
use crate::gateway::Gateway;
use crate::netns::{self, Namespace};
use crate::suite::{AES128GCM16, Suite};
use crate::veth::{self, End};

/// How the network and its two gateways are to be.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Algorithms of both SAs.
    pub suite: Suite,
    /// IP version between the gateways.
    pub outer: Family,
    /// IP versions between the hosts.
    pub inner: Vec<Family>,
    /// Algorithms of a bundle in transport mode, innermost first, that protects what the gateways
    /// themselves send each other between their outer addresses; empty: nothing does.
    pub direct: Vec<Suite>,
    /// Extended sequence numbers.
    pub esn: bool,
    /// Further SAs each way, one for each worker (RFC 9611), as alternatives to the pair for all.
    pub per_worker: u32,
    /// Queues of every wire.
    pub queues: u32,
    /// Whether the kernel's own path would forward between the hosts if nothing stopped it.
    pub kernel_forwards: bool,
    /// `rp_filter` of the gateways.
    pub rp_filter: u8,
    /// Puts a bridge between the gateways, so that the middle wire can be captured.
    pub tapped: bool,
    /// Outlives the process that builds it.
    pub lasting: bool,
    /// One core for each gateway's worker, so that the two do not share one; only with one queue.
    pub core_each: bool,
    /// Further lines of `[dataplane]`.
    pub dataplane: Vec<String>,
    /// Further lines of every `[[sa]]`.
    pub sa: Vec<String>,
    /// Further tables at the end of both files.
    pub tables: String,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            suite: AES128GCM16,
            outer: Family::V4,
            inner: vec![Family::V4],
            direct: Vec::new(),
            esn: false,
            per_worker: 0,
            queues: 1,
            kernel_forwards: true,
            rp_filter: 0,
            tapped: false,
            lasting: false,
            core_each: false,
            dataplane: Vec::new(),
            sa: vec!["replay_window = 4096".to_owned()],
            tables: String::new(),
        }
    }
}

/// The network of one plan. Dropping it ends its gateways and removes it.
// Fields drop in this order: gateways before the namespaces they live in, files last.
#[derive(Debug)]
pub struct Lab {
    /// gwA's process.
    pub left: Gateway,
    /// gwB's process.
    pub right: Gateway,
    /// The protected host on the left.
    pub host_a: Namespace,
    /// The gateway on the left: interfaces `wan0` and `lan0`.
    pub gate_a: Namespace,
    /// The tap between the gateways, if the plan wants one: bridge ports `wa` and `wb`.
    pub wire: Option<Namespace>,
    /// The gateway on the right.
    pub gate_b: Namespace,
    /// The protected host on the right.
    pub host_b: Namespace,
    /// Both SAs: left to right, right to left.
    pub sas: [Sa; 2],
    /// Further pairs, of which each worker has one.
    pub per_worker: Vec<[Sa; 2]>,
    /// The pairs of SAs of the bundle between the gateways themselves.
    pub direct: Vec<[Sa; 2]>,
    directory: TempDir,
}

impl Lab {
    /// Builds the network and writes both configurations; no gateway runs yet.
    ///
    /// # Errors
    /// When a namespace or wire cannot be made, or the binary does not build.
    pub fn new(plan: &Plan) -> Result<Self> {
        Self::with_binary(plan, binary::xipsec()?)
    }

    /// The same with a binary of the caller's choice.
    ///
    /// # Errors
    /// As [`Lab::new`].
    pub fn with_binary(plan: &Plan, binary: &Path) -> Result<Self> {
        netns::sweep();
        let group = netns::unique_group(plan.lasting);
        let make = |role| Namespace::new(&group, role);
        let [host_a, gate_a, gate_b, host_b] =
            [make("hostA")?, make("gwA")?, make("gwB")?, make("hostB")?];
        let wire = if plan.tapped {
            Some(make("wire")?)
        } else {
            None
        };
        let directory = files::directory(plan.lasting)?;
        let sa = |spi, from, to| {
            let mut sa = Sa::fixed(spi, from, to, plan.outer, plan.suite).random()?;
            sa.esn = plan.esn;
            sa.extra.clone_from(&plan.sa);
            anyhow::Ok(sa)
        };
        let sas = [sa(0x1001, &LEFT, &RIGHT)?, sa(0x1002, &RIGHT, &LEFT)?];
        let per_worker = (0..plan.per_worker).map(|at| {
            let spi = 0x2001 + 2 * at;
            let mut pair = [sa(spi, &LEFT, &RIGHT)?, sa(spi + 1, &RIGHT, &LEFT)?];
            for one in &mut pair {
                one.name = format!("{}-{at}", one.name);
                one.extra.push("per_worker = true".to_owned());
            }
            anyhow::Ok(pair)
        });
        let per_worker = per_worker.collect::<Result<Vec<_>>>()?;
        let direct = direct(plan)?;
        let gateway = |namespace: &Namespace, side: &Side| {
            let home = directory.path().join(side.name);
            fs::create_dir(&home)?;
            let (config, socket) = (home.join("xipsec.toml"), home.join("control.sock"));
            write_config(plan, side, (&sas, &per_worker), &direct, &home)?;
            anyhow::Ok(Gateway::new(binary, namespace, &config, &socket))
        };
        let (left, right) = (gateway(&gate_a, &LEFT)?, gateway(&gate_b, &RIGHT)?);
        let lab = Self {
            left,
            right,
            host_a,
            gate_a,
            wire,
            gate_b,
            host_b,
            sas,
            per_worker,
            direct,
            directory,
        };
        lab.connect(plan).context("cannot build the test network")?;
        Ok(lab)
    }

    /// Builds the network and starts both gateways.
    ///
    /// # Errors
    /// As [`Lab::new`] and [`Gateway::start`].
    pub fn started(plan: &Plan) -> Result<Self> {
        let mut lab = Self::new(plan)?;
        lab.start()?;
        Ok(lab)
    }

    /// Builds the network, starts both gateways, and waits until the hosts reach each other.
    ///
    /// # Errors
    /// As [`Lab::started`] and [`Lab::wait_connected`].
    pub fn connected(plan: &Plan) -> Result<Self> {
        let lab = Self::started(plan)?;
        for family in &plan.inner {
            lab.wait_connected(*family)?;
        }
        Ok(lab)
    }

    /// Adds both gateways' state to an error: the first thing a reader of the failure wants.
    ///
    /// # Errors
    /// `result`'s own.
    pub fn explain<T>(&self, result: Result<T>) -> Result<T> {
        result.with_context(|| self.state())
    }

    /// Checks both gateways' accounts.
    ///
    /// # Errors
    /// When a packet ended twice or not at all.
    pub fn check_accounting(&self) -> Result<()> {
        for gateway in [&self.left, &self.right] {
            let checked = gateway.stats().and_then(|stats| expect::accounting(&stats));
            self.explain(checked)?;
        }
        Ok(())
    }

    /// Declares both state directories fresh and starts both gateways.
    ///
    /// # Errors
    /// As [`Gateway::start`].
    pub fn start(&mut self) -> Result<()> {
        for gateway in [&mut self.left, &mut self.right] {
            gateway.init_state()?;
            gateway.spawn()?;
        }
        self.left.wait_ready()?;
        self.right.wait_ready()
    }

    /// Waits until hostA reaches hostB through the gateways.
    ///
    /// # Errors
    /// When it does not within ten seconds; the text holds both gateways' state.
    pub fn wait_connected(&self, family: Family) -> Result<()> {
        let address = RIGHT.host[family.index()];
        let limit = Duration::from_secs(10);
        self.host_a
            .wait_for_ping(address, limit)
            .with_context(|| self.state())
    }

    /// A folder for captures and other files of the test.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Lets both hosts send packets of at most `bytes` to each other from the start, instead of
    /// finding out what fits.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn route_mtu(&self, bytes: u32) -> Result<()> {
        for (host, side) in [(&self.host_a, &LEFT), (&self.host_b, &RIGHT)] {
            host.ip(&format!(
                "route replace default via {} mtu {bytes}",
                side.lan[0]
            ))?;
            if host.ip("-6 route show default")?.contains("via") {
                let route = format!("-6 route replace default via {} mtu {bytes}", side.lan[1]);
                host.ip(&route)?;
            }
        }
        Ok(())
    }

    /// Leaves everything standing when this value is dropped; returns the folder, the namespaces
    /// and the gateways' process ids, for whoever clears it away later.
    pub fn keep(mut self) -> Value {
        let directory = self.directory.keep();
        let mut names = Vec::new();
        let wire = self.wire.as_mut();
        let others = [
            &mut self.host_a,
            &mut self.gate_a,
            &mut self.gate_b,
            &mut self.host_b,
        ];
        for namespace in others.into_iter().chain(wire) {
            namespace.keep();
            names.push(namespace.name().to_owned());
        }
        let pids = [self.left.detach(), self.right.detach()];
        json!({"directory": directory, "namespaces": names, "pids": pids})
    }

    /// What an operator would look at first: statistics and logs of both gateways.
    pub fn state(&self) -> String {
        let mut text = String::new();
        for (name, gateway) in [("gwA", &self.left), ("gwB", &self.right)] {
            let stats = gateway
                .ask(&["stats"])
                .unwrap_or_else(|error| format!("{error:#}"));
            text += &format!(
                "--- {name}: stats\n{stats}\n--- {name}: log\n{}\n",
                gateway.log()
            );
        }
        text
    }

    fn connect(&self, plan: &Plan) -> Result<()> {
        let wan = [
            End::new(&self.gate_a, "wan0"),
            End::new(&self.gate_b, "wan0"),
        ];
        let lan = [
            End::new(&self.gate_a, "lan0"),
            End::new(&self.gate_b, "lan0"),
        ];
        let host = [
            End::new(&self.host_a, "eth0"),
            End::new(&self.host_b, "eth0"),
        ];
        if let Some(wire) = &self.wire {
            veth::connect(wan[0], End::new(wire, "wa"), plan.queues)?;
            veth::connect(wan[1], End::new(wire, "wb"), plan.queues)?;
            veth::bridge(wire, ["wa", "wb"])?;
        } else {
            veth::connect(wan[0], wan[1], plan.queues)?;
        }
        let v6 = plan.outer == Family::V6 || plan.inner.contains(&Family::V6);
        for (index, side) in [LEFT, RIGHT].iter().enumerate() {
            veth::connect(host[index], lan[index], plan.queues)?;
            for end in [wan[index], lan[index], host[index]] {
                end.ipv6(v6)?;
            }
            for family in if v6 {
                &[Family::V4, Family::V6][..]
            } else {
                &[Family::V4]
            } {
                let length = if *family == Family::V4 { 24 } else { 64 };
                let at = family.index();
                wan[index].address(&format!("{}/{length}", side.wan[at]))?;
                lan[index].address(&format!("{}/{length}", side.lan[at]))?;
                host[index].address(&format!("{}/{length}", side.host[at]))?;
                let flag = if *family == Family::V4 { "" } else { "-6 " };
                let route = format!("{flag}route add default via {}", side.lan[at]);
                host[index].namespace.ip(&route)?;
            }
        }
        self.kernel_path(plan, v6)
    }

    /// Sets what the gateways' kernels would do with a packet that xipsec leaves to them.
    fn kernel_path(&self, plan: &Plan, v6: bool) -> Result<()> {
        let forward = if plan.kernel_forwards { "1" } else { "0" };
        for (gate, peer) in [(&self.gate_a, &RIGHT), (&self.gate_b, &LEFT)] {
            for interface in ["all", "default", "wan0", "lan0"] {
                let key = format!("net.ipv4.conf.{interface}.rp_filter");
                gate.sysctl(&key, &plan.rp_filter.to_string())?;
            }
            gate.sysctl("net.ipv4.ip_forward", forward)?;
            gate.ip(&format!("route add {} via {}", peer.net[0], peer.wan[0]))?;
            if v6 {
                gate.sysctl("net.ipv6.conf.all.forwarding", forward)?;
                gate.ip(&format!("-6 route add {} via {}", peer.net[1], peer.wan[1]))?;
            }
        }
        Ok(())
    }
}

/// The SAs of the bundle between the gateways themselves: to the right, to the left.
fn direct(plan: &Plan) -> Result<Vec<[Sa; 2]>> {
    let sa = |spi, from: &Side, to, suite| {
        let mut sa = Sa::fixed(spi, from, to, plan.outer, suite).random()?;
        sa.mode = "transport";
        sa.name = format!("direct-{spi:x}");
        sa.esn = plan.esn;
        anyhow::Ok(sa)
    };
    let suites = (0x5000..).step_by(2).zip(&plan.direct);
    suites
        .map(|(spi, suite)| {
            Ok([
                sa(spi, &LEFT, &RIGHT, *suite)?,
                sa(spi + 1, &RIGHT, &LEFT, *suite)?,
            ])
        })
        .collect()
}

fn write_config(
    plan: &Plan,
    side: &Side,
    (sas, per_worker): (&[Sa; 2], &[[Sa; 2]]),
    direct: &[[Sa; 2]],
    home: &Path,
) -> Result<()> {
    let (peer, at) = match side.name {
        "left" => (&RIGHT, 0),
        _ => (&LEFT, 1),
    };
    let (out, back) = (&sas[at], &sas[1 - at]);
    let further = |at: usize| -> Vec<&Sa> { per_worker.iter().map(|pair| &pair[at]).collect() };
    let state = home.join("state");
    fs::create_dir(&state)?;
    let mut dataplane = vec![
        text(
            "control_socket",
            &home.join("control.sock").to_string_lossy(),
        ),
        text("state_dir", &state.to_string_lossy()),
    ];
    if plan.core_each {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let own = if side.name == "left" { 0 } else { 1 % cores };
        dataplane.push(format!("cores = [{own}]"));
    }
    dataplane.extend_from_slice(&plan.dataplane);
    let mut config = Config::default();
    config.dataplane(&dataplane);
    config
        .port("wan0", "unprotected", &[])
        .port("lan0", "protected", &[]);
    for (direction, first, others) in [("out", out, further(at)), ("in", back, further(1 - at))] {
        config.sa(first, direction);
        let mut uses = vec![format!("sa = [\"{}\"]", first.name)];
        if !others.is_empty() {
            let lists = others.iter().map(|sa| format!("[\"{}\"]", sa.name));
            let lists: Vec<String> = lists.collect();
            uses.push(format!("alternatives = [{}]", lists.join(", ")));
        }
        for sa in others {
            config.sa(sa, direction);
        }
        for family in &plan.inner {
            let at = family.index();
            let nets = [side.net[at], peer.net[at]];
            let name = format!("{direction}-{at}");
            config.policy([&name, direction, "protect"], nets, 100, &uses);
        }
    }
    for (direction, from) in [("out", &LEFT), ("in", &RIGHT)] {
        let at = usize::from(from.name != side.name);
        let own: Vec<&Sa> = direct.iter().map(|pair| &pair[at]).collect();
        let names: Vec<String> = own.iter().map(|sa| format!("\"{}\"", sa.name)).collect();
        for sa in &own {
            config.sa(sa, direction);
        }
        if !own.is_empty() {
            let index = plan.outer.index();
            let ends = [side.wan[index], peer.wan[index]];
            let name = format!("direct-{direction}");
            let keys = [name.as_str(), direction, "protect"];
            let uses = format!("sa = [{}]", names.join(", "));
            config.policy(keys, ends, 50, &[uses]);
        }
    }
    config.table(&plan.tables, &[]);
    config.write(&home.join("xipsec.toml"))
}
