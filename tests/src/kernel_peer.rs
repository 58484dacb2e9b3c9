//! The gateway opposite a Linux kernel: host – gateway – guest, all cells of a matrix in force at
//! once, datagrams both ways through each, counters of both sides compared.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::algorithms::Transform;
use crate::cell::{Cell, FAR, Layer, Mode, Near, Way};
use crate::config::{Config, Family, LEFT, RIGHT, text};
use crate::gateway::Gateway;
use crate::guest::Guest;
use crate::netns::{self, Namespace};
use crate::sockets::{self, Missed, Sockets};
use crate::veth::{self, End};
use crate::{binary, expect, files, peer, shell};

/// A guest on a loaded machine loads a thousand states in a few seconds.
const GUEST_LIMIT: Duration = Duration::from_secs(120);
/// What both sides run: it asks, and it answers.
const PROBE: &str = "probe.py";
/// How often a lost datagram is sent again; every one that was is accounted for.
const REPEATS: u32 = 3;
const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// The network with its guest, and a gateway once cells are in force.
// Fields drop in this order: what runs before the namespaces it runs in, files last.
#[derive(Debug)]
pub struct KernelPeer {
    /// The gateway under test.
    pub gateway: Gateway,
    /// The kernel opposite.
    pub guest: Guest,
    answering: Vec<Answering>,
    host: Namespace,
    gate: Namespace,
    wire: Namespace,
    cells: Vec<Cell>,
    /// The counters of all sockets before the first datagram.
    before: Sockets,
    directory: TempDir,
}

/// What one speaker found out about one cell and family.
#[derive(Debug)]
pub struct Finding {
    /// Datagrams that came back right.
    pub right: u64,
    /// Datagrams that were sent more than once.
    pub repeated: u64,
    /// Answers that came again, because one that was late had been asked for twice.
    pub again: u64,
    /// Name of the cell, who asked, and what went wrong first.
    pub wrong: Option<String>,
    /// Whether that cell has a flaw, and ought to go wrong.
    pub flawed: bool,
}

/// A program that answers datagrams until it is dropped.
#[derive(Debug)]
struct Answering(Child);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl KernelPeer {
    /// Boots the guest and builds the network around it; no gateway runs yet.
    ///
    /// # Errors
    /// [`crate::guest::NoGuest`] where none can run; others when the network cannot be made.
    pub fn new() -> Result<Self> {
        netns::sweep();
        let group = netns::unique_group(false);
        let make = |role| Namespace::new(&group, role);
        let [host, gate, wire] = [make("host")?, make("gw")?, make("wire")?];
        let directory = files::directory(false)?;
        wire_up(&host, &gate, &wire).context("cannot build the test network")?;
        let home = directory.path().join("guest");
        fs::create_dir(&home)?;
        let mut guest = Guest::boot(&wire, &["guest0"], &home)?;
        furnish(&mut guest)?;
        let config = directory.path().join("xipsec.toml");
        let socket = directory.path().join("control.sock");
        let gateway = Gateway::new(binary::xipsec()?, &gate, &config, &socket);
        Ok(Self {
            gateway,
            guest,
            answering: Vec::new(),
            host,
            gate,
            wire,
            cells: Vec::new(),
            before: Sockets::default(),
            directory,
        })
    }

    /// A folder for captures and other files of the test.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The namespace of the wire between gateway and guest: `wa` and `guest0` on a bridge.
    pub fn wire(&self) -> &Namespace {
        &self.wire
    }

    /// Which of `transforms` the kernel refuses, and what it says then.
    ///
    /// # Errors
    /// When the guest cannot be asked.
    pub fn refused(&mut self, transforms: &[Transform]) -> Result<Vec<(Transform, String)>> {
        let mut script = String::new();
        for (number, transform) in (0..).zip(transforms) {
            let layer = Layer {
                transform: *transform,
                mode: Mode::Tunnel,
            };
            let cell = Cell::new(number, vec![layer], Family::V4, true);
            let line = &cell.kernel_states()[0];
            script += &format!("ip {line} || echo REFUSED {number}\n");
        }
        script += "ip xfrm state flush\n";
        let said = self.guest.succeed(&script, GUEST_LIMIT)?;
        let mut refused = Vec::new();
        let mut why = "";
        for line in said.lines() {
            match line.strip_prefix("REFUSED ") {
                Some(number) => {
                    let number: usize = number.parse()?;
                    refused.push((transforms[number], why.to_owned()));
                }
                None => why = line,
            }
        }
        Ok(refused)
    }

