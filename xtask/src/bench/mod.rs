//! `cargo xtask bench`: what the gateway costs and what limits it, as tables on the terminal, one
//! JSON document, and one page to look at.

pub(crate) mod document;
mod instructions;
mod machine;
mod peers;
mod program;
pub(crate) mod section;
mod wire;

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::{report, setup, signals};
use document::Document;
use program::{Programs, Progress};
use section::Section;

/// What to measure, how long, and with what.
#[derive(Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: Option<What>,
    /// Longer and larger: all suites, a million SAs, narrower searches
    #[arg(long, global = true)]
    full: bool,
    /// Build profile; `release` is what is shipped
    #[arg(long, global = true, default_value = "release")]
    profile: String,
    /// Installs the Debian packages of the peers that are compared with, and builds DPDK's example
    #[arg(long, global = true)]
    install_peers: bool,
}

#[derive(Subcommand)]
enum What {
    /// The cipher alone, every code beside a reference
    Crypto,
    /// Each stage of the pipeline, with allocations
    Stages,
    /// The pipeline on memory ports: sizes, SAs, policies, workers, memory
    Pipeline,
    /// The XDP program by the kernel's test run: policies, SAs, memory of its maps
    Steering,
    /// NDR, PDR and latency between a generator and a sink, beside a bare AF_XDP forwarder
    Wire(wire::Given),
    /// iperf3 through two gateways: the kernel, xipsec, wireguard-go, strongSwan, DPDK
    Peers,
    /// One SA changes under load: how long it takes, how long others wait
    Rekey,
    /// The policies change under load
    Reconfigure,
    /// Renders what was measured before once more
    Report {
        /// Prints the tables as Markdown and writes nothing
        #[arg(long)]
        markdown: bool,
    },
}

impl What {
    const fn section(&self) -> Option<Section> {
        Some(match self {
            Self::Crypto => Section::Crypto,
            Self::Stages => Section::Stages,
            Self::Pipeline => Section::Pipeline,
            Self::Steering => Section::Steering,
            Self::Wire(_) => Section::Wire,
            Self::Peers => Section::Peers,
            Self::Rekey => Section::Rekey,
            Self::Reconfigure => Section::Reconfigure,
            Self::Report { .. } => return None,
        })
    }
}

/// Measures, and renders the report.
pub(crate) fn run(options: &Options) -> Result<()> {
    if let Some(What::Report { markdown }) = &options.what {
        let document = Document::load()?;
        if *markdown {
            print!("{}", report::markdown(&document));
            return Ok(());
        }
        return show(&document, &Section::ALL);
    }
    let one = options.what.as_ref().and_then(What::section);
    let sections = one.map_or_else(|| Section::ALL.to_vec(), |one| vec![one]);
    let root = rustix::process::geteuid().is_root();
    for section in &sections {
        let name = section.name();
        ensure!(root || !section.needs_root(), "{name} takes root");
    }
    if root {
        setup::run()?;
        signals::clean_up_when_interrupted()?;
    }
    if options.install_peers {
        peers::install()?;
    }
    let benches: Vec<&str> = sections.iter().filter_map(|it| it.bench()).collect();
    let programs = Programs::build(&options.profile, &benches)?;
    let machine = machine::describe();
    let mut document = Document::load().unwrap_or_else(|_| Document::new(json!({})));
    document.machine = machine;
    for section in &sections {
        let start = Instant::now();
        let progress = Progress::new(section.name())?;
        let results = measure(*section, options, &programs, &progress)
            .with_context(|| format!("bench {}", section.name()))?;
        progress.finish();
        let about = about(*section, options, &document.machine, start);
        document.put(*section, about, &results);
        document.save()?;
    }
    show(&document, &sections)
}

/// How a section's results were made.
fn about(section: Section, options: &Options, machine: &Value, start: Instant) -> Value {
    let full = if options.full { " --full" } else { "" };
    json!({
        "command": format!("cargo xtask bench {}{full}", section.name()),
        "profile": options.profile,
        "date": machine["date"],
        "commit": machine["commit"],
        "seconds": start.elapsed().as_secs_f64().round(),
    })
}

fn measure(
    section: Section,
    options: &Options,
    programs: &Programs,
    progress: &Progress,
) -> Result<Value> {
    let full = options.full;
    let arguments: &[&str] = match section {
        Section::Crypto => {
            let filter = if full { "" } else { "/(64|1420)/equal/1sa" };
            return programs.criterion("crypto", filter, progress);
        }
        Section::Stages => {
            let filter = if full {
                ""
            } else {
                "(aes128gcm16|sha256_128)/(64|1420)/"
            };
            let mut results = programs.criterion("stages", filter, progress)?;
            add_instructions(&mut results, instructions::count(programs, &[64, 1420])?);
            return Ok(results);
        }
        Section::Wire => {
            let given = match &options.what {
                Some(What::Wire(given)) => given.clone(),
                _ => wire::Given::default(),
            };
            return wire::run(programs, extent_of_wire(full), &given, progress);
        }
        Section::Peers => {
            let extent = peers::Extent {
                rounds: if full { 5 } else { 2 },
                seconds: if full { 5 } else { 1 },
            };
            return peers::run(programs, extent, progress);
        }
        Section::Pipeline if full => &[
            "--bursts=10000",
            "--at=64,1420",
            "--suites=aes128gcm16,aes256gcm16,chacha20poly1305,null+sha1_96,null+sha256_128",
        ],
        Section::Pipeline => &["--bursts=1000", "--sas=1,1000,100000", "--window=100"],
        Section::Steering => &[],
        Section::Rekey if full => &["--change=rekey", "--sas=2,10000,1000000"],
        Section::Rekey => &["--change=rekey"],
        Section::Reconfigure if full => &["--change=reconfigure", "--sas=2,10000,1000000"],
        Section::Reconfigure => &["--change=reconfigure"],
    };
    let name = match section {
        Section::Rekey | Section::Reconfigure => "publish",
        other => other.name(),
    };
    let mut command = Command::new(programs.path(name));
    command.args(arguments);
    program::run(command, progress)
}

/// Puts counted instructions beside the cycles of the stages.
fn add_instructions(results: &mut Value, counted: Option<Vec<Value>>) {
    match (counted, results["records"].as_array_mut()) {
        (Some(counted), Some(records)) => records.extend(counted),
        _ => results["missing"] = json!(["instruction counts: valgrind is not installed"]),
    }
}

const fn extent_of_wire(full: bool) -> wire::Extent<'static> {
    if full {
        wire::Extent {
            sizes: "64,128,256,512,1024,1420,0",
            trial: "2000",
            precision: "1",
        }
    } else {
        wire::Extent {
            sizes: "64,1420",
            trial: "400",
            precision: "5",
        }
    }
}

/// Tables on the terminal, the page in its file.
fn show(document: &Document, sections: &[Section]) -> Result<()> {
    print!("{}", report::text(document, sections));
    let page = document::folder().join("report.html");
    std::fs::write(&page, report::html(document))?;
    println!("\n{}", page.display());
    println!("{}", document.save()?.display());
    Ok(())
}
