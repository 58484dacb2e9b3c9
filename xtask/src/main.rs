//! `cargo xtask`: everything that is done with this repository beside building it.
//!
//! Builds with no C library and no BPF toolchain, because `setup` runs before either is there.
#![deny(unsafe_code)]
#![expect(
    clippy::print_stdout,
    reason = "a command-line tool prints its results"
)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod cargo;
mod compliance;
mod demo;
mod ebpf;
mod fuzz;
mod lab;
mod report;
mod setup;
mod signals;
mod test;
mod tidy;

/// The project's own tool.
#[derive(Parser)]
#[command(name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Installs what is missing: Debian packages of compilers, network tools and scapy
    Setup,
    /// Two gateways carry traffic between two hosts: proof by capture, throughput in comparison
    Demo(demo::Options),
    /// What a packet costs and what limits it: tables, JSON, and a page with plots
    Bench(bench::Options),
    /// Everything that must hold before a change goes in; ends with one line of totals
    Test,
    /// The demo's network, left standing for a person to play with
    Lab {
        #[command(subcommand)]
        action: lab::Action,
    },
    /// Feeds made-up bytes to everything that reads what others wrote; says what was found
    Fuzz(fuzz::Options),
    /// Checks the shape of the code: import order, lengths, words, documents
    Tidy,
    /// Joins the RFCs' requirements with code and tests into docs/COMPLIANCE.md
    Compliance,
    /// Builds the XDP program into ebpf/prebuilt
    Ebpf {
        /// Compares with the committed object instead of replacing it
        #[arg(long)]
        check: bool,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::Setup => setup::run(),
        Task::Demo(options) => demo::run(&options),
        Task::Bench(options) => bench::run(&options),
        Task::Test => test::run(),
        Task::Lab { action } => lab::run(&action),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::Tidy => tidy::run(),
        Task::Compliance => compliance::run(),
        Task::Ebpf { check } => ebpf::run(check),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