    /// Puts `cells` in force on both sides and starts the gateway.
    ///
    /// # Errors
    /// When either side refuses something, or the gateway does not start.
    pub fn install(&mut self, cells: Vec<Cell>) -> Result<()> {
        self.cells = cells;
        let state = self.directory.path().join("state");
        fs::create_dir_all(&state)?;
        let mut config = Config::default();
        config.dataplane(&[
            text("control_socket", &self.gateway.socket().to_string_lossy()),
            text("state_dir", &state.to_string_lossy()),
            "allow_legacy = true".to_owned(),
        ]);
        config
            .port("wan0", "unprotected", &[])
            .port("lan0", "protected", &[]);
        let mut batch = Vec::new();
        for cell in &self.cells {
            cell.configure(&mut config);
            batch.extend(cell.kernel_states());
            batch.extend(cell.kernel_policies());
        }
        config.write(self.gateway.config())?;
        self.gateway.init_state()?;
        self.gateway.spawn()?;
        let batch = self.guest.give("batch", batch.join("\n") + "\n")?;
        let script = format!("ip -batch {batch}");
        self.guest.succeed(&script, GUEST_LIMIT)?;
        let probe = binary::workspace().join("tests/python").join(PROBE);
        let probe = self.guest.give(PROBE, fs::read(probe)?)?;
        let python = peer::PYTHON;
        let script = format!(
            "{python} {probe} encapsulate 0.0.0.0 :: > /run/encapsulate 2>&1 &\n\
             {python} {probe} answer 0.0.0.0 :: > /run/answer 2>&1 &\n\
             until grep -q answering /run/answer; do sleep 0.1; done\n\
             until grep -q encapsulating /run/encapsulate; do sleep 0.1; done"
        );
        self.guest.succeed(&script, GUEST_LIMIT)?;
        self.gateway.wait_ready()?;
        // Neighbours first: a guest that has just loaded its states takes its time to answer, and a
        // packet that waits for that longer than a second is dropped.
        let limit = Duration::from_secs(20);
        for family in FAMILIES {
            let at = family.index();
            self.gate.wait_for_ping(RIGHT.wan[at], limit)?;
            self.gate.wait_for_ping(LEFT.host[at], limit)?;
        }
        for namespace in [&self.host, &self.gate] {
            self.answering.push(answer(namespace)?);
        }
        self.before = self.sockets()?;
        Ok(())
    }

    /// The UDP counters of all three kernels.
    fn sockets(&mut self) -> Result<Sockets> {
        let guest = self.guest.succeed(sockets::COMMAND, GUEST_LIMIT)?;
        let mut all = Sockets::read(&guest)?;
        for namespace in [&self.host, &self.gate] {
            all = all.and(Sockets::read(&namespace.run(sockets::COMMAND)?)?);
        }
        Ok(all)
    }

