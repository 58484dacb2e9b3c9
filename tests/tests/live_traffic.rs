//! Goal: two gateways carry what hosts send. Method: four namespaces, real programs on both hosts,
//! and for the families the proof by capture of the middle wire.

use anyhow::{Context, Result, ensure};
use xipsec_tests::config::{Family, LEFT, RIGHT, Sa};
use xipsec_tests::expect::{live, sa_member};
use xipsec_tests::iperf;
use xipsec_tests::proof::Watch;
use xipsec_tests::suite;
use xipsec_tests::topology::{Lab, Plan};
use xipsec_tests::veth::End;

#[test]
fn ping_both_ways() {
    live("ping_both_ways", || {
        let lab = Lab::connected(&Plan::default())?;
        for (host, peer) in [(&lab.host_a, &RIGHT), (&lab.host_b, &LEFT)] {
            let said = host.run(&format!("ping -n -c 10 -i 0.02 {}", peer.host[0]));
            ensure!(lab.explain(said)?.contains(" 0% packet loss"));
        }
        let stats = lab.left.stats()?;
        ensure!(sa_member(&stats, "left-to-right", "packets")? >= 20);
        ensure!(sa_member(&stats, "right-to-left", "packets")? >= 20);
        lab.check_accounting()
    });
}

#[test]
fn every_suite_carries_a_ping() {
    live("every_suite_carries_a_ping", || {
        for suite in suite::ALL {
            for esn in [false, true] {
                let plan = Plan {
                    suite,
                    esn,
                    tapped: true,
                    ..Plan::default()
                };
                let lab = Lab::connected(&plan)?;
                let watch = Watch::start(&lab)?;
                lab.host_a.run("ping -n -q -c 5 -i 0.02 10.2.0.2")?;
                let evidence = watch.conclude(&lab.sas)?;
                let name = suite.name();
                evidence
                    .check()
                    .with_context(|| format!("{name}, esn {esn}"))?;
                ensure!(evidence.carried == evidence.sent, "{name}: {evidence:?}");
                lab.check_accounting()?;
            }
        }
        Ok(())
    });
}

#[test]
fn big_pings_are_fragmented_and_arrive() {
    live("big_pings_are_fragmented_and_arrive", || {
        let inner = vec![Family::V4, Family::V6];
        let lab = Lab::connected(&Plan {
            inner,
            ..Plan::default()
        })?;
        for (host, peer) in [(&lab.host_a, &RIGHT), (&lab.host_b, &LEFT)] {
            for size in [1400, 1418, 1419, 1472, 1473, 4000, 20000] {
                // Without DF: the first over-long packet is cut by the gateway, not refused.
                let said = host.run(&format!(
                    "ping -n -c 3 -i 0.05 -M dont -s {size} {}",
                    peer.host[0]
                ));
                let said = lab.explain(said).with_context(|| format!("{size} bytes"))?;
                ensure!(said.contains(" 0% packet loss"), "{said}");
            }
            // IPv6 sources cut by themselves, to what the gateway's answer tells them.
            for size in [1300, 1500, 4000] {
                let said = host.run(&format!("ping -n -c 6 -i 0.1 -s {size} {}", peer.host[1]));
                lab.explain(said)
                    .with_context(|| format!("IPv6, {size} bytes"))?;
            }
        }
        lab.check_accounting()
    });
}

#[test]
fn tcp_and_udp_both_ways_with_offloads_as_veth_has_them() {
    live(
        "tcp_and_udp_both_ways_with_offloads_as_veth_has_them",
        || {
            let lab = Lab::connected(&Plan::default())?;
            let features = lab.host_a.run("ethtool -k eth0")?;
            ensure!(
                features.contains("tx-checksumming: on"),
                "veth offers unfinished checksums"
            );
            let server = iperf::Server::start(&lab.host_b)?;
            let peer = RIGHT.host[0];
            for arguments in ["-n 20M", "-n 20M -R", "-n 10M --bidir", "-n 10M -P 4"] {
                lab.explain(iperf::run(&lab.host_a, peer, arguments))?;
            }
            for arguments in [
                "-u -b 20M -t 1",
                "-u -b 20M -t 1 -R",
                "-u -b 5M -l 100 -t 1",
            ] {
                let report = lab.explain(iperf::run(&lab.host_a, peer, arguments))?;
                let lost = report["end"]["sum"]["lost_percent"]
                    .as_f64()
                    .context("no loss figure")?;
                ensure!(lost < 1.0, "{arguments}: {lost} % lost\n{}", lab.state());
            }
            drop(server);
            lab.check_accounting()
        },
    );
}

#[test]
fn two_queues_and_two_workers() {
    live("two_queues_and_two_workers", || {
        let dataplane = vec!["workers = 2".to_owned()];
        let mut lab = Lab::connected(&Plan {
            queues: 2,
            dataplane,
            ..Plan::default()
        })?;
        let server = iperf::Server::start(&lab.host_b)?;
        for arguments in ["-n 20M -P 8", "-n 20M -P 8 -R", "-u -b 20M -P 4 -t 1"] {
            lab.explain(iperf::run(&lab.host_a, RIGHT.host[0], arguments))?;
        }
        drop(server);
        lab.check_accounting()?;
        let ports = lab.left.ask_json(&["port", "list"])?.to_string();
        ensure!(ports.contains("wan0") && ports.contains("lan0"), "{ports}");
        lab.left.stop()?;
        lab.right.stop()
    });
}

