//! The three ways from wire to wire that the demo compares.

use std::fs::File;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use xipsec_tests::config::{Family, LEFT, RIGHT};
use xipsec_tests::expect;
use xipsec_tests::netns::Namespace;
use xipsec_tests::shell;
use xipsec_tests::topology::Lab;
use xipsec_tests::veth::End;

use super::Binaries;

/// Who forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contender {
    /// The kernel's own forwarding, no encryption.
    Kernel,
    /// Frames from one AF_XDP socket to another, no encryption, no routing.
    BareXdp,
    /// The gateway, with ESP.
    Xipsec,
}

/// In the order of a round.
pub(crate) const ALL: [Contender; 3] = [Contender::Kernel, Contender::BareXdp, Contender::Xipsec];

impl Contender {
    /// Its name in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel forwarding",
            Self::BareXdp => "bare AF_XDP forwarder",
            Self::Xipsec => "xipsec (ESP)",
        }
    }

    /// Lets this contender forward, runs `work`, and takes it away again. What gateways counted
    /// comes back beside the result.
    pub(crate) fn with<T>(
        self,
        lab: &mut Lab,
        binaries: &Binaries,
        offloads: bool,
        work: impl FnOnce(&Lab) -> Result<T>,
    ) -> Result<(T, Option<[Value; 2]>)> {
        match self {
            Self::Kernel => {
                lab.wait_connected(Family::V4)?;
                Ok((work(lab)?, None))
            }
            Self::BareXdp => {
                // It completes no checksums: the hosts do it, also where offloads are on.
                checksum_offload(lab, false)?;
                let forwarders = Forwarders::start(lab, binaries)?;
                lab.wait_connected(Family::V4)
                    .with_context(|| forwarders.said(lab))?;
                let result = work(lab)?;
                forwarders.stop(lab)?;
                checksum_offload(lab, offloads)?;
                Ok((result, None))
            }
            Self::Xipsec => {
                lab.left.spawn()?;
                lab.right.start()?;
                lab.left.wait_ready()?;
                lab.wait_connected(Family::V4)?;
                let result = work(lab)?;
                let stats = [lab.left.stats()?, lab.right.stats()?];
                stats.iter().try_for_each(expect::accounting)?;
                lab.left.stop()?;
                lab.right.stop()?;
                Ok((result, Some(stats)))
            }
        }
    }
}

/// The bare forwarder in both gateways, and the hosts' neighbour entries that replace the gateways'
/// answers to ARP: the forwarder takes every frame.
struct Forwarders {
    children: [Child; 2],
}

impl Forwarders {
    fn start(lab: &Lab, binaries: &Binaries) -> Result<Self> {
        without_kernel(lab)?;
        let spawn = |gate: &Namespace, host: &Namespace, peer: &Namespace, core: &str| {
            let log = format!("forward-{core}.log");
            let log = File::create(lab.directory().join(log))?;
            let mut command = gate.command(&binaries.forwarder);
            command.args(["--left", "lan0", "--left-mac", &mac(host, "eth0")?]);
            command.args(["--right", "wan0", "--right-mac", &mac(peer, "wan0")?]);
            // As the gateways: one core each.
            command.args(["--first-core", core]);
            command.stdin(Stdio::null());
            let child = command.stdout(log.try_clone()?).stderr(log).spawn();
            child.context("xdp-forward does not start")
        };
        let left = spawn(&lab.gate_a, &lab.host_a, &lab.gate_b, "0")?;
        let right = spawn(&lab.gate_b, &lab.host_b, &lab.gate_a, "1")?;
        Ok(Self {
            children: [left, right],
        })
    }

    fn said(&self, lab: &Lab) -> String {
        let read = |name| std::fs::read_to_string(lab.directory().join(name)).unwrap_or_default();
        format!(
            "xdp-forward said: {}{}",
            read("forward-0.log"),
            read("forward-1.log")
        )
    }

    fn stop(mut self, lab: &Lab) -> Result<()> {
        for child in &mut self.children {
            let pid = Pid::from_raw(i32::try_from(child.id())?).context("no process id")?;
            kill_process(pid, Signal::TERM)?;
            shell::wait_until("xdp-forward to stop", Duration::from_secs(5), || {
                Ok(child.try_wait()?.is_some())
            })?;
            let status = child.wait()?;
            ensure!(status.success(), "xdp-forward ended with {status}");
        }
        with_kernel(lab)
    }
}

impl Drop for Forwarders {
    fn drop(&mut self) {
        for child in &mut self.children {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

fn mac(namespace: &Namespace, name: &str) -> Result<String> {
    End::new(namespace, name).mac()
}

/// Readies the wires for gateways that take every frame: the kernels forward nothing, else a
/// gateway that failed would be measured as the kernel, and the hosts have entries in place of
/// answers to ARP.
pub(crate) fn without_kernel(lab: &Lab) -> Result<()> {
    kernel_forwards(lab, false)?;
    for (host, gate, side) in [
        (&lab.host_a, &lab.gate_a, &LEFT),
        (&lab.host_b, &lab.gate_b, &RIGHT),
    ] {
        let (address, mac) = (side.lan[0], mac(gate, "lan0")?);
        host.ip(&format!(
            "neigh replace {address} lladdr {mac} nud permanent dev eth0"
        ))?;
    }
    Ok(())
}

/// Undoes [`without_kernel`].
pub(crate) fn with_kernel(lab: &Lab) -> Result<()> {
    for (host, side) in [(&lab.host_a, &LEFT), (&lab.host_b, &RIGHT)] {
        host.ip(&format!("neigh del {} dev eth0", side.lan[0]))?;
    }
    kernel_forwards(lab, true)
}

fn kernel_forwards(lab: &Lab, on: bool) -> Result<()> {
    for gate in [&lab.gate_a, &lab.gate_b] {
        gate.sysctl("net.ipv4.ip_forward", if on { "1" } else { "0" })?;
    }
    Ok(())
}

/// Checksum offload of both hosts, and with it the segmentation that it carries.
pub(crate) fn checksum_offload(lab: &Lab, on: bool) -> Result<()> {
    for host in [&lab.host_a, &lab.host_b] {
        let end = End::new(host, "eth0");
        end.checksum_offload(on)?;
        end.segmentation(on)?;
    }
    Ok(())
}
