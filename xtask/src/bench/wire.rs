//! One device between a generator and a sink of our own, in namespaces: the gateway that seals or
//! opens, a bare AF_XDP forwarder, and the kernel's own forwarding, on the same wires in turns.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use xipsec_tests::config::{LEFT, RIGHT};
use xipsec_tests::netns::Namespace;
use xipsec_tests::shell;
use xipsec_tests::topology::{Lab, Plan};
use xipsec_tests::veth::End;

use super::program::{self, Programs, Progress};

/// Cores of the device and of the tester.
const CORES: [&str; 2] = ["0", "1"];

/// What stands between generator and sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Device {
    /// The kernel's forwarding, in clear.
    Kernel,
    /// Frames from one AF_XDP socket to the other, in clear, not routed.
    Bare,
    /// The gateway, which seals.
    Xipsec,
    /// Frames of ESP from one AF_XDP socket to the other, the other way.
    BareInbound,
    /// The gateway, which opens what the generator seals.
    XipsecInbound,
}

/// In the order of a turn.
const DEVICES: [Device; 5] = [
    Device::Bare,
    Device::Xipsec,
    Device::Kernel,
    Device::BareInbound,
    Device::XipsecInbound,
];

/// Where flags are compared: the gateway with each, beside the wire's own limit.
const WITH_FLAGS: [Device; 2] = [Device::Bare, Device::Xipsec];

impl Device {
    const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Bare => "bare",
            Self::Xipsec => "xipsec",
            Self::BareInbound => "bare inbound",
            Self::XipsecInbound => "xipsec inbound",
        }
    }

    const fn is_inbound(self) -> bool {
        matches!(self, Self::BareInbound | Self::XipsecInbound)
    }

    const fn is_gateway(self) -> bool {
        matches!(self, Self::Xipsec | Self::XipsecInbound)
    }
}

/// How long and how narrow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent<'a> {
    /// Lengths of the IP packets, as `wire-test` takes them.
    pub(super) sizes: &'a str,
    /// Milliseconds of a trial.
    pub(super) trial: &'a str,
    /// Percent at which a search ends.
    pub(super) precision: &'a str,
}

impl<'a> Extent<'a> {
    fn arguments(self) -> [&'a str; 6] {
        [
            "--sizes",
            self.sizes,
            "--trial",
            self.trial,
            "--precision",
            self.precision,
        ]
    }
}

/// Interfaces of this machine with a device between them that is none of ours to start.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Given {
    /// Interface that sends; without it namespaces are made
    #[arg(long, requires_all = ["right", "destination"])]
    left: Option<String>,
    /// Interface that receives
    #[arg(long, requires = "left")]
    right: Option<String>,
    /// MAC address of the device on the sending side
    #[arg(long, requires = "left")]
    destination: Option<String>,
    /// Source address of the packets
    #[arg(long, default_value = LEFT.host[0])]
    from: String,
    /// Destination address of the packets
    #[arg(long, default_value = RIGHT.host[0])]
    to: String,
    /// File with the key of the SA by which packets come out, in hexadecimal: for their latency
    #[arg(long, requires = "left")]
    key_file: Option<PathBuf>,
    /// A line of the gateway's `[dataplane]`, such as 'batch = 8': measures with each one that is
    /// given, beside the bare forwarder
    #[arg(long, conflicts_with = "left")]
    with: Vec<String>,
    /// Lengths of the IP packets, bytes, with commas; 0: the Internet mix
    #[arg(long)]
    sizes: Option<String>,
}

/// Measures the given device, or all three in namespaces.
pub(super) fn run(
    programs: &Programs,
    extent: Extent<'_>,
    given: &Given,
    progress: &Progress,
) -> Result<Value> {
    let extent = Extent {
        sizes: given.sizes.as_deref().unwrap_or(extent.sizes),
        ..extent
    };
    if let (Some(left), Some(right), Some(mac)) = (&given.left, &given.right, &given.destination) {
        let mut command = Command::new(programs.path("wire-test"));
        command.args(["--left", left, "--right", right, "--destination", mac]);
        command.args(["--from", &given.from, "--to", &given.to]);
        command.args(extent.arguments());
        if let Some(key) = &given.key_file {
            command.arg("--key-file").arg(key);
        }
        let results = program::run(command, progress)?;
        return Ok(json!({"records": named(&results, "given"), "missing": []}));
    }
    in_namespaces(programs, extent, &given.with, progress)
}

