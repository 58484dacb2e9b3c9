//! `cargo xtask bench`: what the gateway costs and what limits it, as tables on the terminal, one
//! JSON document, and one page to look at.

pub(crate) mod document;
mod machine;
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
}

#[derive(Subcommand)]
enum What {
    /// The pipeline on memory ports: sizes, SAs, policies, workers, memory
    Pipeline,
    /// NDR, PDR and latency between a generator and a sink, beside a bare AF_XDP forwarder
    Wire,
    /// Renders what was measured before once more
    Report {
        /// Prints the tables as Markdown and writes nothing
        #[arg(long)]
        markdown: bool,
    },
}

/// Measures, and renders the report.
pub(crate) fn run(options: &Options) -> Result<()> {
    let sections = match &options.what {
        Some(What::Report { markdown }) => {
            let document = Document::load()?;
            if *markdown {
                print!("{}", report::markdown(&document));
                return Ok(());
            }
            return show(&document, &Section::ALL);
        }
        Some(What::Pipeline) => vec![Section::Pipeline],
        Some(What::Wire) => vec![Section::Wire],
        None => Section::ALL.to_vec(),
    };
    let root = rustix::process::geteuid().is_root();
    for section in &sections {
        let name = section.name();
        ensure!(root || !section.needs_root(), "{name} takes root");
    }
    if root {
        setup::run()?;
        signals::clean_up_when_interrupted()?;
    }
    let programs = Programs::build(&options.profile)?;
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
    match section {
        Section::Pipeline => {
            let mut command = Command::new(programs.path("pipeline"));
            if options.full {
                let suites =
                    "aes128gcm16,aes256gcm16,chacha20poly1305,null+sha1_96,null+sha256_128";
                command.args(["--bursts", "10000", "--at", "64,1420", "--suites", suites]);
            } else {
                command.args([
                    "--bursts",
                    "1000",
                    "--sas",
                    "1,1000,100000",
                    "--window",
                    "100",
                ]);
            }
            program::run(command, progress)
        }
        Section::Wire => {
            let extent = if options.full {
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
            };
            wire::run(programs, extent, progress)
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
