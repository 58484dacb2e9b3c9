//! WireGuard in user space: wireguard-go in both gateways.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use xipsec_tests::config::{LEFT, RIGHT, Side};
use xipsec_tests::netns::Namespace;
use xipsec_tests::shell;
use xipsec_tests::topology::Lab;

use super::program::{Guest, is_installed};
use crate::demo::measure::INNER_MTU;

/// UDP port of both ends.
const PORT: &str = "51820";

/// What it takes and is not there.
pub(super) fn lacks() -> Option<String> {
    let there = ["wireguard-go", "wg"].into_iter().all(is_installed);
    (!there).then(|| "not installed: apt-get install wireguard-go wireguard-tools".to_owned())
}

/// Both ends.
pub(super) struct Running {
    _guests: [Guest; 2],
}

/// Its socket stands in a folder of the whole machine: the name must be this run's own.
fn interface(side: &Side) -> String {
    format!(
        "wg{}{}",
        side.name.get(..1).unwrap_or_default(),
        std::process::id()
    )
}

impl Running {
    pub(super) fn start(lab: &Lab) -> Result<Self> {
        let keys = [(), ()].map(|()| shell::run(Command::new("wg").arg("genkey")));
        let [left, right] = keys;
        let keys = [left?, right?];
        let public = [&keys[0], &keys[1]].map(|key| public_key(key));
        let [left, right] = public;
        let public = [left?, right?];
        let end = |index: usize| {
            let gates = [&lab.gate_a, &lab.gate_b];
            let sides = [&LEFT, &RIGHT];
            let peer = (sides[1 - index], public[1 - index].as_str());
            start_end(lab, gates[index], sides[index], &keys[index], peer)
        };
        Ok(Self {
            _guests: [end(0)?, end(1)?],
        })
    }

    /// Takes both ends away and lets the kernel's own route stand again.
    pub(super) fn stop(self, lab: &Lab) -> Result<()> {
        drop(self);
        restore(lab)
    }
}

/// The wires as they were before, however far a start came.
pub(super) fn restore(lab: &Lab) -> Result<()> {
    for (gate, side, peer) in [(&lab.gate_a, &LEFT, &RIGHT), (&lab.gate_b, &RIGHT, &LEFT)] {
        gate.ip(&format!(
            "route replace {} via {}",
            peer.net[0], peer.wan[0]
        ))?;
        fs::remove_file(socket(side)).ok();
    }
    Ok(())
}

fn socket(side: &Side) -> PathBuf {
    PathBuf::from("/var/run/wireguard").join(format!("{}.sock", interface(side)))
}

fn start_end(
    lab: &Lab,
    gate: &Namespace,
    side: &Side,
    key: &str,
    (peer, public): (&Side, &str),
) -> Result<Guest> {
    let name = interface(side);
    let mut command = gate.command("wireguard-go");
    command.args(["-f", &name]);
    let guest = Guest::start(command, &lab.directory().join(format!("{name}.log")))?;
    shell::wait_until("wireguard-go to listen", Duration::from_secs(5), || {
        Ok(socket(side).exists())
    })?;
    let file = lab.directory().join(format!("{name}.key"));
    fs::write(&file, key)?;
    let mut command = gate.command("wg");
    command.args(["set", &name, "listen-port", PORT, "private-key"]);
    command
        .arg(&file)
        .args(["peer", public, "allowed-ips", "0.0.0.0/0"]);
    command.args(["endpoint", &format!("{}:{PORT}", peer.wan[0])]);
    shell::run(&mut command)?;
    gate.ip(&format!("link set {name} mtu {INNER_MTU} up"))?;
    gate.ip(&format!("route replace {} dev {name}", peer.net[0]))?;
    Ok(guest)
}

fn public_key(key: &str) -> Result<String> {
    let line = "printf %s \"$1\" | wg pubkey";
    let text = shell::run(Command::new("sh").args(["-c", line, "sh", key.trim()]))?;
    Ok(text.trim().to_owned())
}
