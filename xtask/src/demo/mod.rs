//! `cargo xtask demo`: two gateways carry real traffic between two hosts.
//!
//! First the proof: captures of the middle wire and of both hosts, and scapy with the keys. Then
//! the figures: plain kernel forwarding, a bare AF_XDP forwarder and xipsec on the same wires in
//! the same run, in turns, so that what else the machine does hits all three alike.

pub(crate) mod contender;
pub(crate) mod measure;
mod proof;
mod report;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use xipsec_tests::binary;

use crate::{setup, signals};

/// How long and how often the demo measures.
#[derive(Args)]
pub(crate) struct Options {
    /// Seconds of each measurement
    #[arg(long, default_value_t = 2)]
    seconds: u32,
    /// Turns of all contenders; figures are medians over them
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Queues of every wire
    #[arg(long, default_value_t = 1)]
    queues: u32,
    /// Build profile; `release` is what is shipped
    #[arg(long, default_value = "release")]
    profile: String,
}

/// The binaries of the demo, built as they are shipped.
pub(crate) struct Binaries {
    /// The gateway.
    pub(crate) xipsec: PathBuf,
    /// The bare forwarder.
    pub(crate) forwarder: PathBuf,
}

/// Steps done and to do: a bar on a terminal, a line a step elsewhere.
struct Progress {
    bar: ProgressBar,
}

impl Progress {
    fn new(steps: u64) -> Result<Self> {
        let style = ProgressStyle::with_template("{spinner} [{pos}/{len}] {elapsed} {msg}")?;
        let bar = ProgressBar::new(steps).with_style(style);
        bar.enable_steady_tick(std::time::Duration::from_millis(100));
        Ok(Self { bar })
    }

    /// Says what happens now.
    fn step(&self, what: String) {
        if self.bar.is_hidden() {
            eprintln!(
                "[{}/{}] {what}",
                self.bar.position() + 1,
                self.bar.length().unwrap_or(0)
            );
        }
        self.bar.set_message(what);
        self.bar.inc(1);
    }
}

/// Runs the demo and prints its results.
pub(crate) fn run(options: &Options) -> Result<()> {
    let start = Instant::now();
    setup::run()?;
    let root = rustix::process::geteuid().is_root();
    ensure!(root, "the demo makes network namespaces: run it as root");
    signals::clean_up_when_interrupted()?;
    eprintln!(
        "demo: building xipsec, profile {} (the first time takes minutes)",
        options.profile
    );
    let folder = binary::build(&options.profile, &["xipsec", "xipsec-bench"])?;
    let binaries = Binaries {
        xipsec: folder.join("xipsec"),
        forwarder: folder.join("xdp-forward"),
    };
    let built = start.elapsed();
    let progress = Progress::new(1 + measure::steps(options))?;
    progress.step("proof: captures on the middle wire and at both hosts".to_owned());
    let evidence = proof::run(&binaries).context("the proof by capture")?;
    let results = measure::run(options, &binaries, &progress).context("the measurement")?;
    progress.bar.finish_and_clear();
    report::print(options, &evidence, &results);
    let total = start.elapsed();
    println!(
        "took {} s, {} s of them building",
        total.as_secs(),
        built.as_secs()
    );
    evidence.check()
}
