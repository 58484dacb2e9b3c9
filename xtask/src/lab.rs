//! `cargo xtask lab`: the demo's network for a person to play with.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use serde_json::Value;
use xipsec_tests::binary;
use xipsec_tests::config::{Family, RIGHT};
use xipsec_tests::netns;
use xipsec_tests::topology::{Lab, Plan};

use crate::{setup, signals};

/// What to do with the laboratory.
#[derive(Subcommand)]
pub(crate) enum Action {
    /// Builds hostA - gwA - gwB - hostB with two running gateways
    Up {
        /// Queues of every wire
        #[arg(long, default_value_t = 2)]
        queues: u32,
    },
    /// Removes what `up` left
    Down,
}

/// Runs `lab up` or `lab down`.
pub(crate) fn run(action: &Action) -> Result<()> {
    match action {
        Action::Up { queues } => up(*queues),
        Action::Down => down(),
    }
}

/// Names of what stands, beside the build: one laboratory per checkout.
fn record() -> PathBuf {
    binary::target().join("lab.json")
}

fn up(queues: u32) -> Result<()> {
    setup::run()?;
    if record().exists() {
        bail!("a laboratory stands already (cargo xtask lab down removes it)");
    }
    signals::clean_up_when_interrupted()?;
    eprintln!("lab: building xipsec");
    let xipsec = binary::build("ci", &["xipsec"])?.join("xipsec");
    // Tapped, so that tcpdump on the wire between the gateways sees something.
    let plan = Plan {
        queues,
        tapped: true,
        lasting: true,
        inner: vec![Family::V4, Family::V6],
        ..Plan::default()
    };
    let mut lab = Lab::with_binary(&plan, &xipsec)?;
    lab.start()?;
    lab.wait_connected(Family::V4)?;
    let names = [&lab.host_a, &lab.gate_a, &lab.host_b].map(|ns| ns.name().to_owned());
    let wire = lab
        .wire
        .as_ref()
        .context("the plan has a tap")?
        .name()
        .to_owned();
    let socket = lab.left.socket().display().to_string();
    let config = lab.left.config().display().to_string();
    fs::write(record(), lab.keep().to_string()).context("cannot record the laboratory")?;
    print_suggestions(&xipsec, &names, &wire, &socket, &config);
    Ok(())
}

fn print_suggestions(
    xipsec: &Path,
    [host_a, gate_a, host_b]: &[String; 3],
    wire: &str,
    socket: &str,
    config: &str,
) {
    let xipsec = xipsec.display();
    let (host4, host6) = (RIGHT.host[0], RIGHT.host[1]);
    println!("hostA - gwA - gwB - hostB stand. Try:\n");
    println!("  ip netns exec {host_a} ping {host4}");
    println!("  ip netns exec {host_a} ping {host6}");
    println!("  ip netns exec {wire} tcpdump -n -i wa          # nothing but ESP");
    println!("  ip netns exec {host_b} iperf3 -s -D");
    println!("  ip netns exec {host_a} iperf3 -c {host4}");
    println!("  ip netns exec {gate_a} ping {host4}            # the gateway's own traffic");
    println!("  ip netns exec {gate_a} nft list table inet xipsec");
    for command in ["status", "sa list", "policy list", "port list", "stats"] {
        println!("  {xipsec} {command} --socket {socket}");
    }
    println!("  cat {config}");
    println!("\ncargo xtask lab down removes it.");
}

fn down() -> Result<()> {
    let Ok(text) = fs::read_to_string(record()) else {
        bail!("no laboratory stands");
    };
    let lab: Value = serde_json::from_str(&text).context("the record of the laboratory")?;
    for name in lab["namespaces"].as_array().into_iter().flatten() {
        netns::remove(name.as_str().unwrap_or_default());
    }
    if let Some(directory) = lab["directory"].as_str() {
        fs::remove_dir_all(directory).ok();
    }
    fs::remove_file(record()).context("cannot remove the record of the laboratory")
}
