//! The independent ESP peer: scapy scripts in `tests/python`, run by Debian's own Python, whatever
//! other Python stands first in `PATH`.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::config::Sa;
use crate::netns::Namespace;
use crate::packets::{self, Frame};
use crate::{binary, shell};

/// Debian's Python: the one that its scapy package serves.
pub const PYTHON: &str = "/usr/bin/python3";

/// What scapy found in a capture of the wire between the gateways.
#[derive(Debug)]
pub struct Opened {
    /// The decrypted inner packets, in capture order, each behind an Ethernet header.
    pub inner: Vec<Frame>,
    /// Index into the capture of each inner packet.
    pub index: Vec<usize>,
    /// The whole report: `esp`, `neighbor`, `other`, `failed`, `repeated`, `sequences`, `dummies`,
    /// and of what came in UDP `ports` and `checksum`, how many were wrong.
    pub report: Value,
}

impl Opened {
    /// One number of the report.
    pub fn count(&self, key: &str) -> u64 {
        self.report[key].as_u64().unwrap_or(u64::MAX)
    }
}

/// Decrypts every ESP packet of `capture` with `sas`, fragments of outer packets put together.
///
/// # Errors
/// When the script fails, not when a packet does: that is counted as `failed`.
pub fn open(sas: &[Sa], capture: &Path) -> Result<Opened> {
    let output = capture.with_extension("inner.pcap");
    let report = script("esp_open.py", sas, capture, &output)?;
    let inner = packets::read(&output)?;
    let index = report["index"].as_array().context("no index")?;
    let index = index
        .iter()
        .filter_map(|at| usize::try_from(at.as_u64()?).ok())
        .collect();
    Ok(Opened {
        inner,
        index,
        report,
    })
}

/// Seals every packet of `frames` for `sa`, numbered from `first`; Ethernet addresses are kept.
///
/// # Errors
/// When the script fails.
pub fn seal(sa: &Sa, first: u64, frames: &[Frame], directory: &Path) -> Result<Vec<Frame>> {
    let crafts = (first..)
        .take(frames.len())
        .map(|number| json!({"number": number}));
    seal_crafted(sa, frames, &crafts.collect::<Vec<_>>(), directory)
}

/// Seals each packet as the object beside it says: its `number`, and what to get wrong on purpose
/// (`next_header`, `tail`, `padding`, `padding_length`, `flip`, `longer`, `traffic_class`); of an
/// SA in UDP also its `ports` (false: bare) and `checksum`.
///
/// # Errors
/// When the script fails.
pub fn seal_crafted(
    sa: &Sa,
    frames: &[Frame],
    crafts: &[Value],
    directory: &Path,
) -> Result<Vec<Frame>> {
    seal_through(std::slice::from_ref(sa), frames, crafts, directory)
}

/// As [`seal_crafted`], each packet through those of `sas` that its object names in `spis`,
/// innermost first.
///
/// # Errors
/// When the script fails.
pub fn seal_through(
    sas: &[Sa],
    frames: &[Frame],
    crafts: &[Value],
    directory: &Path,
) -> Result<Vec<Frame>> {
    let (input, output) = (
        directory.join("seal-in.pcap"),
        directory.join("seal-out.pcap"),
    );
    packets::write(&input, frames)?;
    fs::write(
        input.with_extension("craft"),
        Value::from(crafts).to_string(),
    )?;
    script("esp_seal.py", sas, &input, &output)?;
    packets::read(&output)
}

/// Starts a script of `tests/python` inside a namespace, to be completed by the caller.
pub fn command(namespace: &Namespace, name: &str) -> Command {
    let mut command = namespace.command(PYTHON);
    command.arg(binary::workspace().join("tests/python").join(name));
    command
}

fn script(name: &str, sas: &[Sa], input: &Path, output: &Path) -> Result<Value> {
    let keys = input.with_extension("sas.json");
    let list: Vec<Value> = sas.iter().map(Sa::scapy).collect();
    fs::write(&keys, Value::from(list).to_string())?;
    let mut command = Command::new(PYTHON);
    command.arg(binary::workspace().join("tests/python").join(name));
    let text = shell::run(command.arg(&keys).arg(input).arg(output))?;
    serde_json::from_str(&text).with_context(|| format!("{name} said: {text}"))
}
