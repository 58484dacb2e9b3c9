//! Goal: the gateway forwards in every way it can be set up: generic XDP, frames of several pieces,
//! an open guard, unmatched traffic refused. Method: as the hosts and the middle wire see it.

use anyhow::{Context, ensure};
use xipsec_tests::config::{Family, LEFT, RIGHT};
use xipsec_tests::expect::live;
use xipsec_tests::iperf;
use xipsec_tests::proof::Watch;
use xipsec_tests::topology::{Lab, Plan};
use xipsec_tests::veth::End;

fn with(line: &str) -> Plan {
    Plan {
        dataplane: vec![line.to_owned()],
        ..Plan::default()
    }
}

#[test]
fn generic_mode_forwards_and_leaves_offloads_as_they_were() {
    live(
        "generic_mode_forwards_and_leaves_offloads_as_they_were",
        || {
            let mut lab = Lab::new(&with("xdp_mode = \"generic\""))?;
            let merging = |lab: &Lab| lab.gate_a.run("ethtool -k lan0");
            End::new(&lab.gate_a, "lan0").segmentation(true)?;
            for host in [&lab.host_a, &lab.host_b] {
                // Generic XDP sees what the veth's other end hands over, whole: 64 KiB of TSO are
                // no frame. Native mode takes that offload from the other end by itself.
                End::new(host, "eth0").segmentation(false)?;
            }
            let before = merging(&lab)?;
            lab.start()?;
            lab.wait_connected(Family::V4)?;
            let ports = lab.left.ask_json(&["port", "list"])?.to_string();
            ensure!(ports.contains("generic"), "{ports}");
            let during = merging(&lab)?;
            ensure!(during.contains("generic-receive-offload: off"), "{during}");
            let server = iperf::Server::start(&lab.host_b)?;
            for arguments in ["-n 10M", "-n 10M -R", "-u -b 10M -t 1"] {
                lab.explain(iperf::run(&lab.host_a, RIGHT.host[0], arguments))?;
            }
            drop(server);
            lab.check_accounting()?;
            lab.left.stop()?;
            ensure!(merging(&lab)? == before, "not restored: {}", merging(&lab)?);
            lab.right.stop()
        },
    );
}

#[test]
fn long_frames_pass_in_several_pieces() {
    live("long_frames_pass_in_several_pieces", || {
        let mut lab = Lab::new(&Plan::default())?;
        for (namespace, name) in [
            (&lab.host_a, "eth0"),
            (&lab.gate_a, "lan0"),
            (&lab.gate_a, "wan0"),
            (&lab.gate_b, "wan0"),
            (&lab.gate_b, "lan0"),
            (&lab.host_b, "eth0"),
        ] {
            End::new(namespace, name).mtu(9000)?;
        }
        lab.start()?;
        lab.wait_connected(Family::V4)?;
        // The largest that 9000 bytes of wire leave: 9000 − 20 − 8 − 8 − 16 − 2, in whole words.
        for size in [3000, 4000, 8000, 8946 - 28] {
            let ping = format!("ping -n -q -c 5 -i 0.02 -M do -s {size} {}", RIGHT.host[0]);
            let said = lab.explain(lab.host_a.run(&ping))?;
            ensure!(said.contains(" 0% packet loss"), "{size} bytes: {said}");
        }
        let server = iperf::Server::start(&lab.host_b)?;
        for arguments in ["-n 50M", "-n 50M -R", "-u -b 50M -l 8000 -t 1"] {
            lab.explain(iperf::run(&lab.host_a, RIGHT.host[0], arguments))?;
        }
        drop(server);
        lab.check_accounting()?;
        lab.left.stop()?;
        lab.right.stop()
    });
}

#[test]
fn an_open_guard_protects_while_it_runs_and_warns() {
    live("an_open_guard_protects_while_it_runs_and_warns", || {
        let plan = Plan {
            tapped: true,
            ..with("guard = \"open\"")
        };
        let mut lab = Lab::connected(&plan)?;
        ensure!(lab.left.log().contains("warning"), "{}", lab.left.log());
        let tables = lab.gate_a.run("nft list tables")?;
        ensure!(!tables.contains("xipsec"), "{tables}");
        let watch = Watch::start(&lab)?;
        lab.host_a.run("ping -n -q -c 5 -i 0.02 10.2.0.2")?;
        watch.conclude(&lab.sas)?.check()?;
        // What "open" means: after a crash the kernel's own path forwards in the clear.
        lab.left.crash()?;
        lab.right.crash()?;
        let said = lab.host_a.run("ping -n -q -c 3 -i 0.05 -W 2 10.2.0.2");
        said.context("the kernel's path is open").map(drop)
    });
}

#[test]
fn unmatched_traffic_can_be_refused() {
    live("unmatched_traffic_can_be_refused", || {
        let lab = Lab::connected(&with("unmatched = \"discard\""))?;
        for (host, gate, peer, net) in [
            (&lab.host_a, &lab.gate_a, &RIGHT, ["172.16.1", "172.16.2"]),
            (&lab.host_b, &lab.gate_b, &LEFT, ["172.16.2", "172.16.1"]),
        ] {
            End::new(host, "eth0").address(&format!("{}.2/24", net[0]))?;
            End::new(gate, "lan0").address(&format!("{}.1/24", net[0]))?;
            gate.ip(&format!("route add {}.0/24 via {}", net[1], peer.wan[0]))?;
            host.ip(&format!("route add {}.0/24 via {}.1", net[1], net[0]))?;
        }
        ensure!(
            !lab.host_a.pings("172.16.2.2"),
            "transit that no policy names went through: {}",
            lab.state()
        );
        // The machines' own addresses are not transit.
        lab.explain(lab.host_a.run("ping -n -q -c 1 -W 2 172.16.1.1"))?;
        lab.wait_connected(Family::V4)?;
        lab.check_accounting()
    });
}
