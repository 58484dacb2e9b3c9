//! What the XDP program costs per frame, by the kernel's own test run, and what its maps take.
#![deny(unsafe_code)]

use std::time::Instant;

use anyhow::{Context, Result};
use clap::Parser;
use serde_json::json;
use xipsec::port::settings::Side;
use xipsec::port::xdp::program::{Entry, SteerProgram, SteerSettings};
use xipsec::port::xdp::steer::SteeringTables;
use xipsec_bench::progress::{Document, Progress};
use xipsec_bench::steering::{Frame, MAC, map_memory, tables};

#[derive(Parser)]
#[command(about = "Nanoseconds per frame of the steering program, as JSON")]
struct Arguments {
    /// Numbers of policies each way, each with a prefix of its own
    #[arg(long, value_delimiter = ',', default_values_t = [1, 1_000, 4_096, 100_000])]
    policies: Vec<u32>,
    /// Numbers of inbound SAs at one endpoint
    #[arg(long, value_delimiter = ',', default_values_t = [1, 1_000, 1_000_000])]
    sas: Vec<u32>,
    /// Runs of the program in a row, timed by the kernel
    #[arg(long, default_value_t = 20_000)]
    repeat: u32,
    /// How often; the least counts
    #[arg(long, default_value_t = 25)]
    rounds: usize,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut document = Document::default();
    let steps = arguments.policies.len() + arguments.sas.len() + 1;
    let mut progress = Progress::new(steps);
    progress.step("the program that redirects everything");
    let mut bare = load(Side::Protected, Entry::RedirectAll)?;
    let frame = Frame::Policy(0).bytes();
    let least = arguments.least(&mut bare, &frame)?;
    document.record(json!({"kind": "redirect_all", "nanoseconds": least}));
    drop(bare);
    for &policies in &arguments.policies {
        progress.step(&format!("{policies} policies"));
        arguments.policies(policies, &mut document)?;
    }
    for &sas in &arguments.sas {
        progress.step(&format!("{sas} SAs"));
        // Each SA comes with a policy, as in a fleet; the endpoint is one.
        let tables = tables(sas.min(100_000), sas);
        let mut program = load(Side::Unprotected, Entry::Plain)?;
        program.update(&tables)?;
        let least = arguments.least(&mut program, &Frame::Esp.bytes())?;
        document.record(json!({
            "kind": "esp",
            "sas": sas,
            "endpoints": tables.endpoints.len(),
            "nanoseconds": least,
        }));
    }
    document.print();
    Ok(())
}

impl Arguments {
    /// Frames that policies take and frames that none does, on both sides.
    fn policies(&self, count: u32, document: &mut Document) -> Result<()> {
        let start = Instant::now();
        let tables = tables(count, 1);
        let built = start.elapsed();
        for side in [Side::Protected, Side::Unprotected] {
            let before = map_memory();
            let mut program = load(side, Entry::Plain)?;
            let start = Instant::now();
            program.update(&tables)?;
            let written = start.elapsed();
            let memory = map_memory() - before;
            let mut record = json!({
                "kind": "policies",
                "side": name(side),
                "policies": count,
                "prefixes": prefixes(&tables, side),
                "build_ms": built.as_secs_f64() * 1e3,
                "write_ms": written.as_secs_f64() * 1e3,
                "map_bytes": memory,
            });
            for (key, frame) in [
                ("taken", frame(side, count / 2)),
                ("passed", Frame::Foreign.bytes()),
                ("arp", Frame::Arp.bytes()),
            ] {
                record[key] = self.least(&mut program, &frame)?.into();
            }
            document.record(record);
        }
        Ok(())
    }

    /// The least of several runs, nanoseconds per frame.
    fn least(&self, program: &mut SteerProgram, frame: &[u8]) -> Result<f64> {
        let mut least = f64::INFINITY;
        for _ in 0..self.rounds {
            let (_, mean) = program.test_run_for_time(frame, self.repeat)?;
            least = least.min(mean.as_secs_f64() * 1e9);
        }
        Ok(least)
    }
}

fn load(side: Side, entry: Entry) -> Result<SteerProgram> {
    let settings = SteerSettings {
        entry,
        ..SteerSettings::new(side, MAC, 1)
    };
    SteerProgram::load("bench", &settings).context("the steering program")
}

const fn name(side: Side) -> &'static str {
    match side {
        Side::Protected => "protected",
        Side::Unprotected => "unprotected",
    }
}

/// A frame that policy number `policy` takes on that side.
fn frame(side: Side, policy: u32) -> Vec<u8> {
    match side {
        Side::Protected => Frame::Policy(policy).bytes(),
        Side::Unprotected => Frame::Back(policy).bytes(),
    }
}

/// Prefixes in the two tries of a side, after collapsing.
fn prefixes(tables: &SteeringTables, side: Side) -> usize {
    let pair = match side {
        Side::Protected => &tables.outbound,
        Side::Unprotected => &tables.inbound,
    };
    pair.local.len() + pair.remote.len()
}
