//! Goal: what happens between the gateways reaches those whom it concerns: a path with a smaller
//! MTU is learned from the router's error about ESP, the sender's host is told what fits, and TCP
//! goes on; errors out of an SA reach the machine as `icmp.accept_protected` says; dummies are
//! counted at both ends. Method: a router in a namespace of its own in place of the wire, hosts and
//! gateways as their users see them.

use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xipsec_tests::config::{Family, LEFT, RIGHT};
use xipsec_tests::expect::{self, drop_count, live, sa_member};
use xipsec_tests::netns::Namespace;
use xipsec_tests::topology::{Lab, Plan};
use xipsec_tests::{peer, shell};

/// MTU of the way from the left gateway to the right one, bytes.
const PATH: u32 = 1400;

/// A network whose gateways have a router between them. Towards the right gateway it takes packets
/// of [`PATH`] bytes, and says so about longer ones.
fn routed(outer: Family) -> Result<Lab> {
    let mut lab = Lab::new(&Plan {
        outer,
        inner: vec![Family::V4, Family::V6],
        tapped: true,
        ..Plan::default()
    })?;
    let wire = lab.wire.as_ref().context("no wire")?;
    wire.ip("link del wire")?;
    for (port, own, ends) in [
        ("wa", ["192.0.2.251", "2001:db8:9::251"], [&LEFT, &RIGHT]),
        ("wb", ["192.0.2.252", "2001:db8:9::252"], [&RIGHT, &LEFT]),
    ] {
        // It answers for the gateway behind it, whose address lies in the same network.
        wire.sysctl(&format!("net.ipv6.conf.{port}.disable_ipv6"), "0")?;
        wire.sysctl(&format!("net.ipv4.conf.{port}.proxy_arp"), "1")?;
        wire.sysctl(&format!("net.ipv6.conf.{port}.proxy_ndp"), "1")?;
        for family in ["ipv4", "ipv6"] {
            wire.sysctl(&format!("net.{family}.neigh.{port}.proxy_delay"), "0")?;
        }
        wire.ip(&format!("addr add {}/32 dev {port}", own[0]))?;
        wire.ip(&format!("addr add {}/128 dev {port} nodad", own[1]))?;
        let mtu = if port == "wb" { PATH } else { 1500 };
        let [near, far] = ends;
        wire.ip(&format!(
            "route add {}/32 dev {port} mtu {mtu}",
            near.wan[0]
        ))?;
        wire.ip(&format!(
            "-6 route add {}/128 dev {port} mtu {mtu}",
            near.wan[1]
        ))?;
        wire.ip(&format!("-6 neigh add proxy {} dev {port}", far.wan[1]))?;
    }
    wire.sysctl("net.ipv4.ip_forward", "1")?;
    wire.sysctl("net.ipv6.conf.all.forwarding", "1")?;
    lab.start()?;
    for family in [Family::V4, Family::V6] {
        lab.wait_connected(family)?;
    }
    Ok(lab)
}

/// The path MTU that the left gateway has learned for what it sends.
fn learned(lab: &Lab) -> Result<Option<u64>> {
    let sas = lab.left.ask_json(&["sa", "list"])?;
    let sas = sas["sas"]
        .as_array()
        .or(sas.as_array())
        .context("no list")?;
    let out = sas.iter().find(|sa| sa["name"] == "left-to-right");
    Ok(out.context("no such SA")?["path_mtu"].as_u64())
}

/// Counts the bytes of one connection after the other, and tells them to whoever sent them.
const COUNT: &str = r"
import socket
listener = socket.create_server(('::', 4302), family=socket.AF_INET6, dualstack_ipv6=True)
while True:
    connection, count = listener.accept()[0], 0
    while data := connection.recv(65536):
        count += len(data)
    connection.send(str(count).encode())
    connection.close()
";

