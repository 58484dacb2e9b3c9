//! Everybody who can carry traffic between two hosts, on the same wires in turns: the kernel, a
//! bare AF_XDP forwarder, xipsec, and who else encrypts in user space, where installed.

mod program;
mod secgw;
mod strongswan;
mod wireguard;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use xipsec_tests::config::{Family, RIGHT};
use xipsec_tests::iperf;
use xipsec_tests::topology::{Lab, Plan};

use super::program::{Programs, Progress};
use crate::demo::contender::{ALL, Contender, checksum_offload};
use crate::demo::measure::{INNER_MTU, LARGE, SMALL};
use crate::setup;

/// Debian packages of all peers.
const PACKAGES: [&str; 11] = [
    "wireguard-go",
    "wireguard-tools",
    "strongswan-charon",
    "strongswan-swanctl",
    "strongswan-libcharon",
    "libstrongswan-standard-plugins",
    "libstrongswan-extra-plugins",
    "libcharon-extra-plugins",
    "libdpdk-dev",
    "dpdk-doc",
    "make",
];

/// How often and how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    /// Turns of all.
    pub(super) rounds: u32,
    /// Seconds of each measurement.
    pub(super) seconds: u32,
}

/// Who takes part.
#[derive(Clone, Copy, Debug)]
enum Peer {
    Ours(Contender),
    WireGuard,
    StrongSwan,
    Secgw,
}

impl Peer {
    fn name(self) -> &'static str {
        match self {
            Self::Ours(contender) => contender.name(),
            Self::WireGuard => "wireguard-go",
            Self::StrongSwan => "strongSwan, ESP in user space",
            Self::Secgw => "DPDK ipsec-secgw",
        }
    }

    /// What it lacks on this machine.
    fn lacks(self) -> Option<String> {
        match self {
            Self::Ours(_) => None,
            Self::WireGuard => wireguard::lacks(),
            Self::StrongSwan => strongswan::lacks(),
            Self::Secgw => secgw::lacks(),
        }
    }

    /// Puts the wires back as they were after a run of it that failed.
    fn restore(self, lab: &Lab) -> Result<()> {
        match self {
            Self::Ours(_) => Ok(()),
            Self::WireGuard => wireguard::restore(lab),
            Self::StrongSwan => {
                strongswan::restore(lab);
                Ok(())
            }
            Self::Secgw => secgw::restore(lab),
        }
    }

    /// Lets it carry traffic while `work` goes on.
    fn with<T>(
        self,
        lab: &mut Lab,
        programs: &Programs,
        work: impl FnOnce(&Lab) -> Result<T>,
    ) -> Result<T> {
        match self {
            Self::Ours(contender) => {
                let binaries = programs.of_demo();
                let (done, _) = contender.with(lab, &binaries, false, work)?;
                Ok(done)
            }
            Self::WireGuard => {
                let running = wireguard::Running::start(lab)?;
                lab.wait_connected(Family::V4)?;
                let done = work(lab);
                running.stop(lab)?;
                done
            }
            Self::StrongSwan => {
                let running = strongswan::Running::start(lab)?;
                lab.wait_connected(Family::V4)
                    .with_context(|| running.said())?;
                let done = work(lab);
                running.stop(lab);
                done
            }
            Self::Secgw => {
                let running = secgw::Running::start(lab)?;
                lab.wait_connected(Family::V4)
                    .with_context(|| running.said())?;
                let done = work(lab);
                running.stop(lab)?;
                done
            }
        }
    }
}

/// Installs the packages of all peers, and builds what none has built.
pub(super) fn install() -> Result<()> {
    setup::install(&PACKAGES)?;
    secgw::build()
}

/// Measures everybody who is there.
pub(super) fn run(programs: &Programs, extent: Extent, progress: &Progress) -> Result<Value> {
    let mut missing = Vec::new();
    let all = ALL.into_iter().map(Peer::Ours);
    let mut peers: Vec<Peer> = all
        .chain([Peer::WireGuard, Peer::StrongSwan, Peer::Secgw])
        .collect();
    peers.retain(|peer| {
        let lacks = peer.lacks();
        missing.extend(lacks.map(|what| format!("{}: {what}", peer.name())));
        peer.lacks().is_none()
    });
    let plan = Plan {
        core_each: true,
        ..Plan::default()
    };
    let mut lab = Lab::with_binary(&plan, &programs.path("xipsec"))?;
    lab.left.init_state()?;
    lab.right.init_state()?;
    lab.route_mtu(INNER_MTU)?;
    // Else the hosts would hand over packets that no wire carries.
    checksum_offload(&lab, false)?;
    let server = iperf::Server::start(&lab.host_b)?;
    let mut records = Vec::new();
    let steps = u64::from(extent.rounds) * peers.len() as u64;
    let mut done = 0;
    for round in 1..=extent.rounds {
        for peer in peers.clone() {
            done += 1;
            let name = peer.name();
            progress.step(done, steps, &format!("round {round}: {name}"));
            let samples = peer.with(&mut lab, programs, |lab| samples(lab, extent.seconds));
            match (samples, peer) {
                (Ok(samples), _) => records.push(record(peer, round, samples)),
                (Err(error), Peer::Ours(_)) => return Err(error.context(name)),
                (Err(error), _) => {
                    eprintln!("{name}: {error:?}");
                    peer.restore(&lab)?;
                    missing.push(format!("{name}: failed here: {}", error.root_cause()));
                    peers.retain(|other| other.name() != name);
                }
            }
        }
    }
    drop(server);
    Ok(json!({"records": records, "missing": missing}))
}

fn record(peer: Peer, round: u32, [tcp, large, small]: [f64; 3]) -> Value {
    json!({
        "peer": peer.name(),
        "round": round,
        "tcp_bits_per_second": tcp,
        "large_packets_per_second": large,
        "small_packets_per_second": small,
        "large_bytes": LARGE,
        "small_bytes": SMALL,
    })
}

fn samples(lab: &Lab, seconds: u32) -> Result<[f64; 3]> {
    let to = RIGHT.host[0];
    let hosts = [&lab.host_a, &lab.host_b];
    Ok([
        iperf::tcp(&lab.host_a, to, seconds)?,
        iperf::udp(hosts, to, LARGE, seconds)?,
        iperf::udp(hosts, to, SMALL, seconds)?,
    ])
}
