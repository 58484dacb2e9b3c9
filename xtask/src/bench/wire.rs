//! One device between a generator and a sink of our own, in namespaces: the gateway that seals, a
//! bare AF_XDP forwarder, and the kernel's own forwarding, on the same wires in turns.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use xipsec_tests::config::{LEFT, RIGHT};
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
}

/// In the order of a turn.
const DEVICES: [Device; 3] = [Device::Bare, Device::Xipsec, Device::Kernel];

impl Device {
    const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Bare => "bare",
            Self::Xipsec => "xipsec",
        }
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
}

/// Measures the given device, or all three in namespaces.
pub(super) fn run(
    programs: &Programs,
    extent: Extent<'_>,
    given: &Given,
    progress: &Progress,
) -> Result<Value> {
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
    in_namespaces(programs, extent, progress)
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

fn in_namespaces(programs: &Programs, extent: Extent<'_>, progress: &Progress) -> Result<Value> {
    let plan = Plan {
        core_each: true,
        ..Plan::default()
    };
    let mut lab = Lab::with_binary(&plan, &programs.path("xipsec"))?;
    lab.left.init_state()?;
    // The sink is where the peer gateway would be: nothing of the kernel's may answer there.
    lab.gate_b.sysctl("net.ipv4.ip_forward", "0")?;
    let key = lab.directory().join("out.key");
    fs::write(&key, lab.sas[0].keys_hex().first().context("no key")?)?;
    let mut records = Vec::new();
    for device in DEVICES {
        let work = |lab: &Lab| {
            let mut command = tester(programs, lab, extent)?;
            if device == Device::Xipsec {
                command.arg("--key-file").arg(&key);
            }
            program::run(command, progress)
        };
        let results = with(device, &mut lab, programs, work)
            .with_context(|| format!("{}, between generator and sink", device.name()))?;
        records.extend(named(&results, device.name()));
    }
    Ok(json!({"records": records, "missing": []}))
}

/// The generator at hostA, the sink at the other end of gwA's outer wire.
fn tester(programs: &Programs, lab: &Lab, extent: Extent<'_>) -> Result<Command> {
    let mut command = Command::new(programs.path("wire-test"));
    let [left, right] = [("eth0", &lab.host_a), ("wan0", &lab.gate_b)]
        .map(|(name, namespace)| format!("{name}@{}", namespace.name()));
    let destination = End::new(&lab.gate_a, "lan0").mac()?;
    command.args(["--left", &left, "--right", &right, "--core", CORES[1]]);
    command.args(["--destination", &destination]);
    command.args(["--from", LEFT.host[0], "--to", RIGHT.host[0]]);
    command.args(extent.arguments());
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
        Device::Bare => {
            let forwarder = Forwarder::start(lab, programs)?;
            let done = work(lab).with_context(|| forwarder.said(lab));
            forwarder.stop()?;
            done
        }
        Device::Xipsec => {
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
