//! Goal: two machines protect what they send each other, in transport mode, through their own
//! kernels' stacks and the host port, in packets of any size. Method: two gateways ping and talk
//! TCP and UDP between their outer addresses, for ESP, AH and both; a tap between them sees nothing
//! else, and scapy opens it. What is longer than the way the kernel cuts, the gateway seals whole
//! and cuts again.

use anyhow::{Context, Result, ensure};
use xipsec_tests::capture::Capture;
use xipsec_tests::config::{Family, LEFT, RIGHT, Sa};
use xipsec_tests::expect::{drop_count, live, sa_member};
use xipsec_tests::suite::{AES128GCM16, AH_SHA256, Suite};
use xipsec_tests::topology::{Lab, Plan};
use xipsec_tests::{iperf, peer};

const BUNDLES: [&[Suite]; 3] = [&[AES128GCM16], &[AH_SHA256], &[AES128GCM16, AH_SHA256]];

//= test T14 (RFC 4303 section 3.3.4)
//= test T50
//= test T95
#[test]
fn two_machines_talk_in_transport_mode() {
    live("two_machines_talk_in_transport_mode", || {
        for direct in BUNDLES {
            for outer in [Family::V4, Family::V6] {
                let context = || format!("{} SAs, {outer:?}", direct.len());
                host_to_host(direct, outer).with_context(context)?;
            }
        }
        Ok(())
    });
}

fn host_to_host(direct: &[Suite], outer: Family) -> Result<()> {
    let lab = Lab::connected(&Plan {
        direct: direct.to_vec(),
        outer,
        tapped: true,
        rp_filter: 1,
        ..Plan::default()
    })?;
    let wire = lab.wire.as_ref().context("the plan has a tap")?;
    let address = RIGHT.wan[outer.index()];
    let file = lab.directory().join("direct.pcap");
    let capture = Capture::start(wire, "wa", "ip or ip6", &file)?;
    let said = lab
        .gate_a
        .run(&format!("ping -n -q -c 10 -i 0.05 {address}"));
    let said = lab.explain(said)?;
    ensure!(said.contains(" 0% packet loss"), "{said}");
    capture.stop()?;
    let sas: Vec<Sa> = lab.direct.iter().flatten().cloned().collect();
    let opened = peer::open(&sas, &file)?;
    // Twenty pings, and neighbour discovery.
    ensure!(
        opened.count("esp") >= 20 && opened.count("other") == 0 && opened.count("failed") == 0,
        "{}",
        opened.report
    );
    {
        let _server = iperf::Server::start(&lab.gate_b)?;
        let megabits = lab.explain(iperf::tcp(&lab.gate_a, address, 1))?;
        ensure!(megabits > 1.0, "{megabits} Mbit/s");
    }
    for sa in &sas {
        let stats = if sa.spi % 2 == 0 {
            &lab.left
        } else {
            &lab.right
        }
        .stats()?;
        ensure!(sa_member(&stats, &sa.name, "packets")? > 20, "{}", sa.name);
    }
    in_pieces(&lab, outer, &sas)?;
    // The tunnel beside it goes on.
    lab.wait_connected(Family::V4)?;
    lab.check_accounting()
}

/// Packets of each gateway's machine that its kernel cuts to the host port's MTU: transport mode
/// takes none of the pieces, so they are put together, sealed and cut again.
fn in_pieces(lab: &Lab, outer: Family, sas: &[Sa]) -> Result<()> {
    const COUNT: u64 = 5;
    let gateways = [
        (&lab.gate_a, &lab.left, &RIGHT),
        (&lab.gate_b, &lab.right, &LEFT),
    ];
    let carried = || -> Result<u64> {
        let stats = lab.left.stats()?;
        let ours = sas.iter().filter(|sa| sa.spi % 2 == 0);
        ours.map(|sa| sa_member(&stats, &sa.name, "packets")).sum()
    };
    let before = carried()?;
    for (namespace, _, there) in gateways {
        let address = there.wan[outer.index()];
        let ping = format!("ping -n -q -c {COUNT} -i 0.05 -W 2 -s 4000 {address}");
        let said = lab.explain(namespace.run(&ping))?;
        ensure!(said.contains(" 0% packet loss"), "{said}");
    }
    // Asked there, and answered from there: each ping and each answer is one packet of an SA.
    let layers = sas.len() as u64 / 2;
    let added = carried()? - before;
    ensure!(
        added == 2 * COUNT * layers,
        "{added} packets of {layers} SAs"
    );
    for (_, gateway, _) in gateways {
        let stats = gateway.stats()?;
        ensure!(drop_count(&stats, "fragment")? == 0, "{}", lab.state());
        // The pieces of pings and answers, of this machine and from the wire.
        let merged = stats["accounting"]["merged"].as_u64();
        ensure!(merged >= Some(4 * COUNT * 2), "{merged:?}: {}", lab.state());
    }
    for (from, to, there) in [
        (&lab.gate_a, &lab.gate_b, &RIGHT),
        (&lab.gate_b, &lab.gate_a, &LEFT),
    ] {
        let _server = iperf::Server::start(to)?;
        let address = there.wan[outer.index()];
        let arguments = "-u -b 4M -l 4000 -t 1";
        let report = lab.explain(iperf::run(from, address, arguments))?;
        let sum = &report["end"]["sum"];
        let [sent, lost] = ["packets", "lost_packets"].map(|name| sum[name].as_u64());
        ensure!(sent >= Some(50) && lost == Some(0), "{sum}");
    }
    Ok(())
}
