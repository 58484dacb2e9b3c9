//! DPDK's example gateway, ipsec-secgw: one in both gateways, on AF_XDP, one polling core each.
//!
//! Distributions package its source alone. It demands checksums by the device, which no AF_XDP port
//! offers, and ends where it does not get them: it is built with that demand taken out.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use xipsec_tests::config::{LEFT, RIGHT, Side};
use xipsec_tests::netns::Namespace;
use xipsec_tests::shell;
use xipsec_tests::topology::Lab;
use xipsec_tests::veth::End;

use super::program::Guest;
use crate::bench::document;
use crate::demo::contender::{with_kernel, without_kernel};

/// Where Debian's `dpdk-doc` has the source.
const SOURCE: &str = "/usr/share/dpdk/examples/ipsec-secgw";

/// Read before every source file: no checksums by the device.
const NO_CHECKSUMS: &str = "#include <rte_ethdev.h>
#undef RTE_ETH_RX_OFFLOAD_CHECKSUM
#define RTE_ETH_RX_OFFLOAD_CHECKSUM 0
";

/// Ports as its configuration counts them, in the order of the devices on its command line.
const PORTS: [&str; 2] = ["wan0", "lan0"];

/// Bytes of an AES-128-GCM key with its salt (RFC 4106 §8.1).
const KEY: usize = 20;

/// MiB of memory for each gateway: not in huge pages, which a machine may not have.
const MEMORY: &str = "512";

fn folder() -> PathBuf {
    document::folder().join("ipsec-secgw")
}

fn program() -> PathBuf {
    folder().join("build/ipsec-secgw")
}

/// What it takes and is not there.
pub(super) fn lacks() -> Option<String> {
    (!program().exists()).then(|| {
        "not built: cargo xtask bench peers --install-peers builds it of Debian's dpdk-doc and \
         libdpdk-dev"
            .to_owned()
    })
}

/// Builds it anew from the packaged source.
pub(super) fn build() -> Result<()> {
    eprintln!("bench: building DPDK's ipsec-secgw");
    let folder = folder();
    fs::create_dir_all(document::folder())?;
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    shell::run(Command::new("cp").args(["-r", SOURCE]).arg(&folder))?;
    let header = folder.join("no-checksums.h");
    fs::write(&header, NO_CHECKSUMS)?;
    let mut make = Command::new("make");
    // As this is in the environment, the Makefile adds to it.
    make.env("CFLAGS", format!("-include {}", header.display()));
    shell::run(make.arg("-C").arg(&folder)).map(drop)
}

/// Both gateways.
pub(super) struct Running {
    guests: [Guest; 2],
}

impl Running {
    pub(super) fn start(lab: &Lab) -> Result<Self> {
        without_kernel(lab)?;
        let keys = [random_key()?, random_key()?];
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let start = |at: usize| {
            let sides = [&LEFT, &RIGHT];
            let gates = [&lab.gate_a, &lab.gate_b];
            let hosts = [&lab.host_a, &lab.host_b];
            let beyond = [
                End::new(gates[1 - at], "wan0").mac()?,
                End::new(hosts[at], "eth0").mac()?,
            ];
            let tunnels = [at, 1 - at].map(|from| Tunnel {
                spi: lab.sas[from].spi,
                key: &keys[from],
            });
            let text = configuration([sides[at], sides[1 - at]], tunnels, &beyond);
            spawn(lab, gates[at], sides[at], at % cores, &text)
        };
        Ok(Self {
            guests: [start(0)?, start(1)?],
        })
    }

    /// What both wrote.
    pub(super) fn said(&self) -> String {
        self.guests.iter().map(Guest::said).collect()
    }

    /// Ends both.
    pub(super) fn stop(self, lab: &Lab) -> Result<()> {
        drop(self);
        restore(lab)
    }
}

/// The wires as they were before, however far a start came.
pub(super) fn restore(lab: &Lab) -> Result<()> {
    for gate in [&lab.gate_a, &lab.gate_b] {
        for port in PORTS {
            // One that had to be killed leaves its XDP program.
            gate.ip(&format!("link set dev {port} xdp off")).ok();
        }
    }
    with_kernel(lab)
}

fn spawn(lab: &Lab, gate: &Namespace, side: &Side, core: usize, text: &str) -> Result<Guest> {
    let folder = lab.directory().join(format!("secgw-{}", side.name));
    fs::create_dir_all(&folder)?;
    let file = folder.join("secgw.cfg");
    fs::write(&file, text)?;
    let mut command = gate.command(program());
    command.args(arguments(core, &file));
    command.env("RUNTIME_DIRECTORY", &folder);
    Guest::start(command, &folder.join("log"))
}

