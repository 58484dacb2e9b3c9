//! `cargo xtask fuzz`: builds the fuzzing program with coverage instrumentation, runs its targets.
//!
//! The flags are those of cargo-fuzz without its sanitizers, and stable Rust takes them; what is
//! needed beside it is a C++ compiler for libFuzzer. `cargo test` replays the corpora without any
//! of this.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use xipsec_tests::binary;

use crate::cargo;

/// Targets, as `fuzz/targets` names them.
const TARGETS: [&str; 9] = [
    "wire", "crypto", "inbound", "outbound", "quote", "config", "control", "capture", "state",
];

/// Edge counters, and the operands of comparisons.
const INSTRUMENTATION: &str = "-Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Longest input, bytes: a burst of packets, or a file of a few tables.
const LONGEST: u32 = 6000;

/// What to fuzz, and for how long.
#[derive(Args)]
pub(crate) struct Options {
    /// One target; left out: all of them, one after the other
    #[arg(value_parser = TARGETS)]
    target: Option<String>,
    /// Time for each target
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

impl Options {
    /// The short form of `cargo xtask test`.
    pub(crate) const SHORT: Self = Self {
        target: None,
        seconds: 5,
    };
}

/// What one target's run has done.
struct Figures {
    executions: u64,
    coverage: [u64; 2],
}

/// Why this machine cannot fuzz, if so.
pub(crate) fn missing() -> Option<&'static str> {
    let compiler = Command::new("c++").arg("--version").output();
    let there = compiler.is_ok_and(|output| output.status.success());
    (!there).then_some("no C++ compiler, which libFuzzer wants")
}

/// Runs the targets; an error if one of them found something.
pub(crate) fn run(options: &Options) -> Result<()> {
    if let Some(why) = missing() {
        bail!("{why} (apt-get install g++)");
    }
    let program = build()?;
    let chosen = |name: &&&str| options.target.as_deref().is_none_or(|only| only == **name);
    let mut found = Vec::new();
    println!("target     seconds  executions  edges at first  edges at last");
    for name in TARGETS.iter().filter(chosen) {
        match one(&program, name, options.seconds)? {
            Some(Figures {
                executions,
                coverage: [first, last],
            }) => println!(
                "{name:<10} {:>7}  {executions:>10}  {first:>14}  {last:>13}",
                options.seconds
            ),
            None => found.push(*name),
        }
    }
    ensure!(
        found.is_empty(),
        "{} found something: see {} (copy what it names to fuzz/corpus/TARGET/crash-WHAT, mend)",
        found.join(", "),
        folder("crashes").display(),
    );
    Ok(())
}

fn folder(name: &str) -> PathBuf {
    binary::target().join("fuzz").join(name)
}

/// Builds for an explicit target, so that build scripts and macros are not instrumented.
fn build() -> Result<PathBuf> {
    let version = Command::new("rustc").arg("-vV").output();
    let version = String::from_utf8(version.context("rustc does not start")?.stdout)?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("rustc names no host")?;
    let target = binary::target().join("fuzz");
    let mut command = cargo::command(&["build", "--release", "--quiet", "--target", host]);
    command
        .arg("--manifest-path=fuzz/Cargo.toml")
        .arg("--target-dir")
        .arg(&target)
        .env("RUSTFLAGS", INSTRUMENTATION);
    let status = command.status().context("cargo does not start")?;
    ensure!(status.success(), "the fuzzing program does not build");
    Ok(target.join(host).join("release/xipsec-fuzz"))
}

/// Runs one target: its figures, or nothing if it found something.
fn one(program: &Path, name: &str, seconds: u32) -> Result<Option<Figures>> {
    let (grown, crashes) = (folder("corpus").join(name), folder("crashes"));
    fs::create_dir_all(&grown)?;
    fs::create_dir_all(&crashes)?;
    let log = crashes.join(format!("{name}.log"));
    let status = Command::new(program)
        .env("XIPSEC_FUZZ_TARGET", name)
        .env("XIPSEC_FUZZ_SEEDS", &grown)
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={LONGEST}"))
        .arg(format!("-artifact_prefix={}/{name}-", crashes.display()))
        .args(["-timeout=20", "-rss_limit_mb=4096", "-print_final_stats=1"])
        .arg(&grown)
        .arg(binary::workspace().join("fuzz/corpus").join(name))
        .stderr(fs::File::create(&log)?)
        .stdout(Stdio::null())
        .status()
        .with_context(|| format!("{} does not start", program.display()))?;
    let said = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    if !status.success() {
        let lines = said.lines().skip_while(|line| !line.contains("panicked"));
        for line in lines.take(3) {
            eprintln!("{name}: {line}");
        }
        eprintln!("{name}: {}", log.display());
        return Ok(None);
    }
    Ok(Some(figures(&said)))
}

/// Reads libFuzzer's own account.
fn figures(said: &str) -> Figures {
    let number = |line: &str, label: &str| -> Option<u64> {
        let rest = line.split(label).nth(1)?;
        rest.split_whitespace().next()?.parse().ok()
    };
    let mut edges = said.lines().filter_map(|line| number(line, " cov: "));
    let first = edges.next().unwrap_or(0);
    let executions = said
        .lines()
        .find_map(|line| number(line, "stat::number_of_executed_units:"));
    Figures {
        executions: executions.unwrap_or(0),
        coverage: [first, edges.next_back().unwrap_or(first)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_what_the_program_says() {
        let said = "#2\tINITED cov: 258 ft: 300 corp: 3/1b exec/s: 0\n\
                    #900\tNEW    cov: 412 ft: 500 corp: 9/9b\n\
                    stat::number_of_executed_units: 1884\n";
        let figures = figures(said);
        assert_eq!(figures.executions, 1884);
        assert_eq!(figures.coverage, [258, 412]);
    }

    #[test]
    fn the_targets_are_those_of_the_library() {
        let library = binary::workspace().join("fuzz/targets/src/lib.rs");
        let text = fs::read_to_string(library).expect("the targets' library");
        let names: Vec<&str> = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("name: \"")?.strip_suffix("\","))
            .collect();
        assert_eq!(names, TARGETS);
    }
}