/// Sends bytes and prints what the other side has counted.
const SEND: &str = r"
import socket, sys
connection = socket.create_connection((sys.argv[1], 4302))
connection.sendall(bytes(3000000))
connection.shutdown(socket.SHUT_WR)
print(connection.recv(100).decode())
";

/// A program that runs [`COUNT`] until it is dropped.
struct Sink(Child);

impl Sink {
    fn start(namespace: &Namespace) -> Result<Self> {
        let mut command = namespace.command(peer::PYTHON);
        command.args(["-c", COUNT]).stdout(Stdio::null());
        let sink = Self(
            command
                .spawn()
                .context("the counting program does not start")?,
        );
        let listens = || Ok(namespace.run("ss -ltn")?.contains(":4302"));
        shell::wait_until("the counting program", Duration::from_secs(10), listens)?;
        Ok(sink)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

//= test T61
//= test T126
#[test]
fn a_smaller_path_is_learned_and_tcp_goes_on() {
    live("a_smaller_path_is_learned_and_tcp_goes_on", || {
        for outer in [Family::V4, Family::V6] {
            let lab = routed(outer)?;
            let checked = smaller_path(&lab, outer);
            lab.explain(checked)
                .with_context(|| format!("{outer:?} outside"))?;
        }
        Ok(())
    });
}

fn smaller_path(lab: &Lab, outer: Family) -> Result<()> {
    ensure!(
        learned(lab)?.is_none(),
        "{:?} before the first long packet",
        learned(lab)?
    );
    // Begins with segments for 1500 bytes, and all arrives: that is all TCP users want to know.
    let sink = Sink::start(&lab.host_b)?;
    for family in [Family::V4, Family::V6] {
        let mut command = lab.host_a.command("timeout");
        command.args(["30", peer::PYTHON, "-c", SEND, RIGHT.host[family.index()]]);
        let said = shell::run(&mut command)?;
        ensure!(said.trim() == "3000000", "{family:?}: {said} arrived");
        ensure!(
            learned(lab)? == Some(u64::from(PATH)),
            "{:?} learned",
            learned(lab)?
        );
    }
    drop(sink);
    // A host that has heard nothing yet is told what fits.
    lab.host_a.ip("route flush cache")?;
    lab.host_a.ip("-6 route flush cache")?;
    let overhead = [54, 74][outer.index()];
    for (family, header) in [(Family::V4, 28), (Family::V6, 48)] {
        // The least that IPv6 must carry is no reason for an error.
        let fits = PATH - overhead;
        let to = RIGHT.host[family.index()];
        let ping = |size: u32| {
            let mut command = lab.host_a.command("ping");
            command.args(["-n", "-c", "2", "-i", "0.1", "-W", "1", "-M", "do", "-s"]);
            let output = shell::output(command.args([&size.to_string(), to]))?;
            anyhow::Ok((output.status.success(), shell::describe(&command, &output)))
        };
        let (answered, said) = ping(fits - header + 1)?;
        ensure!(
            !answered && said.contains(&fits.to_string()),
            "{family:?}: {said}"
        );
        let (answered, said) = ping(fits - header)?;
        ensure!(answered, "{family:?}: {said}");
    }
    ensure!(drop_count(&lab.left.stats()?, "too_big")? >= 3, "no errors");
    lab.check_accounting()
}

/// Sends a datagram from the gateway's inner address to a port of the far host where nobody
/// listens; whether the sender hears of it.
fn hears_refusal(lab: &Lab) -> Result<bool> {
    let script = format!(
        "import socket\n\
         s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
         s.bind(('{}', 0)); s.connect(('{}', 9)); s.settimeout(1)\n\
         s.send(b'anybody?')\n\
         try: s.recv(100)\n\
         except ConnectionRefusedError: print('refused')\n\
         except TimeoutError: print('silence')\n",
        LEFT.lan[0], RIGHT.host[0],
    );
    let mut command = lab.gate_a.command(peer::PYTHON);
    let said = shell::run(command.args(["-c", &script]))?;
    match said.trim() {
        "refused" => Ok(true),
        "silence" => Ok(false),
        other => anyhow::bail!("the asker said {other}"),
    }
}

#[test]
fn errors_out_of_an_sa_are_heard_as_configured() {
    live("errors_out_of_an_sa_are_heard_as_configured", || {
        for (accept, heard) in [
            ("\"any\"", true),
            ("[\"unreachable\"]", true),
            ("[3]", true),
            ("[\"too_big\", \"time_exceeded\"]", false),
            ("\"none\"", false),
        ] {
            let lab = Lab::connected(&Plan {
                dataplane: vec![format!("icmp = {{ accept_protected = {accept} }}")],
                ..Plan::default()
            })?;
            let before = drop_count(&lab.left.stats()?, "policy_discard")?;
            let found = lab.explain(hears_refusal(&lab))?;
            let discarded = drop_count(&lab.left.stats()?, "policy_discard")? - before;
            let wanted = u64::from(!heard);
            ensure!(
                (found, discarded) == (heard, wanted),
                "{accept}: heard {found}, {discarded} discarded\n{}",
                lab.state()
            );
            // A host's own errors are none of the machine's.
            lab.host_a
                .run(&format!("ping -n -q -c 1 -W 2 {}", RIGHT.host[0]))?;
            lab.check_accounting()?;
        }
        Ok(())
    });
}

fn figure(stats: &Value, group: &str, name: &str) -> Result<u64> {
    let value = stats[group][name].as_u64();
    value.with_context(|| format!("no {group}.{name}: {stats}"))
}

//= test T13
//= test T35
//= test T75
#[test]
fn ordered_dummies_are_created_here_and_consumed_there() {
    live(
        "ordered_dummies_are_created_here_and_consumed_there",
        || {
            let lab = Lab::connected(&Plan {
                esn: true,
                ..Plan::default()
            })?;
            let [before, there] = [lab.left.stats()?, lab.right.stats()?];
            // No order is longer than what the other side holds while it reserves numbers on disk.
            for (count, sum) in [("1", 1), ("250", 251), ("250", 501), ("200", 701)] {
                let said = lab.left.ask(&["sa", "dummy", "left-to-right", count])?;
                ensure!(said.is_empty(), "success is quiet: {said}");
                let consumed = || -> Result<u64> {
                    let stats = lab.right.stats()?;
                    expect::accounting(&stats)?;
                    Ok(figure(&stats, "consumed", "dummy")? - figure(&there, "consumed", "dummy")?)
                };
                let limit = Duration::from_secs(5);
                let arrived = shell::wait_until("the dummies", limit, || Ok(consumed()? >= sum));
                lab.explain(arrived)?;
                ensure!(consumed()? == sum, "{} of {sum} consumed", consumed()?);
            }
            let [after, arrived] = [lab.left.stats()?, lab.right.stats()?];
            let created = figure(&after, "accounting", "created")?
                - figure(&before, "accounting", "created")?;
            ensure!(created == 701, "{created} created");
            for (stats, old) in [(&after, &before), (&arrived, &there)] {
                let packets = |stats| sa_member(stats, "left-to-right", "packets");
                let grown = packets(stats)? - packets(old)?;
                ensure!(grown >= 701, "{grown} packets of the SA: {stats}");
                ensure!(stats["drops"] == old["drops"], "{}", stats["drops"]);
            }
            // Nobody else hears of them, and traffic goes on.
            lab.host_a
                .run(&format!("ping -n -q -c 3 -i 0.05 -W 2 {}", RIGHT.host[0]))?;
            for wrong in [["right-to-left", "1"], ["nobody", "1"]] {
                let answer = lab.left.ask(&["sa", "dummy", wrong[0], wrong[1]]);
                ensure!(answer.is_err(), "{wrong:?} was accepted");
            }
            lab.check_accounting()
        },
    );
}
