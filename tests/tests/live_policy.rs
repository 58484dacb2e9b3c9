//! Goal: policy holds on the wire: what must be protected is refused in the clear, bypass and
//! discard do what they say, and senders learn what does not fit. Method: as their hosts see it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use xipsec_tests::config::{Family, LEFT, RIGHT};
use xipsec_tests::expect::{drop_count, live};
use xipsec_tests::shell;
use xipsec_tests::topology::{Lab, Plan};
use xipsec_tests::veth::End;

/// Bytes of the largest inner packet that AES-GCM in an IPv4 tunnel leaves of 1500: outer header
/// 20, ESP header 8, IV 8, ICV 16, and a multiple of 4 minus the two bytes of the trailer.
const LARGEST_INNER: &str = "1446";

/// Runs a ping that is expected to fail and returns what it said.
fn failing_ping(lab: &Lab, arguments: &str) -> Result<String> {
    let mut command = lab.host_a.command("ping");
    command
        .args(["-n", "-W", "1"])
        .args(arguments.split_whitespace());
    let output = shell::output(&mut command)?;
    Ok(shell::describe(&command, &output))
}

#[test]
fn clear_traffic_that_policy_protects_is_refused() {
    live("clear_traffic_that_policy_protects_is_refused", || {
        let mut lab = Lab::connected(&Plan::default())?;
        // A clean stop takes the right gateway's guard away: its kernel forwards in the clear.
        lab.right.stop()?;
        let before = drop_count(&lab.left.stats()?, "plaintext_required_protection")?;
        let ping = lab.host_b.run("ping -n -q -c 5 -i 0.05 -W 1 10.1.0.2");
        ensure!(ping.is_err(), "a clear ping was answered");
        let stats = lab.left.stats()?;
        let dropped = drop_count(&stats, "plaintext_required_protection")? - before;
        ensure!(
            dropped == 5,
            "{dropped} of 5 were counted: {}",
            stats["drops"]
        );
        ensure!(
            !lab.host_b.pings("10.1.0.1"),
            "the gateway's inner address answered in the clear"
        );
        ensure!(
            lab.host_b.pings(LEFT.wan[0]),
            "no policy protects the gateway's outer address"
        );
        Ok(())
    });
}

#[test]
fn bypass_and_discard_stand_in_their_order() {
    live("bypass_and_discard_stand_in_their_order", || {
        let policy = |name: &str, direction, action, port: u16, priority| {
            let side = if direction == "out" {
                "remote_port"
            } else {
                "local_port"
            };
            format!(
                "[[policy]]\nname = \"{name}\"\ndirection = \"{direction}\"\n\
                 action = \"{action}\"\nlocal = \"any\"\nremote = \"any\"\nprotocol = \"udp\"\n\
                 {side} = {port}\npriority = {priority}\n\n"
            )
        };
        let tables = policy("drop", "out", "discard", 7777, 10)
            + &policy("late", "out", "discard", 7778, 200);
        let lab = Lab::connected(&Plan {
            tables,
            ..Plan::default()
        })?;
        let send = "import socket; s = socket.socket(2, 2)\n";
        for port in [7777, 7778] {
            let line = format!("{send}for i in range(3): s.sendto(b'x', ('10.2.0.2', {port}))");
            let mut command = lab.host_a.command(xipsec_tests::peer::PYTHON);
            shell::run(command.args(["-c", &line]))?;
        }
        lab.wait_connected(Family::V4)?;
        let stats = lab.left.stats()?;
        let dropped = drop_count(&stats, "policy_discard")?;
        ensure!(
            dropped == 3,
            "{dropped} discarded, the later policy must not: {}",
            lab.state()
        );
        lab.check_accounting()
    });
}

#[test]
fn unmatched_traffic_takes_the_kernels_path() {
    live("unmatched_traffic_takes_the_kernels_path", || {
        let lab = Lab::connected(&Plan::default())?;
        for (host, gate, peer, net) in [
            (&lab.host_a, &lab.gate_a, &RIGHT, "172.16.1"),
            (&lab.host_b, &lab.gate_b, &LEFT, "172.16.2"),
        ] {
            End::new(host, "eth0").address(&format!("{net}.2/24"))?;
            End::new(gate, "lan0").address(&format!("{net}.1/24"))?;
            let other = if net.ends_with('1') {
                "172.16.2"
            } else {
                "172.16.1"
            };
            gate.ip(&format!("route add {other}.0/24 via {}", peer.wan[0]))?;
            host.ip(&format!("route add {other}.0/24 via {net}.1"))?;
        }
        let said = lab.host_a.run("ping -n -q -c 3 -i 0.05 -W 1 172.16.2.2");
        lab.explain(said).map(drop)
    });
}