    /// Sends datagrams of `sizes` bytes through every cell from both sides at once, in each IP
    /// version that the cell carries.
    ///
    /// # Errors
    /// When a speaker cannot run. What goes wrong in a cell stands in its finding.
    pub fn exercise(&mut self, sizes: &[usize]) -> Result<Vec<Finding>> {
        let mut ours = Vec::new();
        for (near, namespace) in [(Near::Host, &self.host), (Near::Gateway, &self.gate)] {
            let cells = self.cells.iter().filter(|cell| cell.near == near);
            let tasks = tasks(cells, Way::There, sizes);
            if tasks.is_empty() {
                continue;
            }
            let path = self.directory.path().join(format!("{near:?}.json"));
            fs::write(&path, Value::from(tasks).to_string())?;
            let mut command = peer::command(namespace, PROBE);
            command.arg("ask").arg(&path).stdout(Stdio::piped());
            ours.push(command.spawn().context("the asker does not start")?);
        }
        let tasks = tasks(self.cells.iter(), Way::Back, sizes);
        let path = self
            .guest
            .give("tasks.json", Value::from(tasks).to_string())?;
        let python = peer::PYTHON;
        let limit = GUEST_LIMIT * 10;
        let script = format!("{python} /mnt/{PROBE} ask {path}");
        let theirs = self.guest.succeed(&script, limit);
        let mut findings = Vec::new();
        for child in ours {
            let output = child.wait_with_output()?;
            ensure!(output.status.success(), "the asker: {}", output.status);
            collect(&mut findings, "asked here", &output.stdout)?;
        }
        collect(&mut findings, "asked there", theirs?.as_bytes())?;
        Ok(findings)
    }

    /// Compares the counters of both sides: every packet that one sent by an SA the other one
    /// accepted, and nothing went wrong there. Nothing was dropped here but what came before its
    /// reservation was on disk. Each datagram that an asker missed has its reason: it was that, or
    /// a kernel's counters say that a socket lost it, or its answer was late.
    ///
    /// # Errors
    /// When they differ; the text names SAs and counters.
    pub fn compare(&mut self, findings: &[Finding]) -> Result<(u64, Missed)> {
        let stats = self.gateway.stats()?;
        expect::accounting(&stats)?;
        let waited = expect::drop_count(&stats, "no_reservation")?;
        // What every SA carried may still be lost, or late, in a socket of the guest, whose
        // programs are slow.
        let repeated: u64 = findings.iter().map(|finding| finding.repeated).sum();
        let again: u64 = findings.iter().map(|finding| finding.again).sum();
        let Sockets { lost, late } = self.sockets()?.since(self.before);
        let missed = Missed {
            repeated,
            waited,
            lost,
            late: late + again,
        };
        ensure!(missed.is_explained(), "{missed}");
        // The machine announces its multicast groups on the host port; nothing leads there.
        let own = stats["accounting"]["from_host"].as_u64().unwrap_or(0);
        let drops = stats["drops"].as_object().context("no drops")?;
        for (reason, count) in drops {
            let limit = match reason.as_str() {
                "no_reservation" => waited,
                "no_route" => own,
                _ => 0,
            };
            ensure!(count.as_u64() <= Some(limit), "{count} dropped: {reason}");
        }
        let states = "ip -s xfrm state; cat /proc/net/xfrm_stat";
        let said = self.guest.succeed(states, GUEST_LIMIT)?;
        for line in said.lines().filter(|line| line.starts_with("Xfrm")) {
            ensure!(line.ends_with("\t0"), "the kernel counted {line}");
        }
        let (theirs, failing) = packets_by_spi(&said)?;
        ensure!(failing.is_empty(), "the kernel refused: {failing:?}");
        let (mut total, mut wrong) = (0, Vec::new());
        for cell in &self.cells {
            for way in [Way::There, Way::Back] {
                for (layer, name) in cell.sas(way).iter().enumerate() {
                    let ours = expect::sa_member(&stats, name, "packets")?;
                    let spi = cell.spi(layer, way);
                    let theirs = theirs.get(&spi).copied().unwrap_or_default();
                    total += ours;
                    // What we dropped they have sent.
                    let lost = [0, waited][way as usize];
                    if ours == 0 || ours > theirs || ours + lost < theirs {
                        let cell = cell.name();
                        wrong.push(format!("{cell}: {name}: here {ours}, there {theirs}"));
                    }
                }
            }
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok((total, missed))
    }

    /// Packets of cells with a flaw: each side must have refused all that the other one sent, and
    /// counted none as good. Returns how many we refused, and how many the kernel.
    ///
    /// # Errors
    /// When one went through, or was refused for another reason.
    pub fn refusals(&mut self) -> Result<[u64; 2]> {
        let stats = self.gateway.stats()?;
        expect::accounting(&stats)?;
        let states = "ip -s xfrm state; cat /proc/net/xfrm_stat";
        let said = self.guest.succeed(states, GUEST_LIMIT)?;
        let (kernel, _) = packets_by_spi(&said)?;
        let (mut theirs, mut ours) = (0, 0);
        for cell in self.cells.iter().filter(|cell| cell.flaw.is_some()) {
            // The outermost SA is the first that opens.
            let layer = cell.layers.len() - 1;
            ours += expect::sa_member(&stats, &cell.sa(layer, Way::There), "packets")?;
            theirs += kernel.get(&cell.spi(layer, Way::Back)).unwrap_or(&0);
            let accepted = expect::sa_member(&stats, &cell.sa(layer, Way::Back), "packets")?;
            let there = kernel.get(&cell.spi(layer, Way::There)).unwrap_or(&0);
            ensure!(
                (accepted, *there) == (0, 0),
                "{}: {accepted} accepted here, {there} there",
                cell.name()
            );
        }
        let refused = expect::drop_count(&stats, "authentication")?;
        ensure!(refused == theirs, "{theirs} sent to us, {refused} refused");
        let count = |name: &str| -> u64 {
            let line = said.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.trim().parse().ok()).unwrap_or(0)
        };
        // Behind the wrap, what has no extended numbers sees a number 0.
        let kernel = count("XfrmInStateProtoError") + count("XfrmInStateSeqError");
        ensure!(kernel == ours, "{ours} sent by us, {kernel} refused");
        Ok([refused, kernel])
    }