/// The records of one device, with its name in them.
fn named(results: &Value, device: &str) -> Vec<Value> {
    let records = results["records"].as_array().into_iter().flatten();
    let named = records.map(|record| {
        let mut record = record.clone();
        record["device"] = device.into();
        record
    });
    named.collect()
}

/// Devices in turns, each with its name; of flags that are compared each has a turn.
fn turns(flags: &[String]) -> Vec<(Device, Option<&str>, String)> {
    let mut turns = Vec::new();
    let devices = if flags.is_empty() {
        &DEVICES[..]
    } else {
        &WITH_FLAGS
    };
    for &device in devices {
        if device == Device::Xipsec && !flags.is_empty() {
            let with = |flag: &String| format!("{}, {flag}", device.name());
            turns.extend(flags.iter().map(|it| (device, Some(it.as_str()), with(it))));
        } else {
            turns.push((device, None, device.name().to_owned()));
        }
    }
    turns
}

fn in_namespaces(
    programs: &Programs,
    extent: Extent<'_>,
    flags: &[String],
    progress: &Progress,
) -> Result<Value> {
    let plan = Plan {
        core_each: true,
        ..Plan::default()
    };
    let mut lab = Lab::with_binary(&plan, &programs.path("xipsec"))?;
    lab.left.init_state()?;
    // The sink is where the peer gateway would be: nothing of the kernel's may answer there.
    lab.gate_b.sysctl("net.ipv4.ip_forward", "0")?;
    let config = fs::read_to_string(lab.left.config())?;
    let mut records = Vec::new();
    for (device, flag, name) in turns(flags) {
        if let Some(flag) = flag {
            let table = format!("[dataplane]\n{flag}");
            fs::write(lab.left.config(), config.replacen("[dataplane]", &table, 1))?;
        }
        let mut idle = None;
        let work = |lab: &Lab| {
            if device.is_gateway() {
                idle = Some(idle_percent(lab)?);
            }
            program::run(tester(programs, lab, extent, device)?, progress)
        };
        let results = with(device, &mut lab, programs, work)
            .with_context(|| format!("{name}, between generator and sink"))?;
        for mut record in named(&results, &name) {
            if let Some(percent) = idle {
                record["idle_cpu_percent"] = percent.into();
            }
            records.push(record);
        }
    }
    Ok(json!({"records": records, "missing": []}))
}

/// Share of one core that the gateway takes while nothing comes, percent.
fn idle_percent(lab: &Lab) -> Result<f64> {
    /// USER_HZ, the unit of times in /proc, whatever the kernel's own.
    const TICKS_PER_SECOND: f64 = 100.0;
    const LOOK: Duration = Duration::from_secs(1);
    let pid = lab.left.pid().context("the gateway does not run")?;
    let ticks = || -> Result<u64> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // Behind the name, which may hold anything: state first, then user and system time as the
        // 12th and 13th.
        let (_, rest) = text.rsplit_once(')').context("no process")?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let times = fields.get(11..13).context("no times")?;
        Ok(times[0].parse::<u64>()? + times[1].parse::<u64>()?)
    };
    // What the start began is over.
    thread::sleep(LOOK / 2);
    let (before, began) = (ticks()?, Instant::now());
    thread::sleep(LOOK);
    let spent = (ticks()? - before) as f64 / TICKS_PER_SECOND;
    Ok((spent / began.elapsed().as_secs_f64() * 100.0).round())
}

