//! iperf3 between two namespaces.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::netns::Namespace;
use crate::shell;

/// A running `iperf3 -s`. Dropping it ends it.
#[derive(Debug)]
pub struct Server {
    child: Child,
}

impl Server {
    /// Starts the server and waits until it listens.
    ///
    /// # Errors
    /// When it does not.
    pub fn start(namespace: &Namespace) -> Result<Self> {
        let mut command = namespace.command("iperf3");
        command
            .args(["-s"])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let server = Self {
            child: command.spawn().context("iperf3 does not start")?,
        };
        shell::wait_until("iperf3 to listen", Duration::from_secs(5), || {
            Ok(namespace
                .run("ss -H -l -t -n sport = :5201")?
                .contains("5201"))
        })?;
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A client command against the server at `address`, bounded in time, to be run or spawned.
pub fn client(namespace: &Namespace, address: &str, arguments: &str) -> Command {
    let mut command = namespace.command("timeout");
    command.args([
        "60",
        "iperf3",
        "-J",
        "--connect-timeout",
        "3000",
        "-c",
        address,
    ]);
    command.args(arguments.split_whitespace());
    command
}

/// Runs a client and returns its report.
///
/// # Errors
/// When iperf3 fails; the text holds its own error.
pub fn run(namespace: &Namespace, address: &str, arguments: &str) -> Result<Value> {
    let mut command = client(namespace, address, arguments);
    let output = shell::output(&mut command)?;
    let report: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| shell::describe(&command, &output))?;
    match report["error"].as_str() {
        Some(error) => anyhow::bail!("{}: {error}", shell::line(&command)),
        None => Ok(report),
    }
}

/// TCP for `seconds`: bits a second that the receiver got.
///
/// # Errors
/// As [`run`].
pub fn tcp(namespace: &Namespace, address: &str, seconds: u32) -> Result<f64> {
    let report = run(namespace, address, &format!("-t {seconds}"))?;
    let rate = report["end"]["sum_received"]["bits_per_second"].as_f64();
    rate.with_context(|| format!("no rate in {report}"))
}

/// UDP as fast as it goes for `seconds`: datagrams a second that the receiving program got, by the
/// receiver's own counter, since iperf3's loss figure is wrong when nothing arrives.
///
/// # Errors
/// When a counter cannot be read. The client's own failure is a result: its control connection
/// drowns in its own flood at times.
pub fn udp([from, to]: [&Namespace; 2], address: &str, length: u32, seconds: u32) -> Result<f64> {
    let before = datagrams(to)?;
    let arguments = format!("-u -b 0 -l {length} -t {seconds}");
    shell::output(&mut client(from, address, &arguments))?;
    let received = u32::try_from(datagrams(to)? - before)?;
    Ok(f64::from(received) / f64::from(seconds))
}

/// UDP datagrams that programs of a namespace have received.
fn datagrams(namespace: &Namespace) -> Result<u64> {
    let text = namespace.run("cat /proc/net/snmp")?;
    let line = text.lines().filter(|line| line.starts_with("Udp:")).nth(1);
    let field = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(field.context("no UDP counters")?.parse()?)
}