    /// What an operator would look at first, and every place where a packet may get lost.
    pub fn state(&mut self) -> String {
        let stats = self
            .gateway
            .ask(&["stats"])
            .unwrap_or_else(|error| format!("{error:#}"));
        let places = sockets::PLACES.join("\n");
        let look = "grep -v '\t0$' /proc/net/xfrm_stat; cat /run/answer; dmesg | tail -5";
        let guest = self.guest.run(&format!("{look}\n{places}"), GUEST_LIMIT);
        let guest = guest.map_or_else(|error| format!("{error:#}"), |answer| answer.text);
        let log = self.gateway.log();
        let mut said = format!("--- stats\n{stats}\n--- log\n{log}\n--- guest\n{guest}");
        for namespace in [&self.host, &self.gate, &self.wire] {
            said += &format!("\n--- {}\n", namespace.name());
            for command in sockets::PLACES {
                said += &namespace
                    .run(command)
                    .unwrap_or_else(|error| format!("{error:#}"));
            }
        }
        said
    }
}

fn wire_up(host: &Namespace, gate: &Namespace, wire: &Namespace) -> Result<()> {
    let [eth, lan] = [End::new(host, "eth0"), End::new(gate, "lan0")];
    veth::connect(eth, lan, 1)?;
    let wan = End::new(gate, "wan0");
    veth::connect(wan, End::new(wire, "wa"), 1)?;
    wire.ip("tuntap add guest0 mode tap")?;
    veth::bridge(wire, ["wa", "guest0"])?;
    wire.ip("link set guest0 up")?;
    for name in ["wa", "guest0"] {
        let end = End::new(wire, name);
        end.segmentation(false)?;
        end.checksum_offload(false)?;
    }
    for family in FAMILIES {
        let at = family.index();
        let (length, flag) = [(24, ""), (64, "-6 ")][at];
        wan.address(&format!("{}/{length}", LEFT.wan[at]))?;
        lan.address(&format!("{}/{length}", LEFT.lan[at]))?;
        eth.address(&format!("{}/{length}", LEFT.host[at]))?;
        host.ip(&format!("{flag}route add default via {}", LEFT.lan[at]))?;
        gate.ip(&format!(
            "{flag}route add {} via {}",
            FAR[at], RIGHT.wan[at]
        ))?;
    }
    // Closed by the guard all the same.
    gate.sysctl("net.ipv4.ip_forward", "1")?;
    gate.sysctl("net.ipv6.conf.all.forwarding", "1")
}

