//! Goal: the gateway machine itself stays reachable and reaches the far side. Method: pings from
//! and to the gateways over the host port, for every setting of the kernel's own forwarding.

use anyhow::{Context, Result, ensure};
use xipsec_tests::capture::Capture;
use xipsec_tests::config::{Family, LEFT, RIGHT};
use xipsec_tests::expect::live;
use xipsec_tests::packets::{ESP, ICMP};
use xipsec_tests::topology::{Lab, Plan};

fn pings(lab: &Lab) -> Result<()> {
    for (from, what, to) in [
        (&lab.host_a, "host to far host", RIGHT.host[0]),
        (&lab.host_a, "host to its gateway", LEFT.lan[0]),
        (&lab.host_a, "host to the far gateway", RIGHT.lan[0]),
        (&lab.gate_a, "gateway to the far host", RIGHT.host[0]),
        (
            &lab.gate_a,
            "gateway to the far gateway's inner address",
            RIGHT.lan[0],
        ),
        (&lab.gate_a, "gateway to its own host", LEFT.host[0]),
        (
            &lab.gate_a,
            "gateway to the far gateway's outer address",
            RIGHT.wan[0],
        ),
    ] {
        let said = from.run(&format!("ping -n -q -c 3 -i 0.05 -W 2 {to}"));
        lab.explain(said).context(what)?;
    }
    Ok(())
}

#[test]
fn forwarding_depends_on_neither_rp_filter_nor_ip_forward() {
    live(
        "forwarding_depends_on_neither_rp_filter_nor_ip_forward",
        || {
            for rp_filter in [0, 1, 2] {
                for kernel_forwards in [false, true] {
                    let plan = Plan {
                        rp_filter,
                        kernel_forwards,
                        ..Plan::default()
                    };
                    let lab = Lab::connected(&plan)?;
                    let setting = format!("rp_filter {rp_filter}, ip_forward {kernel_forwards}");
                    pings(&lab).context(setting)?;
                    lab.check_accounting()?;
                }
            }
            Ok(())
        },
    );
}

#[test]
fn the_gateways_own_traffic_is_protected_and_the_peers_address_is_not_caught() {
    live(
        "the_gateways_own_traffic_is_protected_and_the_peers_address_is_not_caught",
        || {
            let lab = Lab::connected(&Plan {
                tapped: true,
                ..Plan::default()
            })?;
            let wire = lab.wire.as_ref().context("the plan has a tap")?;
            for (to, protocol) in [(RIGHT.host[0], ESP), (RIGHT.wan[0], ICMP)] {
                let capture = Capture::start(wire, "wa", "ip", &lab.directory().join("own.pcap"))?;
                lab.explain(lab.gate_a.run(&format!("ping -n -q -c 4 -i 0.05 {to}")))?;
                let frames = capture.stop()?;
                ensure!(frames.len() >= 8, "{} frames to {to}", frames.len());
                let protocols: Vec<_> = frames.iter().map(|frame| frame.protocol()).collect();
                ensure!(
                    protocols.iter().all(|found| *found == Some(protocol)),
                    "{to}: {protocols:?}"
                );
            }
            lab.check_accounting()
        },
    );
}

#[test]
fn what_the_kernel_says_to_the_host_ports_link_is_not_traffic() {
    live(
        "what_the_kernel_says_to_the_host_ports_link_is_not_traffic",
        || {
            let lab = Lab::started(&Plan {
                inner: vec![Family::V4, Family::V6],
                ..Plan::default()
            })?;
            // Joins and leaves the group of all routers, and says so.
            for on in ["0", "1"] {
                lab.gate_a.sysctl("net.ipv6.conf.xipsec0.forwarding", on)?;
            }
            std::thread::sleep(std::time::Duration::from_secs(3));
            let link = lab.gate_a.ip("-s -j link show dev xipsec0")?;
            let link: serde_json::Value = serde_json::from_str(&link)?;
            let said = link[0]["stats64"]["tx"]["packets"].as_u64();
            ensure!(said.is_some_and(|said| said > 0), "the kernel said nothing");
            let stats = lab.left.stats()?;
            ensure!(stats["accounting"]["from_host"] == 0, "{stats}");
            ensure!(stats["drops"]["no_route"] == 0, "{stats}");
            lab.check_accounting()
        },
    );
}

#[test]
fn the_host_port_goes_with_a_clean_stop() {
    live("the_host_port_goes_with_a_clean_stop", || {
        let mut lab = Lab::connected(&Plan::default())?;
        lab.gate_a.ip("link show xipsec0")?;
        ensure!(lab.gate_a.ip("rule list")?.contains("4301"));
        ensure!(
            lab.gate_a
                .ip("route show table 4301")?
                .contains(RIGHT.net[0])
        );
        lab.gate_a.run("nft list table inet xipsec")?;
        lab.left.stop()?;
        ensure!(lab.gate_a.ip("link show xipsec0").is_err());
        ensure!(!lab.gate_a.ip("rule list")?.contains("4301"));
        ensure!(lab.gate_a.run("nft list table inet xipsec").is_err());
        ensure!(!lab.left.socket().exists());
        Ok(())
    });
}
