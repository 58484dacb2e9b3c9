//! Goal: the laboratory itself is sound, so that what the other live tests find is about the
//! gateway. Method: no gateway runs; the kernels forward in the clear, and the proof by capture
//! must notice exactly that.

use std::path::Path;

use anyhow::{Result, ensure};
use xipsec_tests::config::{Family, RIGHT};
use xipsec_tests::expect::live;
use xipsec_tests::proof::Watch;
use xipsec_tests::topology::{Lab, Plan};
use xipsec_tests::veth::End;
use xipsec_tests::{iperf, netns};

/// A lab without a binary: nothing in these tests starts one.
fn lab(plan: &Plan) -> Result<Lab> {
    Lab::with_binary(plan, Path::new("no-binary"))
}

#[test]
fn the_proof_notices_clear_text() {
    live("the_proof_notices_clear_text", || {
        let lab = lab(&Plan {
            tapped: true,
            ..Plan::default()
        })?;
        lab.wait_connected(Family::V4)?;
        let watch = Watch::start(&lab)?;
        lab.host_a.run("ping -n -q -c 5 -i 0.02 10.2.0.2")?;
        let evidence = watch.conclude(&lab.sas)?;
        ensure!(evidence.other == 10 && evidence.esp == 0, "{evidence:?}");
        ensure!(evidence.sent == 10 && evidence.carried == 0, "{evidence:?}");
        ensure!(evidence.check().is_err());
        Ok(())
    });
}

#[test]
fn the_network_carries_both_families_and_measures() {
    live("the_network_carries_both_families_and_measures", || {
        let inner = vec![Family::V4, Family::V6];
        let lab = lab(&Plan {
            inner,
            queues: 2,
            ..Plan::default()
        })?;
        lab.wait_connected(Family::V4)?;
        lab.wait_connected(Family::V6)?;
        for host in [&lab.host_a, &lab.host_b] {
            End::new(host, "eth0").segmentation(false)?;
        }
        let server = iperf::Server::start(&lab.host_b)?;
        ensure!(iperf::tcp(&lab.host_a, RIGHT.host[0], 1)? > 1e6);
        let hosts = [&lab.host_a, &lab.host_b];
        ensure!(iperf::udp(hosts, RIGHT.host[0], 64, 1)? > 100.0);
        drop(server);
        Ok(())
    });
}

#[test]
fn nothing_is_left_behind() {
    live("nothing_is_left_behind", || {
        let lab = lab(&Plan {
            tapped: true,
            ..Plan::default()
        })?;
        let names: Vec<String> = [&lab.host_a, &lab.gate_a, &lab.gate_b, &lab.host_b]
            .map(|namespace| namespace.name().to_owned())
            .into();
        let server = iperf::Server::start(&lab.host_b)?;
        let directory = lab.directory().to_owned();
        drop(lab);
        drop(server);
        let standing = netns::existing(xipsec_tests::files::PREFIX);
        ensure!(
            names.iter().all(|name| !standing.contains(name)),
            "{standing:?}"
        );
        ensure!(!directory.exists());
        Ok(())
    });
}
