//! Goal: two machines protect what they send each other, in transport mode, through their own
//! kernels' stacks and the host port. Method: two gateways ping and talk TCP between their outer
//! addresses, for ESP, AH and both; a tap between them sees nothing else, and scapy opens it.

use anyhow::{Context, Result, ensure};
use xipsec_tests::capture::Capture;
use xipsec_tests::config::{Family, RIGHT, Sa};
use xipsec_tests::expect::{live, sa_member};
use xipsec_tests::suite::{AES128GCM16, AH_SHA256, Suite};
use xipsec_tests::topology::{Lab, Plan};
use xipsec_tests::{iperf, peer};

const BUNDLES: [&[Suite]; 3] = [&[AES128GCM16], &[AH_SHA256], &[AES128GCM16, AH_SHA256]];

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
    let _server = iperf::Server::start(&lab.gate_b)?;
    let megabits = lab.explain(iperf::tcp(&lab.gate_a, address, 1))?;
    ensure!(megabits > 1.0, "{megabits} Mbit/s");
    for sa in &sas {
        let stats = if sa.spi % 2 == 0 {
            &lab.left
        } else {
            &lab.right
        }
        .stats()?;
        ensure!(sa_member(&stats, &sa.name, "packets")? > 20, "{}", sa.name);
    }
    // The kernel cuts to the host port's MTU, and transport mode takes no fragment.
    let big = format!("ping -n -q -c 2 -i 0.05 -W 1 -s 3000 {address}");
    ensure!(lab.gate_a.run(&big).is_err());
    let fragments = lab.left.stats()?["drops"]["fragment"].as_u64();
    ensure!(fragments >= Some(2), "{}", lab.state());
    // The tunnel beside it goes on.
    lab.wait_connected(Family::V4)?;
    lab.check_accounting()
}
