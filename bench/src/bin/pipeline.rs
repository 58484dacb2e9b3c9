//! The pipeline on memory ports: by packet size, by number of SAs and of policies, by workers, each
//! split into cipher, own work and port; and what an idle SA takes of memory.
#![deny(unsafe_code)]

use std::time::Duration;

use clap::Parser;
use ipsec::sa::association::Direction;
use serde_json::json;
use xipsec_bench::allocation::Counting;
use xipsec_bench::cycles::per_second;
use xipsec_bench::fixture::{SUITES, SuiteName};
use xipsec_bench::fleet::{Ends, Scale};
use xipsec_bench::memory;
use xipsec_bench::pipeline::{Bench, Traffic, imix};
use xipsec_bench::progress::{Document, Progress};
use xipsec_bench::scaling::{self, Plan};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Window of every SA, packets: the size that the memory goal is stated for.
const WINDOW: u32 = 64;

/// The scale of the figures by packet size.
const ONE: Scale = Scale {
    sas: 1,
    policies: 1,
};

#[derive(Parser)]
#[command(about = "Cycles per packet of the pipeline on memory ports, as JSON")]
struct Arguments {
    /// Bursts of 32 packets per figure
    #[arg(long, default_value_t = 3000)]
    bursts: usize,
    /// Sizes of the inner IP packet, bytes; 0: the Internet mix
    #[arg(long, value_delimiter = ',', default_values_t = [64, 128, 256, 512, 1024, 1420, 9000, 0])]
    sizes: Vec<usize>,
    /// Numbers of SAs in each direction, each with a policy of its own
    #[arg(long, value_delimiter = ',', default_values_t = [1, 1_000, 100_000, 1_000_000])]
    sas: Vec<usize>,
    /// Numbers of policies in each direction, all for one SA
    #[arg(long, value_delimiter = ',', default_values_t = [1, 1_000, 100_000])]
    policies: Vec<usize>,
    /// Packet sizes at which SAs, policies and workers are varied
    #[arg(long, value_delimiter = ',', default_values_t = [64])]
    at: Vec<usize>,
    /// Numbers of workers
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2])]
    workers: Vec<u16>,
    /// Milliseconds of each measurement of several workers
    #[arg(long, default_value_t = 300)]
    window: u64,
    /// Pairs of SAs whose memory is measured; 0: none
    #[arg(long, default_value_t = 100_000)]
    pairs: usize,
    /// What is measured
    #[arg(long, value_delimiter = ',', default_values = ["size", "sas", "policies", "memory"])]
    kinds: Vec<String>,
    /// Which way packets go
    #[arg(long, value_delimiter = ',', default_values = ["out", "in"])]
    directions: Vec<String>,
    /// Suites, by name
    #[arg(long, value_delimiter = ',', default_value = "aes128gcm16")]
    suites: Vec<String>,
}

impl Arguments {
    fn wants(&self, kind: &str) -> bool {
        self.kinds.iter().any(|it| it == kind)
    }
}

const DIRECTIONS: [Direction; 2] = [Direction::Out, Direction::In];

fn name(direction: Direction) -> &'static str {
    match direction {
        Direction::Out => "out",
        Direction::In => "in",
    }
}

fn traffic(direction: Direction, size: usize) -> Traffic {
    let lengths = if size == 0 { imix() } else { vec![size] };
    Traffic { direction, lengths }
}

