//! Goal: what cannot work is refused at start with one line that says what to do. Method: a
//! namespace with the wrong kind of interface, or with one that is in use.

use std::fs;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use xipsec_tests::config::{Config, LEFT, text};
use xipsec_tests::expect::{live, skip};
use xipsec_tests::netns::{Namespace, unique_group};
use xipsec_tests::topology::{Lab, Plan};
use xipsec_tests::veth::{self, End};
use xipsec_tests::{binary, files, replay, shell, suite};

/// A namespace with two good interfaces, `wan0` and `lan0`, both ends of their own wires.
fn machine() -> Result<Namespace> {
    let namespace = Namespace::new(&unique_group(false), "refusal")?;
    for (name, address) in [("wan0", "192.0.2.1/24"), ("lan0", "10.1.0.1/24")] {
        let other = format!("{name}p");
        veth::connect(End::new(&namespace, name), End::new(&namespace, &other), 1)?;
        End::new(&namespace, name).address(address)?;
    }
    Ok(namespace)
}

/// Runs a gateway that must refuse, and returns its output. `change` edits the configuration.
fn refused(namespace: &Namespace, change: impl Fn(&str) -> String) -> Result<Output> {
    let directory = files::directory(false)?;
    let state = directory.path().join("state");
    fs::create_dir(&state)?;
    let sas = replay::sas(xipsec_tests::config::Family::V4, suite::AES128GCM16);
    let mut config = Config::default();
    let socket = directory.path().join("control.sock");
    config.dataplane(&[
        text("control_socket", &socket.to_string_lossy()),
        text("state_dir", &state.to_string_lossy()),
    ]);
    config
        .port("wan0", "unprotected", &[])
        .port("lan0", "protected", &[]);
    config
        .sa(&sas[0], "out")
        .protect("out", "out", [LEFT.net[0], "10.2.0.0/24"], &sas[0].name);
    let file = directory.path().join("xipsec.toml");
    fs::write(&file, change(config.text()))?;
    let mut init = binary::command()?;
    shell::output(init.args(["state", "init", "--config"]).arg(&file))?;
    let mut command = namespace.command("timeout");
    command
        .arg("20")
        .arg(binary::xipsec()?)
        .args(["run", "--config"])
        .arg(&file);
    let output = shell::output(&mut command)?;
    ensure!(!socket.exists(), "a refused start left its socket");
    Ok(output)
}

/// The one line of refusal; warnings aside there must be no other.
fn refusal(output: &Output) -> Result<String> {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1), "{}: {said}", output.status);
    ensure!(output.stdout.is_empty(), "a refusal is no result");
    let lines = said.lines().filter(|line| line.starts_with("xipsec: "));
    let lines: Vec<&str> = lines
        .filter(|line| !line.starts_with("xipsec: warning: "))
        .collect();
    ensure!(lines.len() == 1, "not one line: {said}");
    ensure!(
        lines[0].contains('(') && lines[0].ends_with(')'),
        "no advice: {}",
        lines[0]
    );
    Ok(lines[0].to_owned())
}

/// Puts `name` in the place of `wan0`, started on an interface that `make` creates.
fn refuses_kind(kind: &str, make: &str) -> Result<()> {
    let namespace = machine()?;
    if let Err(error) = namespace.ip(make) {
        let why = error.to_string();
        skip(
            &format!("a_port_of_kind_{kind}"),
            why.lines().last().unwrap_or("no such device"),
        );
        return Ok(());
    }
    namespace.ip("link set odd0 up").ok();
    let output = refused(&namespace, |config| config.replace("\"wan0\"", "\"odd0\""))?;
    let line = refusal(&output).with_context(|| kind.to_owned())?;
    ensure!(line.contains("odd0"), "{line}");
    ensure!(
        line.to_lowercase().contains(kind),
        "the line does not say {kind}: {line}"
    );
    Ok(())
}

#[test]
fn ports_of_the_wrong_kind() {
    live("ports_of_the_wrong_kind", || {
        refuses_kind("bridge", "link add odd0 type bridge")?;
        refuses_kind("macvlan", "link add odd0 link wan0p type macvlan")?;
        refuses_kind("tun", "tuntap add dev odd0 mode tun")?;
        refuses_kind("bond", "link add odd0 type bond")?;
        refuses_kind("vlan", "link add odd0 link wan0p type vlan id 7")
    });
}

