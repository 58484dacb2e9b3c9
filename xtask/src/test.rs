//! `cargo xtask test`: everything that must hold, in one run, ended by one line of totals.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use xipsec_tests::binary;

use crate::{cargo, fuzz, setup, tidy};

/// The profile of everything that is built for tests.
const PROFILE: &str = "ci";

/// Results so far. A part that is no test program counts as one test.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Totals {
    passed: u64,
    failed: u64,
    skipped: u64,
    /// Skips that tests printed: the test runner knows no skipping at run time and calls them
    /// passed, and its line may come before or after theirs.
    announced: u64,
}

impl Totals {
    /// The totals with announced skips moved from the passed to the skipped.
    fn settled(self) -> Self {
        let passed = self.passed.saturating_sub(self.announced);
        Self {
            passed,
            skipped: self.skipped + self.announced,
            announced: 0,
            ..self
        }
    }

    /// Adds what a line of a test program's output says.
    fn read(&mut self, line: &str) {
        if let Some(counts) = line.strip_prefix("test result: ") {
            self.passed += count(counts, " passed");
            self.failed += count(counts, " failed");
            self.skipped += count(counts, " ignored");
        } else if line.starts_with("SKIPPED ") {
            self.announced += 1;
        }
    }
}

/// The number in front of `label` in a line like `ok. 12 passed; 0 failed`.
fn count(text: &str, label: &str) -> u64 {
    let before = text.split(label).next().unwrap_or_default();
    let digits = before
        .rsplit(|c: char| !c.is_ascii_digit())
        .next()
        .unwrap_or_default();
    if text.contains(label) {
        digits.parse().unwrap_or(0)
    } else {
        0
    }
}

/// One run of all parts: totals, and how long each part took.
#[derive(Default)]
struct Run {
    totals: Totals,
    times: Vec<(&'static str, Duration, &'static str)>,
}

impl Run {
    /// Runs one part that passes or fails as a whole.
    fn part(&mut self, name: &'static str, work: impl FnOnce() -> Result<()>) -> bool {
        self.counted(name, || {
            work()?;
            Ok(Totals {
                passed: 1,
                ..Totals::default()
            })
        })
    }

    /// Runs one part that counts for itself. An error is one failure more.
    fn counted(&mut self, name: &'static str, work: impl FnOnce() -> Result<Totals>) -> bool {
        println!("--- {name}");
        let start = Instant::now();
        let totals = work().unwrap_or_else(|error| {
            eprintln!("{name}: {error:#}");
            Totals {
                failed: 1,
                ..Totals::default()
            }
        });
        self.totals.passed += totals.passed;
        self.totals.failed += totals.failed;
        self.totals.skipped += totals.skipped;
        let ok = totals.failed == 0;
        self.times
            .push((name, start.elapsed(), if ok { "ok" } else { "FAILED" }));
        ok
    }

    /// Prints times and totals; an error if anything failed.
    fn conclude(&self) -> Result<()> {
        println!("--- times");
        for (name, time, outcome) in &self.times {
            println!("{name:<24} {:>7.1} s  {outcome}", time.as_secs_f64());
        }
        let Totals {
            passed,
            failed,
            skipped,
            ..
        } = self.totals;
        println!("{passed} passed, {failed} failed, {skipped} skipped");
        if failed > 0 {
            bail!("{failed} failed");
        }
        Ok(())
    }
}

/// Runs every part, whatever becomes of the ones before it.
pub(crate) fn run() -> Result<()> {
    let mut run = Run::default();
    if run.part("setup", setup::run) {
        // First, while this program is still the file that it was started from: the tests build it
        // anew.
        run.counted("XDP object", object);
        run.part("format", || cargo::run(&["fmt", "--all", "--check"]));
        run.part("tidy", tidy::run);
        let lints = [
            "--workspace",
            "--all-targets",
            "--quiet",
            "--",
            "-D",
            "warnings",
        ];
        let clippy: Vec<&str> = ["clippy", "--profile", PROFILE]
            .into_iter()
            .chain(lints)
            .collect();
        run.part("lints", || cargo::run(&clippy));
        let build = [
            "build",
            "--profile",
            PROFILE,
            "--workspace",
            "--bins",
            "--quiet",
        ];
        if run.part("build", || cargo::run(&build)) {
            run.counted("tests", tests);
            run.counted("fuzzing", fuzzing);
        }
    }
    run.conclude()
}

/// Unit, property, black-box and live tests of the whole workspace.
fn tests() -> Result<Totals> {
    let mut command = cargo::command(&["test", "--profile", PROFILE, "--workspace"]);
    command.arg("--no-fail-fast");
    command.env("XIPSEC_BIN", binary::target().join(PROFILE).join("xipsec"));
    let (success, mut totals) = watch(command)?;
    if !success && totals.failed == 0 {
        // It did not compile, or a test program died before it could say how its tests went.
        totals.failed = 1;
    }
    Ok(totals)
}

/// Every fuzzing target for some seconds, where this machine can build them.
fn fuzzing() -> Result<Totals> {
    if let Some(why) = fuzz::missing() {
        println!("SKIPPED fuzzing: {why}");
        return Ok(Totals {
            skipped: 1,
            ..Totals::default()
        });
    }
    fuzz::run(&fuzz::Options::SHORT)?;
    Ok(Totals {
        passed: 1,
        ..Totals::default()
    })
}

/// The committed XDP object against its sources, by this program itself so that its verdict can be
/// read.
fn object() -> Result<Totals> {
    let mut command = Command::new(std::env::current_exe()?);
    let output = command
        .args(["ebpf", "--check"])
        .stderr(Stdio::inherit())
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    print!("{said}");
    let skipped = u64::from(output.status.success() && said.contains("skipped"));
    let passed = u64::from(output.status.success()) - skipped;
    Ok(Totals {
        passed,
        skipped,
        failed: 1 - passed - skipped,
        announced: 0,
    })
}

/// Runs a command with its outputs passed on line by line, and counts what they say.
fn watch(mut command: Command) -> Result<(bool, Totals)> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("cargo does not start")?;
    let totals = Arc::new(Mutex::new(Totals::default()));
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let readers = [
        reader(out.context("no output")?, Arc::clone(&totals), |line| {
            println!("{line}")
        }),
        reader(err.context("no output")?, Arc::clone(&totals), |line| {
            eprintln!("{line}")
        }),
    ];
    for reader in readers {
        reader
            .join()
            .map_err(|_| anyhow::anyhow!("the reader of the tests' output died"))?;
    }
    let status = child.wait()?;
    let totals = *totals.lock().unwrap_or_else(PoisonError::into_inner);
    Ok((status.success(), totals.settled()))
}

fn reader(
    stream: impl Read + Send + 'static,
    totals: Arc<Mutex<Totals>>,
    pass_on: impl Fn(&str) + Send + 'static,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            totals
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .read(&line);
            pass_on(&line);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_follow_the_test_programs() {
        let mut totals = Totals::default();
        totals.read("test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured");
        totals.read("test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured");
        totals.read("SKIPPED ping: needs root");
        totals.read("test packets::malformed ... ok");
        assert_eq!(
            totals.settled(),
            Totals {
                passed: 14,
                failed: 2,
                skipped: 2,
                announced: 0
            }
        );
    }

    #[test]
    fn a_skip_may_be_read_before_its_result() {
        let mut totals = Totals::default();
        totals.read("SKIPPED ping: needs root");
        totals.read("test result: ok. 1 passed; 0 failed; 0 ignored");
        assert_eq!(
            totals.settled(),
            Totals {
                skipped: 1,
                ..Totals::default()
            }
        );
    }
}
