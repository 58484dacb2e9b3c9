//! `xipsec replay` over captures made by a test.

use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::config::{Config, Family, LEFT, RIGHT, Sa, Side, text};
use crate::packets::{self, Frame};
use crate::{binary, files, shell};

/// One run: a configuration, frames per port, what came out.
#[derive(Debug)]
pub struct Replay {
    directory: TempDir,
    inputs: Vec<(&'static str, Vec<Frame>)>,
    options: Vec<String>,
}

/// What a replay produced.
#[derive(Debug)]
pub struct Replayed {
    /// Frames that left by `wan0`.
    pub wan: Vec<Frame>,
    /// Frames that left by `lan0`.
    pub lan: Vec<Frame>,
    /// What went to the machine.
    pub host: Vec<Frame>,
    /// What was dropped; each comment starts with the reason.
    pub drops: Vec<Frame>,
    /// The `--json` document.
    pub json: Value,
}

impl Replayed {
    /// The reasons of the drop capture, in its order.
    pub fn reasons(&self) -> Vec<&str> {
        fn reason(frame: &Frame) -> &str {
            let ends = |c: char| !c.is_ascii_lowercase() && c != '_';
            frame.comment.split(ends).next().unwrap_or_default()
        }
        self.drops.iter().map(reason).collect()
    }

    /// One drop counter.
    pub fn dropped(&self, reason: &str) -> u64 {
        self.json["drops"][reason].as_u64().unwrap_or(u64::MAX)
    }
}

impl Replay {
    /// A run with this configuration.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn new(config: &Config) -> Result<Self> {
        let directory = files::directory(false)?;
        config.write(&directory.path().join("replay.toml"))?;
        Ok(Self {
            directory,
            inputs: Vec::new(),
            options: Vec::new(),
        })
    }

    /// Frames that arrive at `port` (`wan0`, `lan0` or `host`).
    pub fn input(&mut self, port: &'static str, frames: Vec<Frame>) -> &mut Self {
        self.inputs.push((port, frames));
        self
    }

    /// A further command-line argument.
    pub fn option(&mut self, word: &str) -> &mut Self {
        self.options.push(word.to_owned());
        self
    }

    /// A folder for the test's own files.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Path of a file in that folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs it and returns what came out, after checking that every packet ended exactly once.
    ///
    /// # Errors
    /// When `replay` fails, an output is damaged, or the accounting does not add up.
    pub fn run(&self) -> Result<Replayed> {
        let output = self.output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "replay: {}: {said}", output.status);
        let json: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| String::from_utf8_lossy(&output.stdout).into_owned())?;
        crate::expect::accounting(&json)?;
        let read = |name| packets::read(&self.file(name));
        let replayed = Replayed {
            wan: read("out-wan0.pcap")?,
            lan: read("out-lan0.pcap")?,
            host: read("out-host.pcap")?,
            drops: read("drops.pcapng")?,
            json,
        };
        let dropped = replayed.json["accounting"]["dropped"].as_u64();
        ensure!(
            dropped == u64::try_from(replayed.drops.len()).ok(),
            "the drop capture has gaps"
        );
        ensure!(
            replayed.json["accounting"]["held"] == 0,
            "packets are still held at the end"
        );
        Ok(replayed)
    }

    /// Runs it and returns status and outputs as they are.
    ///
    /// # Errors
    /// When the program cannot start.
    pub fn output(&self) -> Result<Output> {
        let mut command = binary::command()?;
        command.current_dir(self.directory.path());
        command.args([
            "replay",
            "--json",
            "--config",
            "replay.toml",
            "--drops",
            "drops.pcapng",
        ]);
        for (index, (port, frames)) in self.inputs.iter().enumerate() {
            let name = format!("in-{index}.pcap");
            packets::write(&self.file(&name), frames)?;
            command.args(["--in", &format!("{port}={name}")]);
        }
        for port in ["wan0", "lan0", "host"] {
            command.args(["--out", &format!("{port}=out-{port}.pcap")]);
        }
        shell::output(command.args(&self.options))
    }
}

/// The SAs of a replay: left to right (out), right to left (in), keys fixed.
pub fn sas(outer: Family, suite: crate::suite::Suite) -> [Sa; 2] {
    [
        Sa::fixed(0x1001, &LEFT, &RIGHT, outer, suite),
        Sa::fixed(0x1002, &RIGHT, &LEFT, outer, suite),
    ]
}

/// Ports, addresses, routes and neighbours of the left gateway, without SA or policy. `dataplane`
/// holds further lines of that table; a fresh state directory is not needed: replay only reads it.
pub fn network(dataplane: &[String]) -> Config {
    let mut config = Config::default();
    let mut lines = vec![text("forwarding", "static")];
    lines.extend_from_slice(dataplane);
    config.dataplane(&lines);
    for (port, side, at, lengths) in [
        ("wan0", "unprotected", 0, LEFT.wan),
        ("lan0", "protected", 1, LEFT.lan),
    ] {
        let addresses = format!("address = [\"{}/24\", \"{}/64\"]", lengths[0], lengths[1]);
        config.port(port, side, &[addresses, text("mac", LEFT.macs[at])]);
    }
    for at in [0, 1] {
        config.neighbor("wan0", RIGHT.wan[at], RIGHT.macs[0]);
        config.neighbor("lan0", LEFT.host[at], LEFT.macs[2]);
        config.route(RIGHT.net[at], "wan0", RIGHT.wan[at]);
    }
    config
}

/// The left gateway with one tunnel for both families.
pub fn tunnel(sas: &[Sa; 2], dataplane: &[String]) -> Config {
    let mut config = network(dataplane);
    config.sa(&sas[0], "out").sa(&sas[1], "in");
    for at in [0, 1] {
        let nets = [LEFT.net[at], RIGHT.net[at]];
        config.protect(&format!("out-{at}"), "out", nets, &sas[0].name);
        config.protect(&format!("in-{at}"), "in", nets, &sas[1].name);
    }
    config
}

/// A frame from the left host to its gateway, around an IP packet.
pub fn from_host(microseconds: u64, packet: &[u8]) -> Frame {
    framed(microseconds, LEFT.macs[2], LEFT.macs[1], packet)
}

/// A frame as the left gateway hands it to its host.
pub fn to_host(microseconds: u64, packet: &[u8]) -> Frame {
    framed(microseconds, LEFT.macs[1], LEFT.macs[2], packet)
}

/// A frame from the right gateway to the left one.
pub fn from_peer(microseconds: u64, packet: &[u8]) -> Frame {
    framed(microseconds, RIGHT.macs[0], LEFT.macs[0], packet)
}

/// A frame as the left gateway hands it to the right one.
pub fn to_peer(microseconds: u64, packet: &[u8]) -> Frame {
    framed(microseconds, LEFT.macs[0], RIGHT.macs[0], packet)
}

fn framed(microseconds: u64, source: &str, destination: &str, packet: &[u8]) -> Frame {
    let six = packet.first().is_some_and(|byte| byte >> 4 == 6);
    let ethertype = if six { packets::IPV6 } else { packets::IPV4 };
    Frame::at(
        microseconds,
        packets::ethernet(source, destination, ethertype, packet),
    )
}

/// The host addresses of a flow from `from` to `to` in one family.
pub fn hosts(from: &Side, to: &Side, family: Family) -> [&'static str; 2] {
    [from.host[family.index()], to.host[family.index()]]
}
