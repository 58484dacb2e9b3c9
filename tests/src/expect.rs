//! What tests expect of numbers and text, and how a test says that it cannot run here.

use std::io::Write as _;
use std::path::Path;
use std::sync::Mutex;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::guest::NoGuest;
use crate::peer;

/// Live tests load the machine; two at once would measure each other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Runs a live test, or prints `SKIPPED NAME: WHY` where there is no root, no kernel support or no
/// tool. A failing body fails the test with its whole chain of causes.
pub fn live(name: &str, body: impl FnOnce() -> Result<()>) {
    let turn = ONE_AT_A_TIME.lock();
    match missing() {
        Some(why) => skip(name, &why),
        None => conclude(body()),
    }
    drop(turn);
}

/// Runs a live test against a kernel in a guest, or prints why it is skipped: as [`live`], and also
/// where no guest boots.
pub fn with_guest(name: &str, body: impl FnOnce() -> Result<()>) {
    live(name, || match body() {
        Err(error) if error.is::<NoGuest>() => {
            skip(name, &format!("{error:#}"));
            Ok(())
        }
        done => done,
    });
}

/// Runs a test that needs scapy but no privilege, or prints why it is skipped.
pub fn with_scapy(name: &str, body: impl FnOnce() -> Result<()>) {
    if scapy() {
        conclude(body());
    } else {
        skip(name, "python3-scapy is not installed (cargo xtask setup)");
    }
}

/// Prints the line that `cargo xtask test` counts. It goes past the test runner's capture, since a
/// skip that nobody sees is a hole.
pub fn skip(name: &str, why: &str) {
    writeln!(std::io::stderr(), "SKIPPED {name}: {why}").ok();
}

/// Fails the test with the error's whole chain.
///
/// # Panics
/// When `result` is an error: that is its purpose.
#[track_caller]
pub fn conclude(result: Result<()>) {
    if let Err(error) = result {
        // Not {:?}, which adds a backtrace of the harness.
        let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
        panic!("{}", causes.join("\n  because: "));
    }
}

fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root for network namespaces".to_owned());
    }
    let tools = [
        "ip", "nft", "ethtool", "iperf3", "ping", "arping", "tcpdump", "sysctl",
    ];
    let folders = ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/bin"];
    let absent = |tool: &&str| !folders.iter().any(|dir| Path::new(dir).join(tool).exists());
    if let Some(tool) = tools.iter().find(|tool| absent(tool)) {
        return Some(format!("{tool} is not installed (cargo xtask setup)"));
    }
    (!scapy()).then(|| "python3-scapy is not installed (cargo xtask setup)".to_owned())
}

fn scapy() -> bool {
    let mut command = std::process::Command::new(peer::PYTHON);
    command.args(["-c", "import scapy, cryptography"]);
    command.output().is_ok_and(|output| output.status.success())
}

/// Checks the accounting identity and that the drop counters sum up to `dropped`.
///
/// # Errors
/// When they do not; the text shows the numbers.
pub fn accounting(stats: &Value) -> Result<()> {
    let account = &stats["accounting"];
    let sum = |keys: &[&str]| -> Result<u64> {
        let number = |key: &&str| account[*key].as_u64().with_context(|| format!("no {key}"));
        keys.iter().map(number).sum()
    };
    let came = sum(&["rx", "from_host", "created"])?;
    let went = sum(&["tx", "to_host", "dropped", "consumed", "merged", "held"])?;
    ensure!(
        came == went,
        "{came} packets came and {went} ended: {account}"
    );
    let drops = stats["drops"].as_object().context("no drops")?;
    let dropped: u64 = drops.values().filter_map(Value::as_u64).sum();
    ensure!(
        account["dropped"] == dropped,
        "the reasons add up to {dropped}: {account}"
    );
    Ok(())
}

/// One drop counter of a running gateway or a replay.
///
/// # Errors
/// When the document has no such reason.
pub fn drop_count(stats: &Value, reason: &str) -> Result<u64> {
    stats["drops"][reason]
        .as_u64()
        .with_context(|| format!("no drop reason {reason}"))
}

/// One member of the SA called `name`.
///
/// # Errors
/// When the document has no such SA or member.
pub fn sa_member(stats: &Value, name: &str, member: &str) -> Result<u64> {
    let sas = stats["sas"].as_array().context("no sas")?;
    let sa = sas
        .iter()
        .find(|sa| sa["name"] == name)
        .with_context(|| format!("no SA {name}"))?;
    sa[member]
        .as_u64()
        .with_context(|| format!("no number {member}"))
}

/// Checks that no text holds any of the keys, in either case.
///
/// # Errors
/// When one does; the key is not repeated.
pub fn no_keys(text: &str, keys: &[String]) -> Result<()> {
    let lower = text.to_lowercase();
    for key in keys {
        // Half a key is a leak, too.
        let half = &key[..key.len() / 2];
        ensure!(
            !lower.contains(&half.to_lowercase()),
            "key material in the output"
        );
    }
    Ok(())
}
