//! Wires: veth pairs between namespaces, with queues, addresses and offloads.

use std::process::Command;

use anyhow::{Context, Result};

use crate::netns::Namespace;
use crate::shell;

/// One end of a wire: the interface `name` inside `namespace`.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// Where the interface lives.
    pub namespace: &'a Namespace,
    /// The interface's name there.
    pub name: &'a str,
}

impl<'a> End<'a> {
    /// The end called `name` in `namespace`.
    pub fn new(namespace: &'a Namespace, name: &'a str) -> Self {
        Self { namespace, name }
    }

    /// Gives the interface an address (`ADDRESS/LENGTH`), IPv6 without duplicate detection.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn address(&self, address: &str) -> Result<()> {
        let nodad = if address.contains(':') { " nodad" } else { "" };
        self.namespace
            .ip(&format!("addr add {address} dev {}{nodad}", self.name))
            .map(drop)
    }

    /// Sets the interface's MTU in bytes.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn mtu(&self, bytes: u32) -> Result<()> {
        self.namespace
            .ip(&format!("link set {} mtu {bytes}", self.name))
            .map(drop)
    }

    /// The interface's MAC address.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn mac(&self) -> Result<String> {
        let text = self
            .namespace
            .ip(&format!("-j link show dev {}", self.name))?;
        let links: serde_json::Value = serde_json::from_str(&text)?;
        let mac = links[0]["address"].as_str().context("no MAC address")?;
        Ok(mac.to_owned())
    }

    /// Switches the offloads that make one packet of many, or many of one.
    ///
    /// # Errors
    /// When `ethtool` cannot run. What the device cannot switch stays as it is.
    pub fn segmentation(&self, on: bool) -> Result<()> {
        let state = if on { "on" } else { "off" };
        for feature in ["tso", "gso", "gro"] {
            let mut command = self.namespace.command("ethtool");
            shell::output(command.args(["-K", self.name, feature, state]))?;
        }
        Ok(())
    }

    /// Lets the interface leave TCP and UDP checksums of what it sends to hardware, or not. Off, no
    /// segmentation offload works either.
    ///
    /// # Errors
    /// When `ethtool` refuses.
    pub fn checksum_offload(&self, on: bool) -> Result<()> {
        let state = if on { "on" } else { "off" };
        let mut command = self.namespace.command("ethtool");
        shell::run(command.args(["-K", self.name, "tx", state])).map(drop)
    }

    /// Switches IPv6 on the interface off or on: off, the kernel sends nothing of its own there.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn ipv6(&self, on: bool) -> Result<()> {
        let value = if on { "0" } else { "1" };
        self.namespace
            .sysctl(&format!("net.ipv6.conf.{}.disable_ipv6", self.name), value)
    }
}

/// Connects `left` and `right` by a veth pair with `queues` queues each way, both ends up.
///
/// # Errors
/// When `ip` refuses.
pub fn connect(left: End<'_>, right: End<'_>, queues: u32) -> Result<()> {
    let queues = queues.to_string();
    let mut command = Command::new("ip");
    command.args(["-n", left.namespace.name(), "link", "add", left.name]);
    command.args([
        "numrxqueues",
        &queues,
        "numtxqueues",
        &queues,
        "type",
        "veth",
    ]);
    command.args([
        "peer",
        "name",
        right.name,
        "numrxqueues",
        &queues,
        "numtxqueues",
        &queues,
    ]);
    shell::run(command.args(["netns", right.namespace.name()]))?;
    for end in [left, right] {
        end.namespace.ip(&format!("link set {} up", end.name))?;
    }
    Ok(())
}

/// Joins the two interfaces of `namespace` by a bridge, so that a capture can stand between them.
///
/// A capture on a gateway's own interface sees nothing: AF_XDP transmits past the taps, and XDP
/// receives before them.
///
/// # Errors
/// When `ip` refuses.
pub fn bridge(namespace: &Namespace, ports: [&str; 2]) -> Result<()> {
    namespace.ip("link add wire type bridge stp_state 0 mcast_snooping 0")?;
    for name in ports.into_iter().chain(["wire"]) {
        End::new(namespace, name).ipv6(false)?;
    }
    for port in ports {
        namespace.ip(&format!("link set {port} master wire"))?;
    }
    namespace.ip("link set wire up").map(drop)
}