/// The generator at hostA and the sink at the other end of gwA's outer wire; inbound the other way
/// round.
fn tester(programs: &Programs, lab: &Lab, extent: Extent<'_>, device: Device) -> Result<Command> {
    let mut command = Command::new(programs.path("wire-test"));
    let place = |name, namespace: &Namespace| format!("{name}@{}", namespace.name());
    let mut ends = [place("eth0", &lab.host_a), place("wan0", &lab.gate_b)];
    let mut hosts = [LEFT.host[0], RIGHT.host[0]];
    let (port, mut sa) = if device.is_inbound() {
        ends.reverse();
        hosts.reverse();
        ("wan0", lab.sas[1].clone())
    } else {
        ("lan0", lab.sas[0].clone())
    };
    if device == Device::BareInbound {
        // Numbers begin anew for the gateway, and an IV is for one key once.
        sa = sa.random()?;
    }
    let destination = End::new(&lab.gate_a, port).mac()?;
    let [left, right] = &ends;
    command.args(["--left", left, "--right", right, "--core", CORES[1]]);
    command.args(["--destination", &destination]);
    command.args(["--from", hosts[0], "--to", hosts[1]]);
    command.args(extent.arguments());
    if device.is_inbound() {
        command.args(["--seal-spi", &sa.spi.to_string()]);
        command.args(["--seal-from", &sa.source, "--seal-to", &sa.destination]);
    }
    if device.is_gateway() || device.is_inbound() {
        let key = lab.directory().join(format!("{:x}.key", sa.spi));
        fs::write(&key, sa.keys_hex().first().context("no key")?)?;
        command.arg("--key-file").arg(key);
    }
    Ok(command)
}

/// Lets a device forward while `work` goes on.
fn with<T>(
    device: Device,
    lab: &mut Lab,
    programs: &Programs,
    work: impl FnOnce(&Lab) -> Result<T>,
) -> Result<T> {
    match device {
        Device::Kernel => work(lab),
        Device::Bare | Device::BareInbound => {
            let forwarder = Forwarder::start(lab, programs)?;
            let done = work(lab).with_context(|| forwarder.said(lab));
            forwarder.stop()?;
            done
        }
        Device::Xipsec | Device::XipsecInbound => {
            lab.left.start()?;
            let done = work(lab).with_context(|| lab.left.log());
            lab.left.stop()?;
            done
        }
    }
}

/// The bare forwarder in gwA.
struct Forwarder(Child);

impl Forwarder {
    fn start(lab: &Lab, programs: &Programs) -> Result<Self> {
        let log = File::create(lab.directory().join("forward.log"))?;
        let mut command = lab.gate_a.command(programs.path("xdp-forward"));
        let to = End::new(&lab.gate_b, "wan0").mac()?;
        command.args(["--left", "lan0", "--right", "wan0", "--right-mac", &to]);
        command.args(["--first-core", CORES[0]]);
        command.stdin(Stdio::null());
        let child = command.stdout(log.try_clone()?).stderr(log).spawn();
        let mut forwarder = Self(child.context("xdp-forward does not start")?);
        let attached = || {
            let gone = forwarder.0.try_wait()?.is_some();
            ensure!(!gone, "xdp-forward ended");
            let links = lab.gate_a.ip("-d link show dev wan0")?;
            Ok(links.contains("xdp"))
        };
        shell::wait_until("xdp-forward to attach", Duration::from_secs(10), attached)
            .with_context(|| forwarder.said(lab))?;
        Ok(forwarder)
    }

    fn said(&self, lab: &Lab) -> String {
        let text = fs::read_to_string(lab.directory().join("forward.log"));
        format!("xdp-forward said: {}", text.unwrap_or_default())
    }

    fn stop(mut self) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.0.id())?).context("no process id")?;
        kill_process(pid, Signal::TERM)?;
        let status = self.0.wait()?;
        ensure!(status.success(), "xdp-forward ended with {status}");
        Ok(())
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_flag_has_a_turn_beside_the_wires_limit() {
        let names = |flags: &[String]| -> Vec<String> {
            turns(flags).into_iter().map(|(.., name)| name).collect()
        };
        assert_eq!(names(&[]).len(), DEVICES.len());
        let flags = ["batch = 8", "batch = 64"].map(str::to_owned);
        let expected = ["bare", "xipsec, batch = 8", "xipsec, batch = 64"];
        assert_eq!(names(&flags), expected);
    }
}