/// Loads what the guest's IPsec needs, and gives it addresses and routes.
fn furnish(guest: &mut Guest) -> Result<()> {
    let mut script = String::from(
        "set -e\n\
         /mnt/modprobe -a ipv6 af_packet xfrm_user esp4 esp6 ah4 ah6\n\
         echo 1 > /proc/sys/net/ipv6/ip_nonlocal_bind\n\
         ip link set vec0 up\n\
         ethtool -K vec0 tx off tso off gso off gro off sg off > /dev/null 2>&1 || true\n",
    );
    for family in FAMILIES {
        let at = family.index();
        let (length, flag, nodad) = [(24, "", ""), (64, "-6 ", " nodad")][at];
        let (own, far) = (RIGHT.wan[at], FAR[at]);
        script += &format!("ip addr add {own}/{length} dev vec0{nodad}\n");
        // All of the prefix is the guest's own: an address for every cell.
        script += &format!("ip {flag}route add local {far} dev lo\n");
        script += &format!("ip {flag}route add {} via {}\n", LEFT.net[at], LEFT.wan[at]);
    }
    let said = guest.run(&script, GUEST_LIMIT)?;
    if said.status != 0 {
        bail!("the guest's network: {}", said.text);
    }
    Ok(())
}

/// Starts the answering program for both families and waits until it listens.
fn answer(namespace: &Namespace) -> Result<Answering> {
    let mut command: Command = peer::command(namespace, PROBE);
    command.args(["answer", "0.0.0.0", "::"]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let answering = Answering(child.context("the answering program does not start")?);
    let listens = || Ok(namespace.run("ss -lun")?.contains(":4301"));
    shell::wait_until("the answering program", Duration::from_secs(20), listens)?;
    Ok(answering)
}

fn tasks<'a>(cells: impl Iterator<Item = &'a Cell>, way: Way, sizes: &[usize]) -> Vec<Value> {
    let mut tasks = Vec::new();
    for cell in cells {
        for family in cell.families() {
            let (near, far) = (
                cell.near_address(family).to_owned(),
                cell.far_address(family),
            );
            let (source, destination) = match way {
                Way::There => (near, far),
                Way::Back => (far, near),
            };
            let name = format!("{}, inner {family:?}", cell.name());
            tasks.push(json!({
                "cell": name, "source": source, "destination": destination, "sizes": sizes,
                "repeats": if cell.flaw.is_some() { 0 } else { REPEATS },
            }));
        }
    }
    tasks
}

fn collect(findings: &mut Vec<Finding>, who: &str, output: &[u8]) -> Result<()> {
    let output = String::from_utf8_lossy(output);
    for line in output.lines() {
        let line: Value =
            serde_json::from_str(line).with_context(|| format!("not JSON: {line}"))?;
        let wrong = line["wrong"].as_str();
        let cell = line["cell"].as_str().unwrap_or_default();
        findings.push(Finding {
            right: line["right"].as_u64().context("no count")?,
            repeated: line["repeated"].as_u64().context("no count")?,
            again: line["again"].as_u64().context("no count")?,
            wrong: wrong.map(|wrong| format!("{cell}, {who}: {wrong}")),
            flawed: line["flawed"].as_bool().context("not told")?,
        });
    }
    Ok(())
}

/// Packets of every SA as `ip -s xfrm state` has them, and what counts failures.
fn packets_by_spi(said: &str) -> Result<(BTreeMap<u32, u64>, BTreeSet<String>)> {
    let (mut spi, mut packets, mut failing) = (0, BTreeMap::new(), BTreeSet::new());
    for line in said.lines().map(str::trim) {
        if let Some((_, rest)) = line.split_once(" spi 0x") {
            let digits: String = rest.chars().take_while(char::is_ascii_hexdigit).collect();
            spi = u32::from_str_radix(&digits, 16)?;
        } else if let Some(rest) = line.strip_suffix("(packets)")
            && let Some((_, count)) = rest.split_once("(bytes), ")
        {
            packets.insert(spi, count.parse()?);
        } else if line.starts_with("replay-window ")
            && line.contains(" failed ")
            && line != "replay-window 0 replay 0 failed 0"
        {
            failing.insert(format!("{spi:#x}: {line}"));
        }
    }
    Ok((packets, failing))
}