/// Its command line: what DPDK's abstraction reads, then its own.
fn arguments(core: usize, file: &Path) -> Vec<String> {
    let mut arguments: Vec<String> = ["--no-pci", "--no-huge", "--no-shconf", "--no-telemetry"]
        .map(str::to_owned)
        .into();
    arguments.extend(["--iova-mode=va", "-m", MEMORY, "-l"].map(str::to_owned));
    arguments.push(core.to_string());
    for (at, port) in PORTS.iter().enumerate() {
        arguments.push(format!("--vdev=net_af_xdp{at},iface={port}"));
    }
    arguments.push("--vdev=crypto_aesni_mb0".to_owned());
    // Both ports, the first of them unprotected, by the newer of its two IPsec libraries.
    arguments.extend(["--", "-p", "0x3", "-u", "0x1", "-P", "-l"].map(str::to_owned));
    arguments.extend(["-w", "64"].map(str::to_owned));
    arguments.push(format!("--config=(0,0,{core}),(1,0,{core})"));
    arguments.push("-f".to_owned());
    arguments.push(file.to_string_lossy().into_owned());
    arguments
}

/// One direction.
#[derive(Clone, Copy)]
struct Tunnel<'a> {
    spi: u32,
    /// Bytes in hexadecimal with colons.
    key: &'a str,
}

/// The file of one gateway: `tunnels` out and in, `beyond` the MAC addresses behind its ports.
fn configuration(
    [own, peer]: [&Side; 2],
    [out, back]: [Tunnel<'_>; 2],
    beyond: &[String; 2],
) -> String {
    let mut text = String::new();
    for (direction, tunnel, from, to) in [("out", out, own, peer), ("in", back, peer, own)] {
        let Tunnel { spi, key } = tunnel;
        let _ = write!(
            text,
            "sp ipv4 {direction} esp protect {spi} pri 1 src {} dst {} sport 0:65535 dport \
             0:65535\n\
             sa {direction} {spi} aead_algo aes-128-gcm aead_key {key} mode ipv4-tunnel src {} \
             dst {} type no-offload\n",
            from.net[0], to.net[0], from.wan[0], to.wan[0]
        );
    }
    let _ = write!(
        text,
        "rt ipv4 dst {}/32 port 0\nrt ipv4 dst {} port 1\n",
        peer.wan[0], own.net[0]
    );
    for (port, mac) in beyond.iter().enumerate() {
        let _ = writeln!(text, "neigh port {port} {mac}");
    }
    text
}

/// A key of this start alone: the program's IVs begin anew with each.
fn random_key() -> Result<String> {
    let mut bytes = [0; KEY];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .context("no random source")?;
    Ok(bytes.map(|byte| format!("{byte:02x}")).join(":"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both() -> [String; 2] {
        let (one, two) = (
            Tunnel {
                spi: 0x1001,
                key: "00:01",
            },
            Tunnel {
                spi: 0x1002,
                key: "fe:ff",
            },
        );
        let beyond = ["02:00:00:00:00:02", "02:00:00:00:01:02"].map(str::to_owned);
        [
            configuration([&LEFT, &RIGHT], [one, two], &beyond),
            configuration([&RIGHT, &LEFT], [two, one], &beyond),
        ]
    }

    /// The lines that begin with these words, without them.
    fn rest<'t>(text: &'t str, words: &str) -> Vec<&'t str> {
        let lines = text.lines();
        lines.filter_map(|line| line.strip_prefix(words)).collect()
    }

    #[test]
    fn the_file_is_what_the_program_reads() {
        let [left, _] = both();
        let expected = "\
sp ipv4 out esp protect 4097 pri 1 src 10.1.0.0/24 dst 10.2.0.0/24 sport 0:65535 dport 0:65535
sa out 4097 aead_algo aes-128-gcm aead_key 00:01 mode ipv4-tunnel src 192.0.2.1 dst 192.0.2.2 \
type no-offload
sp ipv4 in esp protect 4098 pri 1 src 10.2.0.0/24 dst 10.1.0.0/24 sport 0:65535 dport 0:65535
sa in 4098 aead_algo aes-128-gcm aead_key fe:ff mode ipv4-tunnel src 192.0.2.2 dst 192.0.2.1 \
type no-offload
rt ipv4 dst 192.0.2.2/32 port 0
rt ipv4 dst 10.1.0.0/24 port 1
neigh port 0 02:00:00:00:00:02
neigh port 1 02:00:00:00:01:02
";
        assert_eq!(left, expected);
    }

    #[test]
    fn what_one_end_seals_the_other_opens() {
        let [left, right] = both();
        for (from, to) in [(&left, &right), (&right, &left)] {
            for word in ["sa", "sp ipv4"] {
                let out = rest(from, &format!("{word} out "));
                assert_eq!(out.len(), 1);
                assert_eq!(out, rest(to, &format!("{word} in ")));
            }
        }
    }

    #[test]
    fn a_key_has_its_salt_and_is_of_one_start() {
        let keys = [random_key(), random_key()].map(Result::unwrap_or_default);
        assert_eq!(keys[0].split(':').count(), KEY);
        assert_ne!(keys[0], keys[1]);
    }

    #[test]
    fn the_first_port_is_the_unprotected_one() {
        let arguments = arguments(1, Path::new("x.cfg")).join(" ");
        assert!(arguments.contains("net_af_xdp0,iface=wan0"));
        assert!(arguments.contains("-u 0x1"));
        assert!(arguments.contains("(0,0,1),(1,0,1)"));
    }
}
