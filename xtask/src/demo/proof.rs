//! Ping, TCP and UDP through the tunnel under three captures.

use anyhow::{Context, Result};
use xipsec_tests::config::{Family, RIGHT};
use xipsec_tests::iperf;
use xipsec_tests::proof::{Evidence, Watch};
use xipsec_tests::topology::{Lab, Plan};
use xipsec_tests::veth::End;

use super::Binaries;
use super::measure::INNER_MTU;

/// Enough of each kind to mean something, little enough for scapy to decrypt in seconds.
const TRAFFIC: [&str; 3] = ["-n 1M", "-n 500K -R", "-u -b 20M -l 1200 -n 500K"];

/// Builds the network with a tap, sends traffic, and compares what was sent with what the wire
/// carried.
pub(super) fn run(binaries: &Binaries) -> Result<Evidence> {
    let plan = Plan {
        tapped: true,
        ..Plan::default()
    };
    let mut lab = Lab::with_binary(&plan, &binaries.xipsec)?;
    // A host's capture shows packets before its interface cuts them; here each must be one packet.
    for host in [&lab.host_a, &lab.host_b] {
        End::new(host, "eth0").segmentation(false)?;
    }
    lab.route_mtu(INNER_MTU)?;
    lab.start()?;
    lab.wait_connected(Family::V4)?;
    let server = iperf::Server::start(&lab.host_b)?;
    let watch = Watch::start(&lab)?;
    let peer = RIGHT.host[0];
    lab.host_a
        .run(&format!("ping -n -q -c 20 -i 0.02 {peer}"))
        .context("ping")?;
    for arguments in TRAFFIC {
        iperf::run(&lab.host_a, peer, arguments).with_context(|| lab.state())?;
    }
    let evidence = watch.conclude(&lab.sas)?;
    drop(server);
    lab.left.stop()?;
    lab.right.stop()?;
    Ok(evidence)
}
