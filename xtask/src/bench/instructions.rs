//! Instructions a packet, counted by valgrind: the same in every run, whatever else the machine
//! does.
//!
//! The pipeline program runs under callgrind, which counts inside the worker's rounds alone; two
//! runs that differ in nothing but the number of bursts give the difference. valgrind's CPU has no
//! AVX-512 and no VAES, so that the cipher is the AES-NI form.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use xipsec_tests::shell;

use super::program::Programs;

/// The functions whose instructions count, with all that they call.
const COUNTED: &str = "*Worker<*>::*round*";

/// Bursts of the two runs.
const BURSTS: [u64; 2] = [20, 120];

/// Packets of a burst.
const BURST: u64 = 32;

/// The suite that is counted.
const SUITE: &str = "aes128gcm16";

/// Records for both directions; `None` without valgrind.
pub(super) fn count(programs: &Programs, sizes: &[u64]) -> Result<Option<Vec<Value>>> {
    if Command::new("valgrind").arg("--version").output().is_err() {
        return Ok(None);
    }
    let mut records = Vec::new();
    for &size in sizes {
        let out = per_packet(programs, "out", size)?;
        // What arrives is sealed by a worker of the far end, which is counted too.
        let both = per_packet(programs, "in", size)?;
        for (direction, instructions) in [("out", out), ("in", both - out)] {
            records.push(json!({
                "suite": SUITE,
                "size": size,
                "direction": direction,
                "instructions": instructions,
            }));
        }
    }
    Ok(Some(records))
}

fn per_packet(programs: &Programs, direction: &str, size: u64) -> Result<f64> {
    let [few, many] = BURSTS;
    let counted = |bursts| collected(programs, direction, size, bursts);
    let difference = counted(many)?.checked_sub(counted(few)?);
    let difference = difference.context("fewer instructions for more bursts")?;
    Ok(difference as f64 / ((many - few) * BURST) as f64)
}

fn collected(programs: &Programs, direction: &str, size: u64, bursts: u64) -> Result<u64> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    command.arg(format!("--toggle-collect={COUNTED}"));
    command.arg(programs.path("pipeline"));
    command.args(["--kinds=size", "--suites", SUITE]);
    command.arg(format!("--sizes={size}"));
    command.arg(format!("--bursts={bursts}"));
    command.arg(format!("--directions={direction}"));
    let line = shell::line(&command);
    let output = command.output().with_context(|| line.clone())?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{line}: {}\n{said}", output.status);
    total(&said).with_context(|| format!("{line}: no count in\n{said}"))
}

/// The number behind `Collected :`; none where nothing was counted.
fn total(said: &str) -> Option<u64> {
    let line = said.lines().find(|line| line.contains("Collected :"))?;
    let number = line.rsplit(' ').next()?.parse().ok()?;
    (number > 0).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_read_and_none_is_none() {
        let said = "==7== Events    : Ir\n==7== Collected : 1234567\n==7== \n";
        assert_eq!(total(said), Some(1_234_567));
        assert_eq!(total("==7== Collected : 0\n"), None);
        assert_eq!(total("valgrind: no such file"), None);
    }
}
