//! `cargo xtask setup`: what the machine lacks, installed; nothing said when it lacks nothing.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// Debian packages and what each is for.
const PACKAGES: [(&str, &str); 22] = [
    ("clang", "libxdp's own BPF programs"),
    ("llvm", "the same"),
    ("libclang-dev", "bindings to libxdp"),
    ("libelf-dev", "libbpf"),
    ("zlib1g-dev", "libbpf"),
    ("m4", "libxdp's build"),
    ("pkg-config", "libxdp's build"),
    ("gcc", "C libraries"),
    ("g++", "libFuzzer"),
    ("gcc-multilib", "headers of the BPF target"),
    ("iproute2", "namespaces and wires"),
    ("iputils-ping", "ping"),
    ("iputils-arping", "arping"),
    ("iperf3", "throughput"),
    ("tcpdump", "captures"),
    ("python3-scapy", "the independent ESP peer"),
    ("python3-cryptography", "scapy's ciphers"),
    ("nftables", "the guard"),
    ("ethtool", "offloads"),
    ("procps", "sysctl"),
    ("user-mode-linux", "the kernel opposite: its own ESP and AH"),
    ("kmod", "modprobe in that kernel"),
];

/// Installs the packages that dpkg does not know as installed.
pub(crate) fn run() -> Result<()> {
    let named: Vec<&str> = PACKAGES.iter().map(|(package, _)| *package).collect();
    install(&named)
}

/// Installs those of `packages` that are not there.
pub(crate) fn install(packages: &[&'static str]) -> Result<()> {
    let missing = missing(packages)?;
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!("this is no Debian; install what your system calls these: {list}");
    }
    if !rustix::process::geteuid().is_root() {
        bail!("packages are missing; install them as root: apt-get install {list}");
    }
    eprintln!("setup: installing {list}");
    apt(&["update", "-qq"])?;
    let mut arguments = vec!["install", "-y", "-qq", "--no-install-recommends"];
    arguments.extend(&missing);
    apt(&arguments)?;
    let left = self::missing(packages)?;
    ensure!(
        left.is_empty(),
        "apt-get succeeded, and yet these are missing: {}",
        left.join(" ")
    );
    Ok(())
}

/// The packages that are not installed. On a system without dpkg: all of which no program is found.
fn missing(packages: &[&'static str]) -> Result<Vec<&'static str>> {
    if !Path::new("/usr/bin/dpkg-query").exists() {
        let tools = [
            ("iperf3", "iperf3"),
            ("tcpdump", "tcpdump"),
            ("nft", "nftables"),
        ];
        let tools = tools
            .into_iter()
            .chain([("clang", "clang"), ("ip", "iproute2")]);
        return Ok(tools
            .filter(|(tool, _)| !in_path(tool))
            .map(|(_, package)| package)
            .collect());
    }
    let absent = |package: &&str| -> Result<bool> {
        let mut command = Command::new("dpkg-query");
        let output = command
            .args(["-W", "-f", "${db:Status-Status} ", package])
            .output();
        let output = output.context("dpkg-query does not start")?;
        Ok(!String::from_utf8_lossy(&output.stdout).contains("installed "))
    };
    let mut missing = Vec::new();
    for package in packages {
        if absent(package)? {
            missing.push(*package);
        }
    }
    Ok(missing)
}

fn in_path(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(tool).exists())
}

fn apt(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(arguments);
    let output = command.output().context("apt-get does not start")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "apt-get {}: {said}",
        arguments.join(" ")
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_is_listed_once_and_has_a_purpose() {
        for (package, purpose) in PACKAGES {
            assert!(!purpose.is_empty());
            assert_eq!(
                PACKAGES
                    .iter()
                    .filter(|(other, _)| *other == package)
                    .count(),
                1
            );
        }
    }
}