//= test T70
#[test]
fn each_worker_sends_by_an_sa_of_its_own() {
    live("each_worker_sends_by_an_sa_of_its_own", || {
        let lab = Lab::connected(&Plan {
            queues: 2,
            per_worker: 2,
            tapped: true,
            dataplane: vec!["workers = 2".to_owned()],
            ..Plan::default()
        })?;
        lab.route_mtu(1400)?;
        for host in [&lab.host_a, &lab.host_b] {
            End::new(host, "eth0").segmentation(false)?;
        }
        let server = iperf::Server::start(&lab.host_b)?;
        let watch = Watch::start(&lab)?;
        // Eight flows, so that some arrive on either queue.
        for arguments in ["-n 400K -P 8", "-n 400K -P 8 -R", "-u -b 1M -P 8 -t 1"] {
            lab.explain(iperf::run(&lab.host_a, RIGHT.host[0], arguments))?;
        }
        drop(server);
        let all = lab.per_worker.iter().chain([&lab.sas]).flatten().cloned();
        let evidence = watch.conclude(&all.collect::<Vec<_>>())?;
        lab.explain(evidence.check())?;
        ensure!(evidence.carried == evidence.sent, "{evidence:?}");
        for (at, gateway) in [&lab.left, &lab.right].into_iter().enumerate() {
            let stats = gateway.stats()?;
            let packets = |sa: &[Sa; 2]| sa_member(&stats, &sa[at].name, "packets");
            let own = [packets(&lab.per_worker[0])?, packets(&lab.per_worker[1])?];
            ensure!(own.iter().all(|sent| *sent > 100), "{own:?}");
            ensure!(packets(&lab.sas)? == 0, "the SA for all sent: {stats}");
            for reason in ["handoff_full", "no_sa", "replay", "selector_mismatch"] {
                ensure!(stats["drops"][reason] == 0, "{}", stats["drops"]);
            }
        }
        lab.check_accounting()
    });
}

#[test]
fn all_four_pairings_of_ip_versions() {
    live("all_four_pairings_of_ip_versions", || {
        for outer in [Family::V4, Family::V6] {
            let inner = vec![Family::V4, Family::V6];
            let plan = Plan {
                outer,
                inner,
                tapped: true,
                ..Plan::default()
            };
            let lab = Lab::connected(&plan)?;
            lab.route_mtu(1400)?;
            for host in [&lab.host_a, &lab.host_b] {
                End::new(host, "eth0").segmentation(false)?;
            }
            let server = iperf::Server::start(&lab.host_b)?;
            let watch = Watch::start(&lab)?;
            for family in [Family::V4, Family::V6] {
                let peer = RIGHT.host[family.index()];
                lab.explain(lab.host_a.run(&format!("ping -n -q -c 5 -i 0.02 {peer}")))?;
                lab.explain(iperf::run(&lab.host_a, peer, "-n 200K"))?;
            }
            let evidence = watch.conclude(&lab.sas)?;
            evidence
                .check()
                .with_context(|| format!("outer {outer:?}"))?;
            ensure!(evidence.carried == evidence.sent, "{evidence:?}");
            drop(server);
            lab.check_accounting()?;
        }
        Ok(())
    });
}

#[test]
fn configurations_of_generate_work_as_they_are() {
    live("configurations_of_generate_work_as_they_are", || {
        let mut lab = Lab::new(&Plan::default())?;
        let directory = lab.directory().join("generated");
        std::fs::create_dir(&directory)?;
        let mut command = xipsec_tests::binary::command()?;
        command.args(["generate", "--left", LEFT.wan[0], "--left-net", LEFT.net[0]]);
        command.args([
            "--right",
            RIGHT.wan[0],
            "--right-net",
            RIGHT.net[0],
            "--out",
        ]);
        xipsec_tests::shell::run(command.arg(&directory))?;
        for (name, gateway) in [("left", &lab.left), ("right", &lab.right)] {
            let text = std::fs::read_to_string(directory.join(format!("{name}.toml")))?;
            std::fs::write(gateway.config(), relocated(&text, gateway.config())?)?;
        }
        lab.start()?;
        lab.wait_connected(Family::V4)?;
        lab.check_accounting()
    });
}

/// The file with socket and state moved into the test's folder: two gateways share this machine's
/// file system.
fn relocated(text: &str, config: &std::path::Path) -> Result<String> {
    let home = config.parent().context("no folder")?.display().to_string();
    let own = [
        (
            "control_socket",
            format!("control_socket = \"{home}/control.sock\"\n"),
        ),
        ("state_dir", format!("state_dir = \"{home}/state\"\n")),
    ];
    let set = |line: &str| {
        own.iter()
            .any(|(key, _)| line.trim_start().starts_with(key))
    };
    let lines: Vec<&str> = text.lines().filter(|line| !set(line)).collect();
    let text = lines.join("\n") + "\n";
    let own: String = own.into_iter().map(|(_, line)| line).collect();
    Ok(match text.split_once("[dataplane]\n") {
        Some((before, after)) => format!("{before}[dataplane]\n{own}{after}"),
        None => format!("[dataplane]\n{own}\n{text}"),
    })
}