#[test]
fn a_port_that_is_not_there() {
    live("a_port_that_is_not_there", || {
        let output = refused(&machine()?, |config| config.replace("\"lan0\"", "\"lan9\""))?;
        let line = refusal(&output)?;
        ensure!(line.contains("lan9"), "{line}");
        Ok(())
    });
}

#[test]
fn more_workers_than_queues() {
    live("more_workers_than_queues", || {
        let workers = |config: &str| config.replacen("[dataplane]", "[dataplane]\nworkers = 2", 1);
        let line = refusal(&refused(&machine()?, workers)?)?;
        ensure!(line.contains("ethtool -L"), "{line}");
        Ok(())
    });
}

#[test]
fn huge_pages_that_are_not_there() {
    live("huge_pages_that_are_not_there", || {
        let namespace = machine()?;
        // 64 GiB for each of two sockets.
        let memory = "[dataplane]\numem = { frames = 16777216, huge_pages = true }";
        let config = |config: &str| config.replacen("[dataplane]", memory, 1);
        let line = refusal(&refused(&namespace, config)?)?;
        ensure!(line.contains("of 2 sockets"), "{line}");
        ensure!(line.contains("sysctl -w vm.nr_hugepages="), "{line}");
        let tables = namespace.run("nft list tables")?;
        ensure!(!tables.contains("xipsec"), "it touched {tables}");
        Ok(())
    });
}

#[test]
fn a_second_gateway_in_one_namespace() {
    live("a_second_gateway_in_one_namespace", || {
        let lab = Lab::started(&Plan::default())?;
        // The same ports for a second gateway with files of its own.
        let own = "[dataplane]\nhost_port = \"\"";
        let second = |config: &str| config.replacen("[dataplane]", own, 1);
        let output = refused(&lab.gate_a, second)?;
        let line = refusal(&output)?;
        ensure!(line.contains("another gateway"), "{line}");
        // What the first one owns in the kernel is still there.
        lab.gate_a
            .run("nft list table inet xipsec")
            .context("the first one's guard")?;
        lab.gate_a
            .ip("link show xipsec0")
            .context("the first one's host port")?;
        lab.wait_connected(xipsec_tests::config::Family::V4)
            .context("the first goes on")
    });
}

#[test]
fn a_missing_privilege() {
    live("a_missing_privilege", || {
        let namespace = machine()?;
        let directory = files::directory(false)?;
        let file = directory.path().join("xipsec.toml");
        let mut config = Config::default();
        config.dataplane(&[
            text(
                "control_socket",
                &directory.path().join("s").to_string_lossy(),
            ),
            text("state_dir", ""),
        ]);
        config
            .port("wan0", "unprotected", &[])
            .port("lan0", "protected", &[]);
        config.write(&file)?;
        let mut command = namespace.command("setpriv");
        command.args(["--bounding-set", "-all", "--inh-caps", "-all"]);
        command
            .arg(binary::xipsec()?)
            .args(["run", "--config"])
            .arg(&file);
        let line = refusal(&shell::output(&mut command)?)?;
        ensure!(line.contains("CAP_") || line.contains("root"), "{line}");
        Ok(())
    });
}

#[test]
fn uninitialised_state() {
    live("uninitialised_state", || {
        let lab = Lab::new(&Plan::default())?;
        let mut command = lab.gate_a.command("timeout");
        command
            .arg("20")
            .arg(binary::xipsec()?)
            .args(["run", "--config"])
            .arg(lab.left.config());
        let line = refusal(&shell::output(&mut command)?)?;
        ensure!(line.contains("state init"), "{line}");
        Ok(())
    });
}

#[test]
fn status_of_what_does_not_run() {
    live("status_of_what_does_not_run", || {
        let lab = Lab::new(&Plan::default())?;
        let start = Instant::now();
        for words in [
            &["status"][..],
            &["sa", "list"],
            &["policy", "list"],
            &["stats"],
        ] {
            let mut command: Command = binary::command()?;
            let output = shell::output(command.args(words).arg("--socket").arg(lab.left.socket()))?;
            refusal(&output).with_context(|| words.join(" "))?;
        }
        ensure!(
            start.elapsed() < Duration::from_secs(5),
            "an absent gateway is no reason to wait"
        );
        Ok(())
    });
}