#[test]
fn too_long_packets_are_told_what_fits() {
    live("too_long_packets_are_told_what_fits", || {
        let inner = vec![Family::V4, Family::V6];
        let lab = Lab::connected(&Plan {
            inner,
            ..Plan::default()
        })?;
        let said = failing_ping(&lab, "-c 2 -i 0.1 -M do -s 1472 10.2.0.2")?;
        ensure!(said.contains(&format!("mtu = {LARGEST_INNER}")), "{said}");
        let said = failing_ping(&lab, "-c 2 -i 0.1 -M do -s 1452 fd00:2::2")?;
        ensure!(said.contains(LARGEST_INNER), "{said}");
        // Just what fits passes.
        lab.host_a
            .run("ping -n -q -c 2 -i 0.1 -M do -s 1418 10.2.0.2")?;
        let stats = lab.left.stats()?;
        ensure!(drop_count(&stats, "too_big")? >= 1, "{stats}");
        lab.check_accounting()
    });
}

#[test]
fn too_big_behind_the_tunnel_comes_back_through_it() {
    live("too_big_behind_the_tunnel_comes_back_through_it", || {
        let mut lab = Lab::new(&Plan::default())?;
        End::new(&lab.gate_b, "lan0").mtu(1300)?;
        End::new(&lab.host_b, "eth0").mtu(1300)?;
        lab.start()?;
        lab.wait_connected(Family::V4)?;
        let said = failing_ping(&lab, "-c 2 -i 0.1 -M do -s 1372 10.2.0.2")?;
        ensure!(said.contains("mtu = 1300"), "{said}\n{}", lab.state());
        ensure!(said.contains("From 10.2.0.1"), "{said}");
        lab.check_accounting()
    });
}

#[test]
fn hop_limits_end_on_either_side_of_the_tunnel() {
    live("hop_limits_end_on_either_side_of_the_tunnel", || {
        let inner = vec![Family::V4, Family::V6];
        let lab = Lab::connected(&Plan {
            inner,
            ..Plan::default()
        })?;
        for (hops, from, to) in [
            (1, LEFT.lan[0], RIGHT.host[0]),
            (2, RIGHT.lan[0], RIGHT.host[0]),
            (1, LEFT.lan[1], RIGHT.host[1]),
            (2, RIGHT.lan[1], RIGHT.host[1]),
        ] {
            let said = failing_ping(&lab, &format!("-c 1 -t {hops} {to}"))?;
            let found = said.contains(&format!("From {from}"));
            let exceeded = said.contains("Time to live exceeded") || said.contains("Hop limit");
            ensure!(
                found && exceeded,
                "{hops} hops to {to}: {said}\n{}",
                lab.state()
            );
        }
        lab.host_a
            .run("ping -n -q -c 1 -t 3 10.2.0.2")
            .context("three hops suffice")?;
        ensure!(drop_count(&lab.left.stats()?, "hop_limit")? >= 2);
        ensure!(drop_count(&lab.right.stats()?, "hop_limit")? >= 2);
        lab.check_accounting()
    });
}

#[test]
fn a_route_that_changes_is_followed() {
    live("a_route_that_changes_is_followed", || {
        let lab = Lab::connected(&Plan::default())?;
        // A second protected host behind the right gateway, known by a route only.
        let extra = End::new(&lab.host_b, "lo");
        extra.address("10.2.0.77/32")?;
        lab.gate_b.ip("route add 10.2.0.77/32 via 10.2.0.2")?;
        let ping = "ping -n -q -c 2 -i 0.1 -W 2 10.2.0.77";
        lab.explain(lab.host_a.run(ping))?;
        lab.gate_b.ip("route replace blackhole 10.2.0.77/32")?;
        shell::wait_until(
            "the blackhole to be mirrored",
            Duration::from_secs(3),
            || Ok(!lab.host_a.pings("10.2.0.77")),
        )?;
        // The address of a neighbour changes, as when a host is replaced.
        lab.gate_b.ip("route del 10.2.0.77/32")?;
        lab.host_b.ip("link set eth0 down")?;
        lab.host_b.ip("link set eth0 address 02:00:00:00:77:77")?;
        lab.host_b.ip("link set eth0 up")?;
        lab.host_b.ip("route replace default via 10.2.0.1")?;
        lab.host_b.run("ping -n -q -c 1 -W 2 10.2.0.1")?;
        lab.wait_connected(Family::V4)?;
        ensure!(End::new(&lab.host_b, "eth0").mac()? == "02:00:00:00:77:77");
        lab.check_accounting()
    });
}