fn main() {
    let arguments = Arguments::parse();
    let suites: Vec<SuiteName> = SUITES
        .into_iter()
        .filter(|suite| arguments.suites.iter().any(|name| name == suite.name))
        .collect();
    let steps = 1 + arguments.sas.len() + arguments.policies.len() + 1;
    let mut progress = Progress::new(suites.len() * steps);
    let mut document = Document::default();
    for suite in suites {
        let mut run = Run {
            suite,
            arguments: &arguments,
            document: &mut document,
        };
        if arguments.wants("size") {
            progress.step(&format!("{}: by packet size", suite.name));
            run.single("size", ONE, &arguments.sizes);
        }
        for &sas in arguments.sas.iter().filter(|_| arguments.wants("sas")) {
            progress.step(&format!("{}: {sas} SAs", suite.name));
            run.single("sas", Scale { sas, policies: sas }, &arguments.at);
            if sas <= 1_000 {
                run.several(sas);
            }
        }
        let policies = arguments.policies.iter();
        for &policies in policies.filter(|_| arguments.wants("policies")) {
            progress.step(&format!("{}: {policies} policies", suite.name));
            run.single("policies", Scale { sas: 1, policies }, &arguments.at);
        }
        if arguments.wants("memory") && arguments.pairs > 0 {
            progress.step(&format!("{}: memory of idle SAs", suite.name));
            run.idle();
        }
    }
    document.print();
}

/// One suite's measurements.
struct Run<'a> {
    suite: SuiteName,
    arguments: &'a Arguments,
    document: &'a mut Document,
}

impl Run<'_> {
    /// Those that were asked for.
    fn directions(&self) -> Vec<Direction> {
        let asked = |it: &Direction| self.arguments.directions.iter().any(|one| one == name(*it));
        DIRECTIONS.into_iter().filter(asked).collect()
    }

    /// One worker, one direction after the other.
    fn single(&mut self, kind: &str, scale: Scale, sizes: &[usize]) {
        let ends = Ends::new(self.suite, scale, WINDOW);
        let mut bench = Bench::alone(&ends);
        if kind == "policies" {
            bench = bench.of_many_flows();
        }
        for size in sizes {
            for direction in self.directions() {
                let traffic = traffic(direction, *size);
                let cost = bench.cost(&traffic, self.arguments.bursts);
                let lengths = &traffic.lengths;
                let bytes = lengths.iter().sum::<usize>() as f64 / lengths.len() as f64;
                let rate = per_second() / cost.whole;
                self.document.record(json!({
                    "kind": kind,
                    "suite": self.suite.name,
                    "direction": name(direction),
                    "size": size,
                    "bytes": bytes,
                    "sas": scale.sas,
                    "policies": scale.policies,
                    "cycles": cost.whole,
                    "crypto": cost.crypto,
                    "own": cost.own(),
                    "port": cost.port,
                    "packets_per_second": rate,
                    "bits_per_second": rate * bytes * 8.0,
                }));
            }
        }
    }

    /// Several workers at once.
    fn several(&mut self, sas: usize) {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        for (size, &workers) in pairs(&self.arguments.at, &self.arguments.workers) {
            if usize::from(workers) > cores {
                let text = format!("{workers} workers: this machine has {cores} cores");
                self.document.missing(text);
                continue;
            }
            for direction in self.directions() {
                if direction == Direction::In && sas < workers.into() {
                    // One SA has one sender, which one worker's thread would have to be.
                    continue;
                }
                let plan = Plan {
                    workers,
                    windows: 5,
                    window: Duration::from_millis(self.arguments.window),
                };
                let ends = Ends::new(self.suite, Scale { sas, policies: sas }, WINDOW);
                let rate = scaling::rate(&ends, &traffic(direction, *size), plan);
                self.document.record(json!({
                    "kind": "workers",
                    "suite": self.suite.name,
                    "direction": name(direction),
                    "size": size,
                    "sas": sas,
                    "workers": workers,
                    "packets_per_second": rate,
                }));
            }
        }
    }

    fn idle(&mut self) {
        let pairs = self.arguments.pairs;
        let memory = memory::measure(self.suite, pairs, WINDOW);
        self.document.record(json!({
            "kind": "memory",
            "suite": self.suite.name,
            "pairs": pairs,
            "replay_window": WINDOW,
            "sas": memory.sas,
            "sad": memory.sad,
            "slots": memory.slots,
            "policies": memory.policies,
            "resident": memory.resident,
        }));
    }
}

/// Every one of the first with every one of the second.
fn pairs<'a, A, B>(first: &'a [A], second: &'a [B]) -> impl Iterator<Item = (&'a A, &'a B)> {
    first
        .iter()
        .flat_map(|a| second.iter().map(move |b| (a, b)))
}
